"""Jobs in a reused process: what of the process's state is put back between two.

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
import decimal
import gc
import logging
import os
import signal
import socket
import sys
import types
import warnings
from typing import Final

from jobcontainer.worker import isolation, limits, process_tree

_TIMERS: Final = tuple(
    getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)
)

_SYS_NAMES = (
    *("stdin", "stdout", "stderr", "excepthook", "displayhook", "unraisablehook", "breakpointhook"),
    "dont_write_bytecode",
)


class State:
    """The state of a process before its first job."""

    def __init__(self) -> None:
        self._sys = {name: getattr(sys, name) for name in _SYS_NAMES}
        self._argv = list(sys.argv)
        self._builtins = dict(vars(builtins))
        self._signals = {int(number): signal.getsignal(number) for number in signal.valid_signals()}
        self._filters = list(warnings.filters)
        self._root = logging.getLogger()
        self._handlers = list(self._root.handlers)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._timeout = socket.getdefaulttimeout()
        self._decimal = decimal.getcontext().copy()
        self._gc = gc.get_threshold()
        self._recursion = sys.getrecursionlimit()
        self._modules = len(sys.modules)

    def restore(self) -> None:
        """Put it back; the rest follows from the next order."""
        process_tree.end_children()
        for name, value in self._sys.items():
            setattr(sys, name, value)
        sys.argv[:] = self._argv
        sys.modules["__main__"] = types.ModuleType("__main__")
        for name in vars(builtins).keys() - self._builtins.keys():
            delattr(builtins, name)
        vars(builtins).update(self._builtins)
        self._restore_signals()
        warnings.resetwarnings()  # which also has each of them decided anew
        warnings.filters[:] = self._filters  # type: ignore[index] # it is a list
        self._root.handlers[:] = self._handlers
        os.umask(self._umask)
        socket.setdefaulttimeout(self._timeout)
        decimal.setcontext(self._decimal.copy())
        gc.set_threshold(*self._gc)
        gc.enable()
        sys.setrecursionlimit(self._recursion)
        isolation.reseed()
        if len(sys.modules) != self._modules:  # the libraries that came with them are bounded in the next job
            self._modules = len(sys.modules)
            limits.find_thread_pools()

    def _restore_signals(self) -> None:
        for timer in _TIMERS:
            if signal.getitimer(timer) != (0.0, 0.0):
                signal.setitimer(timer, 0)
        for number, handler in self._signals.items():
            if handler is not None and signal.getsignal(number) is not handler:
                with contextlib.suppress(OSError, ValueError):  # SIGKILL, SIGSTOP
                    signal.signal(number, handler)
