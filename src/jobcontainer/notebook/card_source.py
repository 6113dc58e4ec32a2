"""What a card is about: one job, or many.

Both answer the same questions (what the card says, which outputs there are, whether it is over) and both read no more
than they must: one job through its follower; many through a summary that is told of every change of state, and through
followers for those that run.

Threads: :meth:`_changed` is called by whichever thread moves a job and only notes and wakes; all else belongs to the
painter.
"""

from __future__ import annotations

from collections import deque
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from jobcontainer.events import JobState
from jobcontainer.jobs.group import JobGroup
from jobcontainer.notebook.cell_outputs import MOST_OUTPUTS, Bundle, bundle_of
from jobcontainer.views import units
from jobcontainer.views.card import Card, job_card
from jobcontainer.views.group_card import GroupSummary
from jobcontainer.views.snapshot import SnapshotReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.jobs.job import Job
    from jobcontainer.views.snapshot import JobSnapshot, JobView

MOST_RESULTS = 50
"""Jobs of a group whose results are shown; of more, reading them all would take long."""

_LONGEST_ERROR = 100


class Work(Protocol):
    """What a card is about."""

    @property
    def handle(self) -> Job[Any] | JobGroup[Any]:
        """What the user holds of it."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        ...

    @property
    def moving(self) -> bool:
        """Whether it has to be looked at though no state has changed."""
        ...

    def card(self, now: float) -> Card:
        """Say what is to be said at this moment."""
        ...

    def outputs(self) -> list[Bundle]:
        """Return the rich outputs as they stand."""
        ...

    def result(self) -> object:
        """Return the value to show at the end; None where there is none."""
        ...

    def cancel(self) -> None:
        """End all of it; return at once."""
        ...

    def again(self) -> Work:
        """Run again what ended, all of it where it is one job, else what did not succeed."""
        ...


class OneJob:
    """A card's work where it is one job.

    Args:
        job: the job.
        wake: called, from any thread, when its state has changed.
        position: how many jobs start before a queued one; None where it is not known.
    """

    def __init__(
        self, job: Job[Any], wake: Callable[[], None], position: Callable[[Job[Any]], int | None] = lambda _: None
    ) -> None:
        """Begin to follow the job."""
        self.handle = job
        self._wake, self._position = wake, position
        self._follower = SnapshotReader(job, MOST_OUTPUTS)
        job.on_change(lambda _: wake())

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.handle.state.ended

    @property
    def moving(self) -> bool:
        """Whether the job runs."""
        return self.handle.state is JobState.RUNNING

    def card(self, now: float) -> Card:
        """Word the job as it stands."""
        queued = self.handle.state is JobState.QUEUED
        return job_card(self._follower.look(self._position(self.handle) if queued else None), now)

    def outputs(self) -> list[Bundle]:
        """Return its outputs, and a note where there are too many."""
        bundles = [bundle_of(display) for display in self._follower.outputs()]
        return bundles + _more(self._follower.more_outputs)

    def result(self) -> object:
        """Return what ``run()`` returned."""
        return self.handle.result() if self.handle.state is JobState.SUCCEEDED else None

    def cancel(self) -> None:
        """End the job."""
        self.handle.cancel()

    def again(self) -> OneJob:
        """Run the job again."""
        return OneJob(self.handle.rerun(), self._wake, self._position)


class ManyJobs:
    """A card's work where it is a group.

    Args:
        group: the jobs.
        wake: called, from any thread, when the state of one has changed.
    """

    def __init__(self, group: JobGroup[Any], wake: Callable[[], None]) -> None:
        """Begin to count the jobs."""
        self.handle = group
        self._wake = wake
        self._changes: deque[Job[Any]] = deque()
        self._followers: dict[str, SnapshotReader] = {}
        self._outputs: dict[str, list[Bundle]] = {}
        self._unread = 0
        for job in group:
            job.on_change(self._changed)
        self._summary = GroupSummary(group)  # counted once the changes are heard, so that none falls between
        self._catch_up(list(group))

    @property
    def ended(self) -> bool:
        """Whether every job has ended."""
        self._refresh()
        return self._summary.ended

    @property
    def moving(self) -> bool:
        """Whether a job runs."""
        return bool(self._summary.running)

    def card(self, now: float) -> Card:
        """Word the group as it stands."""
        self._refresh()
        return self._summary.card(now, self._look)

    def outputs(self) -> list[Bundle]:
        """Return the outputs of all jobs, in the order of the jobs, each job's under its name."""
        self._refresh()
        for follower in self._followers.values():
            self._keep_outputs(follower)
        numbers = self._summary.numbers
        shown: list[Bundle] = []
        more = 0
        for job_id in sorted(self._outputs, key=numbers.__getitem__):
            label = _note(self._summary.label(self.handle[numbers[job_id] - 1]))
            room = MOST_OUTPUTS - len(shown) - 1
            bundles = self._outputs[job_id]
            shown += [label, *bundles[:room]] if room > 0 else []
            more += len(bundles[max(room, 0) :])
        unread = (
            [_note(f"{units.count(self._unread, 'more job')} may have outputs: job.outputs.")] if self._unread else []
        )
        return shown + _more(more) + unread

    def result(self) -> object:
        """Return the results, or what went wrong in their places; None where there are many, or none but None."""
        if len(self.handle) > MOST_RESULTS or not any(job.state is JobState.SUCCEEDED for job in self.handle):
            return None
        results = self.handle.results(on_error="return")
        if all(result is None for result in results):
            return None
        pairs = zip(self.handle, results, strict=True)
        return [value if job.state is JobState.SUCCEEDED else _InPlace(value) for job, value in pairs]

    def cancel(self) -> None:
        """End every job."""
        self.handle.cancel()

    def again(self) -> ManyJobs:
        """Run the jobs again that ended and did not succeed, in their places among the others."""
        renewed = (
            job.rerun() if job.state.ended and job.state is not JobState.SUCCEEDED else job for job in self.handle
        )
        return ManyJobs(JobGroup(renewed), self._wake)

    def _changed(self, job: Job[Any]) -> None:
        self._changes.append(job)
        self._wake()

    def _refresh(self) -> None:
        changed = []
        while self._changes:
            job = self._changes.popleft()
            self._summary.note(job)
            changed.append(job)
        self._catch_up(changed)

    def _catch_up(self, jobs: list[Job[Any]]) -> None:
        """Follow what runs; read the outputs of what has ended, as long as there is room for them."""
        for job in jobs:
            if job.state is JobState.RUNNING:
                self._followers.setdefault(job.id, SnapshotReader(job, MOST_OUTPUTS))
            elif job.state.ended:
                follower = self._followers.pop(job.id, None)
                if follower is None and len(self._outputs) >= MOST_OUTPUTS:
                    self._unread += 1
                else:
                    self._keep_outputs(follower or SnapshotReader(job, MOST_OUTPUTS))

    def _keep_outputs(self, follower: SnapshotReader) -> None:
        bundles = [bundle_of(display) for display in follower.outputs()]
        if bundles or follower.job.id in self._outputs:
            self._outputs[follower.job.id] = bundles

    def _look(self, job: JobView) -> JobSnapshot:
        return self._followers.setdefault(job.id, SnapshotReader(job, MOST_OUTPUTS)).look()


class _InPlace:
    """Stands for an error among results, in a line; the card tells more."""

    def __init__(self, error: object) -> None:
        self._error = error

    def __repr__(self) -> str:
        first, *more = str(self._error).splitlines() or [""]
        cut = first[:_LONGEST_ERROR] + ("…" if more or len(first) > _LONGEST_ERROR else "")
        return f"<{type(self._error).__name__}: {cut}>"


def _more(count: int) -> list[Bundle]:
    return [_note(f"{count:,} more outputs: job.outputs has them all.")] if count else []


def _note(text: str) -> Bundle:
    return Bundle({"text/plain": text, "text/html": f"<div><b>{escape(text)}</b></div>"})
