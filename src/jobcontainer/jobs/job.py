"""Job: what a person holds of work that runs elsewhere.

A :class:`Job` is a :class:`concurrent.futures.Future` that reads its state, progress, log and result from its folder.
Nothing but the outcome is kept in memory until it is read, so that ten thousand handles cost little.

States: ``waiting → queued → running → ended``; only one that needs other jobs is ever waiting, and a retry goes back
from running to queued. Only one of two moves a handle: the scheduler that owns the job or, where another process runs
it, the watcher. They do so by :meth:`Job._dispatched`, :meth:`Job._requeued` and :meth:`Job._settle`, which they call
once each, in threads in which no interrupt is raised.

A handle may be read from any thread. Whoever waits for the end has a call in ``_end_calls``, a lock of its own to
release or a callback; calls are added and taken by single operations of a list. So no lock is shared, and an interrupt
of a wait costs nobody else anything. What :class:`~concurrent.futures.Future` itself holds is completed after that, for
functions such as :func:`concurrent.futures.wait`, which know nothing else.

In a child that was forked from the process of a handle nobody moves it: to wait for ever for it there is refused.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import math
import threading
import time
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from jobcontainer.errors import JobError
from jobcontainer.events import Display, JobState, Outcome, Usage, folded
from jobcontainer.jobfile.inputs import reduced
from jobcontainer.jobs.contents import process_with_handles, value_and_error
from jobcontainer.storage.checkpoint import checkpoints_of
from jobcontainer.storage.event_reader import EventReader
from jobcontainer.storage.progress_file import read_bars
from jobcontainer.views.escaping import shown_line
from jobcontainer.views.render import job_html
from jobcontainer.worker.cpython_internals import complete_future
from jobcontainer.worker.forked_child import BoundToProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from jobcontainer.events import Bar, Checkpoint
    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.record import JobRecord

R = TypeVar("R")

_logger = logging.getLogger("concurrent.futures")  # which logs callbacks that raise, as here


class Control(Protocol):
    """Whoever may end jobs, run them again and find them again."""

    @property
    def reopen(self) -> Callable[[str], Job[Any]]:
        """A function of a module that finds a job again from the path of its folder."""

    def cancel(self, jobs: Sequence[Job[Any]]) -> bool:
        """End each of these jobs that has not ended, and start none of them meanwhile; False where all had ended."""

    def cancel_dependents(self, job: Job[Any]) -> None:
        """End all jobs that need this one, and those that need them."""

    def inputs(self, job: Job[Any]) -> Sequence[Job[Any]]:
        """Return the jobs that this one needs."""

    def rerun(self, job: Job[R], *, resume: bool = False) -> Job[R]:
        """Run the job's process file again, from its checkpoint or anew, and first what it could not begin without."""

    def rerun_alone(self, job: Job[R], again: Mapping[str, Job[Any]], *, resume: bool) -> Job[R]:
        """Run the job's process file again; ``again`` are new jobs for its inputs, by the paths of their folders."""


class Job(BoundToProcess, Future[R], Generic[R]):
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

    def __init__(
        self, folder: JobFolder, *, name: str, submitted: float, control: Control, state: JobState = JobState.QUEUED
    ) -> None:
        super().__init__()
        Future.__init__(self)
        self.folder = folder
        self.name = name
        self.submitted = submitted
        self._control = control
        self._attempt = 0
        self._phase = state
        self._outcome: Outcome | None = None
        self._loaded: tuple[Any, BaseException | None] | None = None
        self._on_change: list[Callable[[Job[Any]], object]] = []
        self._end_calls: list[Callable[[], object]] = []

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
        turns = self.folder.turns()
        return None if turns.started is None else turns.started.at

    @property
    def progress(self) -> tuple[Bar, ...]:
        """The progress bars as they are now, outer ones first."""
        return read_bars(self.folder.progress_file)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """When it, or the job that it resumes, saved a checkpoint, and how large: the last hundred, oldest first."""
        return checkpoints_of(self.folder)

    @property
    def log(self) -> str:
        """All that the job printed so far."""
        return self.folder.read_log().decode("utf-8", "replace")

    @property
    def outputs(self) -> list[Display]:
        """The rich outputs of the last attempt, updated and cleared as the job did."""
        return folded(EventReader(self.folder, most=math.inf).read_all())

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
        """The process itself, loaded from its file: a copy of what was submitted, with handles of the jobs in it."""
        return process_with_handles(self.folder, self._control.reopen)

    @property
    def inputs(self) -> Sequence[Job[Any]]:
        """The jobs whose success it needs, as a :class:`JobGroup`; those that were deleted are left out."""
        return self._control.inputs(self)

    def tail(self, lines: int = 10) -> list[str]:
        """Return the last lines of the log, so many at the most."""
        return self.folder.tail(lines)

    def cancel(self, *, dependents: bool = False) -> bool:
        """End the job, whether it is waiting, queued or running.

        A running job gets a ``KeyboardInterrupt`` and, after its ``grace``, a kill; the call returns at once. This is
        where a job differs from other futures, whose running calls can't be cancelled. A job that needs it ends as
        ``upstream_failed``.

        Args:
            dependents: whether all jobs that need it, of its store or of this process, are cancelled too.

        Returns:
            False if the job had ended already in another way, else True.
        """
        if dependents:
            self._control.cancel_dependents(self)
        return self._control.cancel([self]) or self.cancelled()

    def cancelled(self) -> bool:
        """Whether the job ended by being cancelled."""
        return self.state is JobState.CANCELLED

    def running(self) -> bool:
        """Whether the job is running."""
        return self.state is JobState.RUNNING

    def done(self) -> bool:
        """Whether the job has ended, however it did."""
        return self.state.ended

    def rerun(self, *, resume: bool = False) -> Job[R]:
        """Run the same process file again, as a new job; with ``resume``, from the job's checkpoint, if it has one.

        What it needs, and did not succeed, is run again first.

        Args:
            resume: whether it, and what is run again before it, goes on from its checkpoint.

        Raises:
            JobUpstreamError: a job that it needs was deleted.
            FileNotFoundError: its own folder was deleted.
            CorruptFileError: the large data of its checkpoint is missing or was altered; without ``resume`` it is left.
        """
        return self._control.rerun(self, resume=resume)

    def result(self, timeout: float | None = None) -> R:
        """Return what ``run()`` returned; wait for it where it must.

        Args:
            timeout: seconds to wait at the most; None waits for ever.

        Raises:
            TimeoutError: the job has not ended within ``timeout``; it goes on.
            concurrent.futures.CancelledError: the job was cancelled.
            JobError: the job crashed, timed out, ran out of memory or was lost, a job that it needs did not succeed, or
                its result was deleted; the message says more.
            RuntimeError: the job has not ended, there is no ``timeout``, and this process was forked from the one whose
                handle this is.
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
            RuntimeError: as of :meth:`result`.
        """
        if not self._wait(timeout):
            raise TimeoutError(f"The job {self.id} has not ended within {timeout} s; it goes on.")
        if self.cancelled():
            raise CancelledError(f"The job {self.id} was cancelled; job.rerun() runs it again.")
        return self._load()[1]

    def on_change(self, call: Callable[[Job[Any]], object]) -> None:
        """Call something with this job whenever its state changes, from whichever thread changes it.

        What it raises is logged, as of a callback of :meth:`add_done_callback`.
        """
        self._on_change.append(call)

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call something with this job when it has ended, or at once where it has.

        What it raises, whatever that is, is logged as :mod:`concurrent.futures` does, on standard error by default, and
        changes nothing.
        """
        self._when_ended(partial(self._call_back, fn))

    def __await__(self) -> Generator[Any, None, R]:
        """Wait in a coroutine. Cancelling the coroutine leaves the job running: only :meth:`cancel` ends a job."""
        self._refuse_to_wait_if_inherited()
        import asyncio  # noqa: PLC0415 -- who awaits has loaded it; it takes as long as a short job

        return asyncio.shield(asyncio.wrap_future(self)).__await__()

    def __repr__(self) -> str:
        """Show the id and the state."""
        return f"<Job {shown_line(self.id)} {self.state.words}>"

    def _repr_html_(self) -> str:
        """Show a card of the job as it is now; with the extension loaded, a notebook shows a live one."""
        return job_html(self)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        """Travel as a handle, the folder's path; in a process, as what becomes the job's result there."""
        return reduced(self.folder.process_file, self) or (self._control.reopen, (str(self.folder.path),))

    def _wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, so many seconds at the most; return whether it has come."""
        if self.done():
            return True
        if timeout is None:
            self._refuse_to_wait_if_inherited()
        has_ended = _thread.allocate_lock()
        has_ended.acquire()
        self._when_ended(has_ended.release)
        if has_ended.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return True
        with contextlib.suppress(ValueError):  # it ended just now
            self._end_calls.remove(has_ended.release)
        return self.done()

    def _when_ended(self, call: Callable[[], object]) -> None:
        """Have something called once, at the end, or now where that has come."""
        self._end_calls.append(call)
        if self.done():
            try:
                self._end_calls.remove(call)
            except ValueError:  # whoever settled the job has called it
                return
            call()

    def _refuse_to_wait_if_inherited(self) -> None:
        if self.is_inherited and not self.done():
            raise RuntimeError(
                f"This process was forked from the one whose handle this is, and does not learn how {self.id} ends. "
                f"Find the job again here: JobStore({str(self.folder.path.parent)!r}).open({self.id!r})."
            )

    def _load(self) -> tuple[Any, BaseException | None]:
        """Read the result file once, on first use; name the end where there is none to read."""
        if self._loaded is None:
            outcome = self.outcome
            assert outcome is not None, "only an ended job is loaded"  # noqa: S101 -- callers have waited
            self._loaded = value_and_error(self.folder, outcome, self._control.reopen)
        return self._loaded

    def _dispatched(self, attempt: int) -> None:
        """Note that an attempt was handed to an engine."""
        self._attempt = attempt
        self._phase = JobState.RUNNING
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
            complete_future(self, partial(self.set_result, None))  # type: ignore[arg-type]  # result() reads the file
        else:  # a stand-in: exception() reads the file
            complete_future(self, partial(self.set_exception, JobError(state.words, job=self.id)))
        with contextlib.suppress(IndexError):  # none is left
            while True:
                self._end_calls.pop(0)()
        self._changed()

    def _end_is_unwritten(self, outcome: Outcome) -> None:
        """Note that the end could not be written, and why."""
        self._outcome = outcome

    def _read_outcome(self) -> Outcome:
        ended = self.folder.turns().ended
        unknown = Outcome(state=self._phase, at=self.submitted, reason="Its folder says no more.")
        return ended if ended is not None and ended.state is self._phase else unknown

    def _changed(self) -> None:
        for call in tuple(self._on_change):
            self._call_back(call)

    def _call_back(self, call: Callable[[Job[Any]], object]) -> None:
        try:
            call(self)
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise  # it interrupts whoever has added the callback to a job that had ended
            _logger.exception("exception calling callback for %r", self)
