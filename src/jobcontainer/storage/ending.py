"""How a job ended: written by one function, worded in one place where no worker saw it, and raised as an exception.

Every engine, the scheduler, the keeper and the watcher write an end with :func:`write_end`. Ends that no worker could
report (a job that never started, a keeper that died) are made by :func:`cancelled_before_start` and :func:`lost`.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from jobcontainer.errors import (
    JobCrashedError,
    JobError,
    JobFailedError,
    JobLostError,
    JobMemoryError,
    JobTimeoutError,
    JobUpstreamError,
)
from jobcontainer.events import RETRIED, JobState, Outcome
from jobcontainer.storage.result import decided_state

if TYPE_CHECKING:
    from jobcontainer.storage.folder import JobFolder

_ERRORS: dict[JobState, type[JobError]] = {
    JobState.FAILED: JobFailedError,
    JobState.CRASHED: JobCrashedError,
    JobState.TIMED_OUT: JobTimeoutError,
    JobState.OUT_OF_MEMORY: JobMemoryError,
    JobState.LOST: JobLostError,
}
_TAIL = 20
_LONGEST_REASON = 500


def write_end(folder: JobFolder, outcome: Outcome) -> Outcome:
    """Append how an attempt ended to the job's events.

    A folder that was removed, or a full disk, costs the line in the file but not the outcome.

    Returns:
        The outcome; where it could not be written, with the reason as ``unwritten``.
    """
    try:
        folder.append_event(outcome)
    except OSError as error:
        return replace(outcome, unwritten=os.strerror(error.errno) if error.errno else str(error))
    return outcome


def cancelled_before_start(attempt: int = 0) -> Outcome:
    """Return the end of an attempt that was cancelled before a process began; 0 if the job never left the queue."""
    return Outcome(state=JobState.CANCELLED, at=time.time(), reason="It had not started.", attempt=attempt)


def upstream_failed(input_folder: JobFolder, ended: Outcome | None) -> Outcome:
    """Return the end of a job that needs another one, which did not succeed: naming the first that did not.

    Args:
        input_folder: of the job that it needs.
        ended: how that ended; None where its folder is gone.
    """
    reason, at_fault = f"{input_folder.path} was deleted", str(input_folder.path)
    if ended is not None and ended.upstream:
        reason, at_fault = ended.reason, ended.upstream
    elif ended is not None:
        why = f"{ended.error_type}: {ended.error_message}" if ended.error_type else ended.reason
        reason = f"It needs {input_folder.id}, which ended as {ended.state.words}: {why}"[
            :_LONGEST_REASON
        ].removesuffix(": ")
        reason += "\njob.rerun() runs that again first, then this."
    return Outcome(state=JobState.UPSTREAM_FAILED, at=time.time(), reason=reason, attempt=0, upstream=at_fault)


def lost(folder: JobFolder, reason: str, attempt: int = 0, state: JobState = JobState.LOST) -> Outcome:
    """Return the end of a job whose worker went away without reporting one.

    The result file decides where it is complete: a job that had written its result before its worker died has
    succeeded (or failed, where the result is an exception). The reason says what to do next. A job that was to end
    anyway, by a cancel or its timeout, has that ``state``.
    """
    decided = decided_state(folder.result_file) or state
    return Outcome(state=decided, at=time.time(), reason=reason, attempt=attempt)


def may_be_retried(outcome: Outcome, retries: int) -> bool:
    """Whether a job that ended so, and has so many retries in its options, is tried again; the one rule for it.

    Example:
        >>> may_be_retried(Outcome(state=JobState.CRASHED, at=0.0, attempt=1), retries=1)
        True
        >>> may_be_retried(Outcome(state=JobState.CANCELLED, at=0.0, attempt=1), retries=1)
        False
    """
    return outcome.state in RETRIED and outcome.attempt <= retries


def error_of(outcome: Outcome, folder: JobFolder) -> JobError:
    """Return an end, neither success nor a cancel, as an exception: what happened, where the log is, how it ends."""
    if outcome.state is JobState.UPSTREAM_FAILED:
        message = f"Job {folder.id} could not begin. {outcome.reason}"
        return JobUpstreamError(message, job=folder.id, upstream=outcome.upstream.rpartition("/")[2])
    tail = "\n".join(folder.tail(_TAIL))
    message = f"Job {folder.id} {outcome.state.words}: {outcome.reason or outcome.error_message}"
    if outcome.error_message and outcome.error_message not in message:  # the exception itself could not be kept
        message += f"\nIt said: {outcome.error_message}"
    if str(folder.log_file) not in message:
        message += f"\nIts log is {folder.log_file}"
    message += f"\nThe log ends:\n{tail}" if tail else "\nThe log is empty."
    if outcome.state is JobState.FAILED:
        return JobFailedError(message, job=folder.id, log_tail=tail, error_type=outcome.error_type)
    return _ERRORS[outcome.state](message, job=folder.id, log_tail=tail)
