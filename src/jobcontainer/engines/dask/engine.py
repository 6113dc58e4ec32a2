"""A Dask cluster: keepers below its workers run the jobs, each in a process of its own, as on this machine.

Each attempt of a job is one Dask task, bound to one worker and never repeated by Dask: when a worker dies, only our own
retries may run a job again. The task just waits for a keeper below the worker, so that a crash, a limit or a cancel of
the job is an outcome, and the worker lives on; see :mod:`jobcontainer.engines.dask.worker_side`. This module alone
imports ``distributed``.

Threads: one runs an event loop with an asynchronous Dask client of our own, so that it does not matter what becomes of
the user's client. In the loop there is a coroutine for each attempt, and one that refreshes the list of workers.
Futures are completed in the loop's pool of threads, as their callbacks may block. ``submit`` and ``cancel`` may be
called from any thread, and only start a coroutine; ``_lock`` guards the register of attempts.

Who ends what: a worker whose client is gone cancels its jobs; ``close`` cancels what runs, waits for it, has the
keepers end, and closes the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import distributed
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        'The Dask engine needs the package distributed: pip install "jobcontainer[dask]".', name="distributed"
    ) from missing

from jobcontainer.engines.dask import worker_side
from jobcontainer.engines.dask.attempts import Attempts, ClusterAttempt
from jobcontainer.engines.dask.cluster import Cluster
from jobcontainer.errors import JobContainerError, warn
from jobcontainer.worker.keeper_protocol import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from jobcontainer.events import Outcome
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.process import Environment, JobOptions
    from jobcontainer.storage.folder import JobFolder

_Result = TypeVar("_Result")
_dask: Any = distributed  # it has types for a part of its functions only
_CONNECT_SECONDS = 5.0
_CLOSE_SECONDS = 5.0  # beyond a job's grace, in which ``close`` waits for it


class DaskEngine:
    """Runs each job in a fresh process below a worker of a Dask cluster.

    Args:
        client: a ``distributed.Client``, or the address of a scheduler; None for the client that runs in this process.
        preload: modules that are loaded before jobs are forked, beside those that jobs are seen to import; None for
            none at all.
        most: how many jobs run at the same time at the most; None for as many as the cluster's workers have threads.

    Raises:
        ValueError: there is no client, and no address was given.
        ConnectionError: nobody answers at the address.
        JobContainerError: there are workers, and none of them can run jobs: another Python, another key.

    Example:
        >>> pool = JobPool(engine=DaskEngine("tcp://10.0.0.7:8786"))      # doctest: +SKIP
    """

    def __init__(
        self,
        client: distributed.Client | str | None = None,
        *,
        preload: Sequence[str] | None = (),
        most: int | None = None,
    ) -> None:
        address, security = _scheduler_of(client)
        self._most = most
        self._attempts: dict[str, ClusterAttempt] = {}
        self._coroutines: set[asyncio.Task[None]] = set()
        self._closed = False
        self._call_on_growth: Callable[[], object] | None = None
        self._slots = 1
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._client: Any = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="jobcontainer-dask", daemon=True)
        self._thread.start()
        try:
            reasons = self._in_loop(self._connect(address, security, None if preload is None else tuple(preload)))
        except BaseException:
            self._leave()
            raise
        if reasons:
            warn(reasons)
        self._start(self._cluster.watch)

    @property
    def slots(self) -> int:
        """How many jobs run at the same time; at least one, that waits for a worker where there is none."""
        return self._slots

    @property
    def threads(self) -> int | None:
        """How many BLAS and OpenMP threads a job gets by default: a machine's CPUs are shared among its slots."""
        return self._cluster.threads

    def on_growth(self, call: Callable[[], object]) -> None:
        """See :class:`jobcontainer.engines.Growing`."""
        self._call_on_growth = call

    def submit(
        self,
        folder: JobFolder,
        options: JobOptions,
        environment: Environment,
        *,
        attempt: int = 1,
        identity: FileIdentity | None = None,  # noqa: ARG002 -- it may be another machine's file
    ) -> Future[Outcome]:
        """See :class:`jobcontainer.engines.Engine`; a RuntimeError where the engine was closed."""
        order = Order(os.fspath(folder), options.to_json(), environment, attempt)
        with self._lock:
            if self._closed:
                raise RuntimeError("The engine was closed: make a new JobPool.")
            one = self._attempts[folder.id] = ClusterAttempt(folder, order)
        one.future.set_running_or_notify_cancel()
        self._start(self._run, one)
        return one.future

    def cancel(self, job_id: str) -> None:
        """See :class:`jobcontainer.engines.Engine`."""
        with self._lock:
            attempt = self._attempts.get(job_id)
        if attempt is not None:
            self._start(self._runner.cancel, attempt)

    def close(self) -> None:
        """Cancel what runs, have the keepers end, and return when nothing is left."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            attempts = list(self._attempts.values())
        for attempt in attempts:
            self.cancel(attempt.folder.id)
        grace = max((attempt.order.options["grace"] for attempt in attempts), default=0.0)
        wait([attempt.future for attempt in attempts], timeout=grace + _CLOSE_SECONDS)
        self._leave()

    def _in_loop(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _connect(self, address: str, security: Any, preload: tuple[str, ...] | None) -> str:
        """Connect to the scheduler, and return why some of the workers are unfit."""
        try:
            self._client = await _dask.Client(
                address,
                security=security,
                timeout=_CONNECT_SECONDS,
                set_as_default=False,
                asynchronous=True,
                name="jobcontainer",
            )
        except OSError as error:
            raise ConnectionError(
                f"No Dask scheduler answers at {address} within {_CONNECT_SECONDS:g} s ({error}). "
                "Is it running, and can it be reached from here?"
            ) from error
        self._cluster = Cluster(self._client, TaskWatch, self._count)
        self._runner = Attempts(self._cluster, preload)
        reasons = await self._cluster.refresh()
        if reasons and not self._cluster.slots:
            raise JobContainerError(reasons)
        return reasons

    def _leave(self) -> None:
        """End every coroutine, the client, the loop and its thread."""
        self._in_loop(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        if self._client is not None and self._client.status == "running":
            with contextlib.suppress(OSError):
                await asyncio.wait_for(self._client.run(worker_side.leave, on_error="ignore"), _CLOSE_SECONDS)
        left = list(self._coroutines)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    def _start(self, function: Callable[..., Coroutine[Any, Any, None]], *args: ClusterAttempt) -> None:
        def start() -> None:
            task = asyncio.ensure_future(function(*args))
            self._coroutines.add(task)  # the loop itself holds only weak references
            task.add_done_callback(self._coroutines.discard)

        self._loop.call_soon_threadsafe(start)

    def _count(self) -> None:
        """Update how many slots there are."""
        before = self._slots
        self._slots = max(1, min(self._cluster.slots, self._most or self._cluster.slots))
        if self._slots > before and self._call_on_growth is not None:
            self._loop.run_in_executor(None, self._call_on_growth)

    async def _run(self, attempt: ClusterAttempt) -> None:
        outcome = await self._runner.run(attempt)
        with self._lock:
            if self._attempts.get(attempt.folder.id) is attempt:
                del self._attempts[attempt.folder.id]
        try:
            self._loop.run_in_executor(None, attempt.future.set_result, outcome)
        except RuntimeError:  # no thread can be had: better slowly than never
            attempt.future.set_result(outcome)


class TaskWatch(distributed.WorkerPlugin):
    """Cancels the jobs of tasks that Dask releases while they run: their client is gone, or their worker closes."""

    name = "jobcontainer"

    def __init__(self) -> None:
        self._executing: set[str] = set()

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Follow the states of our tasks; Dask calls this in the worker's event loop."""
        if not str(key).startswith(worker_side.KEY_PREFIX):
            return
        if finish == "executing":
            self._executing.add(key)
        elif start == "executing":
            self._executing.discard(key)
            if finish not in {"memory", "error"}:
                worker_side.cancel(key)
        if finish == "forgotten":
            worker_side.forget(key)

    def teardown(self, worker: Any) -> None:  # noqa: ARG002 -- the name is part of the interface
        """Cancel what runs, as the worker closes."""
        for key in self._executing:
            worker_side.cancel(key)


def _scheduler_of(client: Any) -> tuple[str, Any]:
    """Return the address of the scheduler that is meant, and how to authenticate there."""
    if client is None:
        try:
            client = _dask.default_client()
        except ValueError:
            raise ValueError(
                "There is no Dask client, and no address was given. Make a client first (distributed.Client()), or say "
                'where the scheduler is: engine="tcp://host:8786", or engine=DaskEngine("tcp://host:8786").'
            ) from None
    return (client, None) if isinstance(client, str) else (client.scheduler.address, client.security)
