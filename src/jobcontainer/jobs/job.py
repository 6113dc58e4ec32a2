"""Job: what a person holds of work that runs elsewhere.

A :class:`Job` is a :class:`concurrent.futures.Future` that reads its state, progress, log and result from its folder.
Nothing but the outcome is kept in memory until it is read, so that ten thousand handles cost little.

States: ``queued → running → ended``; a retry goes back from running to queued. Only one of two moves a handle: the
scheduler that owns the job or, where another process runs it, the watcher. They do so by :meth:`Job._dispatched`,
:meth:`Job._requeued` and :meth:`Job._settle`, which they call once each. A handle may be read from any thread.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from jobcontainer.errors import JobError
from jobcontainer.events import Display, JobState, Outcome, Started, Usage, folded
from jobcontainer.jobfile.identity import FileIdentity
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.storage.ending import error_of
from jobcontainer.storage.progress_file import read_bars
from jobcontainer.storage.result import read_result
from jobcontainer.views.escaping import shown_line
from jobcontainer.views.render import job_html

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from jobcontainer.events import Bar
    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.record import JobRecord

R = TypeVar("R")


class Control(Protocol):
    """Whoever may end jobs, run them again and find them again."""

    @property
    def reopen(self) -> Callable[[str], Job[Any]]:
        """A function of a module that finds a job again from the path of its folder."""

    def cancel(self, jobs: Sequence[Job[Any]]) -> bool:
        """End each of these jobs that has not ended, and start none of them meanwhile; False where all had ended."""

    def rerun(self, job: Job[R]) -> Job[R]:
        """Run the job's process file again, as a new job."""


class Job(Future[R], Generic[R]):
    """One run of a process: a future, a window on its folder, and the switch to stop it.

    Jobs are made by :class:`JobPool`, :class:`JobContainer` and :class:`JobStore`, not by hand. Pickled, a job is a
    handle: it is found again from its folder.

    Attributes:
        folder: where its files lie.
        name: what it is called.
        submitted: when, in seconds since the epoch.

    Example:
        >>> job = pool.submit(Train())               # doctest: +SKIP
        >>> job.state, job.tail(1), job.result()     # doctest: +SKIP
        (<JobState.RUNNING: 'running'>, ['epoch 1'], 42)
    """

    def __init__(self, folder: JobFolder, *, name: str, submitted: float, control: Control) -> None:
        super().__init__()
        self.folder = folder
        self.name = name
        self.submitted = submitted
        self._control = control
        self._attempt = 0
        self._phase = JobState.QUEUED
        self._outcome: Outcome | None = None
        self._loaded: tuple[Any, BaseException | None] | None = None
        self._on_change: list[Callable[[Job[Any]], object]] = []

    @property
    def id(self) -> str:
        """The job's id: the name of its folder; sorts by time."""
        return self.folder.id

    @property
    def state(self) -> JobState:
        """Where the job is in its life."""
        return self._phase

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None until it has."""
        if self._outcome is None and self._phase.ended:
            self._outcome = self._read_outcome()
        return self._outcome

    @property
    def attempts(self) -> int:
        """How often it was started, retries included."""
        return self._attempt or (self.outcome.attempt if self.outcome and self.started else 0)

    @property
    def usage(self) -> Usage:
        """What the last attempt used; of a running job, the wall time so far."""
        if self.outcome is not None:
            return self.outcome.usage
        started = self.started
        return Usage() if started is None else Usage(wall=time.time() - started)

    @property
    def started(self) -> float | None:
        """When the last attempt started, in seconds since the epoch; None where none did."""
        starts = [event.at for event in self.folder.read_events()[0] if isinstance(event, Started)]
        return starts[-1] if starts else None

    @property
    def progress(self) -> tuple[Bar, ...]:
        """The progress bars as they are now, outer ones first."""
        return read_bars(self.folder.progress_file)

    @property
    def log(self) -> str:
        """All that the job printed so far."""
        return self.folder.read_log().decode("utf-8", "replace")

    @property
    def outputs(self) -> list[Display]:
        """The rich outputs of the last attempt, updated and cleared as the job did."""
        return folded(self.folder.read_events()[0])

    @property
    def record(self) -> JobRecord:
        """What was written down of the job when it was submitted: its options, working directory, source."""
        return self.folder.read_record()

    @property
    def source(self) -> str:
        """The source of the process's class or function, as it was when the job was submitted."""
        return self.record.source

    @property
    def process(self) -> Any:
        """The process itself, loaded from its file: a copy of what was submitted."""
        return Serializer.deserialize_from_file(self.folder.process_file)

    def tail(self, lines: int = 10) -> list[str]:
        """Return the last lines of the log, so many at the most."""
        return self.folder.tail(lines)

    def cancel(self) -> bool:
        """End the job, whether it is queued or running.

        A running job gets a ``KeyboardInterrupt`` and, after its ``grace``, a kill; the call returns at once. This is
        where a job differs from other futures, whose running calls can't be cancelled.

        Returns:
            False if the job had ended already in another way, else True.
        """
        return self._control.cancel([self]) or self.cancelled()

    def cancelled(self) -> bool:
        """Whether the job ended by being cancelled."""
        return self.state is JobState.CANCELLED

    def rerun(self) -> Job[R]:
        """Run the same process file again, as a new job with the same options."""
        return self._control.rerun(self)

    def result(self, timeout: float | None = None) -> R:
        """Return what ``run()`` returned; wait for it where it must.

        Args:
            timeout: seconds to wait at the most; None waits for ever.

        Raises:
            TimeoutError: the job has not ended within ``timeout``; it goes on.
            concurrent.futures.CancelledError: the job was cancelled.
            JobError: the job crashed, timed out, ran out of memory or was lost; the message says more.
            Exception: whatever ``run()`` raised.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                del error  # or the traceback would keep this frame, and it the error, for ever
        value: R = self._load()[0]
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what ``run()`` raised, or how else the job ended; None where it succeeded.

        Args:
            timeout: seconds to wait at the most; None waits for ever.

        Raises:
            TimeoutError: the job has not ended within ``timeout``.
            concurrent.futures.CancelledError: the job was cancelled.
        """
        with contextlib.suppress(CancelledError):  # of a job that never started; raised with its id below
            super().exception(timeout)
        if self.cancelled():
            raise CancelledError(f"The job {self.id} was cancelled; job.rerun() runs it again.")
        return self._load()[1]

    def on_change(self, call: Callable[[Job[Any]], object]) -> None:
        """Call something with this job whenever its state changes, from whichever thread changes it."""
        self._on_change.append(call)

    def __await__(self) -> Generator[Any, None, R]:
        """Wait in a coroutine. Cancelling the coroutine leaves the job running: only :meth:`cancel` ends a job."""
        import asyncio  # noqa: PLC0415 -- who awaits has loaded it; it takes as long as a short job

        return asyncio.shield(asyncio.wrap_future(self)).__await__()

    def __repr__(self) -> str:
        """Show the id and the state."""
        return f"<Job {shown_line(self.id)} {self.state.words}>"

    def _repr_html_(self) -> str:
        """Show a card of the job as it is now; with the extension loaded, a notebook shows a live one."""
        return job_html(self)

    def __reduce__(self) -> tuple[Callable[[str], Job[Any]], tuple[str]]:
        """Travel as a handle: the folder's path."""
        return self._control.reopen, (str(self.folder.path),)

    def _load(self) -> tuple[Any, BaseException | None]:
        """Read the result file once, on first use; name the end where there is none to read."""
        if self._loaded is None:
            outcome = self.outcome
            assert outcome is not None, "only an ended job is loaded"  # noqa: S101 -- callers have waited
            if outcome.state is JobState.SUCCEEDED or (
                outcome.state is JobState.FAILED and self.folder.result_file.exists()
            ):
                identity = outcome.result_identity
                self._loaded = read_result(self.folder.result_file, identity and FileIdentity(*identity))
            else:
                self._loaded = None, error_of(outcome, self.folder)
        return self._loaded

    def _dispatched(self, attempt: int) -> None:
        """Note that an attempt was handed to an engine."""
        self._attempt = attempt
        self._phase = JobState.RUNNING
        if not self.running():
            self.set_running_or_notify_cancel()
        self._changed()

    def _requeued(self) -> None:
        """Note that the job waits for another attempt."""
        self._phase = JobState.QUEUED
        self._changed()

    def _settle(self, outcome: Outcome) -> None:
        """Note the end: from here on the future is done."""
        self._outcome = outcome
        self._settle_as(outcome.state)

    def _settle_as(self, state: JobState) -> None:
        """Note an end whose outcome is read from the folder when it is asked for."""
        self._phase = state
        if state is JobState.SUCCEEDED:
            self.set_result(None)  # type: ignore[arg-type]  # result() reads the file
        elif state is JobState.CANCELLED and super().cancel():
            self.set_running_or_notify_cancel()
        else:
            self.set_exception(JobError(state.words, job=self.id))  # a stand-in: exception() reads the file
        self._changed()

    def _read_outcome(self) -> Outcome:
        outcomes = [event for event in self.folder.read_events()[0] if isinstance(event, Outcome)]
        unknown = Outcome(state=self._phase, at=self.submitted, reason="Its folder says no more.")
        return outcomes[-1] if outcomes and outcomes[-1].state is self._phase else unknown

    def _changed(self) -> None:
        for call in tuple(self._on_change):
            call(self)
