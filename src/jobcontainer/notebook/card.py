"""What stands under a cell: a live panel, a static card, the jobs' rich outputs and the result.

The static card is the first output: a dated snapshot whenever the state changes, for a notebook that is saved
meanwhile, and the final truth at the end. The panel (a widget) is the second; it hides the snapshot while it lives, and
at the end its place is emptied, so that no saved notebook holds a widget. The rich outputs follow, and last the result.

A page that was reloaded knows nothing of the outputs' ids, so updates do not reach it. Its panel says hello when it is
made again; from then on the outputs go through the panel as well, and the page's half writes them into the notebook.

Threads: a card is made, with its first snapshot, in the cell's own thread, and belongs to the painter from then on.
:meth:`CellCard.ask` may be called from any thread; it notes and rings.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections import deque
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from jobcontainer.notebook.cell_outputs import Bundle, OutputSlots, value_bundle
from jobcontainer.notebook.panel import LivePanel, can_be_live
from jobcontainer.views.render import card_html, card_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobcontainer.jobs.group import JobGroup
    from jobcontainer.jobs.job import Job
    from jobcontainer.notebook.card_source import Work
    from jobcontainer.notebook.place import CellPlace
    from jobcontainer.notebook.refresher import Bell
    from jobcontainer.views.ansi import Line
    from jobcontainer.views.card import Card

_SNAPSHOT_SECONDS = 10.0
_SNAPSHOT_SECONDS_WITHOUT_PANEL = 1.0
_MOST_LIVE_LOG = 4000  # characters, four times a second at the most
_LONGEST_LIVE_LINE = 300


class CellCard:
    """Everything that jobcontainer shows under one cell.

    Args:
        shell: the kernel's shell, whose formatters show the result.
        place: the cell.
        work: what it is about.
        bell: calls the painter to this card.
        live: whether a panel is wanted; without one the static card is refreshed every second.
        renewed: called with the new jobs after a rerun.
        earlier: what an earlier run of the same cell left running.

    Attributes:
        closed: set when the work has ended and all of it is shown.
    """

    def __init__(  # noqa: PLR0913 -- made in one place
        self,
        shell: Any,
        place: CellPlace,
        work: Work,
        *,
        bell: Bell,
        live: bool,
        renewed: Callable[[Job[Any] | JobGroup[Any]], None],
        earlier: Sequence[Work] = (),
    ) -> None:
        """Show the work as it stands now, in the cell that runs."""
        self.work, self.bell = work, bell
        self.closed = threading.Event()
        self._id = uuid.uuid4().hex
        self._shell, self._place, self._renewed, self._earlier = shell, place, renewed, earlier
        self._asked: deque[str] = deque()
        self._pages = 0
        self._panel = LivePanel(place, self._id, self.ask) if live and can_be_live() else None
        card = self._card()
        self._static = self._paint_static(card)
        self._static_id = place.show(self._static.data)
        self._painted, self._painted_at = card, time.monotonic()
        self._slots = OutputSlots(place)

    @property
    def moving(self) -> bool:
        """Whether it changes though no state does."""
        return self.work.moving and not self.closed.is_set()

    def ask(self, action: str) -> None:
        """Note what the page asks for, and have it done soon."""
        self._asked.append(action)
        self.bell.ring()

    def paint(self) -> bool:
        """Do what was asked, and show what changed; return False once there is nothing left to keep up to date."""
        while self._asked:
            self._do(self._asked.popleft())
        if self.closed.is_set():
            return self._panel is not None
        ended = self.work.ended  # before the rest is read, so that nothing that came before the end is missed
        outputs = self.work.outputs()
        card = self._card()
        if card.state.ended and not ended:  # it ended in between, and may have shown more
            self.bell.ring()
            return True
        if ended:
            self._finish(card, outputs)
            return self._panel is not None
        if self._panel is not None:
            self._panel.show(card_model(card))
        self._slots.show(outputs)
        if self._is_due(card):
            self._refresh(card)
        return True

    def close(self) -> None:
        """Give the card up: what it shows stays, and is not refreshed any more."""
        if self._panel is not None:
            self._panel.close()
            self._panel = None
        self.closed.set()

    def _card(self) -> Card:
        card = self.work.card(time.time())
        if all(work.ended for work in self._earlier):
            return card
        note = "The earlier run of this cell goes on."
        return replace(card, notes=(*card.notes, note), actions=(*card.actions, "cancel_earlier"))

    def _do(self, action: str) -> None:
        match action:
            case "hello":
                self._pages += 1
                self._repair()
            case "cancel" | "cancel_all":
                self.work.cancel()
            case "cancel_earlier":
                for work in self._earlier:
                    work.cancel()
            case "rerun" | "rerun_failed":
                self._start_again()
            case "retire":
                self.close()

    def _start_again(self) -> None:
        self.work = self.work.again()
        self.closed.clear()
        self._renewed(self.work.handle)
        card = self._card()
        self._slots.show([])
        if self._panel is not None:
            self._panel.show(card_model(card))
        self._refresh(card)

    def _is_due(self, card: Card) -> bool:
        if card.state is not self._painted.state or (card.clock is None) != (self._painted.clock is None):
            return True  # it has begun or ended
        age = time.monotonic() - self._painted_at
        due = _SNAPSHOT_SECONDS if self._panel is not None else _SNAPSHOT_SECONDS_WITHOUT_PANEL
        return age > due and replace(card, clock=None) != replace(self._painted, clock=None)

    def _refresh(self, card: Card) -> None:
        self._painted, self._painted_at = card, time.monotonic()
        self._static = self._paint_static(card)
        self._place.update(self._static_id, self._static.data)
        self._repair()

    def _finish(self, card: Card, outputs: list[Bundle]) -> None:
        result = self._result()
        self._slots.show([*outputs, result] if result is not None else outputs)
        if self._panel is not None:
            self._panel.hide(card.actions, card.state)
        self._refresh(card)
        self.closed.set()

    def _result(self) -> Bundle | None:
        try:
            return value_bundle(self._shell, self.work.result())
        except Exception as error:  # noqa: BLE001 -- the file was deleted, or a class in it raises when it is loaded
            text = f"The result can't be loaded here: {type(error).__name__}: {error}"
            return Bundle({"text/plain": f"{text}\njob.result() raises this error."})

    def _repair(self) -> None:
        """Send all outputs through the panel, for a page that was not there when they were shown."""
        if self._panel is not None and self._pages > 1:  # the first page got them as they came
            self._panel.repair(self._static, self._slots.shown)

    def _paint_static(self, card: Card) -> Bundle:
        return Bundle({"text/html": card_html(card, time.time(), self._id), "text/plain": card_text(card)})


class TerminalCard:
    """What is said of work in a terminal: a line when it was sent off, and its end above the prompt.

    Args:
        work: what it is about.
        bell: calls the painter to it.

    Attributes:
        closed: set when its end has been told.
    """

    def __init__(self, work: Work, bell: Bell) -> None:
        """Say that it was sent off."""
        self.work, self.bell = work, bell
        self.closed = threading.Event()
        self.moving = False
        card = work.card(time.time())
        sys.stdout.write(f"{card.icon} {card.name}: sent off as {card.id}\n")

    def paint(self) -> bool:
        """Tell the end, once; return whether it is still to come."""
        if self.work.ended and not self.closed.is_set():
            sys.stdout.write(f"{card_text(self.work.card(time.time()))}\n")
            self.closed.set()
        return not self.closed.is_set()

    def close(self) -> None:
        """Say no more."""
        self.closed.set()


def card_model(card: Card) -> dict[str, Any]:
    """Return a card as the panel takes it: plain data, without what is empty, and no more of the log than is read live.

    A line of the log is a text, or a list of class names and texts where it has colours.
    """
    model = {name: value for name, value in asdict(card).items() if value not in ("", (), None)}
    if card.log:
        model["log"] = list(_recent(card.log))[::-1]
    return model


def _recent(lines: Sequence[Line]) -> Iterator[str | Line]:
    """Go through the last lines, newest first, as long as there is room."""
    room = _MOST_LIVE_LOG
    for line in reversed(lines):
        text = _cut("".join(part for _, part in line))
        room -= len(text) + 1
        if room < 0:
            return
        plain = all(not styles for styles, _ in line)
        yield text if plain or len(text) > _LONGEST_LIVE_LINE else line


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LIVE_LINE else f"{text[:_LONGEST_LIVE_LINE]} …"
