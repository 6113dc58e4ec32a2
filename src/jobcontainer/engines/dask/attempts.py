"""Attempts: runs each attempt of a job on a worker, from the wait for a free slot to the outcome in its folder.

It runs in the engine's event loop, a coroutine for each attempt, and knows neither Dask nor threads. The states of an
attempt are listed in :mod:`jobcontainer.engines.dask.engine`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from jobcontainer.engines.attempt import Attempt
from jobcontainer.engines.dask import worker_side
from jobcontainer.engines.dask.transfer import Transfer
from jobcontainer.engines.dask.worker_side import JobTask
from jobcontainer.errors import JobFileError
from jobcontainer.events import JobState, Outcome
from jobcontainer.jobfile.serializer import packages_of
from jobcontainer.storage.ending import write_end

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from jobcontainer.engines.dask.cluster import Cluster, Worker

_END_SECONDS = 1.0  # beyond a job's grace, in which it ends with its worker
_POLL_SECONDS = 0.05
_CANCEL_FILE_SECONDS = 0.5  # between two looks for the cancel file of a job whose worker can't see it


@dataclass(eq=False)
class ClusterAttempt(Attempt):
    """An attempt on a cluster.

    Attributes:
        worker: where it runs; None while it waits.
        key: of its Dask task; empty while it has none.
        never_begins: set once the worker confirmed that the cancelled task will not begin.
    """

    worker: Worker | None = None
    key: str = ""
    never_begins: asyncio.Event = field(default_factory=asyncio.Event)


class Attempts:
    """Runs attempts on the workers of a cluster.

    Args:
        cluster: the workers.
        submit: runs a task on the worker with an address, and returns its result; when cancelled, it gives up the task.
        preload: names of modules that keepers import before any job.
    """

    def __init__(
        self,
        cluster: Cluster,
        submit: Callable[[str, JobTask], Coroutine[Any, Any, Outcome | str]],
        preload: tuple[str, ...],
    ) -> None:
        """Run nothing yet."""
        self._cluster, self._submit, self._preload = cluster, submit, preload
        self._host = socket.gethostname()

    async def run(self, attempt: ClusterAttempt) -> Outcome:
        """Run an attempt to its end; whatever happens, there is an outcome, and the job's folder has it."""
        try:
            attempt.folder.result_file.unlink(missing_ok=True)  # of an earlier attempt
            return await self._wait_and_run(attempt)
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
        if attempt.worker is not None and attempt.key:
            with contextlib.suppress(OSError):  # the worker is gone, and the job with it
                if await self._cluster.call(attempt.worker.address, worker_side.cancel, attempt.key):
                    attempt.never_begins.set()

    async def _wait_and_run(self, attempt: ClusterAttempt) -> Outcome:
        worker = await self._cluster.acquire(attempt.order.options["memory"], lambda: attempt.cancelled)
        if worker is None and attempt.cancelled:
            return attempt.end_unstarted()
        if worker is None:
            return attempt.end_lost("The Dask scheduler is gone: connect again, and make a new JobPool.")
        attempt.worker = worker
        try:
            return await self._run_on(worker, attempt)
        finally:
            attempt.worker = None
            await self._cluster.release(worker)

    async def _run_on(self, worker: Worker, attempt: ClusterAttempt) -> Outcome:
        """Run an attempt on a worker; if that has no access to the job's folder, with a copy of it."""
        store = str(attempt.folder.path.parent)
        if store not in worker.inaccessible:
            if worker.host != self._host:
                await self._compare_versions(worker, attempt)
            result = await self._execute(worker, attempt)
            if isinstance(result, Outcome):
                return result
            if result != worker_side.NO_ACCESS:
                return await self._end(worker, attempt, result)
            worker.inaccessible.add(store)
        await self._compare_versions(worker, attempt)
        transfer = Transfer(attempt.folder, partial(self._cluster.call, worker.address))
        await transfer.send()
        following = asyncio.ensure_future(transfer.follow())
        try:
            result = await self._execute(worker, attempt, is_remote=True)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        if isinstance(result, Outcome):
            return await transfer.finish(result)
        if not worker.gone.is_set():
            await transfer.discard()
        return await self._end(worker, attempt, result)

    async def _compare_versions(self, worker: Worker, attempt: ClusterAttempt) -> None:
        with contextlib.suppress(JobFileError, FileNotFoundError):  # the job will report it
            await self._cluster.compare(worker, packages_of(attempt.folder.process_file))

    async def _execute(self, worker: Worker, attempt: ClusterAttempt, *, is_remote: bool = False) -> Outcome | str:
        """Run the Dask task of an attempt, and return the outcome, or why there is none."""
        if attempt.cancelled:
            return worker_side.CANCELLED
        attempt.key = f"{worker_side.KEY_PREFIX}{attempt.folder.id}-{attempt.number}-{secrets.token_hex(4)}"
        task = JobTask(attempt.key, worker.instance, self._host, worker.slots, self._preload, is_remote, attempt.order)
        running = asyncio.ensure_future(self._submit(worker.address, task))
        gone = asyncio.ensure_future(worker.gone.wait())
        never_begins = asyncio.ensure_future(attempt.never_begins.wait())
        waits: tuple[asyncio.Future[Any], ...] = running, gone, never_begins
        try:
            while not any(wait.done() for wait in waits):
                await asyncio.wait(waits, timeout=_CANCEL_FILE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if is_remote and not attempt.cancelled and attempt.folder.is_asked_to_cancel():
                    await self.cancel(attempt)
            if running.done() and running.exception() is None:
                return running.result()
            if never_begins.done() and not gone.done():
                return worker_side.CANCELLED
            why = f" ({running.exception()})" if running.done() else ""
            await _has_ended(attempt)
            return f"The Dask worker {worker.address} is gone{why}, and the job with it."
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

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
