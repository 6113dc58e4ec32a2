"""What a job needs before it can start: from the jobs inside its process, and those of ``after=``.

At submit everything that can be known is checked, so that a job whose input is gone is refused with a sentence.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import JobUpstreamError
from jobcontainer.events import JobState
from jobcontainer.storage.inputs import InputFolders, folder_now
from jobcontainer.storage.record import JobInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobcontainer.jobfile.inputs import InputReference, Inputs
    from jobcontainer.jobs.job import Job
    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.record import JobRecord


@dataclass(frozen=True, slots=True)
class Needs:
    """The inputs of a job.

    Attributes:
        inputs: as they are written down.
        handles: those that whoever submits the job has of them, by the paths of their folders.
    """

    inputs: tuple[JobInput, ...] = ()
    handles: Mapping[str, Job[Any]] = field(default_factory=dict)


NOTHING = Needs()


def needs_of_process(found: Inputs, after: Sequence[Job[Any]]) -> Needs:
    """Return what a process needs that was just written.

    Raises:
        JobUpstreamError: the result of an input is gone.
    """
    if not found.references and not after:
        return NOTHING
    inputs = [JobInput(job=one.job, folder=folder) for folder, one in found.references.items()]
    handles = {folder: handle for folder, handle in found.handles.items() if handle is not None}
    for folder, handle in handles.items():
        if handle.state is JobState.SUCCEEDED and not os.path.lexists(handle.folder.result_file):
            raise _gone(folder, handle.id, f"its result {handle.folder.result_file}")
    return _with_after(inputs, handles, after)


def needs_of_file(folder: JobFolder, references: Iterable[InputReference], after: Sequence[Job[Any]]) -> Needs:
    """Return what a process needs that was in a file already.

    Raises:
        JobUpstreamError: an input is not where the file says, nor in the store.
    """
    folders = InputFolders(folder)
    inputs = [JobInput(job=one.job, folder=str(folders.find(one).path)) for one in references]
    return _with_after(inputs, {}, after)


def needs_of_record(record: JobRecord, folder: JobFolder, again: Mapping[str, Job[Any]]) -> Needs:
    """Return what a job needs that runs another one again.

    Args:
        record: of the other one.
        folder: of the other one.
        again: the jobs that run some of its inputs again, by the paths of the folders of these.

    Raises:
        JobUpstreamError: an input is gone.
    """
    inputs, handles = [], {}
    for one in record.inputs:
        needed = folder_now(one, folder)
        if (new := again.get(str(needed.path))) is not None:
            needed, handles[str(new.folder.path)] = new.folder, new
        elif needed.record_stamp() is None:
            raise _gone(one.folder, one.id, "it")
        inputs.append(JobInput(job=one.job, folder=str(needed.path)))
    return Needs(tuple(inputs), handles)


def _with_after(inputs: list[JobInput], handles: dict[str, Job[Any]], after: Sequence[Job[Any]]) -> Needs:
    for job in after:
        path = str(job.folder.path)
        if job.folder.record_stamp() is None:
            raise _gone(path, job.id, "it")
        if path not in handles:
            handles[path] = job
            inputs.append(JobInput(folder=path))
    return Needs(tuple(inputs), handles)


def _gone(folder: str, job_id: str, what: str) -> JobUpstreamError:
    return JobUpstreamError(
        f"The job {job_id} can be no input: {what} was deleted from {folder.rpartition(os.sep)[0]}. Run it anew.",
        upstream=job_id,
    )
