"""Living: the schedulers of this process, and what becomes of their jobs when it exits."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

from jobcontainer.worker.cpython_internals import call_at_exit

if TYPE_CHECKING:
    from pathlib import Path

    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.scheduler import Scheduler

_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


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
    """See to it, once, that no job is forgotten when the interpreter exits."""
    call_at_exit(_at_exit)


def _at_exit() -> None:
    """Wait for the jobs of a script, as the standard library's executors do; end those of an interactive session."""
    interactive = hasattr(sys, "ps1")  # set by the plain prompt and by IPython, in a terminal or a kernel
    for scheduler in list(_schedulers):
        try:
            scheduler.end() if interactive else scheduler.shutdown()
        except KeyboardInterrupt:
            scheduler.end()
            raise
