"""The cards of one shell: where each goes, and which cell has which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobcontainer.jobs.group import JobGroup
from jobcontainer.notebook.card import CellCard, TerminalCard
from jobcontainer.notebook.card_source import ManyJobs, OneJob
from jobcontainer.notebook.place import CellPlace, in_kernel
from jobcontainer.notebook.refresher import Painter

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.jobs.job import Job
    from jobcontainer.notebook.card_source import Work


class Board:
    """Opens cards and keeps them up to date.

    Args:
        shell: IPython's shell.
    """

    def __init__(self, shell: Any) -> None:
        """Begin without cards."""
        self._shell = shell
        self._painter = Painter()
        self._cards: dict[str, tuple[str, list[CellCard]]] = {}  # by their cell: its last run, and what that shows

    @property
    def headless(self) -> bool:
        """Whether the cell that runs is executed without a person: by nbclient, nbconvert, papermill.

        Such a run ends with its last cell and saves what is shown then, so jobs have to end before their cell does.
        """
        if not in_kernel(self._shell):
            return False
        content = self._shell.get_parent().get("content") or {}
        return not content.get("allow_stdin", True)

    def open(
        self,
        handle: Job[Any] | JobGroup[Any],
        position: Callable[[Job[Any]], int | None],
        renewed: Callable[[Job[Any] | JobGroup[Any]], None],
    ) -> CellCard | TerminalCard:
        """Show jobs under the cell that runs, from now to their end.

        Args:
            handle: a job or a group.
            position: how many jobs start before a queued one.
            renewed: called with the new jobs after a rerun.
        """
        bell = self._painter.bell()
        work: Work = (
            ManyJobs(handle, bell.ring) if isinstance(handle, JobGroup) else OneJob(handle, bell.ring, position)
        )
        card: CellCard | TerminalCard
        if in_kernel(self._shell):
            place = CellPlace(self._shell)
            card = CellCard(
                self._shell,
                place,
                work,
                bell=bell,
                live=not self.headless and not work.ended,
                renewed=renewed,
                earlier=self._retired(place),
            )
            if place.cell_id:
                self._cards.setdefault(place.cell_id, (place.execution, []))[1].append(card)
        else:
            card = TerminalCard(work, bell)
        self._painter.add(card)
        return card

    def close(self) -> None:
        """Give up every card; what they show stays."""
        self._painter.close()

    def _retired(self, place: CellPlace) -> list[Work]:
        """Give up the cards that an earlier run of a cell left, and return their work that goes on."""
        execution, cards = self._cards.get(place.cell_id, ("", []))
        if execution == place.execution:
            return []
        self._cards.pop(place.cell_id, None)
        going_on = [card.work for card in cards if not card.closed.is_set()]
        for card in cards:
            card.ask("retire")
        return going_on
