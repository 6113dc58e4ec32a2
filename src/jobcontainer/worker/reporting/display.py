"""Rich output from inside ``run()``: ``display()``, figures, and what user code does with ``IPython.display``.

An output becomes a :class:`~jobcontainer.events.Display` in the job's events, for the card and ``job.outputs``. The log
gets one line of its plain form, so that those who read only the log see what was shown, and when; updates of an output
leave none.

A job that shows nothing imports no IPython, matplotlib or plotly for this. Where user code imports them, they are made
to show things here: the functions of IPython through which all its others display are replaced by those below,
matplotlib finds its backend in ``MPLBACKEND`` (unless the user chose one other than a notebook's inline backend), and
plotly renders for notebooks (unless ``PLOTLY_RENDERER`` says otherwise).
"""

from __future__ import annotations

import builtins
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.events import Display
from jobcontainer.worker.reporting.import_hooks import Hooks
from jobcontainer.worker.reporting.log import note_exception
from jobcontainer.worker.reporting.output_quota import OutputQuota

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobcontainer.storage.folder import JobFolder

_BACKEND: Final = "jobcontainer.worker.reporting.matplotlib_backend"
_LINE: Final = 200  # characters of the line in the log

_hooks = Hooks()
_outputs: OutputQuota | None = None  # of the job that runs in this process


def display(  # noqa: PLR0913 -- IPython's own signature
    *objs: Any,
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
    metadata: dict[str, Any] | None = None,
    transient: dict[str, Any] | None = None,
    display_id: str | bool | None = None,
    raw: bool = False,
    clear: bool = False,
    update: bool = False,
    **_ignored: Any,
) -> Any:
    """Show objects on the job's card, as ``IPython.display.display`` shows them under a cell.

    Outside of a job the objects are printed.

    Args:
        objs: what to show; none at all, with a ``display_id``, for a place to be filled later.
        include: the MIME types to show; None for all that an object has.
        exclude: MIME types not to show.
        metadata: MIME type to metadata, beside what the objects give themselves.
        transient: ``{"display_id": ...}``, as IPython takes it.
        display_id: a name for the output, so that it can be updated; True for a new one.
        raw: whether the objects are MIME bundles already.
        clear: whether everything that was shown goes first.
        update: whether to replace what was shown under ``display_id``.

    Returns:
        IPython's ``DisplayHandle`` where ``display_id`` is given, else None.

    Raises:
        TypeError: an update without a ``display_id``.

    Example:
        >>> display("Task is running")
        'Task is running'
    """
    if _outputs is None:
        print(*map(repr, objs), sep="\n")  # noqa: T201 -- outside of a job
        return None
    from jobcontainer.worker.reporting import mime_bundle  # noqa: PLC0415 -- imports IPython: who shows nothing has none

    handle = mime_bundle.DisplayHandle(None if display_id is True else display_id) if display_id else None
    name = handle.display_id if handle else (transient or {}).get("display_id")
    if update and not name:
        raise TypeError("An update needs the display_id of what it updates.")
    if clear:
        clear_output(wait=True)
    if not objs and handle is not None:
        objs, raw = ({},), True
    for obj in objs:
        if update or _outputs.admits_more():
            data, about = (mime_bundle.encoded(dict(obj)), {}) if raw else mime_bundle.forms_of(obj, include, exclude)
            if data or (raw and name):
                about = mime_bundle.encoded_metadata(about | (metadata or {}))
                _publish(Display(at=time.time(), data=data, metadata=about, display_id=name, update=update))
    return handle


def publish_display_data(data: dict[str, Any], metadata: dict[str, Any] | None = None, **options: Any) -> None:
    """Show a MIME bundle, as ``IPython.display.publish_display_data`` does."""
    display(data, metadata=metadata, raw=True, **options)


def clear_output(wait: bool = False) -> None:  # noqa: FBT001, FBT002 -- IPython's own signature
    """Take away what was displayed so far; with ``wait``, only when there is something to show instead."""
    if _outputs is not None:
        _outputs.clear(wait=wait)


def install(folder: JobFolder) -> None:
    """Begin to record the rich outputs of a job; called in its process before user code."""
    global _outputs  # noqa: PLW0603 -- one job at a time in a process
    _outputs = OutputQuota(folder)
    _hooks.replace(builtins, "display", display)
    _hooks.when_imported("IPython.core.display_functions", _patch_ipython)
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        return  # a job that runs inline in a notebook, whose plotly and matplotlib show things by IPython's functions
    _hooks.when_imported("plotly.io._renderers", _patch_plotly)
    if "inline" in (os.environ.get("MPLBACKEND") or "inline"):
        _hooks.set_environment("MPLBACKEND", f"module://{_BACKEND}")
        _hooks.when_imported("matplotlib.pyplot", _patch_pyplot)


def finish() -> None:
    """Show the figures that were left open, and leave everything as it was."""
    global _outputs  # noqa: PLW0603 -- see install
    if _outputs is not None:
        figures = sys.modules.get(_BACKEND)
        try:
            if figures is not None:
                figures.show_left_open()
        except Exception:  # noqa: BLE001 -- run() succeeded, whatever its figures do
            note_exception()
        finally:
            _hooks.undo()
            _outputs.finish()
            _outputs = None


def _publish(output: Display) -> None:
    if _outputs is None:  # the job ended while a thread of its was drawing
        return
    if output.data and not output.update:
        text = str(output.data.get("text/plain") or f"<{', '.join(output.data)}>")
        first, *others = text.strip().splitlines() or [""]
        more = f" … ({len(others) + 1} lines)" if others else ""
        with contextlib.suppress(OSError, ValueError):  # user code closed it; the output is no less for it
            print((first if len(first) <= _LINE else first[: _LINE - 1] + "…") + more)  # noqa: T201 -- the job's log
    _outputs.add(output)


def _patch_ipython(module: Any) -> None:
    """Replace IPython's functions, also where other modules have taken them from there already."""
    for ours in (display, publish_display_data, clear_output):
        theirs = getattr(module, ours.__name__)
        for other in list(sys.modules.values()):
            # object's own lookup does not load a module that waits for its first use
            names = object.__getattribute__(other, "__dict__") if isinstance(other, type(sys)) else {}
            if names.get(ours.__name__) is theirs:
                _hooks.replace(other, ours.__name__, ours)


def _patch_pyplot(pyplot: Any) -> None:
    """Have pyplot use the job's backend, where it has read another in its settings before the job.

    Public ways would load a backend on the way back: ``switch_backend`` does, and so does ``RcParams`` where it is
    asked which one is set. So the dict below it is used, and the backend that is loaded is forgotten.
    """
    before = dict.__getitem__(pyplot.rcParams, "backend")
    if before != f"module://{_BACKEND}":
        _hooks.at_undo(dict.__setitem__, pyplot.rcParams, "backend", before)
        dict.__setitem__(pyplot.rcParams, "backend", f"module://{_BACKEND}")
        _hooks.replace(pyplot, "_backend_mod", None)


def _patch_plotly(module: Any) -> None:
    """Make plotly give its own MIME type, and HTML for viewers without its extension, instead of opening a browser."""
    if not os.environ.get("PLOTLY_RENDERER"):
        html = module.NotebookRenderer(connected=True)
        html.global_init = False  # which would display a script of its own first
        module.renderers["jobcontainer"] = html
        _hooks.at_undo(setattr, module.renderers, "default", module.renderers.default)
        module.renderers.default = "plotly_mimetype+jobcontainer"


def _renew_lock() -> None:
    if _outputs is not None:
        _outputs.renew_lock()


os.register_at_fork(after_in_child=_renew_lock)
