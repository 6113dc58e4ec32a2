"""The outputs of one cell: added and updated at any time, from any thread, and kept equal to a list."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobcontainer.notebook.ipython_internals import CellRequest
from jobcontainer.views.escaping import encodable

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_OUTPUTS = 40
"""How many outputs of one cell are shown; JupyterLab itself folds those beyond fifty."""


@dataclass(frozen=True, slots=True)
class MimeBundle:
    """One output.

    Attributes:
        data: MIME type to content; binary content as base64 text.
        metadata: as in ``display_data``.
    """

    data: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)


_EMPTY = MimeBundle({})


class OutputArea(CellRequest):
    """The outputs of the cell that runs when this is made."""

    def add(self, bundle: MimeBundle) -> str:
        """Add an output at the end of the cell; return the id by which :meth:`update` finds it."""
        display_id = uuid.uuid4().hex
        self._send("display_data", bundle, display_id)
        return display_id

    def update(self, display_id: str, bundle: MimeBundle) -> None:
        """Replace an output; an empty bundle makes it invisible."""
        self._send("update_display_data", bundle, display_id)

    def _send(self, message_type: str, bundle: MimeBundle, display_id: str) -> None:
        content = {"data": bundle.data, "metadata": bundle.metadata, "transient": {"display_id": display_id}}
        self.answer(message_type, content)


class OutputList:
    """Keeps a cell's outputs equal to a list that changes.

    An output that changed is updated where it is; one that was removed is made empty, and the next one takes its place.
    So a job that clears and redraws a plot a thousand times has one output, and only changes are sent.

    Attributes:
        shown: the list as it is shown.
    """

    def __init__(self, area: OutputArea) -> None:
        self._area = area
        self._ids: list[str] = []
        self.shown: list[MimeBundle] = []

    def show(self, wanted: Sequence[MimeBundle]) -> None:
        """Make the cell show these outputs, in this order."""
        if self.shown == list(wanted):
            return
        current = self.shown + [_EMPTY] * (len(self._ids) - len(self.shown))
        target = [*wanted] + [_EMPTY] * (len(self._ids) - len(wanted))
        for display_id, before, now in zip(self._ids, current, target, strict=False):
            if before is not now and before != now:
                self._area.update(display_id, now)
        for bundle in target[len(self._ids) :]:
            self._ids.append(self._area.add(bundle))
        self.shown = list(wanted)


def sound_bundle(data: object, metadata: object = None) -> MimeBundle:
    r"""Return an output made of what a job wrote; nothing of it can keep a message from being sent.

    Args:
        data: MIME type to content, or anything else, of which nothing is shown.
        metadata: MIME type to metadata, or anything else.

    Example:
        >>> sound_bundle({"text/plain": "half a character: \ud83d"}).data
        {'text/plain': 'half a character: \\ud83d'}
    """
    sound: Any = [encodable(part) if isinstance(part, dict) else {} for part in (data, metadata)]
    return MimeBundle(*sound)
