"""The loky executor that a keeper is the worker of. This module alone knows joblib, and of it only loky's public face.

Each keeper is the one worker of a private executor, never of the reusable one that ``joblib.Parallel`` shares.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcontainer.process import variables_changed
from jobcontainer.worker.cpython_internals import children_allowed, come_first_at_exit
from jobcontainer.worker.interrupts import uninterrupted
from jobcontainer.worker.keeper_start import SAFE_START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def available_cpus() -> int:
    """Return how many CPUs this process may really use: by its affinity, its cgroup, and ``LOKY_MAX_CPU_COUNT``."""
    return int(import_loky().cpu_count())


def import_loky() -> Any:
    """Import loky, whole also where an interrupt comes, and return it when it is there.

    Python can't import a package again of which an interrupt has cut the import in two: those of its modules that were
    whole stay, and the package that is made next has no attributes for them. That would break numpy and asyncio for the
    user's code too. So another thread imports it, and the main thread waits. No other user code runs meanwhile: were it
    to import a submodule of numpy, it could find that half made.

    Raises:
        RuntimeError: the interpreter exits.
    """

    def imported() -> Any:
        import joblib  # noqa: F401, PLC0415 -- takes a quarter of a second, and numpy with it; before its submodule
        from joblib.externals import loky  # noqa: PLC0415 -- as above

        return loky

    try:
        return uninterrupted(imported)
    except RuntimeError:
        refuse_at_exit()
        raise


def refuse_at_exit() -> None:
    """Raise where the interpreter exits, in a function of :mod:`atexit` say: loky starts no worker any more.

    Raises:
        RuntimeError: it exits; the message says what to do.
    """
    if not come_first_at_exit():
        raise RuntimeError(
            "The interpreter exits, and can start no worker any more. Submit before that, or have the job run in this "
            'process: JobPool(engine="inline")'
        )


def new_executor(initializer: Callable[..., object], initargs: tuple[Any, ...], env: Mapping[str, str]) -> Any:
    """Make an executor of one worker, which starts with its first call.

    Args:
        initializer: what the worker calls first.
        initargs: the arguments of that call.
        env: environment variables of the worker, beside this process's own.

    Raises:
        OSError: there are no semaphores or descriptors for it.
    """
    loky = import_loky()
    with _trackers_start_safely() if next(_executors) == 0 else contextlib.nullcontext():
        return loky.ProcessPoolExecutor(max_workers=1, initializer=initializer, initargs=initargs, env=dict(env))


_executors = itertools.count()  # of this process, and of those that it was forked from, whose trackers it has


@contextlib.contextmanager
def _trackers_start_safely() -> Iterator[None]:
    """Have resource trackers, which start with the first executor, look for no modules in the working directory.

    A ``random.py`` there would run in them, and they print what it raises. They have the variables of this process, so
    these are others for the milliseconds of their start, in which no job is submitted.
    """
    with variables_changed(SAFE_START):
        resource_tracker.ensure_running()
        yield


@contextlib.contextmanager
def process_can_be_made() -> Iterator[None]:
    """Make a process of which an interrupt of the notebook ends neither the start nor the process.

    It is made with SIGINT blocked, so that an interrupt does not hit it before it has left the notebook's session. The
    tracker, which unblocks SIGINT when it starts, must be there before.
    """
    resource_tracker.ensure_running()
    with _sigint_blocked(), children_allowed(), _standard_streams_open():
        yield


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _standard_streams_open() -> Iterator[None]:
    """Put something in the place of a stream that can't be flushed, as loky does before it starts a process."""
    closed = {name: stream for name in ("stdout", "stderr") if not _is_open(stream := getattr(sys, name))}
    with contextlib.ExitStack() as stack:
        for name, stream in closed.items():
            setattr(sys, name, stack.enter_context(Path(os.devnull).open("w")))
            stack.callback(setattr, sys, name, stream)
        yield


def _is_open(stream: Any) -> bool:
    return stream is not None and not getattr(stream, "closed", False)
