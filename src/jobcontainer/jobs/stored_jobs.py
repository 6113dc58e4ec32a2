"""The jobs of a store as a sequence whose handles are made when they are asked for.

A store may hold a hundred thousand jobs, of which whoever lists it looks at a few. Their ids are known from the start,
oldest first; handles are made by the store's control, one by one or all that are still missing at once. Once made, a
handle stays the same one. May be used from several threads: where two make a handle of one job, both get the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, overload

if TYPE_CHECKING:
    from jobcontainer.jobs.job import Job

Load: TypeAlias = "Callable[[Sequence[str]], Sequence[Job[Any]]]"


class StoredJobs(Sequence["Job[Any]"]):
    """Jobs that are read from their store when they are asked for.

    Args:
        ids: of the jobs, in their order.
        load: makes the handles of some of them.

    Example:
        >>> jobs = StoredJobs(["a", "b", "c"], lambda ids: [f"the job {one}" for one in ids])
        >>> len(jobs), jobs[-1], list(jobs[:2])
        (3, 'the job c', ['the job a', 'the job b'])
    """

    def __init__(self, ids: Sequence[str], load: Load) -> None:
        self._ids, self._load = ids, load
        self._handles: dict[str, Job[Any]] = {}

    def __len__(self) -> int:
        """Return how many jobs there are."""
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Job[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> StoredJobs: ...
    def __getitem__(self, index: int | slice) -> Job[Any] | StoredJobs:
        """Return one job, or some of them."""
        if not isinstance(index, slice):
            return self._made([self._ids[index]])[0]
        some = StoredJobs(self._ids[index], self._load)
        some._handles = self._handles
        return some

    def __iter__(self) -> Iterator[Job[Any]]:
        """Go through all jobs."""
        return iter(self._made(self._ids))

    def _made(self, ids: Sequence[str]) -> list[Job[Any]]:
        missing = [one for one in ids if one not in self._handles]
        if missing:
            for one, job in zip(missing, self._load(missing), strict=True):
                self._handles.setdefault(one, job)
        return [self._handles[one] for one in ids]
