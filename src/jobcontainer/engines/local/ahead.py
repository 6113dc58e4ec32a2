"""Interpreters that start ahead of the keepers they will become (Linux).

A new interpreter needs most of a tenth of a second until it has loaded what a keeper is made of. A pool that is made
will want one; so one starts at once, while this process loads its own part, and writes the first job's files.

At most one waits in a process, for whichever slot starts next. It runs nothing, and ends when this process does. It
stands in no session of its own before it has loaded, so SIGINT is blocked in it from the start.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from jobcontainer.worker import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator

POSSIBLE = sys.platform == "linux"

_CODE = """\
import gc, sys
gc.disable()
sys.path[:] = {path!r}
from jobcontainer.engines.local.awaiting import live
live({number})"""

_lock = threading.Lock()
_waiting: Born | None = None


class Born:
    """An interpreter that waits to be told what it is.

    Attributes:
        pid: its process id.
        mark: by which it is found, and all below it.
        channel: to it, whose end is its end.
    """

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: there are no free processes or descriptors.
        """
        self._is_ours = False
        self.mark = os.urandom(8).hex()
        self.channel, theirs = socket.socketpair()
        number = 4 if theirs.fileno() == 3 else 3  # noqa: PLR2004 -- another than it has here, as only a copy is inherited
        code = _CODE.format(path=[entry or os.getcwd() for entry in sys.path], number=number)  # noqa: PTH109 -- not loaded
        with theirs:  # closed here as soon as the other side has it
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", code],
                {**os.environ, **bytecode_variables(), MARK: self.mark},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), number)],
                setsigmask=signal.pthread_sigmask(signal.SIG_BLOCK, ()) | {signal.SIGINT},
            )
        self._is_ours = True

    def __del__(self) -> None:
        """End it where nobody told it anything, as when its executor could not be made."""
        if self._is_ours:
            self.end()

    def is_alive(self) -> bool:
        """Whether it still waits."""
        try:
            return os.waitpid(self.pid, os.WNOHANG) == (0, 0)
        except ChildProcessError:  # somebody else has reaped it
            return False

    def tell(self, message: bytes, descriptors: list[int]) -> None:
        """Tell it what it is.

        Raises:
            OSError: it has ended.
        """
        socket.send_fds(self.channel, [len(message).to_bytes(8, "big")], descriptors)
        self.channel.sendall(message)
        self._is_ours = False

    def end(self) -> None:
        """End it, and return when it has ended."""
        self._is_ours = False
        self.channel.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@contextlib.contextmanager
def expecting(keeper: bool) -> Iterator[None]:  # noqa: FBT001 -- an if
    """Have an interpreter start for the next keeper, if none waits, while a pool is made.

    Args:
        keeper: whether the pool will need one.
    """
    if keeper and POSSIBLE:
        _expect()
    try:
        yield
    except BaseException:
        send_away()
        raise


def _expect() -> None:
    global _waiting  # noqa: PLW0603 -- one for the process
    with _lock, contextlib.suppress(OSError):  # a job that needs one will tell
        if _waiting is None:
            _waiting = Born()
            atexit.register(send_away)


def take() -> Born:
    """Return the interpreter that waits, or a new one.

    Raises:
        OSError: none could be started.
    """
    born = _let_go()
    return born if born is not None and born.is_alive() else Born()


def send_away() -> None:
    """End the interpreter that waits, if one does."""
    atexit.unregister(send_away)
    born = _let_go()
    if born is not None:
        born.end()


def bytecode_variables() -> dict[str, str]:
    """Give keepers a cache of bytecode of their own, where nobody else keeps one.

    Without any, as in containers that set ``PYTHONDONTWRITEBYTECODE`` and install without compiling, imports take
    about three times as long.
    """
    if not sys.dont_write_bytecode or sys.pycache_prefix or all(map(_is_compiled, ("jobcontainer", "joblib"))):
        return {}
    from jobcontainer.jobfile.signing import cache_folder  # noqa: PLC0415 -- not for all others

    return {"PYTHONPYCACHEPREFIX": str(cache_folder() / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}


def _is_compiled(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is None or spec.cached is None or os.path.exists(spec.cached)  # noqa: PTH110 -- not loaded


def _let_go() -> Born | None:
    global _waiting
    with _lock:
        born, _waiting = _waiting, None
    return born


def _forget() -> None:
    """In a forked child: let the parent's interpreter notice when the parent ends."""
    global _waiting  # noqa: PLW0603 -- one for the process
    if _waiting is not None:
        _waiting.channel.close()
        _waiting = None
    _lock.release()


if POSSIBLE:
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget)
