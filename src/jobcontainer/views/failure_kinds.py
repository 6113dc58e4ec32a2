"""Failures by what they say: many jobs, or many calls, that failed for the same reason are one line of a card."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from jobcontainer.views import units
from jobcontainer.views.card import Row, error_line
from jobcontainer.views.escaping import shown_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.events import JobState, Outcome
    from jobcontainer.storage.folder import JobFolder

T = TypeVar("T")

MOST_KINDS: Final = 5
_MOST_KEPT: Final = 1000
_LONGEST_ERROR: Final = 300


@dataclass(slots=True)
class _Kind(Generic[T]):
    """Failures with the same message."""

    state: JobState
    newest: T
    at: float = 0.0
    count: int = 0


class FailureKinds(Generic[T]):
    """Counts failures by their message; where there are very many messages, the others by their state.

    Example:
        >>> from jobcontainer.events import JobState
        >>> kinds = FailureKinds()
        >>> for number in range(3):
        ...     kinds.note("ValueError: bad", JobState.FAILED, number, float(number))
        >>> [(row.title, row.facts) for row in kinds.rows(str, lambda number: f"call {number}")]
        [('ValueError: bad', ('3 times', 'last call 2'))]
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind[T]] = {}

    def note(self, error: str, state: JobState, what: T, at: float, count: int = 1) -> None:
        """Count a failure.

        Args:
            error: what it says; its first line counts.
            state: how the job or the call ended.
            what: the job, or what else stands for what failed.
            at: when it ended, in seconds since the epoch.
            count: how many failed so.
        """
        text = shown_line(error.split("\n", 1)[0], _LONGEST_ERROR)
        if not text or (text not in self._kinds and len(self._kinds) >= _MOST_KEPT):
            text = state.words
        kind = self._kinds.setdefault(text, _Kind(state, what))
        kind.count += count
        kind.newest, kind.at = what, at

    def rows(self, id_of: Callable[[T], str], label: Callable[[T], str]) -> tuple[Row, ...]:
        """Return a row for each of the newest kinds."""
        newest = heapq.nlargest(MOST_KINDS, self._kinds.items(), key=lambda item: item[1].at)
        return tuple(
            Row(
                id=shown_line(id_of(kind.newest)),
                title=error,
                facts=(units.count(kind.count, "time"), f"last {label(kind.newest)}"),
            )
            for error, kind in newest
        )

    def note_of_others(self, how_to_see: str) -> str:
        """Return how many kinds have no row, and how to see them; empty where all have one."""
        hidden = len(self._kinds) - MOST_KINDS
        return f"{units.count(hidden, 'more kind')} of failure; {how_to_see}" if hidden > 0 else ""


def reason_of(outcome: Outcome, folder: JobFolder) -> str:
    """Return how a job ended, without the path of its own log: in that, two jobs that ended alike differ."""
    return error_line(outcome).replace(f": {folder.log_file}", ".")
