"""Where a card gets its content: from one job, from a group of jobs, or from the calls of a ``map``.

All read as little as possible: a job through its reader; a group by counting changes of state, and through the
readers of its running jobs; calls through what their chunks say. No result is loaded: its job has made a preview of it.

Threads: ``_add_change`` is called by whichever thread changes a job's state; everything else belongs to the refresher.
"""

from __future__ import annotations

from collections import deque
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

from jobcontainer.events import JobState
from jobcontainer.jobs.group import JobGroup
from jobcontainer.notebook.cell_outputs import MOST_OUTPUTS, MimeBundle, sound_bundle
from jobcontainer.views import units
from jobcontainer.views.calls_card import calls_card
from jobcontainer.views.card import Card, job_card
from jobcontainer.views.group_card import GroupSummary
from jobcontainer.views.snapshot import SnapshotReader
from jobcontainer.views.table import NO_MATH, JobTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.mapping import MapResults
    from jobcontainer.views.snapshot import JobView


MOST_READ = 1000
"""Jobs of a group, the newest, whose outputs are looked for when it is shown; what comes later is seen of all."""


class JobSource:
    """The content of a card of one job."""

    reports_changes = True

    def __init__(
        self, job: Job[Any], on_change: Callable[[], None], position: Callable[[Job[Any]], int | None] = lambda _: None
    ) -> None:
        self.handle = job
        self._on_change, self._position = on_change, position
        self._reader = SnapshotReader(job, MOST_OUTPUTS)
        job.on_change(lambda _: on_change())

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.handle.state.ended

    @property
    def running(self) -> bool:
        """Whether the job runs, or others that it waits for may."""
        return self.handle.state in {JobState.RUNNING, JobState.WAITING}

    def card(self, now: float) -> Card:
        """Return the job's card."""
        queued = self.handle.state is JobState.QUEUED
        return job_card(self._reader.look(self._position(self.handle) if queued else None), now)

    def outputs(self) -> list[MimeBundle]:
        """Return its outputs, and a note where there are too many."""
        return _bundles(self._reader) + _more_outputs(self._reader.more_outputs)

    def result(self) -> MimeBundle | None:
        """Return what ``run()`` returned, as an output; None where it is None."""
        preview = self._reader.look().preview if self.handle.state is JobState.SUCCEEDED else None
        return sound_bundle(preview.data, preview.metadata) if preview is not None and preview.data else None

    def cancel(self) -> None:
        """Cancel the job."""
        self.handle.cancel()

    def rerun(self) -> JobSource:
        """Run the job again."""
        return JobSource(self.handle.rerun(), self._on_change, self._position)


class GroupSource:
    """The content of a card of a group."""

    reports_changes = True

    def __init__(self, group: JobGroup[Any], on_change: Callable[[], None]) -> None:
        self.handle = group
        self._on_change = on_change
        self._changes: deque[Job[Any]] = deque()
        self._outputs = JobOutputs()
        for job in group:
            job.on_change(self._add_change)
        self._summary = GroupSummary(group)  # after the callbacks are added, so that no change is missed in between
        self._read_changed(list(group)[-MOST_READ:])
        self._outputs.pass_over(len(group) - MOST_READ)

    @property
    def ended(self) -> bool:
        """Whether every job has ended."""
        self._process_changes()
        return self._summary.ended

    @property
    def running(self) -> bool:
        """Whether a job runs, or others that one waits for may."""
        return bool(self._summary.running or self._summary.counts[JobState.WAITING])

    def card(self, now: float) -> Card:
        """Return the group's card."""
        self._process_changes()
        return self._summary.card(now, lambda job: self._outputs.reader(job).look())

    def outputs(self) -> list[MimeBundle]:
        """Return the outputs of all jobs, in the order of the jobs, each job's after a line with its name."""
        self._process_changes()
        numbers = self._summary.numbers
        return self._outputs.shown(
            numbers.__getitem__, lambda job_id: self._summary.label(self.handle[numbers[job_id] - 1])
        )

    def result(self) -> MimeBundle:
        """Return the table of the first jobs."""
        table = JobTable(self.handle)
        return MimeBundle({"text/plain": repr(table), "text/html": table._repr_html_()})

    def cancel(self) -> None:
        """Cancel every job."""
        self.handle.cancel()

    def rerun(self) -> GroupSource:
        """Run the jobs again that ended and did not succeed; the new ones take their places."""
        ended = [job for job in self.handle if job.state.ended and job.state is not JobState.SUCCEEDED]
        again = dict(zip(ended, JobGroup(ended).rerun_failed(), strict=True))
        return GroupSource(JobGroup(again.get(job, job) for job in self.handle), self._on_change)

    def _add_change(self, job: Job[Any]) -> None:
        self._changes.append(job)
        self._on_change()

    def _process_changes(self) -> None:
        changed = []
        while self._changes:
            job = self._changes.popleft()
            self._summary.note(job)
            changed.append(job)
        self._read_changed(changed)

    def _read_changed(self, jobs: list[Job[Any]]) -> None:
        for job in jobs:
            self._outputs.note(job)


class CallsSource:
    """The content of a card of the calls of a ``map``; no change is reported to it, so that the card looks.

    It holds the chunks, and not the results: calls are cancelled once nobody can take their results any more.
    """

    reports_changes = False

    def __init__(self, results: MapResults[Any]) -> None:
        self._progress = results.progress
        self._counts = self._progress.look()
        self._outputs = JobOutputs()
        self._numbers: dict[str, int] = {}
        self._unended: list[Job[Any]] = []

    @property
    def handle(self) -> JobGroup[Any]:
        """The jobs of the chunks."""
        return self._progress.jobs

    @property
    def ended(self) -> bool:
        """Whether all calls have ended."""
        if not self._counts.is_over:
            self._counts = self._progress.look()
        return self._counts.is_over

    @property
    def running(self) -> bool:
        """Whether the calls may go on at any time."""
        return not self.ended

    def card(self, now: float) -> Card:
        """Return the card of the calls."""
        _ = self.ended
        return calls_card(self._counts, now)

    def outputs(self) -> list[MimeBundle]:
        """Return the outputs of all chunks, each one's after a line that says which it is."""
        jobs = self._progress.jobs
        self._unended += jobs[len(self._numbers) :]
        for job in jobs[len(self._numbers) :]:
            self._numbers[job.id] = len(self._numbers) + 1
        states = [(job, job.state) for job in self._unended]
        for job, _ in states:
            self._outputs.note(job)
        self._unended = [job for job, state in states if not state.ended]
        return self._outputs.shown(self._numbers.__getitem__, lambda job_id: f"chunk {self._numbers[job_id]}")

    def result(self) -> None:
        """Return that there is nothing to show: whoever has the results goes through them."""

    def cancel(self) -> None:
        """End the calls."""
        self._progress.cancel()

    def rerun(self) -> CallsSource:
        """Do nothing: a call that failed can be made again only by another map."""
        return self


class JobOutputs:
    """The outputs of several jobs, each one's after a line with its name; those of very many are not read."""

    def __init__(self) -> None:
        self._readers: dict[str, SnapshotReader] = {}
        self._outputs: dict[str, list[MimeBundle]] = {}
        self._unread = 0

    def reader(self, job: JobView) -> SnapshotReader:
        """Return the reader of a job."""
        return self._readers.setdefault(job.id, SnapshotReader(job, MOST_OUTPUTS))

    def note(self, job: JobView) -> None:
        """Make a reader of a job that runs; read the outputs of one that has ended, up to a number of jobs."""
        if job.state is JobState.RUNNING:
            self.reader(job)
        elif job.state.ended:
            reader = self._readers.pop(job.id, None)
            if reader is None and len(self._outputs) >= MOST_OUTPUTS:
                self._unread += 1
            else:
                self._read(reader or SnapshotReader(job, MOST_OUTPUTS))

    def pass_over(self, count: int) -> None:
        """Note that the outputs of so many jobs are not looked for; of none, where that is negative."""
        self._unread += max(count, 0)

    def shown(self, order: Callable[[str], int], label: Callable[[str], str]) -> list[MimeBundle]:
        """Return the outputs.

        Args:
            order: of a job, by its id.
            label: its name, by its id.
        """
        for reader in self._readers.values():
            self._read(reader)
        shown: list[MimeBundle] = []
        more = 0
        for job_id in sorted(self._outputs, key=order):
            room = max(MOST_OUTPUTS - len(shown) - 1, 0)
            bundles = self._outputs[job_id]
            shown += [_note(label(job_id)), *bundles[:room]] if room else []
            more += len(bundles[room:])
        notes = _more_outputs(more)
        if self._unread:
            notes.append(_note(f"{units.count(self._unread, 'more job')} may have outputs: job.outputs."))
        return shown + notes

    def _read(self, reader: SnapshotReader) -> None:
        bundles = _bundles(reader)
        if bundles or reader.job.id in self._outputs:
            self._outputs[reader.job.id] = bundles


CardSource: TypeAlias = JobSource | GroupSource | CallsSource


def _bundles(reader: SnapshotReader) -> list[MimeBundle]:
    return [sound_bundle(display.data, display.metadata) for display in reader.outputs()]


def _more_outputs(count: int) -> list[MimeBundle]:
    return [_note(f"{count:,} more outputs: job.outputs has them all.")] if count else []


def _note(text: str) -> MimeBundle:
    return MimeBundle({"text/plain": text, "text/html": f'<div class="{NO_MATH}"><b>{escape(text)}</b></div>'})
