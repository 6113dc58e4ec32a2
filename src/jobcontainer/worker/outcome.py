"""Classify how a job ended: from what its process reported and what the keeper saw to an outcome. Pure functions."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobcontainer.events import JobState, Outcome

if TYPE_CHECKING:
    from jobcontainer.events import Usage

DECIDED = frozenset({JobState.SUCCEEDED, JobState.FAILED})
"""The ends that are final once the job's result file is complete."""

EXITED_WITHOUT_ERROR = (
    "run() called sys.exit(0), as a command line interface does when it is done, and so returned nothing. Have it "
    "return instead: with click and typer, call the command with standalone_mode=False."
)
"""Why a job failed that did what it had to."""


@dataclass(slots=True)
class ExitFacts:
    """What is known of a job that has ended.

    What its process reported is empty where it could not. ``state`` is always there; ``error_type``, ``error_message``
    and perhaps ``hint`` for an exception; ``exit_code`` and ``exit_argument`` for ``sys.exit``; ``stopped`` where it
    was interrupted; ``result_identity`` for a result.
    """

    reported: dict[str, Any] = field(default_factory=dict)
    stopped: JobState | None = None  # why the keeper stopped it
    exit_code: int | None = None  # of its process; negative for a signal
    parent_exit_code: int | None = None  # of the fork server that it was forked from, where that has ended before it
    result: JobState | None = None  # the end that its result file decides; None where there is no complete one
    oom_killed: bool = False  # whether the kernel's OOM killer was active meanwhile
    limit: str = ""  # that it exceeded: "timeout=5 s", "memory=2 GB, and it held 2.1 GB"
    log: str = ""  # the path


def classify(facts: ExitFacts, usage: Usage, attempt: int) -> Outcome:
    """Return how a job ended.

    A complete result file decides. Without one, a stop by the keeper counts; and where the keeper did not stop the job,
    its process ended without having been asked to.

    Example:
        >>> from jobcontainer.events import Usage
        >>> classify(ExitFacts(exit_code=-11, log="log.txt"), Usage(), attempt=1).reason
        'Its process died of signal 11 (SIGSEGV) before run() returned. The end of its log may show where: log.txt'
    """
    state = _state(facts)
    identity = facts.reported.get("result_identity")
    return Outcome(
        state=state,
        at=time.time(),
        reason=_reason(state, facts),
        error_type=facts.reported.get("error_type", ""),
        error_message=facts.reported.get("error_message", ""),
        exit_code=facts.reported.get("exit_code", facts.exit_code),
        usage=usage,
        attempt=attempt,
        result_identity=None if identity is None else tuple(identity),
    )


def _state(facts: ExitFacts) -> JobState:
    reported = facts.reported.get("state", facts.result)
    if reported in DECIDED and not (facts.stopped and facts.reported.get("stopped")):
        return JobState(reported)
    if facts.stopped:
        return facts.stopped
    if reported == JobState.CANCELLED:  # interrupted by a SIGINT that was not the keeper's
        return JobState.FAILED
    if facts.oom_killed:
        return JobState.OUT_OF_MEMORY
    died_with_it = facts.parent_exit_code is not None and facts.exit_code == -signal.SIGKILL
    return JobState.LOST if died_with_it else JobState.CRASHED


def _reason(state: JobState, facts: ExitFacts) -> str:
    """Return what happened and what to do next; nothing for a job that succeeded."""
    log = f"The end of its log may show where: {facts.log}"
    memory = f"It held more memory than it may: {facts.limit}. {log}"
    if not facts.limit:
        memory = f"The machine ran out of memory, and the kernel's OOM killer ended it. {log}"
    return {
        JobState.SUCCEEDED: "",
        JobState.FAILED: _why_failed(facts),
        JobState.CANCELLED: "It was cancelled.",
        JobState.TIMED_OUT: f"It ran longer than {facts.limit} allows. {log}",
        JobState.OUT_OF_MEMORY: memory,
        JobState.CRASHED: f"{_how_it_exited(facts)} {log}",
        JobState.LOST: f"The process that it was forked from {_died(facts.parent_exit_code or 0)}, and the job with "
        "it. If the machine ran out of memory, run fewer jobs at a time, or submit it again.",
    }[state]


def _why_failed(facts: ExitFacts) -> str:
    name = facts.reported.get("error_type")
    if "exit_argument" in facts.reported:
        return EXITED_WITHOUT_ERROR
    if name:
        hint = facts.reported.get("hint")
        return f"run() raised {name}. {hint + ' ' if hint else ''}The traceback is in its log: {facts.log}"
    if facts.reported:
        return f"It was interrupted by a SIGINT that did not come from its pool. Its log shows where: {facts.log}"
    return f"run() raised what is in its result file. The traceback is in its log: {facts.log}"


def _how_it_exited(facts: ExitFacts) -> str:
    code = facts.exit_code
    if "exit_argument" in facts.reported:
        return f"It called sys.exit({facts.reported['exit_argument']}) before run() returned."
    if code is None:
        return "Its process ended before run() returned."
    return f"Its process {_died(code)} before run() returned."


def _died(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "a real-time signal"
    return f"died of signal {-code} ({name})"
