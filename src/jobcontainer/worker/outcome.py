"""Verdict: from what a keeper saw of a job to its outcome. Pure functions, no process is touched."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

from jobcontainer.events import JobState

DECIDED = frozenset({JobState.SUCCEEDED, JobState.FAILED})
"""The ends that a job tells itself, once its result file stands."""


@dataclass(slots=True)
class Evidence:
    """What is known of a job that has ended.

    Attributes:
        told: what its process told of its end; empty where it could not.
        stopped: why the keeper stopped it; None where it did not.
        exit_code: of its process; negative for a signal.
        result: the kind of its result file; empty where there is none.
        oom_killed: whether the kernel's OOM killer was at work meanwhile.
        limit: what it ran into: "timeout=5 s", "memory=2 GB, it held 2.1 GB".
        log: where its log is.
    """

    told: dict[str, Any] = field(default_factory=dict)
    stopped: JobState | None = None
    exit_code: int | None = None
    result: str = ""
    oom_killed: bool = False
    limit: str = ""
    log: str = ""


def judge(evidence: Evidence) -> dict[str, Any]:
    """Tell how a job ended, as fields of an :class:`~jobcontainer.events.Outcome`.

    Once the result file stood, the state was decided. Before that, a stop by the keeper counts; and where it did not
    stop it, the process ended without having been asked to.

    Example:
        >>> judge(Evidence(exit_code=-11, log="log.txt"))["reason"]
        'Its process died of signal 11 (SIGSEGV) before run() returned. The end of its log may tell where: log.txt'
    """
    state = _state(evidence)
    fields: dict[str, Any] = {
        name: evidence.told[name] for name in ("error_type", "error_message") if name in evidence.told
    }
    fields |= {"state": state, "exit_code": evidence.told.get("exit_code", evidence.exit_code)}
    return fields | {"reason": _reason(state, evidence)}


def readable(size: int) -> str:
    """Say an amount of memory.

    Example:
        >>> readable(2_150_000_000), readable(20_000)
        ('2.15 GB', '0.02 MB')
    """
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"  # noqa: PLR2004 -- SI prefixes


def _state(evidence: Evidence) -> JobState:
    told = evidence.told.get("state", {"result": JobState.SUCCEEDED, "error": JobState.FAILED}.get(evidence.result))
    if told in DECIDED and not (evidence.stopped and evidence.told.get("stopped")):
        return JobState(told)
    if evidence.stopped:
        return evidence.stopped
    if told == JobState.CANCELLED:  # by a SIGINT that was not the keeper's
        return JobState.FAILED
    return JobState.OUT_OF_MEMORY if evidence.oom_killed else JobState.CRASHED


def _reason(state: JobState, evidence: Evidence) -> str:
    """Say what happened and what to do next; nothing for a job that succeeded."""
    log = f"The end of its log may tell where: {evidence.log}"
    memory = f"It held more memory than it may: {evidence.limit}. {log}"
    if not evidence.limit:
        memory = f"The machine ran out of memory, and the kernel's OOM killer ended it. {log}"
    return {
        JobState.SUCCEEDED: "",
        JobState.FAILED: _why_failed(evidence),
        JobState.CANCELLED: "It was cancelled.",
        JobState.TIMED_OUT: f"It ran longer than {evidence.limit} allows. {log}",
        JobState.OUT_OF_MEMORY: memory,
        JobState.CRASHED: f"{evidence.told.get('reason') or _how_it_died(evidence.exit_code)} {log}",
    }[state]


def _why_failed(evidence: Evidence) -> str:
    name = evidence.told.get("error_type")
    if name:
        return f"run() raised {name}. The traceback is in its log: {evidence.log}"
    if evidence.told:
        return f"It was interrupted by a SIGINT that did not come from its pool. Its log tells where: {evidence.log}"
    return f"run() raised what is in its result file. The traceback is in its log: {evidence.log}"


def _how_it_died(exit_code: int | None) -> str:
    if exit_code is None:
        return "Its process ended before run() returned."
    if exit_code >= 0:
        return f"Its process ended with exit code {exit_code} before run() returned."
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = "a real-time signal"
    return f"Its process died of signal {-exit_code} ({name}) before run() returned."
