"""The engine of this machine: each job in a fresh process, made by one of its slots' keepers.

What an engine consists of outlives it while jobs run, and is told in :mod:`jobcontainer.engines.local.slots`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from typing import TYPE_CHECKING

from jobcontainer.engines.local.slot import available_cpus
from jobcontainer.engines.local.slots import Crew
from jobcontainer.worker.order import Order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from jobcontainer.events import Outcome
    from jobcontainer.process import Environment, JobOptions
    from jobcontainer.storage.folder import JobFolder


class LokyEngine:
    """Runs each job in a fresh process, made by one of the slots' keepers.

    Args:
        slots: how many jobs run at the same time; None for the CPUs that are really available.
        preload: names of modules that each keeper imports before any job.
        forks: whether keepers fork the jobs' processes, or start each anew; None for what the system can do.

    Raises:
        ValueError: ``slots`` is not a whole number from 1 up.

    Example:
        >>> LokyEngine(2).slots
        2
    """

    def __init__(self, slots: int | None = None, *, preload: Sequence[str] = (), forks: bool | None = None) -> None:
        """Prepare the slots; the first jobs start their keepers."""
        cpus = available_cpus()
        if slots is None:
            slots = cpus
        elif not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
            raise ValueError(f"slots={slots!r}: it takes a whole number from 1 up, or None.")
        self._threads = max(1, cpus // slots)
        self._crew = Crew(slots, preload, forks=sys.platform == "linux" if forks is None else forks)
        weakref.finalize(self, self._crew.abandon).atexit = False

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        return self._crew.size

    @property
    def ahead(self) -> int:
        """How many reused jobs it takes at the moment beside those that run."""
        return self._crew.ahead

    @property
    def threads(self) -> int:
        """A job's fair share of the CPUs."""
        return self._threads

    def submit(
        self, folder: JobFolder, options: JobOptions, environment: Environment, *, attempt: int = 1
    ) -> Future[Outcome]:
        """Run the process of a folder; see :class:`jobcontainer.engines.Engine`.

        Raises:
            RuntimeError: the engine was closed, or this process was forked from the one that made it.
        """
        if attempt > 1:  # a result of this attempt is known by being there
            with contextlib.suppress(OSError):
                folder.result_file.unlink(missing_ok=True)
        return self._crew.submit(folder, Order(os.fspath(folder), options.to_json(), environment, attempt))

    def cancel(self, job_id: str) -> None:
        """End a job, politely first; it returns at once, the job's future tells when it has ended."""
        self._crew.cancel(job_id)

    def close(self) -> None:
        """Cancel what runs, end every process, and return when nothing is left."""
        self._crew.close()
