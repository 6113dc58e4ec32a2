"""The user's key, and signatures made with it, which decide what may be loaded.

The key is 32 random bytes as hex in ``jobcontainer/key`` of the user's configuration folder, made on first use and
readable by the user alone. ``JOBCONTAINER_KEY_FILE`` names another file, so that all machines of a cluster share one.
Loading a file means running what it holds, so only files signed with the key are loaded; and whoever can read the key
can make such files.

A signature is HMAC-SHA256 over its purpose, a zero byte and the data. So one that was made for a Dask client, say, is
none of a file, whatever bytes the client sent.

A key that was deleted or replaced is not used for signing any more, and user code loads nothing with it. This process
remembers it, though, for the files of its jobs: one that was submitted or is running at that moment was signed, or will
sign its result, with the former key. A keeper and its jobs read no key file: they hold the keys that the engine's
process sends with each order, whatever the environment of the job says.
"""

from __future__ import annotations

import functools
import hmac
import os
import secrets
import stat
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from platformdirs import user_config_path

from jobcontainer.errors import UntrustedFileError
from jobcontainer.jobfile.atomic import write_all
from jobcontainer.jobfile.open_file import open_file

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY_VARIABLE: Final = "JOBCONTAINER_KEY_FILE"

_SHORTEST: Final = 32
_MOST_REMEMBERED: Final = 8

_known: list[bytes] = []  # the keys that this process has used, the newest first
_holds = False  # whether it uses the first of them, whatever the file says


class Purpose(StrEnum):
    """What a signature is for. It is part of what is signed, so that no signature can stand for another."""

    JOB_FILE = "job file"  # its header, which is signed, names the kind: process, result, ...
    PLAIN_PICKLE = "plain pickle"
    DASK_WORKER = "dask worker"
    HOST = "host of detached jobs"
    CALL_RESULTS = "results of the calls of a job"
    SETTING = "function that is a setting"


def sign(purpose: Purpose, data: bytes) -> bytes:
    """Return the signature of some bytes for a purpose: 32 bytes.

    Raises:
        UntrustedFileError: there is no usable key; the message says what to do.
    """
    return _signature(_key(), purpose, data)


def is_signed(purpose: Purpose, data: bytes, signature: bytes, *, by_former_keys: bool = False) -> bool:
    """Return whether a signature is one of this user's, for this purpose and these bytes. Compares in constant time.

    Args:
        purpose: what the signature must be for.
        data: what is signed.
        signature: what is compared.
        by_former_keys: whether keys count that this process has used before the present one.

    Raises:
        UntrustedFileError: there is no usable key; the message says what to do.
    """
    known = tuple(_known) if by_former_keys else ()
    if any(hmac.compare_digest(_signature(key, purpose, data), signature) for key in known):
        return True
    return hmac.compare_digest(sign(purpose, data), signature)


def derived_keys(purpose: Purpose, data: bytes) -> tuple[bytes, ...]:
    """Return keys for one purpose and one context alone, 32 bytes each: with them many small signatures take little.

    Args:
        purpose: what is signed with them.
        data: the context, the id of a job, say.

    Returns:
        One for each key that counts, the present one first; empty where there is no usable key.
    """
    return tuple(_signature(key, purpose, data) for key in keys_for_jobs())


def keys_for_jobs() -> tuple[bytes, ...]:
    """Return what a job needs: the key that it signs with, then the former ones; empty where there is no usable key."""
    try:
        return tuple(dict.fromkeys((_key(), *_known)))
    except UntrustedFileError:
        return tuple(_known)


def warm_up() -> None:
    """Have the library load what the first signature needs; a keeper does it once, instead of each job."""
    hmac.digest(b"any", b"any", "sha256")


def hold(keys: Sequence[bytes]) -> None:
    """Use these keys in this process from here on, whatever the environment and the key file say.

    A keeper and a job call this with what :func:`keys_for_jobs` returned in the engine's process. Without any, the file
    is read where a key is needed, and the error says what is wrong with it.
    """
    global _holds  # noqa: PLW0603 -- the process has one key
    _known[:] = keys
    _holds = bool(keys)


def key_file() -> str:
    """Return the path of the key, which need not exist yet."""
    return os.environ.get(KEY_VARIABLE) or _own_key_file()


def _key() -> bytes:
    """Return the key; make one where there is none yet."""
    if _holds:
        return _known[0]
    path = key_file()
    try:
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            _create(Path(path))
            status = Path(path).stat()
        key = _read(path, (*status[:7], status.st_mtime_ns))  # everything but the time of the last access
    except OSError as error:
        raise _unusable(path, f"can't be read ({error.strerror})") from error
    if key not in _known[:1]:
        _known[:] = [key, *(former for former in _known if former != key)][:_MOST_REMEMBERED]
    return key


def _signature(key: bytes, purpose: Purpose, data: bytes) -> bytes:
    return hmac.digest(key, purpose.encode() + b"\0" + data, "sha256")


@functools.lru_cache(maxsize=1)
def _read(path: str, _state: tuple[int, ...]) -> bytes:
    """Read the key, once for each state of its file."""
    # A FIFO would wait for its writer for ever.
    with open_file(path, os.O_RDONLY | os.O_NONBLOCK) as file:
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
    trusted = {os.geteuid(), 0}
    if status.st_uid not in trusted or Path(path).lstat().st_uid not in trusted:
        raise _unusable(path, "belongs to another user")
    folder = Path(path).absolute().parent
    around = folder.stat()
    others_write = around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX  # as in /tmp, who makes a file keeps it
    if around.st_uid not in trusted or others_write:
        raise _unusable(path, f"lies in a folder, {folder}, in which other users can put another key in its place")


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
        try:
            with open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
                write_all(file.fileno(), secrets.token_hex(32).encode() + b"\n")
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
