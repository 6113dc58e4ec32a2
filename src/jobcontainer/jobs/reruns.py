"""Running jobs again, with those above them that did not succeed: each once, and first those that others need."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, TypeVar

from jobcontainer.errors import CorruptFileError
from jobcontainer.events import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobcontainer.jobs.job import Control, Job

R = TypeVar("R")


def rerun_all(
    jobs: Sequence[Job[R]],
    control: Control | None = None,
    *,
    resume: bool = False,
    again: dict[str, Job[Any]] | None = None,
) -> list[Job[R]]:
    """Run jobs again, and first what they could not begin without.

    Inputs that succeeded, or have not ended, stay the inputs of the new jobs.

    Args:
        jobs: the jobs.
        control: runs them; None for each one's own.
        resume: whether each goes on from its checkpoint, where it has one.
        again: the new jobs of earlier calls, by the paths of the folders of the old; those of this one are added.

    Returns:
        The new jobs, in the order of the old ones.

    Raises:
        CorruptFileError: the records of the jobs say that they need one another, which no submission makes.
        JobUpstreamError: an input was deleted.
    """
    again = {} if again is None else again
    for job in _in_order([job for job in jobs if str(job.folder.path) not in again]):
        if str(job.folder.path) in again:
            continue
        again[str(job.folder.path)] = (control or job._control).rerun_alone(job, again, resume=resume)
    return [again[str(job.folder.path)] for job in jobs]


def _in_order(jobs: Sequence[Job[Any]]) -> list[Job[Any]]:
    """Return these jobs and those above them that did not succeed, each after those that it needs."""
    found = {str(job.folder.path): job for job in jobs}
    needed: dict[str, list[str]] = {}
    left = list(found)
    while left:
        path = left.pop()
        above = [one for one in found[path].inputs if one.done() and one.state is not JobState.SUCCEEDED]
        needed[path] = [str(one.folder.path) for one in above]
        for one in above:
            if str(one.folder.path) not in found:
                found[str(one.folder.path)] = one
                left.append(str(one.folder.path))
    try:
        return [found[path] for path in TopologicalSorter(needed).static_order()]
    except CycleError as error:
        raise CorruptFileError(
            f"The job.json of {error.args[1][0]} was written over: it says that the job needs itself. Submit it anew."
        ) from error
