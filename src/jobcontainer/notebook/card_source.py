"""Where a card gets its content: from one job, or from a group of jobs.

Both read as little as possible: a job through its reader; a group by counting changes of state, and through the
readers of its running jobs. No result is loaded: its job has made a preview of it.

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
from jobcontainer.views.card import Card, job_card
from jobcontainer.views.escaping import shown_line
from jobcontainer.views.group_card import GroupSummary
from jobcontainer.views.render import NO_MATH
from jobcontainer.views.snapshot import SnapshotReader, preview_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.jobs.job import Job
    from jobcontainer.storage.preview import Preview
    from jobcontainer.views.snapshot import JobView

MOST_RESULTS = 50
"""The largest group whose results are shown; reading those of a larger one would take long."""

_LONGEST_RESULT, _LONGEST_ERROR = 200, 100
_WIDTH = 78


class JobSource:
    """The content of a card of one job."""

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
        """Whether the job runs."""
        return self.handle.state is JobState.RUNNING

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

    def __init__(self, group: JobGroup[Any], on_change: Callable[[], None]) -> None:
        self.handle = group
        self._on_change = on_change
        self._changes: deque[Job[Any]] = deque()
        self._readers: dict[str, SnapshotReader] = {}
        self._outputs: dict[str, list[MimeBundle]] = {}
        self._unread = 0
        for job in group:
            job.on_change(self._add_change)
        self._summary = GroupSummary(group)  # after the callbacks are added, so that no change is missed in between
        self._read_changed(list(group))

    @property
    def ended(self) -> bool:
        """Whether every job has ended."""
        self._process_changes()
        return self._summary.ended

    @property
    def running(self) -> bool:
        """Whether a job runs."""
        return bool(self._summary.running)

    def card(self, now: float) -> Card:
        """Return the group's card."""
        self._process_changes()
        return self._summary.card(now, lambda job: self._reader(job).look())

    def outputs(self) -> list[MimeBundle]:
        """Return the outputs of all jobs, in the order of the jobs, each job's after a line with its name."""
        self._process_changes()
        for reader in self._readers.values():
            self._read_outputs(reader)
        numbers = self._summary.numbers
        shown: list[MimeBundle] = []
        more = 0
        for job_id in sorted(self._outputs, key=numbers.__getitem__):
            label = _note(self._summary.label(self.handle[numbers[job_id] - 1]))
            room = max(MOST_OUTPUTS - len(shown) - 1, 0)
            bundles = self._outputs[job_id]
            shown += [label, *bundles[:room]] if room else []
            more += len(bundles[room:])
        notes = _more_outputs(more)
        if self._unread:
            notes.append(_note(f"{units.count(self._unread, 'more job')} may have outputs: job.outputs."))
        return shown + notes

    def result(self) -> MimeBundle | None:
        """Return the results as a list, with errors in their places; None for a large group, or where all are None."""
        if len(self.handle) > MOST_RESULTS:
            return None
        previews = [preview_of(job) if job.state is JobState.SUCCEEDED else None for job in self.handle]
        if not any(previews):
            return None
        lines = [_result_line(job, preview) for job, preview in zip(self.handle, previews, strict=True)]
        between = ", " if sum(map(len, lines)) + 2 * len(lines) <= _WIDTH else ",\n "
        return MimeBundle({"text/plain": f"[{between.join(lines)}]"})

    def cancel(self) -> None:
        """Cancel every job."""
        self.handle.cancel()

    def rerun(self) -> GroupSource:
        """Run the jobs again that ended and did not succeed; the new ones take their places."""
        jobs = (job.rerun() if job.state.ended and job.state is not JobState.SUCCEEDED else job for job in self.handle)
        return GroupSource(JobGroup(jobs), self._on_change)

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
        """Make readers of running jobs; read the outputs of ended ones, up to a number of jobs."""
        for job in jobs:
            if job.state is JobState.RUNNING:
                self._reader(job)
            elif job.state.ended:
                reader = self._readers.pop(job.id, None)
                if reader is None and len(self._outputs) >= MOST_OUTPUTS:
                    self._unread += 1
                else:
                    self._read_outputs(reader or SnapshotReader(job, MOST_OUTPUTS))

    def _reader(self, job: JobView) -> SnapshotReader:
        return self._readers.setdefault(job.id, SnapshotReader(job, MOST_OUTPUTS))

    def _read_outputs(self, reader: SnapshotReader) -> None:
        bundles = _bundles(reader)
        if bundles or reader.job.id in self._outputs:
            self._outputs[reader.job.id] = bundles


CardSource: TypeAlias = JobSource | GroupSource


def _result_line(job: Job[Any], preview: Preview | None) -> str:
    """Return one line of a job's result or error; the card says more."""
    if preview is not None:
        return _first_line(preview.data.get("text/plain", preview.problem), _LONGEST_RESULT)
    if job.state is JobState.SUCCEEDED or job.outcome is None:
        return "None"
    kind = job.outcome.error_type if job.state is JobState.FAILED else ""
    message = job.outcome.error_message if kind else job.outcome.reason
    return f"<{shown_line(kind or job.state.words)}: {_first_line(message, _LONGEST_ERROR)}>"


def _first_line(text: object, longest: int) -> str:
    first, *more = (text if isinstance(text, str) else "").splitlines() or [""]
    return shown_line(first[:longest]) + ("…" if more or len(first) > longest else "")


def _bundles(reader: SnapshotReader) -> list[MimeBundle]:
    return [sound_bundle(display.data, display.metadata) for display in reader.outputs()]


def _more_outputs(count: int) -> list[MimeBundle]:
    return [_note(f"{count:,} more outputs: job.outputs has them all.")] if count else []


def _note(text: str) -> MimeBundle:
    return MimeBundle({"text/plain": text, "text/html": f'<div class="{NO_MATH}"><b>{escape(text)}</b></div>'})
