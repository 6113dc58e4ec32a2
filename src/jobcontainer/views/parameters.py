"""The parameters of jobs: the small plain attributes of their processes, and how they tell jobs of a group apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import JobFileError
from jobcontainer.views.escaping import shown_line

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jobcontainer.views.snapshot import JobView

MOST_COMPARED = 500
"""Jobs of a group that are read to find out which parameters differ: of more, that many in even steps."""

_LONGEST_PARAMETER = 30
_LONGEST_PARAMETERS = 120


def recorded_parameters(job: JobView) -> dict[str, Any]:
    """Read the parameters of a job; none where its folder can't be read."""
    try:
        return job.folder.read_record().parameters
    except (OSError, JobFileError):  # deleted, or the job has written over it
        return {}


def differing(jobs: Sequence[JobView]) -> list[str]:
    """Return the names of the parameters that are not the same in all of these jobs."""
    read = [recorded_parameters(job) for job in jobs[:: len(jobs) // MOST_COMPARED + 1]]
    names = dict.fromkeys(name for parameters in read for name in parameters)
    return [name for name in names if len({_key(parameters, name) for parameters in read}) > 1]


def parameters_text(parameters: Mapping[str, Any], names: Collection[str]) -> str:
    r"""Write the named parameters in one line, of bounded length.

    Example:
        >>> parameters_text({"rate": 0.1, "depth": 2, "text": "a\n"}, ["rate", "text"])
        'rate=0.1 text=a\\n'
    """
    parts = (
        f"{shown_line(name, _LONGEST_PARAMETER)}={value_text(parameters[name])}" for name in names if name in parameters
    )
    return shown_line(" ".join(parts), _LONGEST_PARAMETERS)


def value_text(value: Any, longest: int = _LONGEST_PARAMETER) -> str:
    """Write a small plain value in one line.

    Example:
        >>> value_text(0.30000000000000004), value_text(12), value_text([1, "a"])
        ('0.3', '12', '[1, "a"]')
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    return shown_line(value, longest)


def _key(parameters: Mapping[str, Any], name: str) -> str:
    """Return what is the same for equal values, of lists too; the lack of one is a value of its own."""
    return json.dumps(parameters[name], sort_keys=True) if name in parameters else ""
