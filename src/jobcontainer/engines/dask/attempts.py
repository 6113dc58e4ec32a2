"""Attempts: runs each attempt of a job on a worker, from the wait for a free slot to the outcome in its folder.

It runs in the engine's event loop, a coroutine for each attempt, and knows neither Dask nor threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from jobcontainer.engines.attempt import Attempt
from jobcontainer.engines.dask import worker_side
from jobcontainer.engines.dask.transfer import Transfer
from jobcontainer.engines.dask.worker_side import JobTask
from jobcontainer.errors import JobFileError
from jobcontainer.events import JobState, Outcome
from jobcontainer.jobfile.serializer import packages_of
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.owner import host_name

if TYPE_CHECKING:
    from jobcontainer.engines.dask.cluster import Cluster, Worker


_END_SECONDS = 1.0  # beyond a job's grace, in which it ends with its worker
_POLL_SECONDS = 0.05
_CANCEL_FILE_SECONDS = 0.5  # between two looks for the cancel file of a job whose worker can't see it


@dataclass(eq=False)
class ClusterAttempt(Attempt):
    """An attempt on a cluster."""

    key: str = ""  # of its Dask task; empty while it has none
    worker: Worker | None = None  # where the task is
    running: asyncio.Future[Outcome | str] | None = None  # completes with the task


class Attempts:
    """Runs attempts on the workers of a cluster, whose keepers preload some modules."""

    def __init__(self, cluster: Cluster, preload: tuple[str, ...] | None) -> None:
        self._cluster, self._preload = cluster, preload
        self._host = host_name()
        # For each host, a lock for each content, so that two attempts do not both send it there.
        self._sending: defaultdict[str, defaultdict[str, asyncio.Lock]] = defaultdict(lambda: defaultdict(asyncio.Lock))

    async def run(self, attempt: ClusterAttempt) -> Outcome:
        """Run an attempt to its end; whatever happens, there is an outcome, and the job's folder has it."""
        try:
            attempt.folder.remove_result()  # of an earlier attempt
            worker = await self._cluster.acquire(attempt.order.options["memory"], lambda: attempt.cancelled)
            if worker is None and not attempt.cancelled:
                return attempt.end_lost("The Dask scheduler is gone: connect again, and make a new JobPool.")
            if worker is None:
                return attempt.end_unstarted()
            try:
                return await self._run_on(worker, attempt)
            finally:
                await self._cluster.release(worker)
        except MemoryError as error:
            reason = f"It can't start: {error} Ask for less."
            outcome = Outcome(state=JobState.OUT_OF_MEMORY, at=time.time(), reason=reason, attempt=attempt.number)
            return write_end(attempt.folder, outcome)
        except asyncio.CancelledError:
            return attempt.end_lost("Its pool was closed before the cluster reported how it ended.")
        except Exception as error:  # noqa: BLE001 -- every job gets an outcome
            return attempt.end_lost(f"Its files or its outcome could not be transferred: {error!r}. Submit it again.")

    async def cancel(self, attempt: ClusterAttempt) -> None:
        """Cancel an attempt, wherever it is."""
        attempt.cancelled = True
        await self._cluster.wake()
        worker, running = attempt.worker, attempt.running
        if worker is not None and running is not None:
            with contextlib.suppress(OSError):  # the worker is gone, and the job with it
                if await self._cluster.call(worker.address, worker_side.cancel, attempt.key):
                    running.cancel()  # it never begins

    async def _run_on(self, worker: Worker, attempt: ClusterAttempt) -> Outcome:
        """Run an attempt on a worker; if that has no access to the job's folder, with a copy of it."""
        store = str(attempt.folder.path.parent)
        if worker.host != self._host or store in worker.inaccessible:
            with contextlib.suppress(JobFileError, FileNotFoundError):  # the job will report it
                await self._cluster.compare(worker, packages_of(attempt.folder.process_file))
        if store not in worker.inaccessible:
            result = await self._execute(worker, attempt)
            if isinstance(result, Outcome):
                return result
            if result != worker_side.NO_ACCESS:
                return await self._end(worker, attempt, result)
            worker.inaccessible.add(store)
        transfer = Transfer(attempt.folder, partial(self._cluster.call, worker.address), self._sending[worker.host])
        await transfer.send()
        following = asyncio.gather(transfer.follow(), transfer.follow_checkpoints(), return_exceptions=True)
        try:
            result = await self._execute(worker, attempt, is_remote=True)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        if isinstance(result, Outcome):
            return await transfer.finish(result)
        if not worker.is_gone:
            await transfer.discard()
        return await self._end(worker, attempt, result)

    async def _execute(self, worker: Worker, attempt: ClusterAttempt, *, is_remote: bool = False) -> Outcome | str:
        """Run the Dask task of an attempt, and return the outcome, or why there is none."""
        if attempt.cancelled:
            return worker_side.CANCELLED
        attempt.key = f"{worker_side.KEY_PREFIX}{attempt.folder.id}-{attempt.number}-{secrets.token_hex(4)}"
        task = JobTask(attempt.key, worker.instance, self._host, worker.slots, self._preload, is_remote, attempt.order)
        running = asyncio.ensure_future(self._cluster.run(worker.address, task))
        attempt.worker, attempt.running = worker, running
        worker.tasks.add(running)
        try:
            while not running.done():
                await asyncio.wait([running], timeout=_CANCEL_FILE_SECONDS if is_remote else None)
                if not running.done() and not attempt.cancelled and attempt.folder.is_asked_to_cancel():
                    await self.cancel(attempt)
        finally:
            running.cancel()
            worker.tasks.discard(running)
        if not running.cancelled() and running.exception() is None:
            return running.result()
        if running.cancelled() and not worker.is_gone:
            return worker_side.CANCELLED
        why = "" if running.cancelled() else f" ({running.exception()})"
        await _has_ended(attempt)
        return f"The Dask worker {worker.address} is gone{why}, and the job with it."

    async def _end(self, worker: Worker, attempt: ClusterAttempt, reason: str) -> Outcome:
        """Write the end of an attempt that has no outcome of its own."""
        if reason == worker_side.CANCELLED and attempt.cancelled:
            return attempt.end_unstarted()
        if reason == worker_side.NOT_THE_SAME:
            await self._cluster.remove(worker)
        if reason in {worker_side.CANCELLED, worker_side.NOT_THE_SAME}:
            reason = f"The Dask worker {worker.address} did not run it: {reason}."
        return attempt.end_lost(reason)


async def _has_ended(attempt: ClusterAttempt) -> None:
    """Wait until the job must have ended with its worker, as two attempts may not run at the same time."""
    until = time.monotonic() + attempt.order.options["grace"] + _END_SECONDS
    while time.monotonic() < until:
        last = attempt.folder.last_turn()
        if isinstance(last, Outcome) and last.attempt == attempt.number:
            return
        await asyncio.sleep(_POLL_SECONDS)
