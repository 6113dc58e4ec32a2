"""What the host of detached jobs does: take them, run them, cancel them.

Threads: the main thread answers requests, one at a time, each a line of JSON both ways. The scheduler's callbacks run
in the engine's threads. The host owns a scheduler with a loky engine, and so its keepers, which die with it; jobs that
were running then are told as lost by whoever looks next, as the host is their owner.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.jobs.scheduler import Scheduler
from jobcontainer.jobs.submission import Submission, Submitter
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.owner import this_process

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from jobcontainer.storage.folder import StoreFolder

IDLE_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_REQUEST_SECONDS = 10.0


class Host:
    """Runs the detached jobs of one store.

    Args:
        store: the store.
    """

    def __init__(self, store: StoreFolder) -> None:
        """Start with no job; workers start with the first."""
        self._store = store
        self._taken: set[str] = set()
        self._scheduler = Scheduler(LokyEngine(), Submitter(store))

    def serve(self, listener: socket.socket, can_be_reached: Callable[[], bool]) -> None:
        """Answer requests until there has been nothing to do for a while, or nobody can come any more.

        Args:
            listener: the store's socket.
            can_be_reached: whether the store is still there, and the socket in it.
        """
        listener.settimeout(_LOOK_SECONDS)
        until = time.monotonic() + IDLE_SECONDS
        while can_be_reached():
            if not self._scheduler.idle:
                until = time.monotonic() + IDLE_SECONDS
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if time.monotonic() > until:
                    return
                continue
            until = time.monotonic() + IDLE_SECONDS
            with connection, contextlib.suppress(OSError, ValueError):  # a client that went away, or speaks nonsense
                connection.settimeout(_REQUEST_SECONDS)
                request = json.loads(connection.makefile("rb").readline())
                connection.sendall(json.dumps(self.answer(request)).encode() + b"\n")

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one request asks.

        Args:
            request: ``{"do": "hello"}``, ``{"do": "submit", "jobs": [...], "environment": {...}}`` or
                ``{"do": "cancel", "jobs": [...]}``.

        Returns:
            The owner of what is submitted here; or that the jobs were taken; or which of the jobs were here to cancel.
        """
        match request["do"]:
            case "hello":
                return {"owner": this_process()}
            case "submit":
                return self._take(request["jobs"], Environment(**request["environment"]))
            case "cancel":
                wanted = set(request["jobs"])
                here = [job for job in self._scheduler.unfinished() if job.id in wanted]
                self._scheduler.cancel_all(here)
                return {"cancelled": [job.id for job in here]}
        return {}

    def end(self) -> None:
        """End every process of the host."""
        self._scheduler.end()

    def _take(self, job_ids: list[str], environment: Environment) -> dict[str, Any]:
        """Queue jobs; a request that comes twice, its answer having been lost, is one."""
        folders = [self._store.job(job_id) for job_id in job_ids if job_id not in self._taken]
        records = [folder.read_record() for folder in folders]
        if any(record.owner != this_process() for record in records):
            return {"refused": "the jobs were written for an earlier host, which is gone; submit them again."}
        self._taken.update(job_ids)
        self._scheduler.submit(
            Submission(folder, record.name, record.submitted, JobOptions(**record.options), environment)
            for folder, record in zip(folders, records, strict=True)
        )
        return {"taken": True}
