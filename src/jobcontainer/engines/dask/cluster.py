"""Cluster: the workers of a Dask cluster as the client sees them: who is there, who can run jobs, who has a free slot.

Everything here runs in the engine's event loop, so that nothing needs a lock. A new worker is asked about itself; then
it is *fit* and jobs are sent there, or *unfit*, and a warning says why. The list of workers is refreshed every half
second, and everyone who waits for a slot is woken when it has changed.
"""

from __future__ import annotations

import asyncio
import pickle
import secrets
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from jobcontainer.engines.dask import worker_side
from jobcontainer.errors import warn
from jobcontainer.jobfile import signing
from jobcontainer.process import memory_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobcontainer.engines.dask.worker_side import JobTask
    from jobcontainer.events import Outcome

_REFRESH_SECONDS = 0.5
_ANSWER_SECONDS = 30.0  # in which a new worker imports this package


@dataclass(eq=False)
class Worker:
    """A worker that can run jobs."""

    address: str
    instance: str  # its process; another may get the same address later
    slots: int  # jobs that it runs at the same time
    host: str
    cpus: int  # that it may use
    memory: int  # bytes that it may use; 0 for no limit
    taken: int = 0  # slots in use
    tasks: set[asyncio.Future[Any]] = field(default_factory=set)  # those who wait; cancelled when the worker is gone
    is_gone: bool = False
    inaccessible: set[str] = field(default_factory=set)  # stores
    compared: set[str] = field(default_factory=set)  # distributions whose versions were compared

    def has_memory_for(self, memory: int | None) -> bool:
        """Whether a job with that memory limit can run there."""
        return not memory or not self.memory or memory <= self.memory


class Cluster:
    """The workers of a cluster.

    Args:
        client: an asynchronous Dask client.
        watch: the worker plugin that reports cancelled tasks on a worker.
        on_change: called when a worker came or went.
    """

    def __init__(self, client: Any, watch: type[Any], on_change: Callable[[], object]) -> None:
        self._client, self._watch, self._on_change = client, watch, on_change
        self._fit: dict[str, Worker] = {}
        self._unfit: dict[str, str] = {}
        self._changed = asyncio.Condition()
        self._differing: set[str] = set()

    @property
    def slots(self) -> int:
        """How many jobs run at the same time on all fit workers."""
        return sum(worker.slots for worker in self._fit.values())

    @property
    def is_lost(self) -> bool:
        """Whether the client has given up the connection."""
        return self._client.status in {"closed", "closing", "newly-created"}

    @property
    def threads(self) -> int | None:
        """How many threads each job may have so that no machine has more than CPUs; None where there is no worker."""
        slots = Counter[str]()
        for worker in self._fit.values():
            slots[worker.host] += worker.slots
        return min((max(1, worker.cpus // slots[worker.host]) for worker in self._fit.values()), default=None)

    async def call(self, address: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in a worker's event loop; what it raised is raised, or an OSError if it can't be reached."""
        answers = await self._client.run(function, *args, workers=[address], **kwargs)
        return answers[address]

    async def run(self, address: str, task: JobTask) -> Outcome | str:
        """Run a Dask task on a worker, and return its result; when cancelled, give the task up.

        Raises:
            ConnectionError: Dask has given it up.
        """
        data = pickle.dumps(task)
        future = self._client.submit(
            worker_side.run, data, key=task.key, workers=[address], allow_other_workers=False, retries=0, pure=False
        )
        try:
            return cast("Outcome | str", await future)
        except CancelledError as error:
            raise ConnectionError(f"Dask has given up its task: {error}") from error
        finally:
            future.release()

    async def refresh(self) -> str:
        """Look which workers there are, and return why new ones get no jobs, a line for each that is unfit."""
        known = set(self._unfit)
        try:
            threads = await self._client.nthreads() if self._client.status == "running" else {}
            new = threads.keys() - self._fit.keys() - self._unfit.keys()
            described = (await self._client.scheduler.identity())["workers"] if new else {}
        except OSError:  # the client's status shows it before long
            return ""
        gone = [worker for address, worker in self._fit.items() if address not in threads]
        for worker in gone:
            await self.remove(worker)
        self._unfit = {address: reason for address, reason in self._unfit.items() if address in threads}
        limits = {address: described[address]["memory_limit"] for address in new if address in described}
        await asyncio.gather(*(self._add(address, threads[address], limit) for address, limit in limits.items()))
        if gone or new or self.is_lost:
            self._on_change()
            await self.wake()
        reasons = {address: reason for address, reason in self._unfit.items() if address not in known}
        return "\n".join(f"No jobs are sent to the Dask worker {one}: {reason}" for one, reason in reasons.items())

    async def watch(self) -> None:
        """Refresh again and again, until cancelled."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            reasons = await self.refresh()
            if reasons:
                warn(reasons)

    async def acquire(self, memory: int | None, is_cancelled: Callable[[], bool]) -> Worker | None:
        """Wait for a free slot of a fit worker, and take it; return None when cancelled, or if the cluster is lost.

        Args:
            memory: the job's limit in bytes; None for no limit.
            is_cancelled: whether to stop waiting; asked after each :meth:`wake`.

        Raises:
            MemoryError: no worker has that much memory.
        """
        async with self._changed:
            while not is_cancelled() and not self.is_lost:
                able = [worker for worker in self._fit.values() if worker.has_memory_for(memory)]
                if self._fit and not able:
                    most = memory_text(max(worker.memory for worker in self._fit.values()))
                    raise MemoryError(
                        f"memory={memory_text(memory or 0)}: the largest worker of the cluster has {most}."
                    )
                worker = max(able, key=lambda one: one.slots - one.taken, default=None)
                if worker is not None and worker.taken < worker.slots:
                    worker.taken += 1
                    return worker
                await self._changed.wait()
        return None

    async def release(self, worker: Worker) -> None:
        """Free a slot."""
        worker.taken -= 1
        await self.wake()

    async def wake(self) -> None:
        """Have everyone who waits for a slot look again."""
        async with self._changed:
            self._changed.notify_all()

    async def remove(self, worker: Worker) -> None:
        """Remove a worker that is gone, and cancel what waits for its tasks."""
        worker.is_gone = True
        for task in worker.tasks:
            task.cancel()
        if self._fit.get(worker.address) is worker:
            del self._fit[worker.address]
        await self.wake()

    async def compare(self, worker: Worker, packages: Mapping[str, tuple[str, str]]) -> None:
        """Warn, once for each distribution, if a process file refers to another version than the worker has."""
        new = {top: pair for top, pair in packages.items() if pair[0] not in worker.compared}
        if not new:
            return
        worker.compared.update(name for name, _ in new.values())
        differing = await self.call(worker.address, worker_side.other_versions, new)
        unknown = {name: pair for name, pair in differing.items() if name not in self._differing}
        self._differing.update(unknown)
        if unknown:
            listed = ", ".join(f"{name} {there or 'none'} (here {here})" for name, (here, there) in unknown.items())
            warn(f"The worker {worker.address} has {listed}: jobs may fail or differ there. Install the same versions.")

    async def _add(self, address: str, slots: int, memory: int | None) -> None:
        challenge = secrets.token_bytes(32)
        introducing = self.call(address, worker_side.introduce, challenge, self._watch)
        try:
            known = await asyncio.wait_for(introducing, _ANSWER_SECONDS)
        except OSError:  # it is gone, or hangs
            return
        except Exception as error:  # noqa: BLE001 -- whatever keeps this package from being imported there
            self._unfit[address] = f"It can't load jobcontainer ({error!r}): install it there, of the same version."
            return
        reason = why_unfit(known, challenge)
        if reason:
            self._unfit[address] = reason
        else:
            self._fit[address] = Worker(address, known["instance"], slots, known["host"], known["cpus"], memory or 0)


def why_unfit(known: Mapping[str, Any], challenge: bytes) -> str:
    """Return why a worker that introduced itself, and signed a challenge, can't run jobs; empty where it can."""
    here = worker_side.versions()
    relevant = {"python": 2, "jobcontainer": 2, "cloudpickle": 1}
    for name, length in relevant.items():
        if known[name].split(".")[:length] != here[name].split(".")[:length]:
            return (
                f"It has {name} {known[name]}, and this is {here[name]}: pickled code does not work across them. "
                "Install the same."
            )
    if known["problem"]:
        return str(known["problem"])
    if not signing.is_signed(signing.Purpose.DASK_WORKER, challenge, known["signature"]):
        return (
            f"It signs files with another key. Copy {signing.key_file()} there, readable by its owner alone, and start "
            f"the worker with {signing.KEY_VARIABLE} set to the copy's path."
        )
    return ""
