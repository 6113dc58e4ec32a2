"""The cards of one shell: which cell has which, and one thread that keeps every live card up to date.

A job's state changes in some other thread (the pool's, or the one that handles the page's messages), which only wakes
the refresher. It visits every card, each of which sends what changed, and sleeps again: at most four visits a second,
and none while nothing wakes it and no card needs polling (no job runs). Once a card is added, this thread alone uses
the card, its panel and its outputs, so these need no locks. A card that fails, whatever it raises, is tried again for a
while, as descriptors or memory may be short for a moment; then it says why, and is closed. The others go on.

The thread starts with the first card and ends with :meth:`Refresher.close`; it is a daemon and delays no exit.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.mapping import MapResults
from jobcontainer.notebook.card import CellCard, TerminalCard
from jobcontainer.notebook.card_source import CallsSource, GroupSource, JobSource
from jobcontainer.notebook.cell_outputs import OutputArea
from jobcontainer.notebook.ipython_internals import in_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.jobs.job import Job
    from jobcontainer.notebook.card_source import CardSource

INTERVAL = 0.25
"""Seconds between two refreshes."""

MOST_FAILURES = 40
"""How often a card may fail, one refresh after the other, before it is closed: for ten seconds."""

_log = logging.getLogger(__name__)


class Refresher:
    """Keeps cards up to date in one thread."""

    def __init__(self) -> None:
        self._cards: list[CellCard | TerminalCard] = []
        self._failures: dict[CellCard | TerminalCard, int] = {}  # in a row
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have the cards refreshed soon; may be called from any thread, and returns at once."""
        self._wake.set()

    def add(self, card: CellCard | TerminalCard) -> None:
        """Keep a card up to date from now on."""
        with self._lock:
            self._cards.append(card)
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobcontainer-refresher", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Close every card, and end the thread."""
        with self._lock:
            self._closing.set()
            self._wake.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        polling = False
        while not self._closing.is_set():
            self._wake.wait(0 if polling else None)
            self._wake.clear()
            polling = self._refresh_cards()
            self._closing.wait(INTERVAL)  # the pause between two refreshes, however often wake() is called
        for card in self._cards:
            _close(card)

    def _refresh_cards(self) -> bool:
        """Refresh every card; return whether one of them needs polling."""
        with self._lock:
            cards = list(self._cards)
        polling = False
        for card in cards:
            try:
                keep, polled = card.refresh(), card.needs_polling
                self._failures.pop(card, None)
            except BaseException as error:  # noqa: BLE001 -- whatever one card does must not stop the others
                keep = polled = self._may_fail_again(card, error)
            polling = polling or polled
            if not keep:
                with self._lock:
                    self._cards.remove(card)
        return polling

    def _may_fail_again(self, card: CellCard | TerminalCard, error: BaseException) -> bool:
        """Note that a card failed; the first time it is logged, and after the last the card says so and is closed."""
        count = self._failures[card] = self._failures.get(card, 0) + 1
        if count == 1:
            _log.error("A card could not be refreshed; its job goes on.", exc_info=error)
        if count < MOST_FAILURES:
            return True
        del self._failures[card]
        with contextlib.suppress(BaseException):
            card.fail(error)
        _close(card)
        return False


def _close(card: CellCard | TerminalCard) -> None:
    with contextlib.suppress(BaseException):
        card.close()


class CardRegistry:
    """Opens cards; those of a new run of a cell replace those of the run before."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._refresher = Refresher()
        self._cards: dict[str, tuple[str, list[CellCard]]] = {}  # cell id: the request that ran it last, and its cards

    def open(
        self,
        handle: Job[Any] | JobGroup[Any] | MapResults[Any],
        position: Callable[[Job[Any]], int | None] = lambda _: None,
        on_rerun: Callable[[Job[Any] | JobGroup[Any]], None] = lambda _: None,
    ) -> CellCard | TerminalCard:
        """Show jobs under the cell that runs, to their end; ``position`` counts the queued jobs before one."""
        wake = self._refresher.wake
        source: CardSource
        if isinstance(handle, MapResults):
            source = CallsSource(handle)
        elif isinstance(handle, JobGroup):
            source = GroupSource(handle, wake)
        else:
            source = JobSource(handle, wake, position)
        card: CellCard | TerminalCard
        if in_kernel(self._shell):
            area = OutputArea(self._shell)
            earlier = self._close_earlier(area)
            card = CellCard(area, source, wake=wake, on_rerun=on_rerun, earlier=earlier)
            if area.cell_id:
                self._cards.setdefault(area.cell_id, (area.request_id, []))[1].append(card)
        else:
            card = TerminalCard(source)
        self._refresher.add(card)
        return card

    def close(self) -> None:
        """Close every card; what they show stays."""
        self._refresher.close()

    def _close_earlier(self, area: OutputArea) -> list[CardSource]:
        """Close the cards of an earlier run of a cell, and return the sources of those whose jobs have not ended."""
        earlier_request, cards = self._cards.get(area.cell_id, ("", []))
        if earlier_request == area.request_id:
            return []
        self._cards.pop(area.cell_id, None)
        not_ended = [card.source for card in cards if not card.closed.is_set()]
        for card in cards:
            card.request("close")
        return not_ended
