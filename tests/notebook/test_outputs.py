"""A cell's outputs, kept equal to a list that changes."""

from __future__ import annotations

import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcontainer.notebook import cards
from jobcontainer.notebook.cards import INTERVAL, Refresher
from jobcontainer.notebook.cell_outputs import MimeBundle, OutputList, sound_bundle


class Cell:
    """What a front end makes of the messages: outputs in order, found by id."""

    def __init__(self):
        self.outputs, self.sent = {}, 0

    def add(self, bundle):
        self.sent += 1
        self.outputs[str(len(self.outputs))] = bundle
        return str(len(self.outputs) - 1)

    def update(self, display_id, bundle):
        self.sent += 1
        self.outputs[display_id] = bundle

    def visible(self):
        return [bundle for bundle in self.outputs.values() if bundle.data]


lists = st.lists(
    st.lists(st.sampled_from([MimeBundle({"text/plain": text}) for text in "abcd"]), max_size=6), max_size=8
)


@given(lists)
def test_the_cell_shows_the_list_whatever_it_showed_before(wanted):
    """After each change the visible outputs are the list, in its order."""
    cell = Cell()
    outputs = OutputList(cell)
    for bundles in wanted:
        outputs.show(bundles)
        assert cell.visible() == bundles
        assert outputs.shown == bundles


def test_only_what_changed_is_sent():
    """A plot that is cleared and drawn a thousand times has one output; nothing is sent twice."""
    cell = Cell()
    outputs = OutputList(cell)
    first = MimeBundle({"text/plain": "first"})
    outputs.show([first])
    outputs.show([first])
    assert cell.sent == 1
    for number in range(1000):
        outputs.show([first, MimeBundle({"text/plain": str(number)})])
    assert len(cell.outputs) == 2
    assert cell.sent == 1001
    outputs.show([])
    assert cell.visible() == []
    outputs.show([first])
    assert len(cell.outputs) == 2


class CountingCard:
    """A card that counts how often it was refreshed."""

    def __init__(self, *, polled=False, fails=None, until=10**9):
        self.needs_polling, self.fails, self.until, self.failed_by = polled, fails, until, None
        self.count, self.refreshed, self.closed = 0, threading.Semaphore(0), threading.Event()
        self.threads = set()

    def refresh(self):
        self.count += 1
        self.threads.add(threading.current_thread().name)
        self.refreshed.release()
        if self.fails and self.count < self.until:
            raise self.fails("a bug")
        return True

    def fail(self, error):
        self.failed_by = error

    def close(self):
        self.closed.set()


@pytest.fixture
def refresher():
    made = Refresher()
    yield made
    made.close()


@pytest.mark.slow
def test_nothing_is_refreshed_while_no_card_needs_it(refresher):
    """Without polling, a card is refreshed when it is added and after wake(), once or twice for many calls."""
    card = CountingCard()
    refresher.add(card)
    assert card.refreshed.acquire(timeout=5)
    assert not card.refreshed.acquire(timeout=4 * INTERVAL)
    for _ in range(1000):
        refresher.wake()
    assert card.refreshed.acquire(timeout=5)
    card.refreshed.acquire(timeout=2 * INTERVAL)
    assert not card.refreshed.acquire(timeout=4 * INTERVAL)
    assert card.count <= 3
    assert card.threads == {"jobcontainer-refresher"}


@pytest.mark.slow
def test_a_card_that_needs_polling_is_refreshed_without_wake(refresher):
    """A running job's progress is shown though its state does not change."""
    card = CountingCard(polled=True)
    refresher.add(card)
    for _ in range(4):
        assert card.refreshed.acquire(timeout=5)


@pytest.mark.slow
def test_refreshes_keep_their_distance(refresher):
    """There are at most four refreshes a second, however often wake() is called."""
    card = CountingCard()
    refresher.add(card)
    begun = time.monotonic()
    while card.count < 4:
        refresher.wake()
        assert card.refreshed.acquire(timeout=5)
    assert time.monotonic() - begun >= 3 * INTERVAL * 0.9


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError])
def test_a_card_that_fails_says_so_and_the_others_go_on(refresher, caplog, monkeypatch, error):
    """It is tried again for a while, logged once, and closed, whatever it raises."""
    monkeypatch.setattr(cards, "INTERVAL", 0.01)
    broken, sound = CountingCard(polled=True, fails=error), CountingCard(polled=True)
    refresher.add(broken)
    refresher.add(sound)
    assert broken.closed.wait(20)
    assert broken.count == cards.MOST_FAILURES
    assert isinstance(broken.failed_by, error)
    assert caplog.text.count("could not be refreshed") == 1
    seen = sound.count
    for _ in range(seen + 3):
        assert sound.refreshed.acquire(timeout=5)
    assert sound.count > seen


def test_a_card_that_failed_for_a_moment_goes_on(refresher, caplog, monkeypatch):
    """As when descriptors or memory were short."""
    monkeypatch.setattr(cards, "INTERVAL", 0.01)
    card = CountingCard(polled=True, fails=OSError, until=5)
    refresher.add(card)
    for _ in range(10):
        assert card.refreshed.acquire(timeout=5)
    assert not card.closed.is_set()
    assert caplog.text.count("could not be refreshed") == 1


@given(
    st.recursive(
        st.text(st.characters(exclude_categories=())) | st.floats() | st.none(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
def test_whatever_a_job_shows_can_be_sent(shown):
    """A message of Jupyter is UTF-8 and has no number that JSON lacks; what is no bundle shows nothing."""
    for bundle in (sound_bundle({"text/plain": shown}, {"a": shown}), sound_bundle(shown, shown)):
        json.dumps([bundle.data, bundle.metadata], ensure_ascii=False, allow_nan=False).encode("utf-8")


def test_closing_closes_every_card_and_ends_the_thread(refresher):
    """Nothing is refreshed afterwards."""
    card = CountingCard(polled=True)
    refresher.add(card)
    assert card.refreshed.acquire(timeout=5)
    refresher.close()
    assert card.closed.is_set()
    assert "jobcontainer-refresher" not in {thread.name for thread in threading.enumerate()}
