"""What becomes of the jobs of this process when it exits: a script waits for them, an interactive session ends them."""

from __future__ import annotations

import os
import sys
import weakref
from typing import Protocol

from jobcontainer.worker.cpython_internals import call_at_exit


class Scheduler(Protocol):
    """Whoever has jobs that are not finished."""

    def shutdown(self) -> None:
        """Take no more jobs, and return when all have ended."""
        ...

    def end(self) -> None:
        """End every job."""
        ...


_schedulers: weakref.WeakKeyDictionary[Scheduler, int] = weakref.WeakKeyDictionary()  # and the process of each


def add(scheduler: Scheduler) -> None:
    """Note a scheduler for as long as somebody holds it."""
    _schedulers[scheduler] = os.getpid()


def finish_at_exit() -> None:
    """Register, once per process, what happens to jobs when the interpreter exits."""
    call_at_exit(_at_exit)


def _at_exit() -> None:
    """Wait for the jobs of a script, as the standard library's executors do; end those of an interactive session."""
    interactive = hasattr(sys, "ps1")  # set by the plain prompt and by IPython, in a terminal or a kernel
    for scheduler in [one for one, pid in _schedulers.items() if pid == os.getpid()]:  # not those of a parent
        try:
            scheduler.end() if interactive else scheduler.shutdown()
        except KeyboardInterrupt:
            scheduler.end()
            raise
