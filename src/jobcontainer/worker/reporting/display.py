"""Rich output from inside ``run()``: ``display()``, figures, and what user code does with ``IPython.display``.

An output becomes a :class:`~jobcontainer.events.Display` in the job's events, for the card and ``job.outputs``. The
log gets one line of its plain form, so that those who read only the log see what was shown, and when; updates of an
output leave none.

IPython, matplotlib and plotly are never imported for this. Where user code imports them, they are made to show things
here: IPython's functions are replaced by those below, matplotlib finds its backend in ``MPLBACKEND`` (unless the user
chose one other than a notebook's inline backend), and plotly renders for notebooks (unless ``PLOTLY_RENDERER`` says
otherwise).
"""

from __future__ import annotations

import builtins
import contextlib
import os
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.events import Display
from jobcontainer.worker.reporting.import_hooks import Hooks
from jobcontainer.worker.reporting.mime_bundle import encoded, encoded_metadata, method_of, mimebundle, plain
from jobcontainer.worker.reporting.notes import note_exception
from jobcontainer.worker.reporting.output_quota import Outputs

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobcontainer.storage.folder import JobFolder

_BACKEND: Final = "module://jobcontainer.worker.reporting.matplotlib_backend"
_LINE: Final = 200  # characters of the line in the log

_hooks = Hooks()
_outputs: Outputs | None = None
_prepared = False


class DisplayHandle:
    """A handle on an output that can be updated; what ``display(..., display_id=...)`` returns.

    Args:
        display_id: its name; None for a new one.
    """

    def __init__(self, display_id: str | None = None) -> None:
        """Take the name, or make one."""
        self.display_id = display_id or secrets.token_hex(16)

    def __repr__(self) -> str:
        """Show the name."""
        return f"<DisplayHandle display_id={self.display_id}>"

    def display(self, obj: object, **options: Any) -> None:
        """Show an object under this name once more, and in its earlier places."""
        display(obj, display_id=self.display_id, **options)

    def update(self, obj: object, **options: Any) -> None:
        """Show an object in place of what stands under this name."""
        display(obj, display_id=self.display_id, update=True, **options)


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
) -> DisplayHandle | None:
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
        clear: whether all that was shown goes first.
        update: whether to replace what was shown under ``display_id``.

    Returns:
        A handle for updates where ``display_id`` is given.

    Raises:
        TypeError: an update without a ``display_id``.

    Example:
        >>> display("Task is running")
        'Task is running'
    """
    name = display_id or (transient or {}).get("display_id")
    if update and not name:
        raise TypeError("An update needs the display_id of what it updates.")
    handle = DisplayHandle(None if name is True else str(name)) if name else None
    if clear:
        clear_output(wait=True)
    if not objs and handle is not None:
        objs, raw = ({},), True
    for obj in objs:
        if _outputs is None:
            print(plain(obj))  # noqa: T201 -- outside of a job
        elif update or _outputs.admits_more():
            data, about = _forms(obj, include, exclude, raw=raw)
            if data or (raw and handle is not None):
                about = encoded_metadata(about | (metadata or {}))
                _publish(data, about, handle.display_id if handle else None, update=update)
    return handle if display_id else None


def update_display(obj: object, *, display_id: str, **options: Any) -> None:
    """Show an object in place of what stands under a name."""
    display(obj, display_id=display_id, update=True, **options)


def publish_display_data(
    data: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    *,
    transient: dict[str, Any] | None = None,
    update: bool = False,
    **_ignored: Any,
) -> None:
    """Show a MIME bundle, as ``IPython.display.publish_display_data`` does."""
    display(data, metadata=metadata, transient=transient, update=update, raw=True)


def clear_output(wait: bool = False) -> None:  # noqa: FBT001, FBT002 -- IPython's own signature
    """Take away what was displayed so far; the log stays.

    Args:
        wait: whether to do so only when there is something to show instead, so that nothing flickers.
    """
    if _outputs is not None:
        _outputs.clear(wait=wait)


def prepare() -> None:
    """Do in a keeper what is the same for all of its jobs: watch for the libraries that show things."""
    global _prepared  # noqa: PLW0603 -- as in install
    _prepared = True
    _watch()


def unprepare() -> None:
    """Be ready for one job after another, each of which is to leave everything as it was."""
    global _prepared  # noqa: PLW0603 -- as in install
    if _prepared:
        _prepared = False
        _hooks.undo()


def choose_backend() -> None:
    """Have matplotlib draw for the card, unless the user chose a backend other than a notebook's inline one.

    Called for the environment of a keeper, whose jobs then find it so.
    """
    if _prepared and "inline" in (os.environ.get("MPLBACKEND") or "inline"):
        os.environ["MPLBACKEND"] = _BACKEND


def install(folder: JobFolder) -> None:
    """Begin to record the rich outputs of a job; called in its process before user code."""
    global _outputs  # noqa: PLW0603 -- one job at a time in a process
    _outputs = Outputs(folder)
    if not _prepared:
        _watch()
    backend = os.environ.get("MPLBACKEND") or "inline"
    if (backend == _BACKEND or "inline" in backend) and not _in_a_kernel():  # whose inline backend shows things itself
        if backend != _BACKEND:
            _hooks.set_environment("MPLBACKEND", _BACKEND)
        _hooks.when_imported("matplotlib", _patch_matplotlib)


def finish() -> None:
    """Show the figures that were left open, and leave everything as it was."""
    global _outputs  # noqa: PLW0603 -- see install
    if _outputs is not None:
        figures = sys.modules.get("jobcontainer.worker.reporting.matplotlib_backend")
        try:
            if figures is not None:
                figures.show_left_open()
        except Exception:  # noqa: BLE001 -- run() succeeded, whatever its figures do
            note_exception()
        finally:
            if not _prepared:  # else the process ends with the job
                _hooks.undo()
            _outputs.finish()
            _outputs = None


def _watch() -> None:
    _hooks.replace(builtins, "display", display)
    _hooks.when_imported("IPython.core.display_functions", _patch_ipython)
    if not _in_a_kernel():  # whose plotly shows things by IPython's functions
        _hooks.when_imported("plotly.io._renderers", _patch_plotly)


def _forms(
    obj: Any,
    include: Collection[str] | None,
    exclude: Collection[str] | None,
    *,
    raw: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the forms of an object and their metadata; none where it has shown itself."""
    if raw:
        return encoded(dict(obj)), {}
    show_itself = method_of(obj, "_ipython_display_")
    if show_itself is not None:
        try:
            show_itself()
        except Exception:  # noqa: BLE001 -- its other forms are shown
            note_exception()
        else:
            return {}, {}
    return mimebundle(obj, include, exclude)


def _publish(data: dict[str, Any], metadata: dict[str, Any], display_id: str | None, *, update: bool) -> None:
    if _outputs is None:  # the job ended while a thread of its was drawing
        return
    if data and not update:
        first, *others = str(data.get("text/plain") or f"<{', '.join(data)}>").strip().splitlines() or [""]
        more = f" … ({len(others) + 1} lines)" if others else ""
        with contextlib.suppress(OSError, ValueError):  # user code closed it; the output is no less for it
            print((first if len(first) <= _LINE else first[: _LINE - 1] + "…") + more)  # noqa: T201 -- the job's log
    _outputs.add(Display(at=time.time(), data=data, metadata=metadata, display_id=display_id, update=update))


def _in_a_kernel() -> bool:
    """Whether IPython runs this very process, as where a job runs inline in a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _patch_ipython(module: Any) -> None:
    """Replace IPython's functions, also where other modules have taken them from there already."""
    for name, ours in (
        ("display", display),
        ("update_display", update_display),
        ("publish_display_data", publish_display_data),
        ("clear_output", clear_output),
        ("DisplayHandle", DisplayHandle),
    ):
        theirs = vars(module)[name]
        for other in list(sys.modules.values()):
            # object's own lookup does not wake modules that are loaded lazily
            if isinstance(other, type(sys)) and object.__getattribute__(other, "__dict__").get(name) is theirs:
                _hooks.replace(other, name, ours)


def _patch_matplotlib(module: Any) -> None:
    """Choose the backend in a matplotlib that may have read its environment before the job, until the job's end.

    The dict below RcParams is used, as RcParams itself would load a backend to tell which it is.
    """
    _hooks.at_undo(dict.__setitem__, module.rcParams, "backend", dict.__getitem__(module.rcParams, "backend"))
    dict.__setitem__(module.rcParams, "backend", _BACKEND)
    _hooks.when_imported("matplotlib.pyplot", _patch_pyplot)


def _patch_pyplot(module: Any) -> None:
    """Make pyplot choose its backend anew, at the next figure."""
    _hooks.replace(module, "_backend_mod", None)


def _patch_plotly(module: Any) -> None:
    """Make plotly give its own MIME type, and HTML for viewers without its extension, instead of opening a browser."""
    if not os.environ.get("PLOTLY_RENDERER"):
        html = module.NotebookRenderer(connected=True)
        html.global_init = False  # which would display a script of its own first
        module.renderers["jobcontainer"] = html
        _hooks.at_undo(setattr, module.renderers, "default", module.renderers.default)
        module.renderers.default = "plotly_mimetype+jobcontainer"


def _renew_in_child() -> None:
    if _outputs is not None:
        _outputs.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)
