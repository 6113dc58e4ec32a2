"""The MIME bundle of an object, from IPython's own formatters; imported at a job's first ``display()``.

Beside those that IPython has for itself, there is one for figures of matplotlib, as in a notebook. All that a job takes
from IPython is imported here.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import print_figure
from IPython.display import DisplayHandle
from IPython.utils.dir2 import get_real_method

from jobcontainer.worker.reporting.log import note, note_exception

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["DisplayHandle", "drawn", "encoded", "encoded_metadata", "forms_of"]

drawn: Final[WeakSet[Any]] = WeakSet()
"""The figures that were shown."""

_LIVE: Final = "application/vnd.jupyter.widget-view+json"  # names a widget of this process, which no browser can reach


def forms_of(
    obj: object, include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the forms of an object, those wanted and not excluded; none where it has displayed itself.

    A form whose method raises is left out, and its traceback goes to stderr.

    Returns:
        MIME type to content that JSON can hold (bytes as base64), and MIME type to metadata.
    """
    data: Any = {}
    metadata: Any = {}
    try:
        data, metadata = _formatter().format(obj, include=include, exclude=exclude)
    except Exception:  # noqa: BLE001 -- a method that returned nonsense; the plain form is shown
        note_exception()
    kept = encoded(data)
    if not kept and "text/plain" not in (exclude or ()) and get_real_method(obj, "_ipython_display_") is None:
        kept["text/plain"] = _plain(obj)
    return kept, encoded_metadata(metadata)


def encoded(data: dict[str, Any]) -> dict[str, Any]:
    """Return content as JSON can hold it.

    Bytes become base64. What JSON can't hold, or is no text under a type that is text, is left out, and the reason goes
    to stderr; so is the view of a live widget, without a message.
    """
    kept: dict[str, Any] = {}
    for mime, content in data.items():
        if mime == _LIVE:
            continue
        try:
            if isinstance(content, bytes | bytearray | memoryview):
                kept[mime] = base64.b64encode(content).decode("ascii")
            elif isinstance(content, str) or mime.endswith("json"):
                json.dumps(content, allow_nan=False)
                kept[mime] = content
            else:
                note(f"the {mime} form of an output is a {type(content).__name__}, not a text; it is not shown.")
        except (AttributeError, TypeError, ValueError, RecursionError):
            note_exception()
    return kept


def encoded_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata if JSON can hold it, else none; the reason then goes to stderr."""
    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        note_exception()
        return {}
    return metadata


@functools.cache
def _formatter() -> DisplayFormatter:
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", _draw)
    return formatter


def _draw(figure: Any) -> Any:
    """Draw a figure as a notebook's inline backend does; None for one without content."""
    data = print_figure(figure)
    if data is not None:
        drawn.add(figure)
        figure.stale = False  # until it is changed; drawing within a tight box leaves it stale
    return data


def _plain(obj: object) -> str:
    """Return ``repr(obj)``, or what every object has where that raises."""
    with contextlib.suppress(Exception):  # the traceback is in the log already
        return repr(obj)
    return object.__repr__(obj)
