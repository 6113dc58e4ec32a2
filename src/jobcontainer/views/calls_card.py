"""The calls of a ``map`` as one card: how many have ended and how, their rate, the time left, the failures by kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jobcontainer.events import Bar, JobState
from jobcontainer.views import units
from jobcontainer.views.card import ICONS, Card, bar_lines
from jobcontainer.views.escaping import shown_line
from jobcontainer.views.failure_kinds import FailureKinds

if TYPE_CHECKING:
    from collections.abc import Mapping

_TAKE_RESULTS: Final = "It goes on as its results are taken: buffersize limits how many calls are ahead of them."
_SEE_FAILURES: Final = "the results raise each."


@dataclass(kw_only=True)
class CallCounts:
    """What was read of the calls of a ``map`` at one moment.

    Attributes:
        id: of the job of the first chunk; empty before there is one.
        name: of the function.
        total: how many calls there are; None where that is not known yet.
        begun: when the map began, in seconds since the epoch.
        updated: when the last of the calls that are known to have ended did.
        ended: how many ended in which state.
        failures: by kind; each stands for the number of a call.
        is_over: whether all have ended.
        is_waiting: whether those that were submitted have ended, and the others wait until results are taken.
    """

    id: str = ""
    name: str
    total: int | None
    begun: float
    updated: float
    ended: Mapping[JobState, int] = field(default_factory=Counter)
    failures: FailureKinds[int] = field(default_factory=FailureKinds)
    is_over: bool = False
    is_waiting: bool = False

    @property
    def done(self) -> int:
        """How many have ended."""
        return sum(self.ended.values())

    @property
    def state(self) -> JobState:
        """The state of the whole: of its failures the most frequent kind, where there are any."""
        if not self.is_over:
            return JobState.RUNNING if self.done or self.id else JobState.QUEUED
        bad = {state: count for state, count in self.ended.items() if count and state is not JobState.SUCCEEDED}
        return max(bad, key=bad.__getitem__) if bad else JobState.SUCCEEDED


def calls_card(calls: CallCounts, now: float) -> Card:
    """Make the card of a ``map``.

    Example:
        >>> found = CallCounts(name="simulate", total=10, begun=0.0, updated=2.0, ended={JobState.SUCCEEDED: 4})
        >>> card = calls_card(found, 2.0)
        >>> card.name, card.words, card.bars[0].facts
        ('simulate, 10 calls', '4 succeeded, 6 to come', ('40 %', '4/10', '2/s', '3.0 s left'))
    """
    state, done, over = calls.state, calls.done, calls.is_over
    to_come = "" if calls.total is None or over else f"{max(calls.total - done, 0):,} to come"
    words = [f"{calls.ended[one]:,} {one.words}" for one in JobState if calls.ended.get(one)]
    bar = Bar(done=done, total=calls.total, started=calls.begun, updated=calls.updated if over else now)
    number = units.count(calls.total, "call") if calls.total is not None else "calls"
    return Card(
        id=shown_line(calls.id),
        state=state,
        icon=ICONS[state],
        words=", ".join(units.present(*words, to_come)) or state.words,
        name=f"{shown_line(calls.name)}, {number}",
        facts=_ended_facts(calls) if over else (),
        clock=None if over else max(0.0, now - calls.begun),
        bars=bar_lines((bar,), moving=not over),
        failures=calls.failures.rows(str, lambda number: f"call {number + 1:,}"),
        notes=units.present(
            calls.failures.note_of_others(_SEE_FAILURES), _TAKE_RESULTS if calls.is_waiting and not over else ""
        ),
        actions=() if over else ("cancel_all",),
    )


def _ended_facts(calls: CallCounts) -> tuple[str, ...]:
    seconds = max(0.0, calls.updated - calls.begun)
    rate = units.rate(calls.done / seconds) if seconds and calls.done else ""
    return units.present(units.seconds(seconds), rate, units.clock(calls.updated))
