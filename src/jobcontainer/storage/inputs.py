"""The inputs of a job: where the jobs lie whose results it needs, and how their results become parts of its process.

Which job stands for a reference in the process file, ``job.json`` says: the very one, or one that ran it again. Where
that says nothing, it is the job that the reference names, beside this one, as in a store that was moved, or where it
was.
A folder is taken for that job only if its process file has the signature in the reference.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import CorruptFileError, JobFileError, JobUpstreamError
from jobcontainer.jobfile.inputs import references_in, signature_of
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.result import read_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobcontainer.jobfile.inputs import InputReference
    from jobcontainer.storage.record import JobInput


class InputFolders:
    """Finds the folders of the jobs that a process refers to.

    Args:
        folder: of the job that has the process.
    """

    def __init__(self, folder: JobFolder) -> None:
        self.job = folder
        self._recorded: dict[str, JobInput] | None = None

    def find(self, reference: InputReference) -> JobFolder:
        """Return the folder of the job that stands for a reference.

        Raises:
            JobUpstreamError: there is none any more.
        """
        for folder in self._candidates(reference):
            if signature_of(folder.process_file) == reference.signature != "":
                return folder
        raise JobUpstreamError(
            f"The job {reference.job}, whose result {self.job.id} needs, is neither {reference.folder} nor beside "
            f"{self.job.path}: it was deleted. Submit both anew.",
            job=self.job.id,
            upstream=reference.job,
        )

    def _candidates(self, reference: InputReference) -> Iterator[JobFolder]:
        recorded = self._read().get(reference.job)
        if recorded is not None:
            yield JobFolder(recorded.folder)
            yield beside(self.job, recorded.id)
        yield beside(self.job, reference.job)
        yield JobFolder(reference.folder)

    def _read(self) -> dict[str, JobInput]:
        if self._recorded is None:
            try:
                self._recorded = {one.job: one for one in self.job.read_record().inputs if one.job}
            except (OSError, CorruptFileError):  # a copy, which has none
                self._recorded = {}
        return self._recorded


class InputValues:
    """Loads the results that a process refers to, each once.

    Args:
        folder: of the job that has the process.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._folders = InputFolders(folder)
        self._values: dict[str, Any] = {}

    def __call__(self, reference: InputReference) -> Any:
        """Return the result of a job; its large arrays are mapped copy-on-write.

        Raises:
            JobUpstreamError: it is gone.
            JobFileError: it can't be loaded.
        """
        if reference.job not in self._values:
            self._values[reference.job] = self._load(reference)
        return self._values[reference.job]

    def _load(self, reference: InputReference) -> Any:
        folder, why = self._folders.find(reference), "it has not succeeded"
        try:
            value, error = read_result(folder.result_file)
        except FileNotFoundError:
            if os.path.lexists(folder.result_file):
                raise  # what its content raises
            error, why = FileNotFoundError(str(folder.result_file)), f"{folder.result_file} was deleted"
        if error is not None:
            job = self._folders.job.id
            raise JobUpstreamError(
                f"{job} needs the result of {folder.id}, and {why}. Run that again, and submit this anew.",
                job=job,
                upstream=folder.id,
            ) from error
        return value


def beside(folder: JobFolder, job_id: str) -> JobFolder:
    """Return the folder of another job of the same store."""
    return JobFolder(folder.path.parent / job_id)


def folder_now(needed: JobInput, folder: JobFolder) -> JobFolder:
    """Return where the folder of an input lies: where the record says or, in a store that was moved, beside the job's.

    Args:
        needed: the input.
        folder: of the job that needs it.
    """
    recorded = JobFolder(needed.folder)
    if recorded.record_stamp() is None and (moved := beside(folder, needed.id)).record_stamp() is not None:
        return moved
    return recorded


def results_needed(folder: JobFolder) -> list[tuple[str, JobFolder]]:
    """Return the folders whose results a job's process needs, each with the id by which the process names it.

    Those that are gone are left out.
    """
    folders = InputFolders(folder)
    found: list[tuple[str, JobFolder]] = []
    try:
        with FileReader(folder.process_file) as file:
            references = references_in(file.header().fields.get("inputs", ())) if file.is_job_file else []
        found.extend((reference.job, folders.find(reference)) for reference in references)
    except (OSError, JobFileError, JobUpstreamError, ValueError, TypeError):  # the job will report it
        pass
    return found
