"""Scheduler: the queue before an engine's slots, retries, and what of it is written down.

States of a job here: *queued* (in ``_queue`` and ``_waiting``), *running* (in ``_running``, one of the engine's slots
is taken), *settled* (in neither; its handle has the outcome). A retry goes from running back to queued.

Threads: there is none of its own. ``submit`` and ``cancel`` run in the caller's thread, ``_ended`` in whichever thread
the engine completes its futures; both end by handing queued jobs to free slots. ``_lock`` guards the queue and the
counts and is never held while an engine, a file or a user's callback is called, with one exception: a handle's
``_dispatched`` and ``_settle`` are called outside of the lock, but only by whoever took the job out of its place under
it, so each is called once.

Who may end what: only the scheduler cancels jobs in its engine. It closes the engine once it was shut down and the last
job has ended (in a thread of its own, since the last job ends in one of the engine's; in the thread that waits, where
a script exits and no thread can start), or at once, jobs and all, when an interactive session exits.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from jobcontainer.engines import Growing, StartsInBackground
from jobcontainer.events import RETRIED, JobState, Outcome
from jobcontainer.jobs import at_exit
from jobcontainer.jobs.job import Job
from jobcontainer.storage.jsonl import append_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    from jobcontainer.engines import Engine
    from jobcontainer.jobs.submission import Submission, Submitter

R = TypeVar("R")

_TOLD_TOGETHER = 200  # cancelled jobs whose ends go into the journal at once


@dataclass(slots=True, order=True)
class _Entry:
    """A job on its way: sorted by priority, then by age."""

    priority: int
    number: int
    job: Job[Any] = field(compare=False)
    submission: Submission = field(compare=False)
    attempt: int = field(default=1, compare=False)
    cancelled: bool = field(default=False, compare=False)


class Scheduler:
    """Hands queued jobs to an engine's free slots, oldest first among those of the highest priority.

    Args:
        engine: where jobs run; the scheduler owns it from here on, and closes it.
        submitter: writes the job folders.
    """

    def __init__(self, engine: Engine, submitter: Submitter) -> None:
        """Start with an empty queue."""
        self.engine = engine
        self.submitter = submitter
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: list[_Entry] = []
        self._waiting: dict[str, _Entry] = {}
        self._running: dict[str, _Entry] = {}
        self._numbers = itertools.count()
        self._shut = False
        self._closing: threading.Thread | None = None
        at_exit.add(self)
        if isinstance(engine, Growing):
            engine.on_growth(self._dispatch)

    @property
    def idle(self) -> bool:
        """Whether no job is queued or running."""
        with self._lock:
            return not self._waiting and not self._running

    def submit(self, submissions: Iterable[Submission]) -> list[Job[Any]]:
        """Queue jobs whose folders are ready.

        Raises:
            RuntimeError: the scheduler was shut down.
        """
        self.refuse_if_shut()
        entries = [self._entry(submission) for submission in submissions]
        jobs = [entry.job for entry in entries]
        owner = self.submitter.owner
        self._journal("submitted", jobs, lambda job: {"name": job.name, "submitted": job.submitted, "owner": owner})
        with self._lock:
            self.refuse_if_shut()
            for entry in entries:
                self._push(entry)
        self._dispatch()
        if isinstance(self.engine, StartsInBackground):
            self.engine.wait_until_started()
        return jobs

    def cancel(self, job: Job[Any]) -> bool:
        """End a job, queued or running; see :meth:`jobcontainer.Job.cancel`."""
        with self._lock:
            queued = self._waiting.pop(job.id, None)
            running = self._running.get(job.id)
            if running is not None:
                running.cancelled = True
        if queued is not None:
            self._settle_unstarted(queued)
            return True
        if running is not None:
            self.engine.cancel(job.id)
            return True
        return job.cancelled()

    def cancel_all(self, jobs: Sequence[Job[Any]]) -> None:
        """End several jobs: all of them leave the queue before the end of the first one frees a slot."""
        with self._lock:
            queued = [entry for job in jobs if (entry := self._waiting.pop(job.id, None)) is not None]
            running = [entry for job in jobs if (entry := self._running.get(job.id)) is not None]
            for entry in running:
                entry.cancelled = True
        for entry in running:
            self.engine.cancel(entry.job.id)
        for start in range(0, len(queued), _TOLD_TOGETHER):
            self._settle_unstarted(*queued[start : start + _TOLD_TOGETHER])
        self._close_if_done()

    def rerun(self, job: Job[R]) -> Job[R]:
        """Run a job's process file again, as a new job with the same options."""
        if self._shut:
            from jobcontainer.jobs.pool import shared_pool  # noqa: PLC0415 -- pools are made of schedulers

            return shared_pool(self.submitter.store.path).rerun(job)
        return self.submit([self.submitter.of_job(job.folder)])[0]

    def shutdown(self, *, wait: bool = True, cancel_queued: bool = False) -> None:
        """Take no more jobs, and close the engine when the last has ended.

        Args:
            wait: whether to return only then.
            cancel_queued: whether the jobs that have not started are cancelled.
        """
        with self._lock:
            self._shut = True
            waiting = [entry.job for entry in self._waiting.values()]
        if cancel_queued:
            self.cancel_all(waiting)
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
        with self._lock:
            self._shut = True
        self.cancel_all(self.unfinished())
        self.engine.close()
        self.shutdown()

    def unfinished(self) -> list[Job[Any]]:
        """Return the jobs that are queued or running here."""
        with self._lock:
            return [entry.job for entry in (*self._running.values(), *self._waiting.values())]

    def position(self, job: Job[Any]) -> int | None:
        """Tell how many queued jobs start before this one; None where it is not queued."""
        with self._lock:
            entry = self._waiting.get(job.id)
            return None if entry is None else sum(other < entry for other in self._waiting.values())

    def refuse_if_shut(self) -> None:
        """Raise if the scheduler takes no more jobs.

        Raises:
            RuntimeError: it was shut down.
        """
        if self._shut:
            raise RuntimeError("cannot submit after shutdown: make a new JobPool.")

    def _entry(self, submission: Submission) -> _Entry:
        job: Job[Any] = Job(submission.folder, name=submission.name, submitted=submission.submitted, control=self)
        return _Entry(-submission.options.priority, next(self._numbers), job, submission)

    def _push(self, entry: _Entry) -> None:
        self._waiting[entry.job.id] = entry
        heapq.heappush(self._queue, entry)

    def _dispatch(self) -> None:
        """Hand queued jobs to free slots."""
        while (entry := self._next()) is not None:
            if entry.attempt == 1 and entry.submission.folder.is_asked_to_cancel():  # asked for by another process
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
        future = self.engine.submit(
            submission.folder, submission.options, submission.environment, attempt=entry.attempt
        )
        at_exit.finish_at_exit()
        if entry.cancelled:  # between the queue and the engine, where neither could find it
            self.engine.cancel(entry.job.id)
        future.add_done_callback(lambda done: self._ended(entry, done))

    def _ended(self, entry: _Entry, future: Future[Outcome]) -> None:
        outcome = future.result()
        retry = outcome.state in RETRIED and entry.attempt <= entry.submission.options.retries
        if retry and entry.cancelled:  # it ended by itself just then; a watcher must not wait for another attempt
            retry, outcome = False, replace(outcome, state=JobState.CANCELLED)
            entry.job.folder.append_event(outcome)
        with self._lock:
            del self._running[entry.job.id]
            if retry:
                entry.attempt += 1
                self._push(entry)
        if retry:
            entry.job._requeued()
        else:
            self._settle([entry.job], outcome)
        self._dispatch()

    def _settle_unstarted(self, *entries: _Entry) -> None:
        """Tell the end of jobs that were cancelled before they started, as no engine knows of them."""
        outcome = Outcome(state=JobState.CANCELLED, at=time.time(), reason="It had not started.", attempt=0)
        for entry in entries:
            with contextlib.suppress(OSError):  # the folder was removed
                entry.job.folder.append_event(outcome)
        self._settle([entry.job for entry in entries], outcome)

    def _settle(self, jobs: list[Job[Any]], outcome: Outcome) -> None:
        self._journal("ended", jobs, lambda _: {"state": outcome.state, "ended": outcome.at})
        for job in jobs:
            job._settle(outcome)

    def _journal(self, event: str, jobs: list[Job[Any]], facts: Callable[[Job[Any]], dict[str, Any]]) -> None:
        lines = ({"event": event, "id": job.id} | facts(job) for job in jobs)
        append_lines(self.submitter.store.journal_file, lines)

    def _close_if_done(self) -> None:
        with self._lock:
            if not self._shut or self._waiting or self._running or self._closing is not None:
                return
            self._closing = threading.Thread(target=self.engine.close, name="jobcontainer-close")
            with contextlib.suppress(RuntimeError):  # at exit, from Python 3.12 on, no thread starts: who waits closes
                self._closing.start()
            self._idle.notify_all()
