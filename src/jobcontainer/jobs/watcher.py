"""Watching what other processes write: the ends of the jobs that they run, and their requests to cancel ours.

One daemon thread for each store looks at both a few times a second. It starts with the first job that another process
runs, or that waits in a queue of this one, and ends with the last. It holds the handles of other processes' jobs weakly
and is the only one that moves them. It owns no process and kills none. It writes into a folder only when the job's
owner is gone and has left no end, and cancels a queued job through the queue that holds it.

Each job is looked at by itself: what can't be read of one at the moment, because too many files are open, say, is
looked at again, and keeps no other waiting.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import CorruptFileError
from jobcontainer.events import JobState, Outcome, Started
from jobcontainer.jobs.dependents import inputs_of
from jobcontainer.storage.ending import lost, may_be_retried, write_end
from jobcontainer.storage.inputs import folder_now
from jobcontainer.storage.owner import is_alive
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.storage.turns import TurnReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.scheduler import Scheduler

_LOOK_SECONDS = 0.1
_REQUESTS_SECONDS = 1.0  # for so long after the last request queues are looked at, as more may come at once
_PAUSE = 4  # times as long as a look took, so that ten thousand jobs never take a whole CPU
_DELETED = "Its folder was deleted."
_OWNER_GONE = "The kernel or script that ran it is gone; job.rerun() runs it again."
_HAS_SAVED = "The kernel or script that ran it is gone; job.rerun(resume=True) goes on from its last checkpoint."
_OWNER_UNKNOWN = "Its job.json was written over, so that nobody knows who runs it, and its events tell no end."

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    """What is known of another process's job; its events are read on only when their file has changed."""

    owner: dict[str, Any]  # empty where it is not known
    turns: TurnReader
    stamp: str | None = field(default=None, init=False)
    is_reported: bool = field(default=False, init=False)  # whether an error of a look at it was logged
    inputs: list[TurnReader] | None = field(default=None, init=False)  # of a waiting job: those not seen to succeed

    def has_its_inputs(self, job: Job[Any]) -> bool:
        """Return whether all jobs that a waiting one needs have succeeded; each is read until it has."""
        if self.inputs is None:
            self.inputs = [TurnReader(folder_now(one, job.folder).events_file) for one in inputs_of(job)]
        while self.inputs:
            last = self.inputs[-1].look()
            if not (isinstance(last, Outcome) and last.state is JobState.SUCCEEDED):
                return False
            self.inputs.pop()
        return True


class Watcher:
    """Moves the handles of other processes' jobs, and cancels queued jobs for other processes."""

    def __init__(self, store: StoreFolder) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._jobs: weakref.WeakKeyDictionary[Job[Any], _Watched] = weakref.WeakKeyDictionary()
        self._queues: set[Scheduler] = set()
        self._asked = 0
        self._look_until = 0.0
        self._thread: threading.Thread | None = None

    def forget(self) -> None:
        """Watch nothing, in a forked child: the thread did not come along, nor did the jobs of the queues."""
        self._lock = threading.Lock()
        self._jobs.clear()
        self._queues.clear()
        self._thread = None

    def add_jobs(self, jobs: Iterable[tuple[Job[Any], dict[str, Any]]]) -> None:
        """Bring new handles, each with its job's owner, up to date, and watch those that have not ended."""
        found = {job: _Watched(owner, TurnReader(job.folder.events_file)) for job, owner in jobs}
        self._look_at(found)
        if pending := {job: watched for job, watched in found.items() if not job.done()}:
            with self._lock:
                self._jobs.update(pending)
                self._start()

    def add_queue(self, queue: Scheduler) -> None:
        """Look for requests to cancel the jobs of a queue for as long as it has any."""
        with self._lock:
            if queue not in self._queues:
                self._queues.add(queue)
                self._look_until = time.monotonic() + _REQUESTS_SECONDS
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="jobcontainer-watch", daemon=True)
            with contextlib.suppress(RuntimeError):  # the interpreter exits, where no thread starts any more
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            self._look_at(self._unfinished())
            try:
                self._look_at_queues()
            except Exception:  # noqa: BLE001 -- a queue that can't cancel must not cost the jobs their ends
                _log.exception("Requests to cancel jobs could not be looked at; they are again.")
            with self._lock:
                if all(job.done() for job in self._jobs) and not self._queues:
                    self._thread = None
                    return
            time.sleep(max(_LOOK_SECONDS, _PAUSE * (time.monotonic() - begun)))

    def _unfinished(self) -> dict[Job[Any], _Watched]:
        """Return what is watched and has not ended, and forget the rest."""
        with self._lock:
            for job in [job for job in self._jobs if job.done()]:
                del self._jobs[job]
            return dict(self._jobs.items())

    def _look_at(self, jobs: dict[Job[Any], _Watched]) -> None:
        alive: dict[str, bool] = {}  # asked once for all jobs of an owner
        for job, watched in jobs.items():
            owner = repr(watched.owner)
            try:
                if owner not in alive:
                    alive[owner] = is_alive(watched.owner)
                self._look(job, watched, alive=alive[owner])
            except Exception as error:  # noqa: BLE001 -- one job must not cost the others their ends
                watched.stamp = None  # it is looked at again
                if not (isinstance(error, OSError) or watched.is_reported):
                    watched.is_reported = True
                    _log.exception("The job %s could not be looked at; the others are.", job.id)

    @staticmethod
    def _look(job: Job[Any], watched: _Watched, *, alive: bool) -> None:
        """Bring a handle up to date. Its owner was looked at first: what a dead one wrote is all there."""
        stamp = job.folder.events_stamp()
        if stamp != watched.stamp:
            watched.turns.look()
            watched.stamp = stamp
        last = watched.turns.last
        deleted = stamp is None and job.folder.record_stamp() is None
        if isinstance(last, Outcome) and not (alive and may_be_retried(last, _retries(job))):
            job._settle(last)
        elif deleted or not alive:
            attempt = last.attempt if isinstance(last, Started) else 0
            gone = _HAS_SAVED if os.path.lexists(job.folder.checkpoint_file) else _OWNER_GONE
            reason = _DELETED if deleted else gone if watched.owner else _OWNER_UNKNOWN
            outcome = lost(job.folder, reason, attempt)
            # Of a job that is nobody's, or in a store of another user, the end is not written: who runs it may do so.
            is_own = bool(watched.owner) and StoreFolder(job.folder.path.parent).is_own()
            job._settle(write_end(job.folder, outcome) if is_own else outcome)
        elif isinstance(last, Started) and last.attempt > job._attempt:
            job._dispatched(last.attempt)
        elif last is None and job.state is JobState.WAITING and watched.has_its_inputs(job):
            job._requeued()

    def _look_at_queues(self) -> None:
        """Cancel the queued jobs whose end was asked for; their folders are looked at only after a request."""
        with contextlib.suppress(OSError):
            asked = self._store.cancel_file.stat().st_mtime_ns
            if asked != self._asked:
                self._asked, self._look_until = asked, time.monotonic() + _REQUESTS_SECONDS
        with self._lock:
            waiting = {queue: jobs for queue in self._queues if (jobs := queue.waiting())}
            self._queues = set(waiting)
        if time.monotonic() < self._look_until:
            for queue, jobs in waiting.items():
                if wanted := [job for job in jobs if job.folder.is_asked_to_cancel()]:
                    queue.cancel(wanted)


def _retries(job: Job[Any]) -> int:
    """Return how often a job may be tried again; never where its record was overwritten."""
    try:
        return int(job.record.options["retries"])
    except (OSError, CorruptFileError, ValueError, TypeError, KeyError):
        return 0
