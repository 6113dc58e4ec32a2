"""The cards of one shell: which cell has which, so that a new run of a cell replaces those of the run before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobcontainer.jobs.group import JobGroup
from jobcontainer.notebook.card import CellCard, TerminalCard
from jobcontainer.notebook.card_source import GroupSource, JobSource
from jobcontainer.notebook.cell_outputs import OutputArea
from jobcontainer.notebook.ipython_internals import in_kernel
from jobcontainer.notebook.refresher import Refresher

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.jobs.job import Job
    from jobcontainer.notebook.card_source import CardSource


class CardRegistry:
    """Opens cards and keeps them up to date.

    Args:
        shell: IPython's shell.
    """

    def __init__(self, shell: Any) -> None:
        """Begin without cards."""
        self._shell = shell
        self._refresher = Refresher()
        self._cards: dict[str, tuple[str, list[CellCard]]] = {}  # cell id: the request that ran it last, and its cards

    def open(
        self,
        handle: Job[Any] | JobGroup[Any],
        position: Callable[[Job[Any]], int | None] = lambda _: None,
        on_rerun: Callable[[Job[Any] | JobGroup[Any]], None] = lambda _: None,
    ) -> CellCard | TerminalCard:
        """Show jobs under the cell that runs, from now to their end.

        Args:
            handle: a job or a group.
            position: returns how many jobs start before a queued one.
            on_rerun: called with the new jobs after a rerun.
        """
        wake = self._refresher.wake
        source = GroupSource(handle, wake) if isinstance(handle, JobGroup) else JobSource(handle, wake, position)
        card: CellCard | TerminalCard
        if in_kernel(self._shell):
            area = OutputArea(self._shell)
            card = CellCard(
                self._shell,
                area,
                source,
                wake=wake,
                on_rerun=on_rerun,
                earlier=self._close_earlier(area),
            )
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
