"""The end of a job that did not succeed, as the exception that ``result()`` raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobcontainer.errors import JobCrashedError, JobError, JobFailedError, JobLostError, JobMemoryError, JobTimeoutError
from jobcontainer.events import JobState

if TYPE_CHECKING:
    from jobcontainer.events import Outcome
    from jobcontainer.storage.folder import JobFolder

_ERRORS: dict[JobState, type[JobError]] = {
    JobState.FAILED: JobFailedError,
    JobState.CRASHED: JobCrashedError,
    JobState.TIMED_OUT: JobTimeoutError,
    JobState.OUT_OF_MEMORY: JobMemoryError,
    JobState.LOST: JobLostError,
}
_TAIL = 20


def error_of(outcome: Outcome, folder: JobFolder) -> JobError:
    """Tell an end as an exception: what happened, where the log is, and its last lines.

    Args:
        outcome: an end that is neither success nor a cancel.
        folder: the job's folder.
    """
    tail = "\n".join(folder.tail(_TAIL))
    message = f"Job {folder.id} {outcome.state.words}: {outcome.reason or outcome.error_message}"
    if str(folder.log_file) not in message:
        message += f"\nIts log is {folder.log_file}"
    message += f"\nThe log ends:\n{tail}" if tail else "\nThe log is empty."
    if outcome.state is JobState.FAILED:
        return JobFailedError(message, job=folder.id, log_tail=tail, error_type=outcome.error_type)
    return _ERRORS[outcome.state](message, job=folder.id, log_tail=tail)
