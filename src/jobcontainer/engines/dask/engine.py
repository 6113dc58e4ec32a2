"""A Dask cluster: keepers beneath its workers run the jobs, each in a process of its own, as on this machine.

Each attempt of a job is one task of Dask's, bound to one worker, that may not be run again: Dask would run it anew when
its worker dies, and only our own retries may do that. The task does nothing but wait for a keeper beneath the worker,
so that a crash, a limit or a cancel of the job is an outcome, and the worker lives on. What happens on the worker is
told in :mod:`jobcontainer.engines.dask.worker_side`. This module alone imports ``distributed``.

States of an attempt: *waiting* for a free slot of a fit worker; *running*; *leaving*, when its worker is gone, for as
long as the job may take to end with it; *ended*.

Threads: that of the event loop of a Dask client of our own (what becomes of the user's client does not matter), and its
pool of threads, in which futures are completed, as what hangs on them may block. In the loop there is a coroutine for
each attempt and one that calls the roll. ``submit`` and ``cancel`` may be called from any thread and only hand over to
the loop; ``_lock`` guards the register of attempts.

Who ends what: a worker whose client is gone cancels its jobs; ``close`` cancels what runs, waits for it, has the
keepers end, and closes the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, cast

try:
    import distributed
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        'The Dask engine needs the package distributed: pip install "jobcontainer[dask]".', name="distributed"
    ) from missing

from jobcontainer.engines.dask import worker_side
from jobcontainer.engines.dask.attempts import Attempt, Errands
from jobcontainer.engines.dask.cluster import Cluster
from jobcontainer.errors import JobContainerError, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from jobcontainer.engines.dask.worker_side import Errand
    from jobcontainer.events import Outcome
    from jobcontainer.process import Environment, JobOptions
    from jobcontainer.storage.folder import JobFolder

_dask: Any = distributed  # which types its own calls only in part
_CONNECT_SECONDS = 5.0
_PATIENCE = 5.0  # seconds beyond a job's grace that ``close`` waits for it
_ALIVE = {distributed.Status.init, distributed.Status.running, distributed.Status.paused}


class DaskEngine:
    """Runs each job in a fresh process beneath a worker of a Dask cluster.

    Args:
        client: a ``distributed.Client``, or the address of a scheduler; None for the client that runs in this process.
        preload: names of modules that keepers import before any job.
        most: how many jobs run at the same time at the most; None for as many as the cluster's workers have threads.

    Raises:
        ValueError: there is no client, and no address was given.
        ConnectionError: nobody answers at the address.
        JobContainerError: there are workers, and none of them can run jobs: another Python, another key.

    Example:
        >>> pool = JobPool(engine=DaskEngine("tcp://10.0.0.7:8786"))      # doctest: +SKIP
    """

    def __init__(
        self, client: distributed.Client | str | None = None, *, preload: Sequence[str] = (), most: int | None = None
    ) -> None:
        """Connect, and learn who is there."""
        self._client: Any = _connected(client)
        self._most = most
        self._attempts: dict[str, Attempt] = {}
        self._coroutines: set[asyncio.Task[None]] = set()
        self._closed = False
        self._call_on_growth: Callable[[], object] | None = None
        self._slots = 1
        self._cluster = Cluster(self._client, self._count)
        self._errands = Errands(self._cluster, self._send, tuple(preload))
        self._lock = threading.Lock()
        try:
            complaints = self._client.sync(self._cluster.call_roll).rstrip()
        except BaseException:
            self._leave()
            raise
        if self._cluster.is_unfit:
            self._leave()
            raise JobContainerError(complaints)
        if complaints:
            warn(complaints)
        self._on_loop(self._cluster.watch)

    @property
    def slots(self) -> int:
        """How many jobs run at the same time; at least one, that waits for a worker where there is none."""
        return self._slots

    @property
    def threads(self) -> int | None:
        """How many BLAS and OpenMP threads a job gets where nobody said: a worker's CPUs are shared among its slots."""
        return self._cluster.threads

    def on_growth(self, call: Callable[[], object]) -> None:
        """Have something called, from any thread, when there are more slots than there were."""
        self._call_on_growth = call

    def submit(
        self, folder: JobFolder, options: JobOptions, environment: Environment, *, attempt: int = 1
    ) -> Future[Outcome]:
        """Run the process of a folder; see :class:`jobcontainer.engines.Engine`.

        Raises:
            RuntimeError: the engine was closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("The engine was closed: make a new JobPool.")
            one = self._attempts[folder.id] = Attempt(folder, options, environment, attempt)
        one.future.set_running_or_notify_cancel()
        self._on_loop(self._see_through, one)
        return one.future

    def cancel(self, job_id: str) -> None:
        """End a job, politely first; it returns at once, the job's future tells when it has ended."""
        with self._lock:
            attempt = self._attempts.get(job_id)
        if attempt is not None:
            self._on_loop(self._errands.cancel, attempt)

    def close(self) -> None:
        """Cancel what runs, have the keepers end, and return when nothing is left."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            attempts = list(self._attempts.values())
        for attempt in attempts:
            self.cancel(attempt.folder.id)
        grace = max((attempt.options.grace for attempt in attempts), default=0.0)
        wait([attempt.future for attempt in attempts], timeout=grace + _PATIENCE)
        self._leave()

    def _leave(self) -> None:
        self._client.sync(self._stop)
        self._client.close()
        self._client._loop_runner.stop()  # noqa: SLF001 -- one that gave up by itself does not stop its thread

    async def _stop(self) -> None:
        """Have the keepers end, and every coroutine that is left."""
        if self._client.status == "running":
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._client.run(worker_side.leave, on_error="ignore"), _PATIENCE)
        left = list(self._coroutines)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _on_loop(self, coroutine: Callable[..., Coroutine[Any, Any, None]], *args: Attempt) -> None:
        def start() -> None:
            task = asyncio.ensure_future(coroutine(*args))
            self._coroutines.add(task)  # the loop itself holds only weak references
            task.add_done_callback(self._coroutines.discard)

        self._client.loop.add_callback(start)

    def _count(self) -> None:
        """Take over how many slots there are."""
        before = self._slots
        self._slots = max(1, min(self._cluster.slots, self._most or self._cluster.slots))
        if self._slots > before and self._call_on_growth is not None:
            asyncio.get_running_loop().run_in_executor(None, self._call_on_growth)

    async def _see_through(self, attempt: Attempt) -> None:
        outcome = await self._errands.see_through(attempt)
        with self._lock:
            if self._attempts.get(attempt.folder.id) is attempt:
                del self._attempts[attempt.folder.id]
        asyncio.get_running_loop().run_in_executor(None, attempt.future.set_result, outcome)

    def _send(self, address: str, errand: Errand) -> tuple[asyncio.Future[dict[str, Any]], Callable[[], object]]:
        task = self._client.submit(
            _run,
            pickle.dumps(errand),  # as bytes, in which Dask does not look for its own tasks
            key=errand.key,
            workers=[address],
            allow_other_workers=False,
            retries=0,
            pure=False,
        )
        return asyncio.ensure_future(_result_of(task)), task.release


def _connected(client: Any) -> Any:
    """Return a client of our own, for an address or for where another client is connected."""
    security = None
    if client is None:
        try:
            client = _dask.default_client()
        except ValueError:
            raise ValueError(
                "There is no Dask client, and no address was given. Make a client first (distributed.Client()), or say "
                'where the scheduler is: engine="tcp://host:8786", or engine=DaskEngine("tcp://host:8786").'
            ) from None
    if not isinstance(client, str):
        address, security = client.scheduler.address, client.security
    else:
        address = client
    security = security or _dask.Security()
    try:
        # asked first, as a client that can't connect leaves a thread behind
        _dask.utils.LoopRunner().run_sync(_knock, address, security)
    except OSError as error:
        raise ConnectionError(
            f"No Dask scheduler answers at {address} within {_CONNECT_SECONDS:g} s ({error}). "
            "Is it running, and can it be reached from here?"
        ) from error
    return _dask.Client(address, security=security, timeout=_CONNECT_SECONDS, set_as_default=False, name="jobcontainer")


async def _knock(address: str, security: Any) -> None:
    """Connect to a scheduler, and leave.

    Raises:
        OSError: nobody answers.
    """
    arguments = security.get_connection_args("client")
    connection = await _dask.comm.connect(address, timeout=_CONNECT_SECONDS, **arguments)
    await connection.close()


def _run(data: bytes) -> dict[str, Any]:
    """Run an errand; the task that a worker gets."""
    errand: Errand = pickle.loads(data)  # noqa: S301 -- from the client, which may run anything here
    worker = distributed.get_worker()

    def is_wanted() -> bool:
        task = worker.state.tasks.get(errand.key)
        return task is not None and task.state == "executing" and worker.status in _ALIVE

    return worker_side.run(errand, is_wanted)


async def _result_of(task: Any) -> dict[str, Any]:
    """Wait for a task.

    Raises:
        ConnectionError: Dask has given it up.
    """
    try:
        return cast("dict[str, Any]", await task)
    except distributed.CancelledError as error:
        raise ConnectionError(f"Dask has given up its task: {error}") from error
