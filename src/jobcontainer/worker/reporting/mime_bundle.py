"""Rich forms of an object, as a notebook shows it, without IPython.

The rules are those of ``IPython.core.formatters``: ``_repr_mimebundle_`` first, then each ``_repr_*_`` for the types it
left out; a class is shown by its plain form only; an object that claims to have every attribute is not believed.
Figures of matplotlib, which know none of these methods, are drawn as IPython draws them.
"""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from jobcontainer.worker.reporting.notes import note_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_METHODS: Final = {
    "text/html": "_repr_html_",
    "text/markdown": "_repr_markdown_",
    "image/svg+xml": "_repr_svg_",
    "image/png": "_repr_png_",
    "application/pdf": "_repr_pdf_",
    "image/jpeg": "_repr_jpeg_",
    "text/latex": "_repr_latex_",
    "application/json": "_repr_json_",
    "application/javascript": "_repr_javascript_",
}
drawn: Final[WeakSet[Any]] = WeakSet()  # the figures that were shown

_CANARY: Final = "_ipython_canary_method_should_not_exist_"
_LIVE: Final = "application/vnd.jupyter.widget-view+json"  # names a widget of this process, which no browser can reach


def mimebundle(
    obj: object, include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the forms of an object, and their metadata.

    A form whose method raises is left out, and its traceback goes to stderr.

    Args:
        obj: anything.
        include: the MIME types wanted; None for all.
        exclude: MIME types not wanted.

    Returns:
        MIME type to content that JSON can hold (bytes as base64), and MIME type to metadata.

    Example:
        >>> class Bold:
        ...     def __repr__(self):
        ...         return "bold"
        ...     def _repr_html_(self):
        ...         return "<b>bold</b>"
        >>> mimebundle(Bold())
        ({'text/html': '<b>bold</b>', 'text/plain': 'bold'}, {})
    """

    def wanted(mime: str) -> bool:
        return (include is None or mime in include) and mime not in (exclude or ())

    data, metadata = _bundle(_called(obj, "_repr_mimebundle_", include=include, exclude=exclude))
    for mime, method in _METHODS.items():
        if mime not in data and wanted(mime):
            content, about = _pair(_called(obj, method))
            if content is not None:
                data[mime] = content
            if about:
                metadata[mime] = about
    if wanted("image/png") and "image/png" not in data and _is_figure(obj):
        data["image/png"] = _drawn(obj)
    if wanted("text/plain") and "text/plain" not in data:
        data["text/plain"] = plain(obj)
    data = {mime: content for mime, content in data.items() if wanted(mime) and content is not None}
    return encoded(data), encoded_metadata(metadata)


def encoded(data: dict[str, Any]) -> dict[str, Any]:
    """Return content as JSON can hold it.

    Bytes become base64. What JSON can't hold, or is no text under a type that is text, is left out, and the reason goes
    to stderr; so is the view of a live widget, without a word.
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
                raise TypeError(f"The {mime} form is a {type(content).__name__}, not a text; it is not shown.")  # noqa: TRY301 -- told as any other fault
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


def plain(obj: object) -> str:
    """Return ``repr(obj)``, or what every object can say where that raises; the traceback then goes to stderr."""
    try:
        return repr(obj)
    except Exception:  # noqa: BLE001 -- it is shown without its own words
        note_exception()
        return object.__repr__(obj)


def method_of(obj: object, name: str) -> Callable[..., Any] | None:
    """Return a method that the object really has."""
    if isinstance(obj, type) or _attribute(obj, _CANARY) is not None:
        return None
    method = _attribute(obj, name)
    return method if callable(method) else None


def _attribute(obj: object, name: str) -> Any:
    try:
        return getattr(obj, name, None)
    except Exception:  # noqa: BLE001 -- a property that raises is not there
        return None


def _called(obj: object, name: str, **arguments: Any) -> Any:
    method = method_of(obj, name)
    try:
        return None if method is None else method(**arguments)
    except Exception:  # noqa: BLE001 -- the other forms are shown
        note_exception()
        return None


def _pair(given: Any) -> tuple[Any, Any]:
    """Tell content and metadata apart: a method may return either both or the content."""
    return given if isinstance(given, tuple) and len(given) == 2 else (given, None)  # noqa: PLR2004 -- a pair


def _bundle(given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what ``_repr_mimebundle_`` gave as two dicts; none where it gave something else."""
    data, metadata = _pair(given)
    try:
        return dict(data or {}), dict(metadata or {})
    except (TypeError, ValueError):
        note_exception()
        return {}, {}


def _is_figure(obj: object) -> bool:
    return any((kind.__module__, kind.__name__) == ("matplotlib.figure", "Figure") for kind in type(obj).__mro__)


def _drawn(figure: Any) -> bytes | None:
    """Draw a figure as the inline backend does; None for one without content."""
    if not figure.axes and not figure.lines:
        return None
    buffer = io.BytesIO()
    try:
        figure.savefig(
            buffer,
            format="png",
            dpi=figure.dpi,
            bbox_inches="tight",
            facecolor=figure.get_facecolor(),
            edgecolor=figure.get_edgecolor(),
        )
    except Exception:  # noqa: BLE001 -- bad mathtext, for one, is found out only now
        note_exception()
        return None
    drawn.add(figure)
    figure.stale = False  # until it is changed; drawing within a tight box leaves it stale
    return buffer.getvalue()
