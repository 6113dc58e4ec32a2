"""Watching jobs that another process runs: their handles end here when their folders say so.

One daemon thread per process, started with the first foreign job and ended with the last, looks at each watched folder
a few times a second. It holds the handles weakly, so a handle that nobody waits for is not watched for long. It alone
moves these handles. It owns no process and kills none; it writes into a folder only when the job's owner is gone and
nobody else can tell that the job is lost.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from jobcontainer.events import RETRIED, JobState, Outcome, Started
from jobcontainer.storage.jsonl import append_lines
from jobcontainer.storage.owner import is_alive

if TYPE_CHECKING:
    from pathlib import Path

    from jobcontainer.jobs.job import Job

_LOOK_SECONDS = 0.1


class Watch:
    """Moves the handles of foreign jobs.

    Args:
        journal: the journal of their store, which is told of lost ones.
    """

    def __init__(self, journal: Path) -> None:
        """Watch nothing yet."""
        self._journal = journal
        self._lock = threading.Lock()
        self._jobs: weakref.WeakKeyDictionary[Job[Any], dict[str, Any]] = weakref.WeakKeyDictionary()
        self._thread: threading.Thread | None = None

    def add(self, job: Job[Any], owner: dict[str, Any]) -> None:
        """Bring a handle up to date, and watch it from here on if it has not ended.

        Args:
            job: a handle that was just made.
            owner: who runs the job.
        """
        if self._look(job, owner):
            return
        with self._lock:
            self._jobs[job] = owner
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobcontainer-watch", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._look_at_all()
            with self._lock:
                if not self._jobs:
                    self._thread = None
                    return
            time.sleep(_LOOK_SECONDS)

    def _look_at_all(self) -> None:
        for job, owner in list(self._jobs.items()):
            if self._look(job, owner):
                self._jobs.pop(job, None)

    def _look(self, job: Job[Any], owner: dict[str, Any]) -> bool:
        """Bring a handle up to date; tell whether it has ended."""
        alive = is_alive(owner)  # asked first: what a dead owner wrote is all there then
        last = job.folder.last_turn()
        if isinstance(last, Outcome) and (not alive or not self._may_be_retried(job, last)):
            job._settle(last)
        elif not alive:
            job._settle(self._lost(job, last))
        elif isinstance(last, Started) and last.attempt > job._attempt:
            job._dispatched(last.attempt)
        return job.done()

    def _lost(self, job: Job[Any], last: Started | Outcome | None) -> Outcome:
        reason = "The kernel or script that ran it is gone; job.rerun() runs it again."
        attempt = last.attempt if isinstance(last, Started) else 0
        outcome = Outcome(state=JobState.LOST, at=time.time(), reason=reason, attempt=attempt)
        job.folder.append_event(outcome)
        append_lines(self._journal, [{"event": "ended", "id": job.id, "state": outcome.state, "ended": outcome.at}])
        return outcome

    @staticmethod
    def _may_be_retried(job: Job[Any], outcome: Outcome) -> bool:
        return outcome.state in RETRIED and outcome.attempt <= job.record.options["retries"]
