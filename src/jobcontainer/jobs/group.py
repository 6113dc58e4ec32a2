"""JobGroup: several jobs handled as one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from jobcontainer.events import JobState
from jobcontainer.jobfile.inputs import is_noting
from jobcontainer.jobs.job import Job
from jobcontainer.jobs.reruns import rerun_all
from jobcontainer.jobs.stored_jobs import StoredJobs
from jobcontainer.views.records import columns_of, records_of
from jobcontainer.views.render import group_html
from jobcontainer.views.table import JobTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jobcontainer.jobs.job import Control

R = TypeVar("R")


class JobGroup(Sequence[Job[R]], Generic[R]):
    """Several jobs, in the order they were submitted.

    Example:
        >>> group = pool.submit_all([Train(rate) for rate in (0.1, 0.2)])     # doctest: +SKIP
        >>> group.results()                                                   # doctest: +SKIP
        [0.91, 0.93]
    """

    def __init__(self, jobs: Iterable[Job[R]]) -> None:
        self._jobs: Sequence[Job[R]] = jobs if isinstance(jobs, StoredJobs) else tuple(jobs)

    @overload
    def __getitem__(self, index: int) -> Job[R]: ...
    @overload
    def __getitem__(self, index: slice) -> JobGroup[R]: ...
    def __getitem__(self, index: int | slice) -> Job[R] | JobGroup[R]:
        """Return one job, or a group of some of them."""
        return JobGroup(self._jobs[index]) if isinstance(index, slice) else self._jobs[index]

    def __len__(self) -> int:
        """Return how many jobs there are."""
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job[R]]:
        """Go through the jobs."""
        return iter(self._jobs)

    def __repr__(self) -> str:
        """Show how many jobs are in which state, and a table of the first of them."""
        counts = ", ".join(f"{count} {JobState(state).words}" for state, count in self.summary().items())
        head = f"<JobGroup of {len(self)}: {counts or 'no jobs'}>"
        return f"{head}\n{JobTable(self)!r}" if len(self) else head

    def _repr_html_(self) -> str:
        """Show one card of all jobs as they are now, and a table; with the extension, a notebook shows a live one."""
        return group_html(self)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[list[Job[R]]]]:
        """Travel as handles; in a process, as the list of the jobs' results."""
        return list if is_noting() else type(self), (list(self),)

    def results(self, on_error: Literal["raise", "return"] = "raise") -> list[R | BaseException]:
        """Wait for all jobs and return their results in order.

        Args:
            on_error: ``"raise"`` raises the first error in that order; ``"return"`` puts each error in its place.

        Raises:
            ValueError: ``on_error`` is neither.
            Exception: what the first unsuccessful job raised, with ``on_error="raise"``.
        """
        if on_error not in {"raise", "return"}:
            raise ValueError(f'on_error={on_error!r}: it takes "raise" or "return".')
        return [job.result() if on_error == "raise" else _result_or_error(job) for job in self._jobs]

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> bool:
        """Wait until all jobs have ended, however they end.

        Args:
            timeout: seconds to wait at the most; None waits for ever.
            progress: whether to draw progress bars meanwhile, in a terminal, on standard error.

        Returns:
            Whether all have ended.
        """
        if not progress:
            until = None if timeout is None else time.monotonic() + timeout
            return all(job._wait(None if until is None else until - time.monotonic()) for job in self._jobs)
        from jobcontainer.views.console import watch  # noqa: PLC0415 -- rich takes its time

        return watch(self, self.wait, timeout=timeout)

    def as_completed(self, timeout: float | None = None) -> Iterator[Job[R]]:
        """Go through the jobs as they end.

        Raises:
            TimeoutError: not all have ended ``timeout`` seconds from the call.
        """
        until = None if timeout is None else time.monotonic() + timeout
        jobs, ended = set(self._jobs), SimpleQueue[Job[R]]()
        for job in jobs:
            if timeout is None:
                job._refuse_to_wait_if_inherited()
            job._when_ended(partial(ended.put, job))
        for number in range(len(jobs)):
            try:
                yield ended.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            except Empty:
                left = len(jobs) - number
                raise TimeoutError(f"{left} of {len(jobs)} jobs have not ended within {timeout} s.") from None

    def cancel(self) -> None:
        """End every job that has not ended; none that is still queued starts in between."""
        controls: dict[int, tuple[Control, list[Job[R]]]] = {}
        for job in self._jobs:
            controls.setdefault(id(job._control), (job._control, []))[1].append(job)
        for control, jobs in controls.values():
            control.cancel(jobs)

    def rerun_failed(self, *, resume: bool = False) -> JobGroup[R]:
        """Run every job again that ended and did not succeed; one that others of them need is run first, once.

        Args:
            resume: go on from their checkpoints, where there are any.

        Returns:
            The new jobs, in the order of the old.
        """
        ended = [job for job in self._jobs if job.done() and job.state is not JobState.SUCCEEDED]
        return JobGroup(rerun_all(ended, resume=resume))

    def summary(self) -> dict[str, int]:
        """Count the jobs by state; states without a job are left out.

        Example:
            >>> group.summary()                                # doctest: +SKIP
            {'succeeded': 11, 'failed': 1}
        """
        counts = Counter(job.state for job in self._jobs)
        return {state.value: counts[state] for state in JobState if counts[state]}

    def records(self) -> list[dict[str, Any]]:
        """Return a dict for each job, of plain values, as rows of a table; nothing is waited for, no result is loaded.

        Each has ``job`` (an id that :meth:`JobStore.open` takes), ``state``, ``seconds``, ``cpu`` (in seconds),
        ``peak_memory`` (in bytes) and ``error``, which are None where they are not known or there is none. Between
        them stand the job's parameters: the attributes of its process, or the arguments of its function, that are
        small plain values. At the end stand, of a job that succeeded, the fields of a result that is a dict, a
        dataclass, a named tuple or a Series of pandas; of any other result the whole, as ``result``. What of a result
        is no small plain value stands there as a short text: ``job.result()`` has the value.

        Where a name is taken already, or looks like these, it becomes ``process.NAME`` or ``result.NAME``.

        Example:
            >>> group.records()[0]                             # doctest: +SKIP
            {'job': '20261122-183000.123456', 'rate': 0.1, 'state': 'succeeded', 'seconds': 2.1, 'cpu': 1.9,
             'peak_memory': 53400000, 'error': None, 'loss': 0.25}
        """
        return records_of(self._jobs)

    def to_frame(self) -> Any:
        """Return the records as a ``pandas.DataFrame``, a row for each job.

        Raises:
            ModuleNotFoundError: pandas is not installed.

        Example:
            >>> group.to_frame().sort_values("loss")           # doctest: +SKIP
        """
        try:
            import pandas as pd  # noqa: PLC0415 -- only this needs it, and it takes its time
        except ModuleNotFoundError as error:
            if error.name != "pandas":
                raise
            raise ModuleNotFoundError(
                "to_frame() needs pandas: `pip install pandas`. records() has the same as a list of dicts.",
                name="pandas",
            ) from error
        records = self.records()
        return pd.DataFrame(records, columns=columns_of(records))


def _result_or_error(job: Job[Any]) -> Any:
    try:
        return job.result()
    except (Exception, CancelledError) as error:  # noqa: BLE001 -- errors are wanted as values
        return error
