"""Scheduler: the queue before an engine's slots, and retries.

States of a job here: *queued* (in ``_queue`` and ``_waiting``), *running* (in ``_running``, one of the engine's slots
is taken), *settled* (in neither; its handle has the outcome). A retry goes from running back to queued.

Threads: the scheduler has none of its own. ``submit`` and ``cancel`` run in the caller's thread, ``_ended`` in
whichever thread the engine completes its futures; both end by handing queued jobs to free slots. ``_lock`` guards the
queue and the counts and is never held while an engine, a file or a user's callback is called. A handle is moved (by
``_dispatched`` and ``_settle``) without the lock, but only by whoever took the job out of its place under it, so each
is called once.

Only the scheduler cancels jobs in its engine. It closes the engine once it was shut down and the last job has ended, in
a thread of its own, since the last job ends in one of the engine's threads; where a script exits and no thread can
start, the thread that waits closes it. When an interactive session exits, it closes the engine at once, with its jobs.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import sys
import threading
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jobcontainer.engines import Growing, StartsInBackground
from jobcontainer.events import JobState, Outcome
from jobcontainer.storage.ending import cancelled_before_start, lost, may_be_retried, write_end
from jobcontainer.storage.journal import Journal, JournalEntry
from jobcontainer.worker.cpython_internals import call_at_exit
from jobcontainer.worker.forked_child import BoundToProcess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from jobcontainer.engines import Engine
    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.submission import Submission, Submitter

_ENDS_AT_ONCE = 200  # cancelled jobs whose ends go into the journal in one write

_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def schedulers_here() -> list[Scheduler]:
    """Return the schedulers that this process made, not those of a parent that it was forked from."""
    return [scheduler for scheduler in list(_schedulers) if not scheduler.is_inherited]


@dataclass(slots=True, order=True)
class _Entry:
    """A job that is queued or running: sorted by priority, then by age."""

    priority: int
    number: int
    job: Job[Any] = field(compare=False)
    submission: Submission = field(compare=False)
    attempt: int = field(default=1, compare=False)
    cancelled: bool = field(default=False, compare=False)


class Scheduler(BoundToProcess):
    """Hands queued jobs to an engine's free slots, oldest first among those of the highest priority."""

    def __init__(self, engine: Engine, submitter: Submitter) -> None:
        super().__init__()
        self.engine = engine
        self.submitter = submitter
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: list[_Entry] = []
        self._waiting: dict[str, _Entry] = {}
        self._journal = Journal(submitter.store)
        self._running: dict[str, _Entry] = {}
        self._numbers = itertools.count()
        self.is_shut = False
        self._closing: threading.Thread | None = None
        _schedulers.add(self)
        if isinstance(engine, Growing):
            engine.on_growth(self._dispatch)
        if isinstance(engine, StartsInBackground):
            engine.warm_up()

    @property
    def has_waiting(self) -> bool:
        """Whether a job is queued."""
        return bool(self._waiting)

    def submit(self, jobs: Sequence[Job[Any]], submissions: Sequence[Submission]) -> None:
        """Queue jobs whose folders are ready.

        Raises:
            RuntimeError: the scheduler was shut down.
        """
        self.refuse_if_shut()
        entries = [
            _Entry(-submission.options.priority, next(self._numbers), job, submission)
            for job, submission in zip(jobs, submissions, strict=True)
        ]
        owner = self.submitter.owner
        self._journal.add_submitted([JournalEntry(job.folder, job.name, job.submitted, owner) for job in jobs])
        with self._lock:
            self.refuse_if_shut()
            for entry in entries:
                self._push(entry)
        self._dispatch()
        if isinstance(self.engine, StartsInBackground):
            self.engine.wait_until_started()

    def cancel(self, jobs: Sequence[Job[Any]]) -> bool:
        """End jobs, queued or running: all of them leave the queue before the end of the first one frees a slot.

        Returns:
            Whether any of them was queued or running here.
        """
        if self.is_inherited:
            return False
        with self._lock:
            queued = [entry for job in jobs if (entry := self._waiting.pop(job.id, None)) is not None]
            running = [entry for job in jobs if (entry := self._running.get(job.id)) is not None]
            for entry in running:
                entry.cancelled = True
        for entry in running:
            self.engine.cancel(entry.job.id)
        for start in range(0, len(queued), _ENDS_AT_ONCE):
            self._settle_unstarted(*queued[start : start + _ENDS_AT_ONCE])
        self._close_if_done()
        return bool(queued or running)

    def shutdown(self, *, wait: bool = True, cancel_queued: bool = False) -> None:
        """Take no more jobs, and close the engine when the last has ended.

        Args:
            wait: whether to return only then.
            cancel_queued: whether the jobs that have not started are cancelled.
        """
        if self.is_inherited:
            return
        with self._lock:
            self.is_shut = True
        if cancel_queued:
            self.cancel(self.waiting())
        self._close_if_done()
        if wait:
            with self._idle:
                self._idle.wait_for(lambda: self._closing is not None)
            if (closing := self._closing) is None or closing.ident is None:
                self.engine.close()
            elif closing is not threading.current_thread():
                closing.join()

    def end(self) -> None:
        """Cancel every job and close the engine at once."""
        if self.is_inherited:
            return
        with self._lock:
            self.is_shut = True
        self.cancel(self.unfinished())
        self.engine.close()
        self.shutdown()

    def unfinished(self) -> list[Job[Any]]:
        """Return the jobs that are queued or running here."""
        with self._lock:
            return [entry.job for entry in (*self._running.values(), *self._waiting.values())]

    def waiting(self) -> list[Job[Any]]:
        """Return the jobs that are queued here."""
        with self._lock:
            return [entry.job for entry in self._waiting.values()]

    def position(self, job: Job[Any]) -> int | None:
        """Return how many queued jobs start before this one; None where it is not queued."""
        with self._lock:
            entry = self._waiting.get(job.id)
            return None if entry is None else sum(other < entry for other in self._waiting.values())

    def refuse_if_shut(self) -> None:
        """Raise if the scheduler takes no jobs.

        Raises:
            RuntimeError: it was shut down, or this process was forked from the one that made it.
        """
        self.refuse_if_inherited()
        if self.is_shut:
            raise RuntimeError("cannot submit after shutdown: make a new JobPool.")

    def _push(self, entry: _Entry) -> None:
        self._waiting[entry.job.id] = entry
        heapq.heappush(self._queue, entry)

    def _dispatch(self) -> None:
        """Hand queued jobs to free slots."""
        while (entry := self._next()) is not None:
            if entry.submission.folder.is_asked_to_cancel():  # by another process
                with self._lock:
                    del self._running[entry.job.id]
                self._settle_unstarted(entry)
            else:
                self._start(entry)
        self._close_if_done()

    def _next(self) -> _Entry | None:
        """Take the next job out of the queue, if a slot is free for it."""
        with self._lock:
            while self._queue and len(self._running) < self.engine.slots:
                entry = heapq.heappop(self._queue)
                if self._waiting.pop(entry.job.id, None) is not None:  # else it was cancelled while it waited
                    self._running[entry.job.id] = entry
                    return entry
        return None

    def _start(self, entry: _Entry) -> None:
        entry.job._dispatched(entry.attempt)
        submission = entry.submission
        try:
            future = self.engine.submit(
                submission.folder,
                submission.options,
                submission.environment,
                attempt=entry.attempt,
                identity=submission.identity,
            )
        except BaseException as error:
            with self._lock:
                del self._running[entry.job.id]
            reason = f"Its engine did not take it: {error!r}. Submit it again."
            outcome = write_end(submission.folder, lost(submission.folder, reason, entry.attempt))
            self._settle([(entry.job, outcome)])
            raise
        call_at_exit(_finish_at_exit)
        if entry.cancelled:  # between the queue and the engine, where neither could find it
            self.engine.cancel(entry.job.id)
        future.add_done_callback(lambda done: self._ended(entry, done))

    def _ended(self, entry: _Entry, future: Future[Outcome]) -> None:
        outcome = future.result()
        retry = may_be_retried(outcome, entry.submission.options.retries)
        if retry and entry.cancelled:  # it ended by itself just then; a watcher must not wait for another attempt
            retry, outcome = False, write_end(entry.job.folder, replace(outcome, state=JobState.CANCELLED))
        with self._lock:
            del self._running[entry.job.id]
            if retry:
                entry.attempt += 1
                self._push(entry)
        if retry:
            entry.job._requeued()
        else:
            self._settle([(entry.job, outcome)])
        self._dispatch()

    def _settle_unstarted(self, *entries: _Entry) -> None:
        """End jobs that were cancelled while they waited, as no engine knows of them."""
        ends = []
        for entry in entries:
            begun = entry.attempt if entry.attempt > 1 else 0
            ends.append((entry.job, write_end(entry.job.folder, cancelled_before_start(begun))))
        self._settle(ends)

    def _settle(self, ends: list[tuple[Job[Any], Outcome]]) -> None:
        self._journal.add_ended((job.folder, outcome.state) for job, outcome in ends)
        for job, outcome in ends:
            job._settle(outcome)

    def _close_if_done(self) -> None:
        with self._lock:
            if not self.is_shut or self._waiting or self._running or self._closing is not None:
                return
            self._closing = threading.Thread(target=self.engine.close, name="jobcontainer-close")
            with contextlib.suppress(RuntimeError):  # at exit, from Python 3.12 on, no thread starts: who waits closes
                self._closing.start()
            self._idle.notify_all()


def _finish_at_exit() -> None:
    """Wait for the jobs of a script, as the standard library's executors do; end those of an interactive session."""
    interactive = hasattr(sys, "ps1")  # set by the plain prompt and by IPython, in a terminal or a kernel
    for scheduler in schedulers_here():
        try:
            scheduler.end() if interactive else scheduler.shutdown()
        except KeyboardInterrupt:
            scheduler.end()
            raise
