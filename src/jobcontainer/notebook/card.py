"""The outputs under a cell: a static card, a live panel, the jobs' rich outputs and the result.

The static card is the first output. While jobs run it is a dated snapshot, for a notebook that is saved meanwhile; in
the end it is the final card. The panel (a widget) is the second output; it hides the snapshot while it exists, and at
the end its output is made empty, so that no saved notebook contains a widget. The rich outputs follow, then the result.

A page that was reloaded does not know the ids of the outputs, so it ignores updates. The panel in it reports that the
page was loaded; from then on the outputs are sent to the panel as well, whose script writes them into the notebook.

Threads: a card is made, with its first snapshot, in the cell's own thread; after that it belongs to the refresher.
:meth:`CellCard.request` may be called from any thread; it stores the request and wakes the refresher.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections import deque
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from jobcontainer.notebook.card_source import GroupSource
from jobcontainer.notebook.cell_outputs import MimeBundle, OutputList
from jobcontainer.notebook.panel import LivePanel, can_be_live
from jobcontainer.views.card import LONGEST_MESSAGE
from jobcontainer.views.escaping import shown_line
from jobcontainer.views.render import card_html, card_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobcontainer.jobs.group import JobGroup
    from jobcontainer.jobs.job import Job
    from jobcontainer.notebook.card_source import CardSource
    from jobcontainer.notebook.cell_outputs import OutputArea
    from jobcontainer.views.ansi import Line
    from jobcontainer.views.card import Card

_SNAPSHOT_SECONDS = 10.0
_SNAPSHOT_SECONDS_WITHOUT_PANEL = 1.0
_MOST_LIVE_LOG = 4000  # characters; they are sent up to four times a second
_LONGEST_LIVE_LINE = 300


class CellCard:
    """Everything that jobcontainer shows under one cell.

    Args:
        area: the outputs of the cell.
        source: the content of the card.
        wake: has the card refreshed soon.
        on_rerun: called with the new jobs after a rerun.
        earlier: the sources of an earlier run of the same cell that have not ended.

    Attributes:
        headless: whether the cell must wait for the jobs, because a program executes the notebook.
        closed: set when all jobs have ended and everything is shown.
    """

    def __init__(
        self,
        area: OutputArea,
        source: CardSource,
        *,
        wake: Callable[[], None],
        on_rerun: Callable[[Job[Any] | JobGroup[Any]], None],
        earlier: Sequence[CardSource] = (),
    ) -> None:
        self.source, self.headless = source, area.headless
        self.closed = threading.Event()
        self._id = uuid.uuid4().hex
        self._wake, self._on_rerun, self._earlier = wake, on_rerun, earlier
        self._requests: deque[str] = deque()
        self._pages = 0
        live = not source.ended and not area.headless and can_be_live()
        self._panel = LivePanel(area, self._id, self.request) if live else None
        self._static, self._outputs = OutputList(area), OutputList(area)
        self._update_static(self._content())

    @property
    def needs_polling(self) -> bool:
        """Whether its content can change without a change of state."""
        return self.source.running and not self.closed.is_set()

    def request(self, action: str) -> None:
        """Store what the page asks for, and have it done soon."""
        self._requests.append(action)
        self._wake()

    def refresh(self) -> bool:
        """Do what was requested, and show what changed; return False when nothing can change any more."""
        while self._requests:
            self._do(self._requests.popleft())
        if self.closed.is_set():
            return self._panel is not None
        ended = self.source.ended  # read first, so that nothing that came before the end is missed
        outputs = self.source.outputs()
        card = self._content()
        if card.state.ended and not ended:  # it ended in between, and there may be more outputs
            self._wake()
            return True
        if ended:
            self._finish(card, outputs)
            return self._panel is not None
        if self._panel is not None:
            self._panel.show(card_model(card))
        self._outputs.show(outputs)
        if self._snapshot_is_due(card):
            self._update_static(card)
        return True

    def fail(self, error: BaseException) -> None:
        """Show why the card can't be shown any more; its jobs go on."""
        problem = shown_line(f"{type(error).__name__}: {error}", LONGEST_MESSAGE)
        text = f"This card can not be refreshed: {problem}. Its jobs go on; %jobs lists them."
        self._outputs.show([MimeBundle({"text/plain": text})])

    def close(self) -> None:
        """Stop: what the card shows stays, and is not updated any more."""
        if self._panel is not None:
            self._panel.close()
            self._panel = None
        self.closed.set()

    def _content(self) -> Card:
        card = self.source.card(time.time())
        if all(source.ended for source in self._earlier):
            return card
        note = "The earlier run of this cell goes on."
        return replace(card, notes=(*card.notes, note), actions=(*card.actions, "cancel_earlier"))

    def _do(self, action: str) -> None:
        match action:
            case "page_loaded":
                self._pages += 1
                self._repair_page()
            case "cancel" | "cancel_all":
                self.source.cancel()
            case "cancel_earlier":
                for source in self._earlier:
                    source.cancel()
            case "rerun" | "rerun_failed":
                self._rerun()
            case "close":
                self.close()

    def _rerun(self) -> None:
        self.source = self.source.rerun()
        self.closed.clear()
        self._on_rerun(self.source.handle)
        card = self._content()
        self._outputs.show([])
        if self._panel is not None:
            self._panel.show(card_model(card))
        self._update_static(card)

    def _snapshot_is_due(self, card: Card) -> bool:
        if card.state is not self._last.state or (card.clock is None) != (self._last.clock is None):
            return True  # it has started or ended
        seconds = _SNAPSHOT_SECONDS if self._panel is not None else _SNAPSHOT_SECONDS_WITHOUT_PANEL
        return time.monotonic() - self._updated > seconds and replace(card, clock=None) != replace(
            self._last, clock=None
        )

    def _update_static(self, card: Card) -> None:
        self._last, self._updated = card, time.monotonic()
        html = card_html(card, time.time(), self._id)
        self._static.show([MimeBundle({"text/html": html, "text/plain": card_text(card)})])
        self._repair_page()

    def _finish(self, card: Card, outputs: list[MimeBundle]) -> None:
        result = self.source.result()
        self._outputs.show([*outputs, result] if result is not None else outputs)
        if self._panel is not None:
            self._panel.hide(card.actions, card.state)
        self._update_static(card)
        self.closed.set()

    def _repair_page(self) -> None:
        """Send all outputs through the panel, for a page that was not there when they were shown."""
        if self._panel is not None and self._pages > 1:  # the first page received them as they were shown
            self._panel.repair(self._static.shown[0], self._outputs.shown)


class TerminalCard:
    """What a terminal shows of jobs: a line when they were submitted, and their end above the prompt.

    Attributes:
        closed: set when the end has been shown.
    """

    headless = False

    def __init__(self, source: CardSource) -> None:
        self.source = source
        self.closed = threading.Event()
        card = source.card(time.time())
        submitted = f"submitted as {card.id}" if card.id else card.words
        sys.stdout.write(f"{card.icon} {card.name}: {submitted}\n")

    @property
    def needs_polling(self) -> bool:
        """Whether its end must be looked for."""
        return not self.source.reports_changes and not self.closed.is_set()

    def refresh(self) -> bool:
        """Show the end, once; return whether it is still to come."""
        if self.source.ended and not self.closed.is_set():
            sys.stdout.write(f"{card_text(self.source.card(time.time()))}\n")
            if isinstance(self.source, GroupSource):
                sys.stdout.write(f"{self.source.result().data['text/plain']}\n")
            self.closed.set()
        return not self.closed.is_set()

    def fail(self, error: BaseException) -> None:
        """Write why the end can't be shown."""
        sys.stdout.write(f"The end of a job can not be shown: {shown_line(f'{type(error).__name__}: {error}')}\n")

    def close(self) -> None:
        """Show nothing more."""
        self.closed.set()


def card_model(card: Card) -> dict[str, Any]:
    """Return a card as JSON data for the panel, without empty fields and with only the last lines of the log.

    A line of the log is a string, or a list of pairs of class names and text where it has colours.
    """
    model = {name: value for name, value in asdict(card).items() if value not in ("", (), None)}
    if card.log:
        model["log"] = list(_last_lines(card.log))[::-1]
    return model


def _last_lines(lines: Sequence[Line]) -> Iterator[str | Line]:
    """Yield the last lines, newest first, up to a number of characters."""
    room = _MOST_LIVE_LOG
    for line in reversed(lines):
        text = "".join(part for _, part in line)
        plain = len(text) > _LONGEST_LIVE_LINE or not any(styles for styles, _ in line)
        if len(text) > _LONGEST_LIVE_LINE:
            text = f"{text[:_LONGEST_LIVE_LINE]} …"
        room -= len(text) + 1
        if room < 0:
            return
        yield text if plain else line
