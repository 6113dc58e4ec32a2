"""The kernel's half of the live panel: one anywidget with one JSON model, which passes on what the page asks for.

No other module needs ipywidgets and anywidget. Importing them takes a while, so the refresher does it when the first
panel is shown, while the cell has long returned.

Threads: the page's messages arrive in whichever thread the kernel handles them (the main thread, or a subshell's while
a cell runs) and are only passed on, by ``request``. The refresher calls everything else.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcontainer.notebook.cell_outputs import MimeBundle, OutputList
from jobcontainer.notebook.ipython_internals import receive_while_busy
from jobcontainer.notebook.settings import synced_json
from jobcontainer.views.render import style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobcontainer.notebook.cell_outputs import OutputArea

_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def can_be_live() -> bool:
    """Return whether the package that a panel needs can be imported; without it the static card is refreshed."""
    return importlib.util.find_spec("anywidget") is not None


class LivePanel:
    """The panel of one card, and its output in the cell.

    Args:
        area: the outputs of the cell.
        card_id: identifies the card to the page.
        request: called with the name of the action that the page asks for, from any thread; it must return at once.
    """

    def __init__(self, area: OutputArea, card_id: str, request: Callable[[str], None]) -> None:
        self._cell_id, self._card_id, self._request = area.cell_id, card_id, request
        self._output = OutputList(area)
        self._widget: Any = None
        self._model: dict[str, Any] = {}

    def show(self, model: dict[str, Any]) -> None:
        """Show a model; nothing is sent where only the clock differs from the model before."""
        self._set_model(model)
        view = {"model_id": self._widget.model_id, "version_major": 2, "version_minor": 0, "card": self._card_id}
        self._output.show([MimeBundle({_WIDGET_VIEW: view})])

    def hide(self, actions: Sequence[str], state: str) -> None:
        """Make its output empty; the page puts the buttons for these actions onto the static card."""
        self._set_model({"closed": True, "actions": list(actions), "state": state})
        self._output.show([])

    def repair(self, static: MimeBundle, outputs: Sequence[MimeBundle]) -> None:
        """Have the page write the cell's outputs into the notebook: the static card, the panel, and the others."""
        if self._widget is not None:
            shown = (static, *(self._output.shown or [MimeBundle({})]), *outputs)
            self._widget.send({"cell": self._cell_id, "outputs": [asdict(bundle) for bundle in shown]})

    def close(self) -> None:
        """Remove it from the page."""
        if self._widget is not None:
            self._widget.close()

    def _set_model(self, model: dict[str, Any]) -> None:
        model = {"card": self._card_id} | model
        if self._widget is None:
            self._widget = _panel_class()(card=model)
            self._widget.on_msg(lambda _widget, content, _buffers: self._request(str(content.get("action"))))
            receive_while_busy(self._widget)
        elif _without_clock(model) != _without_clock(self._model):
            self._widget.card = model
        self._model = model


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


def _without_clock(model: dict[str, Any]) -> dict[str, Any]:
    """Return a model without its clock, which the page advances by itself."""
    return {name: value for name, value in model.items() if name != "clock"}
