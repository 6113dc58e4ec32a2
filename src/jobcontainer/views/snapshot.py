"""A snapshot of a job: what was read of it at one moment, and how it is read without reading anything twice.

A :class:`SnapshotReader` belongs to one job and to one thread. It is between the files of the job folder and
everything that shows a job: it reads the events from where it stopped, the log only after it grew, the progress only
while the job runs. A job that has not started is not read at all, and one that has ended only once.

The views see jobs through :class:`JobView` alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from jobcontainer.errors import JobFileError
from jobcontainer.events import Display, JobState, Outcome, Progress, Started, fold
from jobcontainer.storage.checkpoint import checkpoints_of
from jobcontainer.storage.event_reader import EventReader
from jobcontainer.storage.owner import host_name
from jobcontainer.storage.preview import read_preview
from jobcontainer.views import units
from jobcontainer.views.chain import Chain
from jobcontainer.worker import process_tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jobcontainer.events import Bar, Checkpoint, Usage
    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.preview import Preview

LOG_LINES = 40
_LOAD_SECONDS = 1.0


class JobView(Protocol):
    """What the views read of a job; see :class:`jobcontainer.Job`, which has it all."""

    name: str
    submitted: float
    folder: JobFolder

    @property
    def id(self) -> str:
        """The job's id."""

    @property
    def state(self) -> JobState:
        """Where it is in its life."""

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None until it has."""

    @property
    def usage(self) -> Usage:
        """What it has used."""

    @property
    def progress(self) -> tuple[Bar, ...]:
        """Its progress bars as they are now."""

    @property
    def inputs(self) -> Sequence[JobView]:
        """The jobs that it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSnapshot:
    """What was read of one job at one moment.

    Attributes:
        id: the job's id.
        name: what it is called.
        state: where it is in its life.
        started: when its last attempt began, in seconds since the epoch; None where none did.
        attempts: how often it was started.
        options: the job's options, as ``job.json`` holds them.
        memory: what its processes hold while it runs, in bytes, counted as for its limit and its peak: less what a
            forked process shares with its keeper; 0 where that can't be seen from here.
        load: how many CPUs they have lately kept busy; None where that can't be seen, or not yet.
        bars: the progress bars as they are now.
        log: the last lines of its log, as printed.
        log_size: of the whole log, in bytes.
        log_file: where the whole log is.
        outcome: how it ended; None until it has.
        preview: of what ``run()`` returned or raised; None where there is none.
        position: how many queued jobs start before this one; None where it is not known.
        is_deleted: whether its folder is gone.
        chain: the jobs that it needs and those that these need, with their states; empty where it needs none.
        checkpoint: the last that it, or the job that it resumes, has saved; None where there is none.
    """

    id: str
    name: str
    state: JobState
    started: float | None = None
    attempts: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    memory: int = 0
    load: float | None = None
    bars: tuple[Bar, ...] = ()
    log: tuple[str, ...] = ()
    log_size: int = 0
    log_file: Path | None = None
    outcome: Outcome | None = None
    preview: Preview | None = None
    position: int | None = None
    is_deleted: bool = False
    chain: str = ""
    checkpoint: Checkpoint | None = None


class SnapshotReader:
    """Reads what has changed of one job since it last looked.

    Args:
        job: the job.
        most_outputs: how many rich outputs are kept in memory; of more, the first are, and the others are counted.

    Attributes:
        more_outputs: how many outputs there are beyond ``most_outputs``.
    """

    def __init__(self, job: JobView, most_outputs: int = 0) -> None:
        self.job = job
        self.more_outputs = 0
        self._displays: list[Display] = []
        self._most_outputs = most_outputs
        self._events = EventReader(job.folder)
        self._bars: tuple[Bar, ...] = ()
        self._started: Started | None = None
        self._log: tuple[str, ...] = ()
        self._log_size = 0
        self._options: dict[str, Any] | None = None
        self._chain: Chain | None = None
        self._checkpoint: Checkpoint | None = None
        self._checkpoint_file: tuple[int, int] | None = None  # which one was read
        self._load: float | None = None
        self._cpu: tuple[float, float] | None = None  # when it was read, and CPU seconds used by then
        self._last: JobSnapshot | None = None

    def look(self, position: int | None = None) -> JobSnapshot:
        """Read the job as it is now.

        Args:
            position: how many queued jobs start before this one, where the caller knows.
        """
        if self._last is not None and self._last.state.ended:
            return self._last
        state, outcome = self.job.state, self.job.outcome  # before the files: what came before an end is in them
        if state not in {JobState.WAITING, JobState.QUEUED}:
            self._read_events(to_the_end=state.ended)
            self._read_log()
            self._bars = self.job.progress or self._bars
        below = self._process_ids() if state is JobState.RUNNING else []
        self._last = JobSnapshot(
            id=self.job.id,
            name=self.job.name,
            state=state,
            started=self._started.at if self._started else None,
            attempts=self._started.attempt if self._started else 0,
            options=self._read_options(),
            memory=self._held(below),
            load=self._read_load(below) if below else None,
            bars=self._bars,
            log=self._log,
            log_size=self._log_size,
            log_file=self.job.folder.log_file,
            outcome=outcome,
            preview=preview_of(self.job) if state.ended else None,
            position=position,
            is_deleted=not self.job.folder.path.is_dir(),
            chain="" if self._chain is None else str(self._chain),
            checkpoint=self._read_checkpoint(),
        )
        return self._last

    def outputs(self) -> list[Display]:
        """Read the last attempt's rich outputs, updated and cleared as the job did; of a running job, so far."""
        self._read_events(to_the_end=self.job.state.ended)
        return [display for display in self._displays if display.data]

    def _read_events(self, *, to_the_end: bool) -> None:
        """Read what came since the last look, which may be all of it, or as much of it as a look should take."""
        for event in self._events.read_all() if to_the_end else self._events.read():
            match event:
                case Started():
                    self._started, self._bars = event, ()
                    self._load = self._cpu = None
                    self._displays, self.more_outputs = [], 0
                case Progress(bars=bars):
                    self._bars = tuple(bars)
                case Display():
                    self._show(event)
        if self._events.has_skipped:  # nobody knows how many outputs were among what was passed over
            self.more_outputs = max(1, self.more_outputs)

    def _show(self, display: Display) -> None:
        if display.clear:
            self.more_outputs = 0
        displays = fold(self._displays, display)
        if len(displays) > max(self._most_outputs, len(self._displays)):
            self.more_outputs += 1
        else:
            self._displays = displays

    def _read_log(self) -> None:
        size = self.job.folder.log_size()
        if size != self._log_size:
            self._log_size, self._log = size, tuple(self.job.folder.tail(LOG_LINES))

    def _process_ids(self) -> list[int]:
        """Return the job's processes that can be seen from here."""
        if self._started is None or self._started.host != host_name() or not isinstance(self._started.pid, int):
            return []
        return [self._started.pid, *process_tree.descendants_of(self._started.pid)]

    def _held(self, processes: list[int]) -> int:
        shared = units.sound(self._started.shared) if self._started is not None else 0
        return max(process_tree.memory_of(processes) - int(shared or 0), 0)

    def _read_load(self, processes: list[int]) -> float | None:
        """Compare the CPU time used with what it was a second ago, or more."""
        now, used = time.monotonic(), process_tree.cpu_of(processes)
        if self._cpu is None or used < self._cpu[1]:  # a process that used much has gone, or another attempt began
            self._cpu = now, used
        elif now - self._cpu[0] >= _LOAD_SECONDS:
            self._load = (used - self._cpu[1]) / (now - self._cpu[0])
            self._cpu = now, used
        return self._load

    def _read_checkpoint(self) -> Checkpoint | None:
        """Read the header of the checkpoint, where there is another one than at the last look."""
        try:
            status = self.job.folder.checkpoint_file.lstat()
        except OSError:
            return self._checkpoint
        file = status.st_ino, status.st_mtime_ns
        if file != self._checkpoint_file:
            self._checkpoint_file = file
            self._checkpoint = next(reversed(checkpoints_of(self.job.folder)), None)
        return self._checkpoint

    def _read_options(self) -> dict[str, Any]:
        if self._options is None:
            try:
                record = self.job.folder.read_record()
                self._options, self._chain = record.options, Chain(self.job) if record.inputs else None
            except (OSError, JobFileError):  # deleted, or the job has written over it
                return {}
        return self._options


def snapshot_of(job: JobView) -> JobSnapshot:
    """Read a job once."""
    return SnapshotReader(job).look()


def preview_of(job: JobView) -> Preview | None:
    """Read the preview of what a job returned or raised; None where it ended in another way, or returned None."""
    return read_preview(job.folder.preview_file) if job.state in {JobState.SUCCEEDED, JobState.FAILED} else None
