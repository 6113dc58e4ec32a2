"""Watching what other processes write: the ends of the jobs that they run, and their requests to cancel ours.

One daemon thread for each store looks at both a few times a second. It starts with the first job that another process
runs, or that waits in a queue of this one, and ends with the last. It holds the handles of other processes' jobs weakly
and is the only one that moves them. It owns no process and kills none. It writes into a folder only when the job's
owner is gone and has left no end, and cancels a queued job through the queue that holds it.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobcontainer.events import Outcome, Started
from jobcontainer.storage.ending import lost, may_be_retried, write_end
from jobcontainer.storage.folder import StoreFolder
from jobcontainer.storage.record import is_alive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.scheduler import Scheduler

_LOOK_SECONDS = 0.1
_REQUESTS_SECONDS = 1.0  # for so long after the last request queues are looked at, as more may come at once
_PAUSE = 4  # times as long as a look took, so that ten thousand jobs never take a whole CPU
_DELETED = "Its folder was deleted."
_OWNER_GONE = "The kernel or script that ran it is gone; job.rerun() runs it again."


@dataclass(slots=True)
class _Watched:
    """What is known of another process's job; its events are read again only when their file has changed."""

    owner: dict[str, Any]
    stamp: str | None = None
    last: Started | Outcome | None = None


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
        found = {job: _Watched(owner) for job, owner in jobs}
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
            self._look_at(dict(self._jobs.items()))
            for job in [job for job in list(self._jobs) if job.done()]:
                self._jobs.pop(job, None)
            self._look_at_queues()
            with self._lock:
                if not self._jobs and not self._queues:
                    self._thread = None
                    return
            time.sleep(max(_LOOK_SECONDS, _PAUSE * (time.monotonic() - begun)))

    def _look_at(self, jobs: dict[Job[Any], _Watched]) -> None:
        alive: dict[str, bool] = {}  # asked once for all jobs of an owner
        for job, watched in jobs.items():
            owner = repr(watched.owner)
            if owner not in alive:
                alive[owner] = is_alive(watched.owner)
            self._look(job, watched, alive=alive[owner])

    @staticmethod
    def _look(job: Job[Any], watched: _Watched, *, alive: bool) -> None:
        """Bring a handle up to date. Its owner was looked at first: what a dead one wrote is all there."""
        stamp = job.folder.events_stamp()
        if stamp != watched.stamp:
            watched.stamp, watched.last = stamp, job.folder.last_turn()
        last = watched.last
        deleted = stamp is None and job.folder.record_stamp() is None
        if isinstance(last, Outcome) and not (alive and may_be_retried(last, _retries(job))):
            job._settle(last)
        elif deleted or not alive:
            attempt = last.attempt if isinstance(last, Started) else 0
            end = lost(job.folder, _DELETED if deleted else _OWNER_GONE, attempt)
            is_own = StoreFolder(job.folder.path.parent).is_own()  # else it is not for this user to write
            job._settle(write_end(job.folder, end) if is_own else end)
        elif isinstance(last, Started) and last.attempt > job._attempt:
            job._dispatched(last.attempt)

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
    except (OSError, ValueError, TypeError, KeyError):
        return 0
