"""How far the calls of a ``map`` are, for those who show it: read from the chunks and from the files of their jobs.

A chunk that has ended is counted once, by what became of its calls. Of one that runs, its job says how many calls have
ended, at the beginning of its file; only where some of them raised are the records read. No result is loaded.

Threads: one at a time. Of the feeder, which other threads work, only lists are read that grow at their end, and chunks,
which do not change once they are settled.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import JobContainerError
from jobcontainer.events import JobState
from jobcontainer.jobs.group import JobGroup
from jobcontainer.storage.call_results import CallReader, calls_so_far
from jobcontainer.views.calls_card import CallCounts
from jobcontainer.views.card import NO_ERRORS
from jobcontainer.views.failure_kinds import FailureKinds, reason_of

if TYPE_CHECKING:
    from jobcontainer.jobs.call_feeder import Chunk, Feeder
    from jobcontainer.storage.folder import JobFolder


class CallProgress:
    """Follows the calls of a feeder.

    Example:
        >>> CallProgress(feeder).look().done      # doctest: +SKIP
        300
    """

    def __init__(self, feeder: Feeder) -> None:
        self._feeder = feeder
        self._seen = 0  # chunks of the feeder that are in one of the two below
        self._open: list[Chunk] = []
        self._settled: Counter[JobState] = Counter()
        self._failures: FailureKinds[int] = FailureKinds()
        self._readers: dict[Chunk, CallReader] = {}  # of those whose calls have raised
        self._updated = feeder.begun

    @property
    def jobs(self) -> JobGroup[Any]:
        """The jobs so far, one for each chunk of calls."""
        return JobGroup(tuple(self._feeder.jobs))

    def cancel(self) -> None:
        """End the calls: those that run, and those that have not begun."""
        self._feeder.stop()
        self.jobs.cancel()

    def look(self) -> CallCounts:
        """Read how far the calls are now."""
        feeder, every = self._feeder, self._feeder.every_chunk
        is_complete, has_all = feeder.is_complete, feeder.is_over
        new = every[self._seen :]
        self._seen += len(new)
        ended: Counter[JobState] = Counter()
        still_open = []
        for chunk in (*self._open, *new):
            if chunk.is_settled:
                self._count(chunk)
            else:
                still_open.append(chunk)
                ended.update(self._so_far(chunk))
        self._open = still_open
        # Calls behind one that died are in a chunk of the list before their former chunk is settled.
        are_known = len(every) == self._seen and not still_open
        return CallCounts(
            id=feeder.jobs[0].id if feeder.jobs else "",
            name=feeder.name,
            total=feeder.known if is_complete else None,
            begun=feeder.begun,
            updated=self._updated,
            ended=ended + self._settled,
            failures=self._failures,
            is_over=has_all and are_known,
            is_waiting=are_known and not is_complete,
        )

    def _count(self, chunk: Chunk) -> None:
        """Count the calls of a chunk that has ended."""
        self._settled.update({JobState.SUCCEEDED: chunk.made - chunk.raised, JobState.FAILED: chunk.raised})
        self._updated = max(self._updated, chunk.settled_at)
        if chunk.raised and chunk.job is not None:
            self._note_raised(chunk, chunk.job.folder)
        self._readers.pop(chunk, None)
        if chunk.failed:
            state, reason = _end_of_others(chunk)
            self._settled[state] += chunk.failed
            if state not in NO_ERRORS:
                self._failures.note(reason, state, chunk.start + chunk.made, chunk.settled_at, chunk.failed)

    def _so_far(self, chunk: Chunk) -> dict[JobState, int]:
        """Count the calls of a chunk that runs."""
        if chunk.job is None or chunk.job.state is not JobState.RUNNING:
            return {}
        ended, raised = calls_so_far(chunk.job.folder, chunk.size)
        if raised:
            self._note_raised(chunk, chunk.job.folder)
        return {JobState.SUCCEEDED: ended - raised, JobState.FAILED: raised}

    def _note_raised(self, chunk: Chunk, folder: JobFolder) -> None:
        for number, error in self._readers.setdefault(chunk, CallReader(folder)).errors():
            line = error.removeprefix("builtins.").removesuffix(": ")
            self._failures.note(line, JobState.FAILED, chunk.start + number, time.time())


def _end_of_others(chunk: Chunk) -> tuple[JobState, str]:
    """Return how those calls of a chunk ended that have no result: the state, and why."""
    error, job = chunk.error, chunk.job
    if isinstance(error, CancelledError):
        return JobState.CANCELLED, ""
    if job is not None and (outcome := job.outcome) is not None and outcome.state not in NO_ERRORS:
        return outcome.state, reason_of(outcome, job.folder)
    name = type(error).__name__
    # The message of another error may be code of the user, which is not for the thread that shows a card.
    return JobState.FAILED, f"{name}: {error}" if isinstance(error, JobContainerError | OSError) else name
