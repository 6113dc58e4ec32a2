"""Living: the schedulers of this process, and what becomes of their jobs when it exits."""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.scheduler import Scheduler

_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()
_exit_registered = False


def add(scheduler: Scheduler) -> None:
    """Note a scheduler for as long as somebody holds it."""
    _schedulers.add(scheduler)


def live_jobs(store: Path) -> dict[str, Job[Any]]:
    """Return the jobs of a store that are queued or running in this process, by id."""
    return {
        job.id: job
        for scheduler in list(_schedulers)
        if scheduler.submitter.store.path == store
        for job in scheduler.unfinished()
    }


def finish_at_exit() -> None:
    """See to it, once, that no job is forgotten when the interpreter exits.

    It must run before loky's own exit function, which stops its workers. Both run in reverse order before threads are
    joined, so it is registered after the first job was handed to an engine.
    """
    global _exit_registered  # noqa: PLW0603 -- once per process
    if not _exit_registered:
        _exit_registered = True
        # atexit's functions run too late, when threads are joined already; concurrent.futures uses this one as well
        getattr(threading, "_register_atexit", atexit.register)(_at_exit)


def _at_exit() -> None:
    """Wait for the jobs of a script, as the standard library's executors do; end those of an interactive session."""
    interactive = hasattr(sys, "ps1")  # set by the plain prompt and by IPython, in a terminal or a kernel
    for scheduler in list(_schedulers):
        try:
            scheduler.end() if interactive else scheduler.shutdown()
        except KeyboardInterrupt:
            scheduler.end()
            raise
