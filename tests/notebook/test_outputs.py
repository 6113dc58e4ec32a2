"""A cell's outputs, kept equal to a list that changes."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcontainer.notebook.cards import INTERVAL, Refresher
from jobcontainer.notebook.cell_outputs import MimeBundle, OutputList


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

    def __init__(self, *, polled=False, fails=False):
        self.needs_polling, self.fails = polled, fails
        self.count, self.refreshed, self.closed = 0, threading.Semaphore(0), threading.Event()
        self.threads = set()

    def refresh(self):
        self.count += 1
        self.threads.add(threading.current_thread().name)
        self.refreshed.release()
        if self.fails:
            raise RuntimeError("a bug")
        return True

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


@pytest.mark.slow
def test_a_card_that_fails_is_closed_and_the_others_go_on(refresher, caplog):
    """The failure is logged, once."""
    broken, sound = CountingCard(polled=True, fails=True), CountingCard(polled=True)
    refresher.add(broken)
    assert broken.closed.wait(5)
    refresher.add(sound)
    for _ in range(3):
        assert sound.refreshed.acquire(timeout=5)
    assert broken.count == 1
    assert caplog.text.count("could not be refreshed") == 1


def test_closing_closes_every_card_and_ends_the_thread(refresher):
    """Nothing is refreshed afterwards."""
    card = CountingCard(polled=True)
    refresher.add(card)
    assert card.refreshed.acquire(timeout=5)
    refresher.close()
    assert card.closed.is_set()
    assert "jobcontainer-refresher" not in {thread.name for thread in threading.enumerate()}
