"""What a handle reads from the files of its job: the process, and what became of it."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

from jobcontainer.engines.attempt import take_traceback
from jobcontainer.errors import CorruptFileError, JobContainerError, JobLostError
from jobcontainer.events import JobState
from jobcontainer.jobfile.identity import FileIdentity
from jobcontainer.jobfile.inputs import resolved_by
from jobcontainer.jobfile.loading import load_process
from jobcontainer.storage.ending import error_of
from jobcontainer.storage.inputs import InputFolders, folder_now
from jobcontainer.storage.record import JobInput
from jobcontainer.storage.result import read_result

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from jobcontainer.events import Outcome
    from jobcontainer.jobfile.inputs import InputReference
    from jobcontainer.storage.folder import JobFolder


def process_with_handles(folder: JobFolder, reopen: Callable[[str], Future[Any]]) -> Any:
    """Load the process of a job, with a handle in the place of each job in it; where that is gone, a reference.

    Args:
        folder: the job's folder.
        reopen: returns the handle of a job from the path of its folder.

    Raises:
        CorruptFileError: the process file is gone.
        JobFileError: it can't be loaded.
    """
    try:
        with resolved_by(partial(_handle, InputFolders(folder), reopen)):
            return load_process(folder.process_file)
    except FileNotFoundError as error:
        if os.path.lexists(folder.process_file):
            raise
        raise CorruptFileError(f"{folder.process_file} is gone: somebody deleted it, or the job itself.") from error


def value_and_error(
    folder: JobFolder, outcome: Outcome, reopen: Callable[[str], Future[Any]]
) -> tuple[Any, BaseException | None]:
    """Return what an ended job returned, or the exception that says how else it ended."""
    if outcome.state is JobState.SUCCEEDED or (
        outcome.state is JobState.FAILED and os.path.lexists(folder.result_file)
    ):
        return _read(folder, outcome)
    error = error_of(outcome, folder)
    if outcome.state is JobState.UPSTREAM_FAILED:
        at_fault = folder_now(JobInput(folder=outcome.upstream), folder)
        error.__cause__ = _error_at(str(at_fault.path), reopen)
    return None, error


def _read(folder: JobFolder, outcome: Outcome) -> tuple[Any, BaseException | None]:
    identity = outcome.result_identity
    try:
        value, error = read_result(folder.result_file, identity and FileIdentity(*identity))
        trace = take_traceback(folder.id)
        return value, error if error is None or trace is None else error.with_traceback(trace)
    except FileNotFoundError:
        if os.path.lexists(folder.result_file):
            raise  # what its content raises
        gone = folder.result_file if folder.path.is_dir() else folder.path
        raise JobLostError(
            f"Job {folder.id} {outcome.state.words}, but its result is lost: {gone} was deleted. Run it again.",
            job=folder.id,
        ) from None


def _error_at(path: str, reopen: Callable[[str], Future[Any]]) -> BaseException | None:
    """Return the exception of the job at fault; None where its folder is gone, or what it raised can't be loaded."""
    with contextlib.suppress(Exception):  # what it raised may be anything, and the message says what is known
        try:
            job = reopen(path)
            return job.exception() if job.done() else None
        except CancelledError as cancelled:
            return cancelled
    return None


def _handle(folders: InputFolders, reopen: Callable[[str], Future[Any]], reference: InputReference) -> Any:
    try:
        return reopen(str(folders.find(reference).path))
    except (KeyError, JobContainerError, OSError):
        return reference
