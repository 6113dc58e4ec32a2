"""Attempt: one try of a job at an engine, the same record for every engine."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobcontainer.events import JobState
from jobcontainer.storage.ending import cancelled_before_start, lost, write_end

if TYPE_CHECKING:
    from types import TracebackType

    from jobcontainer.events import Outcome
    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.worker.keeper_protocol import Order

_MOST_TRACEBACKS = 8
_tracebacks: dict[str, TracebackType] = {}


@dataclass(eq=False)
class Attempt:
    """One attempt of a job, from its submission to its end."""

    folder: JobFolder
    order: Order
    future: Future[Outcome] = field(default_factory=Future)  # never completes with an exception
    cancelled: bool = False  # whether its end was asked for
    events_before: int = field(init=False)  # bytes of the job's events that earlier attempts have written

    def __post_init__(self) -> None:
        """Note where the events of this attempt begin."""
        self.events_before = self.folder.events_size()

    @property
    def number(self) -> int:
        """Which attempt of the job it is; 1 for the first."""
        return self.order.attempt

    def has_started(self) -> bool:
        """Whether a process has begun with this attempt, or may have, where that can't be read: none runs twice."""
        try:
            return any(start.attempt == self.number for start in self.folder.starts(self.events_before))
        except OSError:
            return True

    def end_unstarted(self) -> Outcome:
        """Write the end of an attempt that was cancelled before a process began with it."""
        return write_end(self.folder, cancelled_before_start(self.number))

    def end_lost(self, reason: str, state: JobState = JobState.LOST) -> Outcome:
        """Write the end of an attempt whose worker went away; see :func:`~jobcontainer.storage.ending.lost`."""
        return write_end(self.folder, lost(self.folder, reason, self.number, state))


def keep_traceback(job_id: str, trace: TracebackType) -> None:
    """Keep the traceback of what a job has raised in this process, for :func:`take_traceback`.

    Only those of the last few jobs are kept, as all that their functions hold lives as long.
    """
    _tracebacks[job_id] = trace
    for oldest in list(_tracebacks)[:-_MOST_TRACEBACKS]:
        _tracebacks.pop(oldest, None)


def take_traceback(job_id: str) -> TracebackType | None:
    """Return the traceback of what a job has raised in this process, once, so that a debugger can stop there."""
    return _tracebacks.pop(job_id, None)
