"""Loky with what a keeper needs of it, and nothing else; this module alone knows joblib.

joblib itself, and with it numpy, waits until the user asks for it: see :mod:`jobcontainer.engines.local.lazily`. On
Linux a
keeper's interpreter is not started by loky but by :mod:`jobcontainer.engines.local.ahead`, and without numpy as
well. And as
a keeper is the only worker of its executor, and ends by being killed, no lock of that executor needs to be shared: each
process has its own. So there are no semaphores to be tracked and unlinked, and neither loky's resource tracker nor
multiprocessing's starts for our sake. On other systems all of it is loky's own.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import secrets
import sys
import threading
from io import BytesIO
from multiprocessing import process, resource_tracker
from multiprocessing.context import set_spawning_popen
from multiprocessing.util import Finalize
from typing import Any

from jobcontainer.engines.local import ahead
from jobcontainer.engines.local.lazily import deferred

with deferred("joblib", free="joblib.externals"):
    from joblib.externals.loky import ProcessPoolExecutor, cpu_count
    from joblib.externals.loky.backend import popen_loky_posix, reduction, spawn
    from joblib.externals.loky.backend import resource_tracker as loky_resource_tracker
    from joblib.externals.loky.backend.context import LokyContext, get_context
    from joblib.externals.loky.backend.process import LokyProcess

__all__ = ["ProcessPoolExecutor", "cpu_count", "new_context", "ready_trackers", "spawn"]

handed: list[int] = []
"""In a keeper: the descriptors that came with its description."""


def new_context() -> tuple[Any, str]:
    """Return what the executor of one new keeper is made with, and the mark that this keeper will have.

    Raises:
        OSError: no process could be started.
    """
    if not ahead.POSSIBLE:
        return get_context("loky"), secrets.token_hex(8)
    born = ahead.take()
    return _Context(born), born.mark


def ready_trackers() -> None:
    """Start the resource trackers, where an executor needs them; they unblock SIGINT when they start."""
    if not ahead.POSSIBLE:
        resource_tracker.ensure_running()
        loky_resource_tracker.ensure_running()


class Worker(LokyProcess):  # type: ignore[misc] # loky ships no types
    """Loky's worker, in an interpreter that was started before.

    Args:
        born: the interpreter.
        **described: as for any process.
    """

    def __init__(self, born: ahead.Born, **described: Any) -> None:
        """Start nothing yet."""
        super().__init__(**described)
        self.born: ahead.Born | None = born

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is of no use there."""
        return vars(self) | {"born": None}

    @staticmethod
    def _Popen(process_obj: Worker) -> _Popen:  # noqa: N802 -- multiprocessing's name for it
        return _Popen(process_obj)


class _Popen(popen_loky_posix.Popen):  # type: ignore[misc] # loky ships no types
    """Tells an interpreter what it is."""

    def duplicate_for_child(self, descriptor: int) -> int:
        """Take a descriptor along; return what :class:`_Handed` finds it by."""
        self._fds.append(descriptor)
        return len(self._fds) - 1

    def _launch(self, process_obj: Worker) -> None:
        born = process_obj.born
        assert born is not None  # noqa: S101 -- it is not in the process that it describes
        try:
            stream = BytesIO()
            set_spawning_popen(self)
            try:
                reduction.dump(process_obj, stream)
            finally:
                set_spawning_popen(None)
            message = ({**os.environ, **process_obj.env}, _preparation(process_obj), stream.getvalue())
            born.tell(pickle.dumps(message), self._fds)
        except BaseException:
            born.end()
            raise
        self.pid = born.pid
        self.sentinel = born.channel.detach()  # ends when the keeper does
        Finalize(self, os.close, (self.sentinel,))

    class DupFd:
        """A descriptor on its way."""

        def __init__(self, index: int) -> None:
            """Keep its place among all that come along."""
            self._index = index

        def detach(self) -> int:
            """Return the descriptor; in the keeper."""
            return handed[self._index]


class _Context(LokyContext):  # type: ignore[misc] # loky ships no types
    """Makes what an executor with one worker consists of.

    Args:
        born: the worker's interpreter.
    """

    def __init__(self, born: ahead.Born) -> None:
        self._born = born

    def Process(self, **described: Any) -> Worker:  # noqa: N802 -- as loky's
        return Worker(self._born, **described)

    def Lock(self) -> _Lock:  # noqa: N802 -- as loky's
        return _Lock()

    def BoundedSemaphore(self, _value: int) -> _Semaphore:  # noqa: N802 -- as loky's
        return _Semaphore()


class _Lock:
    """A lock for the threads of a process; in another process it is another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.release = self._lock.release

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002 -- as loky's
        return self._lock.acquire(block, -1 if timeout is None or not block else timeout)

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[_Lock], tuple[()]]:
        return _Lock, ()


class _Semaphore:
    """Counts nothing: one worker is given one call at a time, and nobody waits for its end before killing it."""

    def __init__(self) -> None:
        self._semlock = self

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: ARG002, FBT001, FBT002 -- as loky's
        return True

    def release(self) -> None:
        pass

    def _is_zero(self) -> bool:
        return False


def _preparation(worker: Worker) -> dict[str, Any]:
    """Tell what loky's workers are told before they begin, but for the trackers."""
    current = multiprocessing.current_process()
    origin: str | None = process.ORIGINAL_DIR  # type: ignore[attr-defined] # as loky's
    return {
        "name": worker.name,
        "authkey": bytes(current.authkey),
        "sys_path": [entry or origin for entry in sys.path],
        "sys_argv": sys.argv,
        "orig_dir": origin,
        "dir": os.getcwd(),  # noqa: PTH109 -- a text, as loky's
    }
