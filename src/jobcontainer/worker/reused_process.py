"""Jobs in a reused process: how each begins and ends there, and what of the process's state is put back between two.

A job that is over before its keeper first looks at it is told by the process itself, start and end, so that the keeper
has only to hand the words on.

Put back: working directory, environment, ``sys.path``, ``sys.argv``, streams and hooks, ``__main__``, builtins, signal
handlers and timers, warning filters, the root logger, umask, decimal context, socket timeout, garbage collection,
recursion limit; random generators get a fresh seed, and children that are still there are killed.

What leaks from a job into the next, and is why ``isolation="fresh"`` is the default: imported modules and whatever they
hold, monkeypatches in them, threads, open files, memory that was not freed, lowered resource limits, priority, settings
of numerical libraries, code of modules that were edited since they were imported.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import logging
import os
import random
import signal
import socket
import sys
import time
import types
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.events import Started, event_line
from jobcontainer.storage.folder import LOG, JobFolder
from jobcontainer.worker import isolation, limits, process_tree
from jobcontainer.worker.outcome import DECIDED, ExitFacts, classify
from jobcontainer.worker.reporting import display, progress

if TYPE_CHECKING:
    from jobcontainer.events import Usage
    from jobcontainer.worker.order import Order

_base = 0  # bytes that the process held before its first job
_HOST: Final = socket.gethostname()
_TIMERS: Final = tuple(
    getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)
)

_SYS_NAMES = ("stdin", "stdout", "stderr", "excepthook", "displayhook", "unraisablehook", "dont_write_bytecode")


def begin(order: Order) -> None:
    """Write down that a job begins here."""
    started = Started(at=time.time(), pid=os.getpid(), attempt=order.attempt, host=_HOST)
    with contextlib.suppress(OSError):
        JobFolder(order.folder).append_event(started)


def told_by_itself(order: Order, ending: dict[str, Any], usage: Usage) -> bytes | None:
    """Write how a job ended and return the line, where the keeper could not know better.

    Args:
        order: of the job.
        ending: as fields of an :class:`~jobcontainer.events.Outcome`.
        usage: of this process.

    Returns:
        The line; None where the process is not fit for another job, where the job took long enough for the keeper to
        have looked at it and at what it started, and where the line can't be written.
    """
    if usage.wall > limits.FIRST_LOOK_SECONDS or ending["state"] not in DECIDED:
        return None
    end_children()
    folder = JobFolder(order.folder)
    own = replace(usage, peak_memory=max(usage.peak_memory - _base, 0))
    line = event_line(classify(ExitFacts(reported=ending, log=folder.file(LOG)), own, order.attempt))
    try:
        folder.append_line(line)
    except OSError:  # user code removed the folder, the disk is full
        return None
    return line


def end_children() -> None:
    """Kill and reap what a job has started and not waited for."""
    with contextlib.suppress(ChildProcessError):  # there is nothing
        os.waitpid(-1, os.WNOHANG)
        process_tree.end_children()


class State:
    """The state of a process before its first job."""

    def __init__(self) -> None:
        """Remember it, before anything is done to it for one of them."""
        global _base  # noqa: PLW0603 -- of the process
        _base = process_tree.memory_of([os.getpid()])
        progress.unprepare()
        display.unprepare()
        import decimal  # noqa: PLC0415 -- a fresh process has no use for it

        self._sys = {name: getattr(sys, name) for name in _SYS_NAMES}
        self._argv = list(sys.argv)
        self._builtins = dict(vars(builtins))
        self._signals = {int(number): isolation.signals.getsignal(number) for number in signal.valid_signals()}
        self._filters = list(warnings.filters)
        self._root = logging.getLogger()
        self._handlers = list(self._root.handlers)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._timeout = socket.getdefaulttimeout()
        self._set_decimal, self._decimal = decimal.setcontext, decimal.getcontext().copy()
        self._gc = gc.get_threshold()
        self._recursion = sys.getrecursionlimit()
        self._modules = len(sys.modules)

    def restore(self) -> None:
        """Put it back; the rest follows from the next order."""
        end_children()
        for name, value in self._sys.items():
            setattr(sys, name, value)
        sys.argv[:] = self._argv
        sys.modules["__main__"] = types.ModuleType("__main__")
        _put_back(vars(builtins), self._builtins)
        self._restore_signals()
        mutable_warnings: Any = warnings
        mutable_warnings.filters[:] = self._filters
        mutable_warnings._filters_mutated()  # noqa: SLF001 -- forget what was decided by others
        self._root.handlers[:] = self._handlers
        os.umask(self._umask)
        socket.setdefaulttimeout(self._timeout)
        self._set_decimal(self._decimal.copy())
        gc.set_threshold(*self._gc)
        gc.enable()
        sys.setrecursionlimit(self._recursion)
        random.seed()
        isolation.reseed()
        if len(sys.modules) != self._modules:  # the libraries that came with them are bounded in the next job
            self._modules = len(sys.modules)
            limits.find_thread_pools()

    def _restore_signals(self) -> None:
        for timer in _TIMERS:
            if signal.getitimer(timer) != (0.0, 0.0):
                signal.setitimer(timer, 0)
        for number, handler in self._signals.items():
            if handler is not None and isolation.signals.getsignal(number) is not handler:
                with contextlib.suppress(OSError, ValueError):  # SIGKILL, SIGSTOP
                    signal.signal(number, handler)


def _put_back(names: dict[str, Any], before: dict[str, Any]) -> None:
    if names != before:
        for name in names.keys() - before.keys():
            del names[name]
        names.update(before)
