"""Jobs as records: a dict of plain values for each, from what is written down of it, without loading any result.

A record has the same fields in every state, then the job's own parameters, then the values of its result. Parameters
come from ``job.json`` and the values of a result from its preview, which the job has written; so records cost the same
for results of any size, and no code of a job runs to read them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import JobContainerError
from jobcontainer.events import JobState
from jobcontainer.views.card import error_line, unreadable
from jobcontainer.views.parameters import recorded_parameters
from jobcontainer.views.snapshot import preview_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobcontainer.views.snapshot import JobView

JOB: Final = "job"
FACTS: Final = ("state", "seconds", "cpu", "peak_memory", "error")
_RESULT: Final = "result"
_OF_PROCESS, _OF_RESULT = "process.", "result."  # before names that are taken, or that begin with one of them
_OURS: Final = {JOB, *FACTS, _RESULT}


@dataclass(slots=True)
class _Read:
    """What was read of one job."""

    id: str
    facts: dict[str, Any]
    parameters: dict[str, Any]
    values: dict[str, Any]


def records_of(jobs: Iterable[JobView]) -> list[dict[str, Any]]:
    """Return a record for each job, in their order.

    A parameter that is called like a field of every record is ``process.NAME`` there. A value of a result that is
    called like one, or like a parameter that is another in some job, is ``result.NAME``; one that repeats the
    parameter in every job is left out. A name that begins with ``process.`` or ``result.`` itself gets another one of
    these before it, so that no two things have the same name, whatever they are called.
    """
    read = [_read(job) for job in jobs]
    ids = short_ids([one.id for one in read])
    parameters = {name for one in read for name in one.parameters}
    repeated = {name for name in parameters if all(_repeats(one, name) for one in read)}
    taken = (_OURS | parameters) - {_RESULT}
    records = []
    for short, one in zip(ids, read, strict=True):
        record = {JOB: short}
        record |= {_named(name, _OURS, _OF_PROCESS): value for name, value in one.parameters.items()}
        record |= one.facts
        values = {name: value for name, value in one.values.items() if name not in repeated}
        record |= {_named(name, taken, _OF_RESULT): value for name, value in values.items()}
        records.append(record)
    return records


def columns_of(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of all fields of records: the job, its parameters, the facts of every job, then its results."""
    before: dict[str, None] = {JOB: None}
    after: dict[str, None] = {}
    for record in records:
        names = list(record)
        facts = names.index(FACTS[0])
        before |= dict.fromkeys(names[:facts])
        after |= dict.fromkeys(names[facts + len(FACTS) :])
    return [*before, *FACTS, *(name for name in after if name not in before)]


def short_ids(ids: Sequence[str]) -> list[str]:
    """Return the beginnings of ids, their times, by which a store finds the jobs; whole ids where they are the same.

    Example:
        >>> short_ids(["20261122-183000.123456-Train-ab12cd", "other"])
        ['20261122-183000.123456', 'other']
    """
    beginnings = ["-".join(one.split("-")[:2]) for one in ids]
    counts = Counter(beginnings)
    return [short if counts[short] == 1 else whole for short, whole in zip(beginnings, ids, strict=True)]


def _named(name: str, taken: set[str], prefix: str) -> str:
    return f"{prefix}{name}" if name in taken or name.startswith((_OF_PROCESS, _OF_RESULT)) else name


def _read(job: JobView) -> _Read:
    try:
        facts, preview = _facts(job), preview_of(job)
    except (OSError, JobContainerError) as error:  # what a job has made of its folder
        unknown = dict.fromkeys(FACTS) | {"state": "unknown", "error": unreadable(error)}
        return _Read(job.id, unknown, recorded_parameters(job), {})
    values = preview.fields if preview is not None else {_RESULT: None}
    return _Read(job.id, facts, recorded_parameters(job), values if job.state is JobState.SUCCEEDED else {})


def _facts(job: JobView) -> dict[str, Any]:
    state, usage, outcome = job.state, job.usage, job.outcome
    return {
        "state": state.value,
        "seconds": usage.wall or None,
        "cpu": usage.cpu if outcome is not None and usage.wall else None,
        "peak_memory": usage.peak_memory or None,
        "error": (error_line(outcome) or None) if outcome is not None and state is not JobState.SUCCEEDED else None,
    }


def _repeats(one: _Read, name: str) -> bool:
    """Return whether the result of a job says no more of a parameter than that it has it."""
    if name not in one.values:
        return True
    if name not in one.parameters:
        return False
    given, value = one.parameters[name], one.values[name]
    return bool(given == value) or json.dumps(given) == json.dumps(value)  # also where neither is a number
