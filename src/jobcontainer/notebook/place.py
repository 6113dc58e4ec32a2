"""Where the outputs of one cell go, at any time and from any thread.

``print`` and ``display`` reach whichever cell runs at the moment. A kernel's messages, though, carry the request that
they answer: :class:`CellPlace` keeps the one it was made in, so that what it shows lands under that cell even when the
cell has ended long since and another one runs. Sending is safe from any thread (the kernel's socket hands messages to
its own thread).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class CellPlace:
    """The outputs of the cell that runs when it is made.

    Args:
        shell: a kernel's shell.

    Attributes:
        cell_id: of the cell; empty where the front end gives none.
        execution: of this run of the cell.
    """

    def __init__(self, shell: Any) -> None:
        """Remember the request that is being answered."""
        publisher = shell.display_pub
        self._session, self._socket = publisher.session, publisher.pub_socket
        self._topic, self._parent = publisher.topic, publisher.parent_header
        request = shell.get_parent()
        self.cell_id: str = (request.get("metadata") or {}).get("cellId", "")
        self.execution: str = (request.get("header") or {}).get("msg_id", "")

    def show(self, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> str:
        """Add an output at the end of the cell.

        Args:
            data: MIME type to content; binary content as base64 text.
            metadata: as in ``display_data``.

        Returns:
            The id by which :meth:`update` finds it.
        """
        display_id = uuid.uuid4().hex
        self._send("display_data", data, metadata, display_id)
        return display_id

    def update(self, display_id: str, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
        """Replace an output; with no data, nothing is left to be seen of it."""
        self._send("update_display_data", data, metadata, display_id)

    def _send(self, kind: str, data: Mapping[str, Any], metadata: Mapping[str, Any] | None, display_id: str) -> None:
        content = {"data": dict(data), "metadata": dict(metadata or {}), "transient": {"display_id": display_id}}
        self._session.send(self._socket, kind, content, parent=self._parent, ident=self._topic)


def in_kernel(shell: Any) -> bool:
    """Tell whether a shell belongs to a Jupyter kernel, where outputs have a cell to stand under."""
    publisher = shell.display_pub
    return all(hasattr(publisher, name) for name in ("session", "pub_socket", "parent_header")) and hasattr(
        shell, "get_parent"
    )
