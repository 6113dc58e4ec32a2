"""Errands: sees each attempt of a job through, from the wait for a worker to the outcome in its folder.

It runs in the event loop of the Dask client, a coroutine for each attempt, and knows neither Dask nor threads. The
states of an attempt are told in :mod:`jobcontainer.engines.dask.engine`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from jobcontainer.engines.dask import worker_side
from jobcontainer.engines.dask.transfer import Courier
from jobcontainer.engines.dask.worker_side import Errand
from jobcontainer.errors import JobFileError
from jobcontainer.events import JobState, Outcome, event_from_json
from jobcontainer.jobfile.serializer import packages_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.engines.dask.cluster import Cluster, Site
    from jobcontainer.process import Environment, JobOptions
    from jobcontainer.storage.folder import JobFolder

_LEAVING_SECONDS = 1.0  # beyond a job's grace, in which it ends with its worker
_LOOK_SECONDS = 0.05


@dataclass(eq=False)
class Attempt:
    """A job that was submitted and has not ended.

    Attributes:
        folder: the job's folder.
        options: what was asked for it.
        environment: what follows it.
        number: 1 for the first attempt.
        future: takes the outcome.
        site: where it runs; None while it waits.
        key: of its task.
        cancelled: set once it is to be cancelled.
        unstarted: set once it is certain that it will not start any more.
    """

    folder: JobFolder
    options: JobOptions
    environment: Environment
    number: int
    future: Future[Outcome] = field(default_factory=Future)
    site: Site | None = None
    key: str = ""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    unstarted: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, state: JobState, reason: str) -> Outcome:
        """Write an outcome that no keeper can write."""
        outcome = Outcome(state=state, at=time.time(), reason=reason, attempt=self.number)
        with contextlib.suppress(OSError):  # the folder was removed
            self.folder.append_event(outcome)
        return outcome


class Errands:
    """Sends jobs to the workers of a cluster.

    Args:
        cluster: the workers.
        send: sends an errand to the worker at an address; returns what waits for the answer, and what gives it up.
        preload: names of modules that keepers import before any job.
    """

    def __init__(
        self,
        cluster: Cluster,
        send: Callable[[str, Errand], tuple[asyncio.Future[dict[str, Any]], Callable[[], object]]],
        preload: tuple[str, ...],
    ) -> None:
        """Send nothing yet."""
        self._cluster, self._send, self._preload = cluster, send, preload
        self._host = socket.gethostname()

    async def see_through(self, attempt: Attempt) -> Outcome:
        """See one attempt to its end; whatever happens, there is an outcome, and it stands in the folder."""
        try:
            return await self._place(attempt)
        except MemoryError as error:
            return attempt.end(JobState.OUT_OF_MEMORY, f"It can't start: {error} Ask for less.")
        except asyncio.CancelledError:
            return attempt.end(JobState.LOST, "Its pool was closed before the cluster told how it ended.")
        except Exception as error:  # noqa: BLE001 -- a job's end is always told
            return attempt.end(JobState.LOST, f"On its way to the cluster and back: {error!r}. Submit it again.")

    async def cancel(self, attempt: Attempt) -> None:
        """End an attempt, wherever it is."""
        attempt.cancelled.set()
        await self._cluster.wake()
        if attempt.site is not None:
            with contextlib.suppress(OSError):  # it is gone, and the job with it
                address, job_id = attempt.site.address, attempt.folder.id
                if await self._cluster.call(address, worker_side.cancel, job_id, attempt.key):
                    attempt.unstarted.set()

    async def _place(self, attempt: Attempt) -> Outcome:
        memory = cast("int | None", attempt.options.memory)
        site = await self._cluster.take(memory, attempt.cancelled.is_set)
        if site is None and attempt.cancelled.is_set():
            return attempt.end(JobState.CANCELLED, "It had not started.")
        if site is None:
            return attempt.end(JobState.LOST, "The Dask scheduler is gone: connect again, and make a new JobPool.")
        attempt.site = site
        try:
            return await self._run_at(site, attempt)
        finally:
            attempt.site = None
            await self._cluster.give_back(site)

    async def _run_at(self, site: Site, attempt: Attempt) -> Outcome:
        """Run an attempt on a worker, and where that can't see its folder, from a copy of it."""
        store = str(attempt.folder.path.parent)
        while True:
            courier = None
            if store in site.blind:
                courier = Courier(
                    attempt.folder, lambda *args, **names: self._cluster.call(site.address, *args, **names)
                )
            if courier is not None or site.host != self._host:  # else the job imports what the client would
                with contextlib.suppress(JobFileError, FileNotFoundError):  # the job will tell
                    await self._cluster.compare(site, packages_of(attempt.folder.process_file))
            answer = await self._answer(site, attempt, courier)
            match answer:
                case Outcome():
                    if courier is not None and not site.gone.is_set():
                        await courier.abandon()
                    return answer
                case {"refused": "unseen"} if courier is None:
                    site.blind.add(store)
                case {"refused": reason}:
                    await self._cluster.forget(site)
                    return attempt.end(JobState.LOST, f"The Dask worker {site.address} did not take it: {reason}.")
                case _:
                    outcome = cast("Outcome", event_from_json(answer))
                    return outcome if courier is None else await courier.bring_home(outcome)

    async def _answer(self, site: Site, attempt: Attempt, courier: Courier | None) -> dict[str, Any] | Outcome:
        """Send the errand, and wait for what comes first: its answer, a cancel before it began, its worker's end."""
        content = await courier.send() if courier is not None else None
        if attempt.cancelled.is_set():
            return attempt.end(JobState.CANCELLED, "It had not started.")
        errand = self._errand(site, attempt, far=courier is not None, content=content)
        attempt.key = errand.key
        answer, give_up = self._send(site.address, errand)
        gone: asyncio.Future[Any] = asyncio.ensure_future(site.gone.wait())
        unstarted: asyncio.Future[Any] = asyncio.ensure_future(attempt.unstarted.wait())
        following: list[asyncio.Future[Any]] = [asyncio.ensure_future(courier.follow())] if courier is not None else []
        waited: list[asyncio.Future[Any]] = [answer, gone, unstarted]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if answer.done() and answer.exception() is None:
                return answer.result()
            if unstarted.done() and not gone.done():
                return attempt.end(JobState.CANCELLED, "It had not started.")
            why = f" ({answer.exception()})" if answer.done() else ""
            await _left(attempt)
            return attempt.end(JobState.LOST, f"The Dask worker {site.address} is gone{why}, and the job with it.")
        finally:
            for waiting in (*waited, *following):
                waiting.cancel()
            await asyncio.gather(*waited, *following, return_exceptions=True)
            give_up()

    def _errand(self, site: Site, attempt: Attempt, *, far: bool, content: bytes | None) -> Errand:
        return Errand(
            key=f"jobcontainer-{attempt.folder.id}-{attempt.number}-{secrets.token_hex(4)}",
            instance=site.instance,
            host=self._host,
            folder=str(attempt.folder.path),
            options=attempt.options,
            environment=attempt.environment,
            attempt=attempt.number,
            slots=site.slots,
            preload=self._preload,
            far=far,
            content=content,
        )


async def _left(attempt: Attempt) -> None:
    """Wait until the job of a worker that is gone must have ended with it, as no two attempts may run at once."""
    until = time.monotonic() + attempt.options.grace + _LEAVING_SECONDS
    while time.monotonic() < until:
        last = attempt.folder.last_turn()
        if isinstance(last, Outcome) and last.attempt == attempt.number:
            return
        await asyncio.sleep(_LOOK_SECONDS)
