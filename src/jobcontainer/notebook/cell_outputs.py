"""The rich outputs of a cell's jobs, as ordinary outputs of that cell."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobcontainer.events import Display
    from jobcontainer.notebook.place import CellPlace

MOST_OUTPUTS = 40
"""Outputs of one cell that are shown; JupyterLab itself folds what is beyond fifty."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One output.

    Attributes:
        data: MIME type to content.
        metadata: as in ``display_data``.
    """

    data: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)


class OutputSlots:
    """Keeps a cell's outputs equal to a list that changes.

    An output that changed is updated in its place; one that went leaves its place empty, for the next to take. So a
    job that clears and redraws a plot a thousand times has one output, and nothing is sent that did not change.

    Args:
        place: the cell.
    """

    def __init__(self, place: CellPlace) -> None:
        """Begin with no outputs."""
        self._place = place
        self._ids: list[str] = []
        self.shown: list[Bundle] = []

    def show(self, wanted: Sequence[Bundle]) -> None:
        """Make the cell show these outputs, in this order."""
        if self.shown == list(wanted):
            return
        empty = Bundle({})
        current = self.shown + [empty] * (len(self._ids) - len(self.shown))
        target = [*wanted] + [empty] * (len(self._ids) - len(wanted))
        for display_id, before, now in zip(self._ids, current, target, strict=False):
            if before is not now and before != now:
                self._place.update(display_id, now.data, now.metadata)
        for bundle in target[len(self._ids) :]:
            self._ids.append(self._place.show(bundle.data, bundle.metadata))
        self.shown = list(wanted)


def bundle_of(display: Display) -> Bundle:
    """Return a job's output as an output of a cell."""
    return Bundle(display.data, display.metadata)


def value_bundle(shell: Any, value: object) -> Bundle | None:
    """Format a value as IPython's ``Out[]`` would; None for None.

    What a value shows by itself when it is displayed (``_ipython_display_``) is left out, and so is a form whose method
    raises: IPython would show it, or its traceback, under whichever cell runs at the moment.

    Args:
        shell: IPython's shell, whose formatters the user may have changed.
        value: what a job returned.
    """
    if value is None:
        return None
    formatters = shell.display_formatter
    data, metadata = _pair(_formatted(formatters.mimebundle_formatter, value))
    data, metadata = dict(data or {}), dict(metadata or {})
    for kind in formatters.active_types:
        if kind not in data:
            content, about = _pair(_formatted(formatters.formatters[kind], value))
            if content is not None:
                data[kind] = content
                metadata |= {kind: about} if about else {}
    data.setdefault("text/plain", object.__repr__(value))
    return Bundle({kind: _as_text(content) for kind, content in data.items()}, metadata)


def _formatted(formatter: Any, value: object) -> Any:
    """Call a formatter without what IPython has put around it, which shows a traceback under the cell that runs."""
    call = type(formatter).__call__
    try:
        return getattr(call, "__wrapped__", call)(formatter, value)
    except Exception:  # noqa: BLE001 -- the other forms are shown
        return None


def _pair(made: Any) -> tuple[Any, Any]:
    return made if isinstance(made, tuple) else (made, None)


def _as_text(content: Any) -> Any:
    return base64.b64encode(content).decode() if isinstance(content, bytes) else content
