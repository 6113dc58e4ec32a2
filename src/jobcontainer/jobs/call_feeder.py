"""Chunks of calls: how large they are, who submits them, and what becomes of the calls of one whose process died.

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
import math
import os
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
from jobcontainer.jobs.detached.client import DetachedJobs
from jobcontainer.jobs.submission import Repeated
from jobcontainer.process import ChunkOptions
from jobcontainer.storage.call_results import CallReader, present_call_began
from jobcontainer.worker.cpython_internals import in_background

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobcontainer.jobs.control import SchedulerControl
    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.scheduler import Scheduler
    from jobcontainer.jobs.submission import Submission
    from jobcontainer.process import JobOptions

_SECONDS: Final = 0.2  # that a chunk is to take, at the least
_MOST_SECONDS: Final = 1.0  # while many calls are left
_FIRST: Final = 200  # calls of a first chunk, at the most
_FIRST_OF_UNKNOWN: Final = 20
_GROWTH: Final = 50  # times as many calls as in the last chunk, at the most
_PER_WORKER: Final = 4  # first chunks
_IN_FLIGHT: Final = 2  # chunks for each slot: one runs, and one waits
_LEAST_SHARE: Final = 5  # of a whole chunk is worth a process, though others would end sooner with less
_MOST_UNLOADED: Final = 4  # calls that could not even be loaded, before the function itself is taken to be the reason


@dataclass(eq=False)
class Chunk:
    """Some calls, one after another, and what became of them."""

    rows: list[Any]
    tries: int = 0  # of its first call
    job: Job[Any] | None = None
    read: int = 0  # results that whoever reads them has taken from its job's file
    made: int = 0  # calls whose results its job has written
    failed: int = 0  # calls behind those that have no result but ``error``
    error: BaseException | None = None
    rest: Sequence[Chunk] = ()  # in which the calls behind those are made
    is_settled: bool = False
    _settling: Any = field(default_factory=_thread.allocate_lock)

    def __post_init__(self) -> None:
        """Count the calls; nobody waits in vain, as who settles the chunk releases the lock."""
        self.size = len(self.rows)
        self._settling.acquire()

    def settle(
        self, made: int = 0, error: BaseException | None = None, failed: int = 0, rest: Sequence[Chunk] = ()
    ) -> None:
        """Note what became of the calls."""
        self.made, self.error, self.failed, self.rest = made, error, failed, rest
        self.rows = []
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
    """Where chunks go: to a scheduler of this process, or to the host of detached jobs."""

    def __init__(self, sender: SchedulerControl | DetachedJobs, scheduler: Scheduler) -> None:
        self._sender, self._scheduler = sender, scheduler
        self.in_caller = isinstance(scheduler.engine, RunsInCaller)

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        return max(1, self._scheduler.engine.slots)

    def repeated(self, function: Callable[..., Any], arguments: int, options: JobOptions) -> Repeated:
        """Return what writes the folders of chunks of calls of a function."""
        return Repeated(self._sender.submitter, function, arguments, options)

    def submit(self, feeder: Feeder, submission: Submission) -> Job[Any]:
        """Queue the job of a folder; one that had calls left is not refused after a shutdown."""
        if isinstance(self._sender, DetachedJobs):
            return self._sender.submit([submission])[0]
        return self._sender.submit([submission], feeder)[0]

    def hold(self, feeder: Feeder) -> None:
        """Keep the scheduler open for a feeder that has calls left."""
        if not isinstance(self._sender, DetachedJobs):
            self._scheduler.hold(feeder)

    def release(self, feeder: Feeder) -> None:
        """Keep it open no longer."""
        self._scheduler.release(feeder)


class Feeder:
    """Makes chunks of calls and submits them.

    Attributes:
        jobs: the jobs of all chunks so far.
        chunks: those that begin where the one before ends, in order; None when there will be no more.
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
        self._chunksize, self._buffersize = wishes.chunksize, wishes.buffersize
        self._pending = deque(rows)
        self._is_complete = self._buffersize is None or len(rows) < self._buffersize
        self._again: deque[Chunk] = deque()
        self._open: set[Chunk] = set()
        self._has_loaded, self._unloaded = False, 0
        self._not_loaded: BaseException | None = None  # why the function can't be
        self._is_stopped = self._is_held = self._is_over = False
        self._maker = os.getpid()
        self._inbox: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._inbox.put(lambda: None)  # there are calls
        self._turn = _thread.allocate_lock()
        self.jobs: list[Job[Any]] = []
        self.chunks: SimpleQueue[Chunk | None] = SimpleQueue()
        self.failure: BaseException | None = None
        self._size = self._longest = self._first_size()  # calls of the next chunks: as a rule, and at the most

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
            while self._has_calls() and len(self._open) < _IN_FLIGHT * self._target.slots:
                chunk = self._again.popleft() if self._again else self._next_chunk()
                self._submit(chunk)
        except BaseException as error:  # noqa: BLE001 -- whoever reads the results gets it
            self.failure = self.failure or error
            self._stop()
        if self._is_complete and not self._pending and not self._is_over:
            self._is_over = True
            self.chunks.put(None)
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
            self._is_complete = is_complete

    def _stop(self) -> None:
        self._is_stopped = self._is_complete = True
        if self._pending:
            dropped = Chunk(list(self._pending))
            self._pending.clear()
            self.chunks.put(dropped)
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
        chunk = Chunk([self._pending.popleft() for _ in range(min(self._next_size(), len(self._pending)))])
        self.chunks.put(chunk)
        return chunk

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
            made, first, seconds = job.result()
            self._has_loaded = True
            self._learn(made, first, seconds)
            lacking = CancelledError("The call was cancelled.") if self._is_stopped else lost_result(job)
            chunk.settle(made, lacking, chunk.size - made)
            return
        try:
            error = job.exception()
        except CancelledError as cancelled:
            error = cancelled
        made = reader.skip()
        if self._is_stopped or job.state is JobState.CANCELLED:
            chunk.settle(made, error, chunk.size - made)
        elif not reader.has_begun() and job.state is not JobState.LOST:
            self._settle_unloaded(chunk, error)
        else:
            self._has_loaded = True
            self._settle_died(chunk, job, made, error)

    def _settle_died(self, chunk: Chunk, job: Job[Any], made: int, error: BaseException | None) -> None:
        """Have the calls behind the one that the process died in made by another process, and that one, if it may."""
        # Where a call has caught its interrupt, the next has not begun. Of one call, a job may say so wrongly once.
        is_between = made > 0 and job.state is JobState.TIMED_OUT and present_call_began(job.folder) is None
        failed = int(made < chunk.size and not is_between)
        tries, rest, outcome = (0 if made else chunk.tries) + 1, [], job.outcome
        if failed and tries <= self._options.retries and outcome is not None and outcome.state in RETRIED:
            failed = 0
            rest.append(Chunk(chunk.rows[made : made + 1], tries))
            made_or_failed = made + 1
        else:
            made_or_failed = made + failed
        if chunk.rows[made_or_failed:]:
            rest.append(Chunk(chunk.rows[made_or_failed:]))
        self._again.extendleft(reversed(rest))
        chunk.settle(made, error, failed, rest)

    def _settle_unloaded(self, chunk: Chunk, error: BaseException | None) -> None:
        """Halve a chunk that could not be written, or not be loaded, to find the call that is the reason.

        Where no call can be loaded, the function can't: it is not tried for each of a million calls.
        """
        if chunk.size > 1 and self._not_loaded is None:
            middle = chunk.size // 2
            rest = [Chunk(chunk.rows[:middle]), Chunk(chunk.rows[middle:])]
            self._again.extendleft(reversed(rest))
            chunk.settle(rest=rest)
        else:
            self._unloaded += 1
            if self._unloaded >= _MOST_UNLOADED and not self._has_loaded:
                self._not_loaded = error
            chunk.settle(error=error, failed=chunk.size)

    def _first_size(self) -> int:
        slots = self._target.slots
        if self._buffersize is not None:
            return min(_FIRST_OF_UNKNOWN, -(-self._buffersize // (_IN_FLIGHT * slots)))
        return max(1, min(_FIRST, -(-len(self._pending) // (_PER_WORKER * slots))))

    def _next_size(self) -> int:
        """Choose a slot's share of what is left: each chunk has a process to pay for, and the last should be short."""
        if self._chunksize is not None:
            return self._chunksize
        share = (len(self._pending) if self._buffersize is None else self._buffersize / _IN_FLIGHT) / self._target.slots
        wanted = max(self._size, min(self._longest, int(share)))
        return max(1, min(wanted, max(math.ceil(share), self._size // _LEAST_SHARE)))

    def _learn(self, made: int, first: float, seconds: float) -> None:
        """Choose the size of the next chunks by the time of a call; the first of a process may load what it needs."""
        if made:
            call = max((seconds - first) / (made - 1) if made > 1 else seconds, 1e-9)
            most = _GROWTH * made
            wanted = max(1, min(int(_SECONDS / call), most))
            self._size = wanted if wanted < self._size or wanted < most else max(self._size, wanted)
            self._longest = max(self._size, min(int(_MOST_SECONDS / call), most))


def lost_result(job: Job[Any]) -> CorruptFileError:
    """Return the error of a call that was made, and whose result is not there."""
    return CorruptFileError(
        f"The result of a call is lost: {job.folder.calls_file} was deleted or written over, by the job itself or by "
        "somebody else. Make the call again."
    )
