"""The jobs of a scheduler that have not started: those that wait for a slot, and those that wait for other jobs.

Nothing here has a lock: whoever adds and takes jobs holds that of the scheduler. Only readers do without.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from jobcontainer.storage.ending import cancelled_before_start, lost, write_end
from jobcontainer.storage.journal import JournalEntry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from jobcontainer.events import Outcome
    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.submission import Submission

_numbers = itertools.count()


@dataclass(slots=True, order=True)
class Entry:
    """A job that has not ended: sorted by priority, then by age."""

    priority: int
    number: int
    job: Job[Any] = field(compare=False)
    submission: Submission = field(compare=False)
    inputs: Sequence[Job[Any]] = field(default=(), compare=False)  # which must have succeeded before it is queued
    attempt: int = field(default=1, compare=False)
    cancelled: bool = field(default=False, compare=False)
    refusal: BaseException | None = field(default=None, compare=False)  # why its engine did not take it

    @classmethod
    def of(cls, job: Job[Any], submission: Submission, inputs: Sequence[Job[Any]]) -> Entry:
        """Return the entry of a new job, younger than all before."""
        return cls(-submission.options.priority, next(_numbers), job, submission, inputs)

    @property
    def waits_elsewhere(self) -> bool:
        """Whether it needs a job of another pool or process, which has not ended."""
        return any(not job.done() and job._control is not self.job._control for job in self.inputs)

    def outcome_of(self, future: Future[Outcome]) -> Outcome:
        """Return how its attempt ended, also where its engine breaks its word and raises."""
        try:
            return future.result()
        except BaseException as error:  # noqa: BLE001 -- a job's end is always reported
            reason = f"Its engine failed: {error!r}. Submit it again."
            return write_end(self.job.folder, lost(self.job.folder, reason, self.attempt))

    def cancelled_unstarted(self) -> Outcome:
        """Return its end where it was cancelled before its next attempt, of which no engine knows."""
        return cancelled_before_start(self.attempt if self.attempt > 1 else 0)

    def listed(self, owner: dict[str, Any]) -> JournalEntry:
        """Return what the journal says of the job, which this process has submitted."""
        return JournalEntry(self.job.folder, self.job.name, self.job.submitted, owner, waits=bool(self.inputs))


class Feeder(Protocol):
    """Who submits jobs one after another, as earlier ones end; see ``Scheduler.hold``."""

    def stop(self) -> None:
        """Submit no more, from any thread; release the scheduler soon."""


class JobQueue:
    """Queued jobs, oldest first among those of the highest priority, and jobs that wait for their inputs."""

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._queued: dict[str, Entry] = {}
        self._blocked: dict[str, Entry] = {}

    def __bool__(self) -> bool:
        """Return whether there is any job."""
        return bool(self._queued or self._blocked)

    def push(self, entry: Entry) -> None:
        """Queue a job for a slot."""
        self._queued[entry.job.id] = entry
        heapq.heappush(self._heap, entry)

    def block(self, entry: Entry) -> None:
        """Keep a job until its inputs have succeeded."""
        self._blocked[entry.job.id] = entry

    def unblock(self, entry: Entry) -> bool:
        """Take a job out that waits for its inputs; return whether it was there, as it may have been cancelled."""
        return self._blocked.pop(entry.job.id, None) is not None

    def pop(self) -> Entry | None:
        """Take the next job for a slot; None where none is queued."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            if self._queued.pop(entry.job.id, None) is not None:  # else it was cancelled while it waited
                return entry
        return None

    def remove(self, job_id: str) -> Entry | None:
        """Take a job out, wherever it is here; None where it is not."""
        return self._queued.pop(job_id, None) or self._blocked.pop(job_id, None)

    def entries(self) -> list[Entry]:
        """Return all jobs."""
        return [*list(self._queued.values()), *list(self._blocked.values())]

    def position(self, job_id: str) -> int | None:
        """Return how many queued jobs start before this one; None where it is not queued."""
        entry = self._queued.get(job_id)
        return None if entry is None else sum(other < entry for other in list(self._queued.values()))
