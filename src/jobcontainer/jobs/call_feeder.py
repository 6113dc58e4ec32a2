"""Chunks of calls: who submits them, and what becomes of the calls of one whose process died.

States of a call: *pending*, in no chunk yet; *in a chunk*, whose job is queued or runs; *over*. A chunk whose process
died is over up to the call that it died in; the calls behind that one become a new chunk, in its place.

Threads: a :class:`Feeder` makes the chunks and submits them. It has no thread of its own: what happens to it (a chunk
has ended, more calls come, the end is wanted) is put into its inbox, and whoever finds nobody else at work works the
inbox off, in a thread that ends with that. So its state needs no lock, and the main thread, in which interrupts are
raised, never holds one. A scheduler that was shut down takes the chunks of a feeder that had calls left, and no others.
It owns no process; only :meth:`Feeder.stop` cancels jobs, those that are queued.
"""

from __future__ import annotations

import _thread
import os
import time
from collections import deque
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.engines import RunsInCaller
from jobcontainer.errors import CorruptFileError, SerializationError
from jobcontainer.events import RETRIED, JobState
from jobcontainer.jobs.chunk_sizes import ChunkSizes
from jobcontainer.jobs.submission import Repeated
from jobcontainer.process import ChunkOptions
from jobcontainer.storage.call_results import CallReader, present_call_began
from jobcontainer.worker.cpython_internals import in_background

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobcontainer.jobs.control import SchedulerControl
    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.submission import Submission
    from jobcontainer.process import JobOptions

_MOST_UNLOADED: Final = 4  # calls that could not even be loaded, before the function itself is taken to be the reason


@dataclass(eq=False)
class Chunk:
    """Some calls, one after another, and what became of them."""

    rows: list[Any]
    start: int = 0  # how many calls of the map come before the first of these
    tries: int = 0  # of its first call
    job: Job[Any] | None = None
    read: int = 0  # results that whoever reads them has taken from its job's file
    made: int = 0  # calls whose results its job has written
    raised: int = 0  # those of them that are what a call raised
    failed: int = 0  # calls behind those that have no result but ``error``
    error: BaseException | None = None
    rest: Sequence[Chunk] = ()  # in which the calls behind those are made
    settled_at: float = 0.0  # in seconds since the epoch
    is_settled: bool = False
    _settling: Any = field(default_factory=_thread.allocate_lock)

    def __post_init__(self) -> None:
        """Count the calls; nobody waits in vain, as who settles the chunk releases the lock."""
        self.size = len(self.rows)
        self._settling.acquire()

    def settle(
        self,
        made: int = 0,
        error: BaseException | None = None,
        failed: int = 0,
        rest: Sequence[Chunk] = (),
        raised: int = 0,
    ) -> None:
        """Note what became of the calls."""
        self.made, self.error, self.failed, self.rest, self.raised = made, error, failed, rest, raised
        self.rows = []
        self.settled_at = time.time()
        self.is_settled = True
        self._settling.release()

    def wait(self, timeout: float) -> None:
        """Wait until it is settled, so many seconds at the most."""
        if self._settling.acquire(timeout=timeout):
            self._settling.release()


@dataclass(frozen=True)
class Wishes:
    """What ``map`` was asked for besides the calls.

    Raises:
        ValueError: a size is no whole number from 1 up.
    """

    timeout: float | None
    chunksize: int | None
    buffersize: int | None

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        for name, size in (("chunksize", self.chunksize), ("buffersize", self.buffersize)):
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise ValueError(f"{name}={size!r}: it takes a whole number from 1 up, or None.")


class Target:
    """Where chunks go: the scheduler of a pool."""

    def __init__(self, control: SchedulerControl) -> None:
        self._control, self._scheduler = control, control.scheduler
        self.in_caller = isinstance(self._scheduler.engine, RunsInCaller)

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        return max(1, self._scheduler.engine.slots)

    def repeated(self, function: Callable[..., Any], arguments: int, options: JobOptions) -> Repeated:
        """Return what writes the folders of chunks of calls of a function."""
        return Repeated(self._control.submitter, function, arguments, options)

    def submit(self, feeder: Feeder, submission: Submission) -> Job[Any]:
        """Queue the job of a folder; one that had calls left is not refused after a shutdown."""
        return self._control.submit([submission], feeder)[0]

    def hold(self, feeder: Feeder) -> None:
        """Keep the scheduler open for a feeder that has calls left."""
        self._scheduler.hold(feeder)

    def release(self, feeder: Feeder) -> None:
        """Keep it open no longer."""
        self._scheduler.release(feeder)


class Feeder:
    """Makes chunks of calls and submits them.

    Attributes:
        name: of the function.
        jobs: the jobs of all chunks so far.
        chunks: those that begin where the one before ends, in order; None when there will be no more.
        every_chunk: all so far, also those of the calls behind one that died; each is there before the one is settled.
        begun: when it was made, in seconds since the epoch.
        known: how many calls it has been given so far.
        is_complete: whether it has been given the last of them.
        is_over: whether each call is in a chunk, and there will be no others but for those of calls behind one that
            died.
        failure: why calls can't be submitted any more.
    """

    def __init__(
        self,
        repeated: Repeated,
        options: JobOptions,
        target: Target,
        rows: Sequence[Any],
        wishes: Wishes,
    ) -> None:
        self._repeated, self._options, self._target = repeated, options, target
        self._pending, self._taken = deque(rows), 0
        self.known = len(rows)
        self.is_complete = wishes.buffersize is None or len(rows) < wishes.buffersize
        self._again: deque[Chunk] = deque()
        self._open: set[Chunk] = set()
        self._has_loaded, self._unloaded = False, 0
        self._not_loaded: BaseException | None = None  # why the function can't be
        self._is_stopped = self._is_held = self.is_over = False
        self._maker = os.getpid()
        self._inbox: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._inbox.put(lambda: None)  # there are calls
        self._turn = _thread.allocate_lock()
        self.name, self.begun = repeated.name, time.time()
        self.jobs: list[Job[Any]] = []
        self.every_chunk: list[Chunk] = []
        self.chunks: SimpleQueue[Chunk | None] = SimpleQueue()
        self.failure: BaseException | None = None
        self._sizes = ChunkSizes(len(rows), target.slots, wishes.chunksize, wishes.buffersize)

    # --- from any thread --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Cancel the calls that have not begun."""
        self._tell(self._stop)

    def add(self, rows: Sequence[Any], *, is_complete: bool) -> None:
        """Take more calls; ``is_complete`` where they are the last."""
        self._tell(partial(self._add, rows, is_complete=is_complete))

    def work(self) -> None:
        """Work the inbox off, unless somebody is at it, who will see what is in it."""
        while not self._inbox.empty():
            if not self._turn.acquire(blocking=False):
                return
            try:
                self._work()
            finally:
                self._turn.release()

    def _tell(self, message: Callable[[], object]) -> None:
        if os.getpid() != self._maker:  # a forked child lets go of its copy of the results; the calls are not its own
            return
        self._inbox.put(message)
        if self._target.in_caller or not in_background(self.work):
            self.work()

    # --- in one thread at a time ------------------------------------------------------------------------------------

    def _work(self) -> None:
        with suppress(Empty):
            while True:
                self._inbox.get_nowait()()
        try:
            self._hold_scheduler()
            while self._has_calls() and len(self._open) < self._sizes.in_flight * self._target.slots:
                chunk = self._again.popleft() if self._again else self._next_chunk()
                self._submit(chunk)
        except BaseException as error:  # noqa: BLE001 -- whoever reads the results gets it
            self.failure = self.failure or error
            self._stop()
        if self.is_complete and not self._pending and not self.is_over:
            self.is_over = True
            self.chunks.put(None)
        if self.is_over and not self._again and not self._open:
            self._repeated.close()
        if self._is_held and not self._has_calls() and not self._open:
            self._is_held = False
            self._target.release(self)

    def _hold_scheduler(self) -> None:
        if not self._is_held and self._has_calls():
            self._target.hold(self)
            self._is_held = True

    def _has_calls(self) -> bool:
        return bool(self._again or self._pending)

    def _add(self, rows: Sequence[Any], *, is_complete: bool) -> None:
        if not self._is_stopped:
            self._pending.extend(rows)
            self.known += len(rows)
            self.is_complete = is_complete

    def _stop(self) -> None:
        self._is_stopped = self.is_complete = True
        if self._pending:
            dropped = self._chunk_of(len(self._pending))
            self._again.append(dropped)
        while self._again:
            chunk = self._again.popleft()
            chunk.settle(error=self.failure or CancelledError("The call was cancelled."), failed=chunk.size)
        jobs = [chunk.job for chunk in self._open if chunk.job is not None]
        for job in jobs:
            with suppress(OSError):  # it was deleted
                job.folder.ask_for_no_more_calls()
        for job in jobs:
            if job.state is JobState.QUEUED:
                job.cancel()

    def _next_chunk(self) -> Chunk:
        pending = len(self._pending)
        return self._chunk_of(min(self._sizes.next(pending, self._target.slots), pending))

    def _chunk_of(self, size: int) -> Chunk:
        """Make a chunk of the next calls."""
        chunk = Chunk([self._pending.popleft() for _ in range(size)], self._taken)
        self._taken += size
        self.every_chunk.append(chunk)
        self.chunks.put(chunk)
        return chunk

    def _make_again(self, chunks: Sequence[Chunk]) -> None:
        self.every_chunk += chunks
        self._again.extendleft(reversed(chunks))

    def _submit(self, chunk: Chunk) -> None:
        """Write the job of a chunk and queue it; one that can't be pickled is halved, down to the call that can't."""
        if self._not_loaded is not None:
            chunk.settle(error=self._not_loaded, failed=chunk.size)
            return
        options = ChunkOptions(**self._options.updated(retries=0).to_json(), calls=chunk.size)
        try:
            submission = self._repeated.submission(self._columns(chunk), options)
        except SerializationError as error:
            self._settle_unloaded(chunk, error)
            return
        except BaseException:
            self._again.appendleft(chunk)
            raise
        try:
            job = self._target.submit(self, submission)
        except BaseException:
            self._again.appendleft(chunk)
            raise
        self._open.add(chunk)
        self.jobs.append(job)
        chunk.job = job
        job.add_done_callback(lambda _: self._tell(partial(self._ended, chunk, job)))

    def _columns(self, chunk: Chunk) -> Sequence[Sequence[Any]]:
        return (chunk.rows,) if self._repeated.arguments == 1 else tuple(map(list, zip(*chunk.rows, strict=True)))

    def _ended(self, chunk: Chunk, job: Job[Any]) -> None:
        self._open.discard(chunk)
        reader = CallReader(job.folder)
        if job.state is JobState.SUCCEEDED:
            timing = job.result()
            self._has_loaded = True
            cost = max(0.0, job.usage.wall - timing.all)
            self._sizes.learn(timing.calls, timing.first, timing.all, cost)
            lacking = CancelledError("The call was cancelled.") if self._is_stopped else lost_result(job)
            chunk.settle(timing.calls, lacking, chunk.size - timing.calls, raised=timing.failures)
            return
        try:
            error = job.exception()
        except CancelledError as cancelled:
            error = cancelled
        made = reader.skip()
        if self._is_stopped or job.state is JobState.CANCELLED:
            chunk.settle(made, error, chunk.size - made, raised=reader.failures)
        elif not reader.has_begun() and job.state is not JobState.LOST:
            self._settle_unloaded(chunk, error)
        else:
            self._has_loaded = True
            self._settle_died(chunk, job, reader, error)

    def _settle_died(self, chunk: Chunk, job: Job[Any], reader: CallReader, error: BaseException | None) -> None:
        """Have the calls behind the one that the process died in made by another process, and that one, if it may."""
        made = reader.count
        # Where a call has caught its interrupt, the next has not begun. Of one call, a job may say so wrongly once.
        is_between = made > 0 and job.state is JobState.TIMED_OUT and present_call_began(job.folder) is None
        failed = int(made < chunk.size and not is_between)
        tries, rest, outcome = (0 if made else chunk.tries) + 1, [], job.outcome
        if failed and tries <= self._options.retries and outcome is not None and outcome.state in RETRIED:
            failed = 0
            rest.append(Chunk(chunk.rows[made : made + 1], chunk.start + made, tries))
            made_or_failed = made + 1
        else:
            made_or_failed = made + failed
        if chunk.rows[made_or_failed:]:
            rest.append(Chunk(chunk.rows[made_or_failed:], chunk.start + made_or_failed))
        self._make_again(rest)
        chunk.settle(made, error, failed, rest, reader.failures)

    def _settle_unloaded(self, chunk: Chunk, error: BaseException | None) -> None:
        """Halve a chunk that could not be written, or not be loaded, to find the call that is the reason.

        Where no call can be loaded, the function can't: it is not tried for each of a million calls.
        """
        if chunk.size > 1 and self._not_loaded is None:
            middle = chunk.size // 2
            rest = [Chunk(chunk.rows[:middle], chunk.start), Chunk(chunk.rows[middle:], chunk.start + middle)]
            self._make_again(rest)
            chunk.settle(rest=rest)
        else:
            self._unloaded += 1
            if self._unloaded >= _MOST_UNLOADED and not self._has_loaded:
                self._not_loaded = error
            chunk.settle(error=error, failed=chunk.size)


def lost_result(job: Job[Any]) -> CorruptFileError:
    """Return the error of a call that was made, and whose result is not there."""
    return CorruptFileError(
        f"The result of a call is lost: {job.folder.calls_file} was deleted or written over, by the job itself or by "
        "somebody else. Make the call again."
    )
