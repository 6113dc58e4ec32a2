"""The painter: one thread that keeps every live card up to date.

Design. Whatever happens to a job happens in some other thread (the pool's, the front end's messages): there the bell of
its card is rung, and nothing else. The painter looks at the cards whose bell was rung and at those whose work moves (a
job runs), sends what changed, and sleeps again; four times a second at the most, and not at all while nothing moves and
no bell rings. It alone touches cards, panels and displays once they are added, so these need no locks.

The thread begins with the first card and lives until :meth:`Painter.close`; it is a daemon and holds no job back.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

INTERVAL = 0.25
"""Seconds between two paints."""

_log = logging.getLogger(__name__)


class Bell:
    """Calls the painter to one card.

    Args:
        woken: what the painter waits for.
    """

    def __init__(self, woken: threading.Event) -> None:
        """Begin rung: a new card has to be looked at."""
        self._woken = woken
        self._rung = True

    def ring(self) -> None:
        """Have the card looked at soon; from any thread, at no cost."""
        self._rung = True
        self._woken.set()

    def answered(self) -> bool:
        """Tell whether it was rung since it was last asked."""
        rung, self._rung = self._rung, False
        return rung


class Painted(Protocol):
    """Something to keep up to date."""

    bell: Bell

    @property
    def moving(self) -> bool:
        """Whether to look at it again though nobody rings."""
        ...

    def paint(self) -> bool:
        """Bring it up to date; return False once there is nothing left to keep up to date."""
        ...

    def close(self) -> None:
        """Give it up; it is not painted any more."""
        ...


class Painter:
    """Keeps cards up to date in one thread."""

    def __init__(self) -> None:
        """Begin without cards and without a thread."""
        self._cards: list[Painted] = []
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def bell(self) -> Bell:
        """Make a bell for a card that is to be added."""
        return Bell(self._woken)

    def add(self, card: Painted) -> None:
        """Keep a card up to date from now on."""
        with self._lock:
            self._cards.append(card)
            self._woken.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobcontainer-painter", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Give up every card, and end the thread."""
        with self._lock:
            self._closing.set()
            self._woken.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        moving = False
        while not self._closing.is_set():
            self._woken.wait(0 if moving else None)
            self._woken.clear()
            moving = self._paint()
            self._closing.wait(INTERVAL)  # no more often than this, however often bells are rung
        for card in self._cards:
            card.close()

    def _paint(self) -> bool:
        with self._lock:
            cards = list(self._cards)
        moving = False
        for card in cards:
            if not (card.bell.answered() or card.moving):
                continue
            try:
                keep = card.paint()
                moving = moving or card.moving
            except Exception:  # noqa: BLE001 -- one bad card must not stop the others
                _log.exception("A card could not be painted; its job goes on.")
                card.close()
                keep = False
            if not keep:
                with self._lock:
                    self._cards.remove(card)
        return moving
