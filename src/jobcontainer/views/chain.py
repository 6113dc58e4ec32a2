"""The jobs that a job needs, and those that these need, as one line: names and states, of bounded length."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from jobcontainer.errors import JobContainerError
from jobcontainer.events import JobState
from jobcontainer.views import units
from jobcontainer.views.escaping import shown_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST_STEPS: Final = 5
_MOST_JOBS: Final = 200  # of one step
_MOST_NAMES: Final = 3


class Needing(Protocol):
    """What is read here of a job; see :class:`jobcontainer.Job`."""

    name: str

    @property
    def id(self) -> str:
        """The job's id."""

    @property
    def state(self) -> JobState:
        """Where it is in its life."""

    @property
    def inputs(self) -> Sequence[Needing]:
        """The jobs that it needs."""


class Chain:
    """What a job needs, step by step; read once, as it never changes. Its jobs' states do.

    Args:
        job: the job.
    """

    def __init__(self, job: Needing) -> None:
        self._steps: list[tuple[list[Needing], int]] = []  # the nearest first, with how many more there are
        known, nearest = {job.id}, [job]
        while nearest and len(self._steps) <= _MOST_STEPS:
            above: dict[str, Needing] = {}
            count = 0
            for one in nearest:
                inputs = _inputs_of(one)
                count += len(inputs)
                above |= {needed.id: needed for needed in islice(inputs, _MOST_JOBS) if needed.id not in known}
            known |= above.keys()
            nearest = list(above.values())[:_MOST_JOBS]
            if nearest:
                self._steps.append((nearest, count - len(nearest) if len(nearest) == _MOST_JOBS else 0))

    def __str__(self) -> str:
        """Return names and states, the first step first; empty where it needs none."""
        steps = [_step(jobs, more) for jobs, more in self._steps[:_MOST_STEPS]]
        return " → ".join([*(["..."] if len(self._steps) > _MOST_STEPS else []), *reversed(steps)])


def waited_for(job: Needing) -> str:
    """Return the names of the inputs that a waiting job waits for; empty where it is not waiting."""
    if job.state is not JobState.WAITING:
        return ""
    inputs = _inputs_of(job)
    left = [one for one in islice(inputs, _MOST_JOBS) if one.state is not JobState.SUCCEEDED]
    return _names(left, max(0, len(inputs) - _MOST_JOBS), lambda _: "")


def _inputs_of(job: Needing) -> Sequence[Needing]:
    try:
        return job.inputs
    except (OSError, JobContainerError, KeyError):  # what a job has made of its folder
        return ()


def _step(jobs: Sequence[Needing], more: int) -> str:
    return _names(jobs, more, lambda states: f" ({', '.join(states)})")


def _names(jobs: Sequence[Needing], more: int, described: Callable[[list[str]], str]) -> str:
    names = Counter(job.name for job in jobs)
    shown = []
    for name, number in list(names.items())[:_MOST_NAMES]:
        states = Counter(job.state for job in jobs if job.name == name)
        words = [one.words if number == 1 else f"{states[one]:,} {one.words}" for one in JobState if states[one]]
        shown.append(f"{'' if number == 1 else f'{number:,} '}{shown_line(name)}{described(words)}")
    more += sum(list(names.values())[_MOST_NAMES:])
    return ", ".join(units.present(*shown, f"{more:,} more" if more else ""))
