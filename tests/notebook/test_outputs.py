"""A cell's outputs, kept equal to a list that changes."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcontainer.notebook.cell_outputs import Bundle, OutputSlots
from jobcontainer.notebook.refresher import INTERVAL, Painter


class Cell:
    """What a front end makes of the messages: outputs in order, found by id."""

    def __init__(self):
        self.outputs, self.sent = {}, 0

    def show(self, data, metadata=None):
        self.sent += 1
        self.outputs[str(len(self.outputs))] = Bundle(data, metadata or {})
        return str(len(self.outputs) - 1)

    def update(self, display_id, data, metadata=None):
        self.sent += 1
        self.outputs[display_id] = Bundle(data, metadata or {})

    def visible(self):
        return [bundle for bundle in self.outputs.values() if bundle.data]


lists = st.lists(st.lists(st.sampled_from([Bundle({"text/plain": text}) for text in "abcd"]), max_size=6), max_size=8)


@given(lists)
def test_the_cell_shows_the_list_whatever_it_was_before(wanted):
    """After each change the visible outputs are the list, in its order."""
    cell = Cell()
    slots = OutputSlots(cell)
    for bundles in wanted:
        slots.show(bundles)
        assert cell.visible() == bundles
        assert slots.shown == bundles


def test_only_what_changed_is_sent():
    """A plot that is cleared and drawn a thousand times takes one output; nothing is sent twice."""
    cell = Cell()
    slots = OutputSlots(cell)
    first = Bundle({"text/plain": "first"})
    slots.show([first])
    slots.show([first])
    assert cell.sent == 1
    for number in range(1000):
        slots.show([first, Bundle({"text/plain": str(number)})])
    assert len(cell.outputs) == 2
    assert cell.sent == 1001
    slots.show([])
    assert cell.visible() == []
    slots.show([first])
    assert len(cell.outputs) == 2


class Picture:
    """A card that counts how often it was painted."""

    def __init__(self, painter, *, moving=False, fails=False):
        self.bell, self.moving, self.fails = painter.bell(), moving, fails
        self.count, self.painted, self.closed = 0, threading.Semaphore(0), threading.Event()
        self.threads = set()

    def paint(self):
        self.count += 1
        self.threads.add(threading.current_thread().name)
        self.painted.release()
        if self.fails:
            raise RuntimeError("a bug")
        return True

    def close(self):
        self.closed.set()


@pytest.fixture
def painter():
    made = Painter()
    yield made
    made.close()


@pytest.mark.slow
def test_a_still_card_is_painted_only_when_its_bell_rings(painter):
    """While another one moves and is painted on and on; a thousand rings are one or two paints."""
    still, moving = Picture(painter), Picture(painter, moving=True)
    painter.add(still)
    assert still.painted.acquire(timeout=5)
    painter.add(moving)
    for _ in range(3):
        assert moving.painted.acquire(timeout=5)
    assert still.count == 1
    for _ in range(1000):
        still.bell.ring()
    assert still.painted.acquire(timeout=5)
    for _ in range(3):
        assert moving.painted.acquire(timeout=5)
    assert still.count <= 3
    assert still.threads == moving.threads == {"jobcontainer-painter"}


@pytest.mark.slow
def test_paints_keep_their_distance(painter):
    """However often a bell is rung, four paints a second."""
    card = Picture(painter)
    painter.add(card)
    begun = time.monotonic()
    while card.count < 4:
        card.bell.ring()
        assert card.painted.acquire(timeout=5)
    assert time.monotonic() - begun >= 3 * INTERVAL * 0.9


@pytest.mark.slow
def test_a_card_that_fails_is_given_up_and_the_others_go_on(painter, caplog):
    """The failure is logged, once."""
    broken, sound = Picture(painter, moving=True, fails=True), Picture(painter, moving=True)
    painter.add(broken)
    assert broken.closed.wait(5)
    painter.add(sound)
    for _ in range(3):
        assert sound.painted.acquire(timeout=5)
    assert broken.count == 1
    assert caplog.text.count("could not be painted") == 1


def test_closing_gives_up_every_card_and_ends_the_thread(painter):
    """Nothing is painted afterwards."""
    card = Picture(painter, moving=True)
    painter.add(card)
    assert card.painted.acquire(timeout=5)
    painter.close()
    assert card.closed.is_set()
    assert "jobcontainer-painter" not in {thread.name for thread in threading.enumerate()}
