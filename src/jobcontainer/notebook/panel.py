"""The live panel's kernel half: one anywidget, one JSON model, and a mailbox for what the page asks.

This is the only module that needs ipywidgets and anywidget. Importing them takes a while, so it is done when the first
panel is shown, by the painter, while the cell has long returned.

Threads: the front end's messages arrive in whichever thread the kernel handles them (the main thread, or a subshell's
while a cell runs) and are only handed on, to what ``ask`` is. Everything else is called by the painter alone.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcontainer.notebook.cell_outputs import Bundle
from jobcontainer.notebook.settings import synced_json
from jobcontainer.views.render import style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobcontainer.notebook.place import CellPlace

_VIEW = "application/vnd.jupyter.widget-view+json"
_EMPTY = Bundle({})


def can_be_live() -> bool:
    """Tell whether what a panel needs is installed."""
    return importlib.util.find_spec("anywidget") is not None


class LivePanel:
    """The panel of one card, and its place among the outputs of the cell.

    Args:
        place: the cell.
        card_id: names the card to the page.
        ask: called with the name of what was asked for, from any thread; it must return at once.
    """

    def __init__(self, place: CellPlace, card_id: str, ask: Callable[[str], None]) -> None:
        """Show nothing yet."""
        self._place, self._card_id, self._ask = place, card_id, ask
        self._widget: Any = None
        self._model: dict[str, Any] = {}
        self._display_id = ""
        self._shown = _EMPTY

    def show(self, model: dict[str, Any]) -> None:
        """Show a model, in a place of its own among the outputs; nothing is sent where it says the same as before."""
        self._set(model)
        if self._shown == _EMPTY:
            view = {"model_id": self._widget.model_id, "version_major": 2, "version_minor": 0, "card": self._card_id}
            self._put(Bundle({_VIEW: view}))

    def hide(self, actions: Sequence[str], state: str) -> None:
        """Leave its place empty; the page puts the buttons for these actions onto the static card."""
        self._set({"closed": True, "actions": list(actions), "state": state})
        if self._shown != _EMPTY:
            self._put(_EMPTY)

    def repair(self, static: Bundle, outputs: Sequence[Bundle]) -> None:
        """Have the page write the outputs of the cell, with the panel's own in its place, into the notebook."""
        if self._widget is not None:
            bundles = [asdict(bundle) for bundle in (static, self._shown, *outputs)]
            self._widget.send({"cell": self._place.cell_id, "outputs": bundles})

    def close(self) -> None:
        """Take it out of the page."""
        if self._widget is not None:
            self._widget.close()

    def _set(self, model: dict[str, Any]) -> None:
        model = {"card": self._card_id} | model
        if self._widget is None:
            self._widget = _panel_class()(card=model)
            self._widget.on_msg(lambda _widget, content, _buffers: self._ask(str(content.get("action"))))
            _answer_in_own_thread(self._widget)
        elif _timeless(model) != _timeless(self._model):
            self._widget.card = model
        self._model = model

    def _put(self, bundle: Bundle) -> None:
        self._shown = bundle
        if self._display_id:
            self._place.update(self._display_id, bundle.data)
        else:
            self._display_id = self._place.show(bundle.data)


@cache
def _panel_class() -> Any:
    """Define the widget, once."""
    import anywidget  # noqa: PLC0415 -- it takes a while, see above

    here = Path(__file__).parent

    class Panel(anywidget.AnyWidget):
        """The live panel."""

        _esm = (here / "panel.js").read_text("utf-8")
        _css = style() + (here / "panel.css").read_text("utf-8")
        card = synced_json()

    return Panel


def _answer_in_own_thread(widget: Any) -> None:
    """Let the page's messages be handled while a cell runs.

    From 7.4 on, ipykernel answers a widget's messages in the shell that published last, which is the busy main one
    for a panel. The hook is private, so it is set only where it is there; elsewhere messages wait for the cell.
    """
    if hasattr(widget.comm, "_reply_subshell_for"):
        widget.comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001 -- see above


def _timeless(model: dict[str, Any]) -> dict[str, Any]:
    """Return a model without its clock: the page lets the time run by itself."""
    return {name: value for name, value in model.items() if name != "clock"}
