"""Which jobs need a job, as their records say."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import CorruptFileError
from jobcontainer.storage.inputs import folder_now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobcontainer.jobs.job import Job
    from jobcontainer.storage.record import JobInput


def inputs_of(job: Job[Any]) -> tuple[JobInput, ...]:
    """Return what the record of a job says of its inputs; nothing where it was deleted or written over."""
    try:
        return job.record.inputs
    except (OSError, CorruptFileError):
        return ()


def dependents_of(job: Job[Any], unfinished: Iterable[Job[Any]]) -> list[Job[Any]]:
    """Return those of some jobs that need one, or need one that does, and so on; the last of a chain first."""
    needing: defaultdict[str, list[Job[Any]]] = defaultdict(list)
    for one in {other.id: other for other in unfinished}.values():
        for needed in inputs_of(one):
            needing[str(folder_now(needed, one.folder).path)].append(one)
    found: dict[str, Job[Any]] = {}
    left = [str(job.folder.path)]
    while left:
        for one in needing[left.pop()]:
            path = str(one.folder.path)
            if path not in found:
                found[path] = one
                left.append(path)
    return list(reversed(found.values()))
