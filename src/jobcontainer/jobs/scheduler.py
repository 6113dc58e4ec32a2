"""Scheduler: the queue before an engine's slots, jobs that wait for others, and retries.

**Who owns a job.** Until its ``job.json`` is written, whoever submits it does, and a submission that is cut off leaves
no job. From then on the scheduler does, and it alone moves the job, in threads in which no interrupt is raised: each
public call hands its work to one (:func:`~jobcontainer.worker.interrupts.uninterrupted`), and the ends of jobs come in
the engine's. So the main thread never holds ``_lock``, and no job is ever between two places.

States of a job here: *waiting* for inputs and *queued* for a slot (both in ``_queue``), *running* (in ``_running``, one
of the engine's slots is taken), *settled* (in neither; its handle has the outcome). A retry goes from running back to
queued. The end of an input comes in the thread that moves that job's handle, of this scheduler or not: the last success
queues a waiting job, the first other end settles it (:mod:`jobcontainer.jobs.prerequisites`).

**What can't be written stops nothing.** A handle is settled from memory first; its end is written after, and what can't
be written is tried again later (:mod:`jobcontainer.jobs.late_ends`). Only a submission fails where it can't be written.

Threads: the scheduler has none of its own. ``_lock`` guards the queue and the counts and is never held while an engine,
a file or a user's callback is called. A handle is moved (by ``_dispatched`` and ``_settle``) without the lock, but only
by whoever took the job out of its place under it, so each is called once.

Only the scheduler cancels jobs in its engine. It closes the engine once it was shut down and the last job has ended, in
a thread of its own, since the last job ends in one of the engine's threads; where a script exits and no thread can
start, the thread that waits closes it. When an interactive session exits, it closes the engine at once, with its jobs.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import weakref
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from jobcontainer.engines import Growing, RunsInCaller, StartsInBackground
from jobcontainer.events import JobState
from jobcontainer.jobs import late_ends
from jobcontainer.jobs.job_queue import Entry, JobQueue
from jobcontainer.jobs.prerequisites import Prerequisites, afterwards, in_turn
from jobcontainer.jobs.submission import discard, without_record, write_records
from jobcontainer.storage.ending import lost, may_be_retried, upstream_failed, write_end
from jobcontainer.storage.journal import Journal
from jobcontainer.worker.cpython_internals import call_at_exit, in_background
from jobcontainer.worker.forked_child import BoundToProcess
from jobcontainer.worker.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from jobcontainer.engines import Engine
    from jobcontainer.events import Outcome
    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.job_queue import Feeder
    from jobcontainer.jobs.submission import Submission, Submitter

_ENDS_AT_ONCE = 200  # cancelled jobs whose ends go into the journal in one write
_POLL_SECONDS = 0.02

_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def schedulers_here() -> list[Scheduler]:
    """Return the schedulers that this process made, not those of a parent that it was forked from."""
    return [scheduler for scheduler in list(_schedulers) if not scheduler.is_inherited]


class Scheduler(BoundToProcess):
    """Hands queued jobs to an engine's free slots, oldest first among those of the highest priority.

    Attributes:
        engine: runs the jobs, and is closed by this.
        submitter: writes their folders.
        is_shut: whether it takes no more jobs.
        on_waiting: called whenever jobs wait for a slot.
    """

    def __init__(self, engine: Engine, submitter: Submitter) -> None:
        super().__init__()
        self.engine = engine
        self.submitter = submitter
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue = JobQueue()
        self._journal = Journal(submitter.store)
        self._running: dict[str, Entry] = {}
        self._feeders: set[Feeder] = set()
        self.is_shut = False
        self._closing: threading.Thread | None = None
        self.on_waiting: Callable[[], object] | None = None
        _schedulers.add(self)
        if isinstance(engine, Growing):
            engine.on_growth(self._dispatch)
        if isinstance(engine, StartsInBackground):
            uninterrupted(engine.warm_up)

    def hold(self, feeder: Feeder) -> None:
        """Stay open for one who has more jobs to submit, until :meth:`release`.

        Raises:
            RuntimeError: the scheduler was shut down.
        """
        with self._lock:
            self.refuse_if_shut()
            self._feeders.add(feeder)

    def release(self, feeder: Feeder) -> None:
        """Stay open no longer for one who has no more jobs."""
        with self._lock:
            self._feeders.discard(feeder)
        self._close_if_done()

    def submit(
        self,
        jobs: Sequence[Job[Any]],
        submissions: Sequence[Submission],
        feeder: Feeder | None = None,
        inputs: Mapping[str, Sequence[Job[Any]]] | None = None,
    ) -> None:
        """Write and queue jobs, all of them or none. One that is cut off by an interrupt leaves none, or cancels them.

        Args:
            jobs: the handles.
            submissions: their folders.
            inputs: by the ids of jobs that wait for others, the handles of these.
            feeder: who submits them, where the scheduler was held open for that.

        Raises:
            RuntimeError: the scheduler was shut down, or its engine does not take jobs.
            OSError: they could not be written; their folders are removed.
        """
        self._refuse_if_shut_for(feeder)
        needed = inputs or {}
        entries = [Entry.of(job, one, needed.get(job.id, ())) for job, one in zip(jobs, submissions, strict=True)]
        waiting = [entry.job for entry in entries if entry.waits_elsewhere]
        try:
            uninterrupted(partial(self._submit, entries, feeder))
            self._run_here(waiting)
        except BaseException:
            for entry in entries:
                entry.cancelled = True
            in_background(partial(self._cancel, jobs))  # those that are queued; the others will see that they are
            raise

    def cancel(self, jobs: Sequence[Job[Any]]) -> bool:
        """End jobs, queued or running: all of them leave the queue before the end of the first one frees a slot.

        Returns:
            Whether any of them was queued or running here.
        """
        return not self.is_inherited and uninterrupted(partial(self._cancel, jobs))

    def _submit(self, entries: Sequence[Entry], feeder: Feeder | None) -> None:
        """Write the records of jobs, from which on they are this scheduler's, and queue them."""
        submissions = [entry.submission for entry in entries]
        write_records(submissions)
        try:
            with self._lock:
                self._refuse_if_shut_for(feeder)
                for entry in entries:
                    self._queue.block(entry) if entry.inputs else self._queue.push(entry)
        except RuntimeError:
            discard(submissions)
            raise
        self._journal.add_submitted([entry.listed(self.submitter.owner) for entry in entries])
        if any(entry.cancelled for entry in entries):  # whoever submitted them was interrupted
            self._cancel([entry.job for entry in entries])
        for entry in entries:
            entry.submission = without_record(entry.submission)
            if entry.inputs:
                call_at_exit(_finish_at_exit)
                Prerequisites(entry.inputs, partial(self._inputs_ended, entry))
        self._dispatch()
        if any(entry.cancelled for entry in entries):  # and what was dispatched may be of another call by now
            self._run_here()
        if isinstance(self.engine, StartsInBackground):
            self.engine.wait_until_started()
        for entry in entries:
            if entry.refusal is not None:
                raise entry.refusal

    def _inputs_ended(self, entry: Entry, failed: Job[Any] | None) -> None:
        """Queue a job whose inputs have all succeeded, or end it because of one that has not."""
        with self._lock:
            if not self._queue.unblock(entry):
                return  # it was cancelled
            entry.inputs = ()
            if failed is None:
                entry.job._phase = JobState.QUEUED
                self._queue.push(entry)
        if failed is None:
            entry.job._changed()
        elif entry.submission.folder.is_asked_to_cancel():
            self._settle_unstarted(entry)
        else:
            self._settle([(entry.job, upstream_failed(failed.folder, failed.outcome))], are_written=False)
        afterwards(self._dispatch)

    def _cancel(self, jobs: Sequence[Job[Any]]) -> bool:
        with self._lock:
            queued = [entry for job in jobs if (entry := self._queue.remove(job.id)) is not None]
            running = [entry for job in jobs if (entry := self._running.get(job.id)) is not None]
            for entry in running:
                entry.cancelled = True
        for entry in running:
            self.engine.cancel(entry.job.id)
        for start in range(0, len(queued), _ENDS_AT_ONCE):
            self._settle_unstarted(*queued[start : start + _ENDS_AT_ONCE])
        self._run_here()
        self._close_if_done()
        return bool(queued or running)

    def _run_here(self, waiting: Sequence[Job[Any]] = ()) -> None:
        """Run the jobs that the engine runs in this thread: whoever may have made a slot free does, or nobody would.

        Those of them that wait for jobs of others are waited for; not one that is queued while the slot is taken.
        """
        if isinstance(self.engine, RunsInCaller):
            self.engine.run_submitted()
            while any(not job.done() and (job.state is not JobState.QUEUED or not self._running) for job in waiting):
                time.sleep(_POLL_SECONDS)
                uninterrupted(self._dispatch)
                self.engine.run_submitted()

    def shutdown(self, *, wait: bool = True, cancel_queued: bool = False) -> None:
        """Take no more jobs, and close the engine when the last has ended.

        Args:
            wait: whether to return only then.
            cancel_queued: whether the jobs that have not started are cancelled.
        """
        if not self.is_inherited:
            uninterrupted(partial(self._shutdown, wait=wait, cancel_queued=cancel_queued))

    def end(self) -> None:
        """Cancel every job and close the engine at once."""
        if not self.is_inherited:
            uninterrupted(self._end)

    def unfinished(self) -> list[Job[Any]]:
        """Return the jobs that are waiting, queued or running here."""
        return uninterrupted(lambda: [entry.job for entry in self._entries()])

    def waiting(self) -> list[Job[Any]]:
        """Return the jobs that have not started here: they are queued, or wait for others."""
        return [entry.job for entry in self._queue.entries()]

    def position(self, job: Job[Any]) -> int | None:
        """Return how many queued jobs start before this one; None where it is not queued."""
        return self._queue.position(job.id)

    def refuse_if_shut(self) -> None:
        """Raise if the scheduler takes no jobs.

        Raises:
            RuntimeError: it was shut down, or this process was forked from the one that made it.
        """
        self.refuse_if_inherited()
        if self.is_shut:
            raise RuntimeError("cannot submit after shutdown: make a new JobPool.")

    def _refuse_if_shut_for(self, feeder: Feeder | None) -> None:
        if feeder not in self._feeders:
            self.refuse_if_shut()

    def _stop_feeders(self) -> None:
        for feeder in list(self._feeders):
            feeder.stop()

    def _entries(self) -> list[Entry]:
        with self._lock:
            return [*self._running.values(), *self._queue.entries()]

    def _shutdown(self, *, wait: bool, cancel_queued: bool) -> None:
        with self._lock:
            self.is_shut = True
        if cancel_queued:
            self._stop_feeders()
            self._cancel(self.waiting())
        self._close_if_done()
        if wait:
            with self._idle:
                self._idle.wait_for(lambda: self._closing is not None)
            if (closing := self._closing) is None or closing.ident is None:
                self.engine.close()
            elif closing is not threading.current_thread():
                closing.join()
            late_ends.write()

    def _end(self) -> None:
        with self._lock:
            self.is_shut = True
        self._stop_feeders()
        self._cancel([entry.job for entry in self._entries()])
        self.engine.close()
        self._shutdown(wait=True, cancel_queued=False)

    def _dispatch(self) -> None:
        """Hand queued jobs to free slots."""
        while (entry := self._next()) is not None:
            if entry.cancelled or entry.submission.folder.is_asked_to_cancel():  # the latter by another process
                with self._lock:
                    del self._running[entry.job.id]
                self._settle_unstarted(entry)
            else:
                self._start(entry)
        if self._queue and self.on_waiting is not None:
            self.on_waiting()
        self._close_if_done()

    def _next(self) -> Entry | None:
        """Take the next job out of the queue, if a slot is free for it."""
        with self._lock:
            entry = self._queue.pop() if len(self._running) < self.engine.slots else None
            if entry is not None:
                self._running[entry.job.id] = entry
            return entry

    def _start(self, entry: Entry) -> None:
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
        except BaseException as error:  # noqa: BLE001 -- whatever it raises, the job ends and the next is started
            entry.refusal = error
            with self._lock:
                del self._running[entry.job.id]
            reason = f"Its engine did not take it: {error!r}. Submit it again."
            self._settle([(entry.job, lost(submission.folder, reason, entry.attempt))], are_written=False)
            return
        call_at_exit(_finish_at_exit)
        if entry.cancelled:  # between the queue and the engine, where neither could find it
            self.engine.cancel(entry.job.id)
        future.add_done_callback(lambda done: self._ended(entry, done))

    def _ended(self, entry: Entry, future: Future[Outcome]) -> None:
        outcome = entry.outcome_of(future)
        retry = may_be_retried(outcome, entry.submission.options.retries)
        are_written = True
        if retry and entry.cancelled:  # it ended by itself just then; a watcher must not wait for another attempt
            retry, outcome, are_written = False, replace(outcome, state=JobState.CANCELLED), False
        with self._lock:
            del self._running[entry.job.id]
            if retry:
                entry.attempt += 1
                self._queue.push(entry)
        if retry:
            entry.job._requeued()
        else:
            self._settle([(entry.job, outcome)], are_written=are_written)
        self._dispatch()

    def _settle_unstarted(self, *entries: Entry) -> None:
        """End jobs that were cancelled while they waited, as no engine knows of them."""
        self._settle([(entry.job, entry.cancelled_unstarted()) for entry in entries], are_written=False)

    def _settle(self, ends: list[tuple[Job[Any], Outcome]], *, are_written: bool) -> None:
        """Settle handles, from memory; then write what is not written yet, now or later."""
        with in_turn():
            for job, outcome in ends:
                job._settle(outcome)
            afterwards(partial(self._write, ends, are_written=are_written))

    def _write(self, ends: list[tuple[Job[Any], Outcome]], *, are_written: bool) -> None:
        """Write ends that are not written yet, and the journal."""
        if not are_written:
            ends = [(job, write_end(job.folder, outcome)) for job, outcome in ends]
        for job, outcome in ends:
            if outcome.unwritten:
                job._end_is_unwritten(outcome)
                late_ends.add(job.folder, outcome)
        self._journal.add_ended((job.folder, outcome.state) for job, outcome in ends if not outcome.unwritten)

    def _close_if_done(self) -> None:
        with self._lock:
            if not self.is_shut or self._queue or self._running or self._feeders or self._closing is not None:
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
