"""The engine of this machine: each job in a fresh process, made by one of its slots' keepers.

What an engine consists of outlives it while jobs run; see :mod:`jobcontainer.engines.local.worker_slots`.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING

from jobcontainer.engines.attempt import Attempt
from jobcontainer.engines.local.loky_executor import import_loky
from jobcontainer.engines.local.worker_slots import FORKS, WorkerSlots
from jobcontainer.worker.interrupts import uninterrupted
from jobcontainer.worker.keeper_protocol import Order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from jobcontainer.events import Outcome
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.process import Environment, JobOptions
    from jobcontainer.storage.folder import JobFolder


class LokyEngine:
    """Runs each job in a fresh process, made by one of the slots' keepers.

    Args:
        slots: how many jobs run at the same time; None for the CPUs that are really available.
        preload: modules that are loaded before jobs are forked, beside those that jobs are seen to import; None for
            none at all.
        forks: whether keepers fork the jobs' processes, or start new interpreters; None for what the system can do.

    Raises:
        ValueError: ``slots`` is not a whole number from 1 up.
    """

    def __init__(
        self, slots: int | None = None, *, preload: Sequence[str] | None = (), forks: bool | None = None
    ) -> None:
        if slots is not None and (not isinstance(slots, int) or isinstance(slots, bool) or slots < 1):
            raise ValueError(f"slots={slots!r}: it takes a whole number from 1 up, or None.")
        self._worker_slots = WorkerSlots(slots, preload, forks=FORKS if forks is None else forks)
        weakref.finalize(self, self._worker_slots.abandon).atexit = False

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        return self._worker_slots.size

    @property
    def threads(self) -> int:
        """A job's fair share of the CPUs."""
        return self._worker_slots.threads

    def warm_up(self) -> None:
        """See :class:`jobcontainer.engines.StartsInBackground`; loky is imported in the caller's thread."""
        with contextlib.suppress(Exception):  # the first job will fail for it, and say why
            import_loky()
        uninterrupted(self._worker_slots.warm_up)

    def submit(
        self,
        folder: JobFolder,
        options: JobOptions,
        environment: Environment,
        *,
        attempt: int = 1,
        identity: FileIdentity | None = None,
    ) -> Future[Outcome]:
        """See :class:`jobcontainer.engines.Engine`; a RuntimeError if it was closed, or made before a fork."""
        if attempt > 1:  # the result of this attempt is known by being there
            folder.remove_result()
        order = Order(os.fspath(folder), options.to_json(), environment, attempt, identity=identity)
        return self._worker_slots.submit(Attempt(folder, order))

    def wait_until_started(self) -> None:
        """See :class:`jobcontainer.engines.StartsInBackground`."""
        self._worker_slots.wait_until_started()

    def cancel(self, job_id: str) -> None:
        """See :class:`jobcontainer.engines.Engine`."""
        self._worker_slots.cancel(job_id)

    def close(self) -> None:
        """See :class:`jobcontainer.engines.Engine`."""
        self._worker_slots.close()
