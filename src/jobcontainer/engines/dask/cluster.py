"""Cluster: the workers of a Dask cluster as a client sees them: who is there, who is fit, who has a free slot.

Everything here runs in the event loop of the Dask client, so that nothing needs a lock. States of a worker: *unknown*,
until it has introduced itself; *fit*, jobs are sent there; *unfit*, they are not, and a warning said why; *gone*.
The roll is called every half second, and whoever waits for a place is told when it changed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobcontainer.engines.dask import worker_side
from jobcontainer.errors import warn
from jobcontainer.jobfile import signing
from jobcontainer.pickling import cloudpickle_internals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_ROLL_SECONDS = 0.5
_MEET_SECONDS = 30.0  # it imports this package meanwhile


@dataclass(eq=False)
class Site:
    """A worker.

    Attributes:
        address: where it is.
        instance: its process, which may be another than the one that once had this address.
        slots: how many jobs it runs at the same time.
        host: its machine.
        cpus: how many CPUs that has for it.
        memory: bytes that it may use; None for no limit.
        taken: how many jobs run there.
        blind: the stores that it can't see.
        compared: the distributions whose versions were compared.
        gone: set once it is gone.
    """

    address: str
    instance: str
    slots: int
    host: str
    cpus: int
    memory: int | None
    taken: int = 0
    blind: set[str] = field(default_factory=set)
    compared: set[str] = field(default_factory=set)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def holds(self, memory: int | None) -> bool:
        """Whether a job of that much memory can run there."""
        return memory is None or not self.memory or memory <= self.memory


class Cluster:
    """The workers of a cluster.

    Args:
        client: Dask's client of it.
        on_change: called when a worker came or went.
    """

    def __init__(self, client: Any, on_change: Callable[[], object]) -> None:
        """Know nobody yet."""
        self._client = client
        self._on_change = on_change
        self._sites: dict[str, Site] = {}
        self._unfit: dict[str, str] = {}
        self._changed = asyncio.Condition()
        self._differing: set[str] = set()

    @property
    def slots(self) -> int:
        """How many jobs run at the same time on all fit workers."""
        return sum(site.slots for site in self._sites.values())

    @property
    def is_unfit(self) -> bool:
        """Whether there are workers, and none of them can run jobs."""
        return bool(self._unfit and not self._sites)

    @property
    def threads(self) -> int | None:
        """How many threads a job may have so that no machine has more than CPUs; None where there is no worker."""
        slots = Counter[str]()
        for site in self._sites.values():
            slots[site.host] += site.slots
        return min((max(1, site.cpus // slots[site.host]) for site in self._sites.values()), default=None)

    @property
    def is_lost(self) -> bool:
        """Whether the client has given the cluster up."""
        return bool(self._client.status in {"closed", "closing", "newly-created"})

    async def call(self, address: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in a worker's event loop.

        Raises:
            Exception: what it raised; an OSError if the worker can't be reached.
        """
        answers = await self._client.run(function, *args, workers=[address], **kwargs)
        return answers[address]

    async def call_roll(self) -> str:
        """Learn who is there.

        Returns:
            Why no jobs are sent to some of those who are new; empty where all of them are fit.
        """
        before = set(self._unfit)
        await self._call_roll()
        new = {address: reason for address, reason in self._unfit.items() if address not in before}
        return "".join(f"No jobs are sent to the Dask worker {address}: {reason}\n" for address, reason in new.items())

    async def watch(self) -> None:
        """Call the roll again and again, for ever."""
        while True:
            await asyncio.sleep(_ROLL_SECONDS)
            complaints = await self.call_roll()
            if complaints:
                warn(complaints.rstrip())

    async def take(self, memory: int | None, stopped: Callable[[], bool]) -> Site | None:
        """Wait for a place on a fit worker, and take it.

        Args:
            memory: what the job may use, in bytes; None for no limit.
            stopped: tells whether to give up waiting.

        Returns:
            The worker; None where nothing is to be waited for: it was stopped, or the cluster is lost.

        Raises:
            MemoryError: no worker has that much memory.
        """
        async with self._changed:
            while not stopped() and not self.is_lost:
                if self._sites and not any(site.holds(memory) for site in self._sites.values()):
                    most = max(site.memory or 0 for site in self._sites.values())
                    raise MemoryError(f"memory={memory} bytes, and the largest worker of the cluster has {most}.")
                free = [site for site in self._sites.values() if site.taken < site.slots and site.holds(memory)]
                if free:
                    site = max(free, key=lambda one: one.slots - one.taken)
                    site.taken += 1
                    return site
                await self._changed.wait()
        return None

    async def give_back(self, site: Site) -> None:
        """Give a place back."""
        site.taken -= 1
        await self.wake()

    async def wake(self) -> None:
        """Have whoever waits for a place look again."""
        async with self._changed:
            self._changed.notify_all()

    async def forget(self, site: Site) -> None:
        """Note that another process has a worker's address now."""
        self._remove(site)
        await self.wake()

    async def compare(self, site: Site, packages: Mapping[str, tuple[str, str]]) -> None:
        """Warn, once for each, of the distributions that a process file refers to and a worker has otherwise."""
        new = {top: pair for top, pair in packages.items() if pair[0] not in site.compared}
        if not new:
            return
        site.compared.update(name for name, _ in new.values())
        differing = await self.call(site.address, worker_side.other_versions, new)
        told = {name: pair for name, pair in differing.items() if name not in self._differing}
        self._differing.update(told)
        if told:
            listed = ", ".join(f"{name} {here or 'none'} (here {then})" for name, (then, here) in told.items())
            warn(f"The worker {site.address} has {listed}: jobs may fail or differ there. Install the same versions.")

    async def _call_roll(self) -> None:
        roll: Iterable[str] = ()
        if self._client.status == "running":
            try:
                roll = await self._client.nthreads()
            except OSError:  # told by the client's status before long
                return
        gone = [site for address, site in self._sites.items() if address not in roll]
        for site in gone:
            self._remove(site)
        for address in self._unfit.keys() - set(roll):
            del self._unfit[address]
        new = [address for address in roll if address not in self._sites and address not in self._unfit]
        await asyncio.gather(*map(self._meet, new))
        if gone or new or self.is_lost:
            self._on_change()
            await self.wake()

    def _remove(self, site: Site) -> None:
        site.gone.set()
        if self._sites.get(site.address) is site:
            del self._sites[site.address]

    async def _meet(self, address: str) -> None:
        challenge = secrets.token_bytes(32)
        try:
            said = await asyncio.wait_for(self.call(address, worker_side.introduce, challenge), _MEET_SECONDS)
        except OSError:  # it went, or hangs
            return
        except Exception as error:  # noqa: BLE001 -- whatever keeps this package from being loaded there
            self._unfit[address] = f"It can't load jobcontainer ({error!r}): install it there, of the same version."
            return
        reason = why_unfit(said, challenge)
        if reason:
            self._unfit[address] = reason
        else:
            self._sites[address] = Site(
                address, said["instance"], said["slots"], said["host"], said["cpus"], said["memory"]
            )


def why_unfit(said: Mapping[str, Any], challenge: bytes) -> str:
    """Tell why jobs can't be sent to a worker; empty where they can.

    Args:
        said: what it said of itself, see :func:`jobcontainer.engines.dask.worker_side.introduce`.
        challenge: what it was to sign.
    """
    here = {
        "python": platform.python_version(),
        "jobcontainer": importlib.metadata.version("jobcontainer"),
        "cloudpickle": cloudpickle_internals.VERSION,
    }
    relevant = {"python": 2, "jobcontainer": 2, "cloudpickle": 1}
    for name, length in relevant.items():
        if said[name].split(".")[:length] != here[name].split(".")[:length]:
            return (
                f"It has {name} {said[name]}, and this is {here[name]}: code does not survive that. Install the same."
            )
    if said["trouble"]:
        return str(said["trouble"])
    if not signing.is_signed(challenge, said["signature"]):
        return (
            f"It signs files with another key. Copy {signing.key_file()} there, readable by its owner alone, and start "
            f"the worker with {signing.KEY_VARIABLE} set to the copy's path."
        )
    return ""
