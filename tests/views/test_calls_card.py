"""The calls of a map as one card."""

from __future__ import annotations

from collections import Counter

import pytest

from jobcontainer.events import JobState
from jobcontainer.views.calls_card import CallCounts, calls_card
from jobcontainer.views.failure_kinds import MOST_KINDS, FailureKinds
from jobcontainer.views.render import card_html, card_text

START = 1_800_000_000.0


def counts(total=10, *, over=False, **ended):
    known = {state: ended.get(state.name.lower(), 0) for state in JobState}
    return CallCounts(
        id="20261122-1-simulate-ab" if ended else "",
        name="simulate",
        total=total,
        begun=START,
        updated=START + 4,
        ended=Counter(known),
        is_over=over,
    )


def test_a_running_map_says_done_rate_and_time_left():
    """How many calls have ended and how, how many are to come, their rate, and the time that they will take."""
    card = calls_card(counts(succeeded=3, failed=1), START + 4)
    assert (card.name, card.words) == ("simulate, 10 calls", "3 succeeded, 1 failed, 6 to come")
    assert card.bars[0].facts == ("40 %", "4/10", "1/s", "6.0 s left")
    assert card.bars[0].fraction == 0.4
    assert card.clock == 4
    assert card.actions == ("cancel_all",)
    assert card.state is JobState.RUNNING


def test_before_the_first_job_there_is_nothing_to_say_but_the_number():
    """It is queued, as a job is."""
    card = calls_card(counts(), START)
    assert (card.state, card.words) == (JobState.QUEUED, "10 to come")


def test_a_map_without_a_known_number_counts_only():
    """With a buffer, the calls may be endless: no share, no time left."""
    card = calls_card(counts(None, succeeded=8), START + 4)
    assert (card.name, card.words) == ("simulate, calls", "8 succeeded")
    assert card.bars[0].facts == ("8", "2/s")
    assert card.bars[0].fraction is None


def test_a_map_that_waits_for_its_reader_says_so():
    """Else it looked as if it hung."""
    waiting = counts(None, succeeded=8)
    waiting.is_waiting = True
    assert "as its results are taken" in calls_card(waiting, START + 60).notes[0]


@pytest.mark.parametrize(
    ("ended", "state"),
    [
        ({"succeeded": 10}, JobState.SUCCEEDED),
        ({"succeeded": 7, "failed": 1, "crashed": 2}, JobState.CRASHED),
        ({"cancelled": 10}, JobState.CANCELLED),
    ],
)
def test_the_end_has_the_state_of_the_most_frequent_failure(ended, state):
    """And how long it took, at which rate, and when that was; there is nothing to cancel any more."""
    card = calls_card(counts(over=True, **ended), START + 100)
    assert card.state is state
    assert card.facts[:2] == ("4.0 s", "2.5/s")
    assert (card.clock, card.actions, card.bars[0].fraction) == (None, (), 1.0)
    assert "to come" not in card.words


def test_failures_of_a_kind_are_one_line():
    """With how many there were, and the call that was the last; of very many kinds the newest have one."""
    found = counts(20, succeeded=1, failed=9)
    for number in range(9):
        found.failures.note(f"ValueError: bad\n{number}", JobState.FAILED, number, START + number)
    found.failures.note("", JobState.CRASHED, 9, START + 9)
    (newest, other) = calls_card(found, START + 10).failures
    assert (newest.title, newest.facts) == ("crashed", ("1 time", "last call 10"))
    assert (other.title, other.facts) == ("ValueError: bad", ("9 times", "last call 9"))
    for number in range(2000):
        found.failures.note(f"KeyError: {number}", JobState.FAILED, number, START + 20 + number)
    card = calls_card(found, START + 10)
    assert len(card.failures) == MOST_KINDS
    assert card.failures[0].title == "failed"
    assert "996 more kinds of failure" in card.notes[0]


def test_texts_of_calls_are_escaped():
    """What a function is called, and what its calls raise, is anything."""
    found = counts(succeeded=1)
    found.name = "<b>\x1b[31m"
    found.failures = FailureKinds()
    found.failures.note("Error: <script>\x00", JobState.FAILED, 1, START)
    html, text = card_html(calls_card(found, START), START), card_text(calls_card(found, START))
    assert "<script>" not in html
    assert "<b>\x1b" not in html
    assert "\x1b" not in text
    assert "\x00" not in text
