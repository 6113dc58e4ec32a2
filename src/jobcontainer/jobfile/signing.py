"""The user's key, and signatures made with it, which decide what may be loaded.

The key is 32 random bytes as hex in ``jobcontainer/key`` of the user's configuration folder, made on first use and
readable by the user alone. ``JOBCONTAINER_KEY_FILE`` names another file, so that all machines of a cluster share one.
Loading a file means running what it holds, so only files signed with the key are loaded; and whoever can read the key
can make such files.
"""

from __future__ import annotations

import functools
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from platformdirs import user_config_path

from jobcontainer.errors import UntrustedFileError

KEY_VARIABLE: Final = "JOBCONTAINER_KEY_FILE"

_SHORTEST: Final = 32

_held: bytes | None = None


def sign(data: bytes) -> bytes:
    """Return the signature of some bytes: 32 bytes, HMAC-SHA256.

    Raises:
        UntrustedFileError: there is no usable key; the message says what to do.
    """
    return hmac.digest(_key(), data, "sha256")


def is_signed(data: bytes, signature: bytes) -> bool:
    """Return whether a signature is one of this user's for these bytes. Compares in constant time.

    Raises:
        UntrustedFileError: there is no usable key; the message says what to do.
    """
    return hmac.compare_digest(sign(data), signature)


def hold_key() -> None:
    """Keep using the present key in this process, whatever happens to the environment and the file.

    A job calls this before it sets environment variables of the user's choice: one that sets ``HOME`` would otherwise
    sign its result with another key.

    Raises:
        UntrustedFileError: there is no usable key; the message says what to do.
    """
    global _held  # noqa: PLW0603 -- the process has one key
    _held = None
    _held = _key()


def key_file() -> str:
    """Return the path of the key, which need not exist yet."""
    return os.environ.get(KEY_VARIABLE) or _own_key_file()


def _key() -> bytes:
    """Return the key; make one where there is none yet."""
    if _held is not None:
        return _held
    path = key_file()
    try:
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            _create(Path(path))
            status = Path(path).stat()
        return _read(path, (*status[:7], status.st_mtime_ns))  # everything but the time of the last access
    except OSError as error:
        raise _unusable(path, f"can't be read ({error.strerror})") from error


@functools.lru_cache(maxsize=1)
def _read(path: str, _state: tuple[int, ...]) -> bytes:
    """Read the key, once for each state of its file."""
    # A FIFO would wait for its writer for ever.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        _check(path, os.fstat(file.fileno()))
        key = file.read(4096).strip()
    if len(key) < _SHORTEST:
        raise _unusable(path, f"holds only {len(key)} bytes")
    return key


def _check(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _unusable(path, "is not a regular file")
    if os.name != "posix":
        return
    if status.st_mode & 0o077:
        raise UntrustedFileError(
            f"The key {path} can be read by other users, so anybody could sign files in your name. "
            f"If nobody did, run: chmod 600 {path}. If in doubt, delete it; a new one is made, and old files "
            "need `jobcontainer trust FILE`."
        )
    if status.st_uid not in {os.geteuid(), 0}:
        raise _unusable(path, "belongs to another user")


def _create(path: Path) -> None:
    """Make a key, unless another process is faster: then its key is used."""
    if os.environ.get(KEY_VARIABLE):
        raise UntrustedFileError(
            f"{KEY_VARIABLE} names {path}, and there is no such file. Copy the key of your other machines there, "
            f"or make one: (umask 077; openssl rand -hex 32 > {path})."
        )
    temporary = path.with_name(f".key.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_hex(32).encode() + b"\n")
            # A link, unlike a rename, never replaces a key that is there; and it appears with its content.
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, f"can't be made ({error.strerror})") from error


def _unusable(path: str | Path, what: str) -> UntrustedFileError:
    return UntrustedFileError(
        f"The key that job files are signed with, {path}, {what}. Put that right, or set {KEY_VARIABLE} to a file of "
        "your own that only you can read and that holds at least 32 random bytes."
    )


def _own_key_file() -> str:
    return str(user_config_path("jobcontainer", appauthor=False) / "key")
