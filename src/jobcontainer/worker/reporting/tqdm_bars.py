"""The bars of tqdm, picked up from unchanged user code.

Only ``tqdm.std.tqdm.display`` is replaced, which tqdm calls at its ``mininterval``: the loop itself runs tqdm's own
code. A bar that goes to the card does not go to the log as well, where each move would leave a line; ``tqdm.write``
does, and a bar with a ``file=`` of the user's own is written there as ever. A bar with ``disable=True`` (or
``disable=None``, as a log is no terminal) is not shown.

``tqdm.notebook`` would build widgets that no browser sees, and import ipywidgets for it. In a job its class is an
ordinary bar, and its module is loaded as if neither IPython nor ipywidgets were installed, unless user code has loaded
IPython before.
"""

from __future__ import annotations

import builtins
import sys
import time
from typing import TYPE_CHECKING, Any

from jobcontainer.events import Bar

if TYPE_CHECKING:
    from types import ModuleType

    from jobcontainer.worker.reporting.bars import Bars
    from jobcontainer.worker.reporting.import_hooks import Hooks


class _NoFile:
    """The ``file`` of a bar that is on the card."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def install(hooks: Hooks, bars: Bars) -> None:
    """Show the bars of tqdm on the card, as soon as user code imports it."""
    hooks.when_imported("tqdm.std", lambda module: _patch(module.tqdm, hooks, bars))
    hooks.when_imported("tqdm.notebook", lambda module: _patch_notebook(module, hooks), before=_without_widgets)


def _patch(tqdm: Any, hooks: Hooks, bars: Bars) -> None:
    printed = tqdm.display

    def display(self: Any, msg: str | None = None, pos: int | None = None) -> Any:
        if not bars.live:
            return printed(self, msg, pos)
        _take(self)
        bars.show(id(self), _bar(self, msg))
        if self.disable:  # set by close() before the last display; an empty message wipes the bar
            bars.end(id(self), leave=msg != "")
        return True if isinstance(self.fp, _NoFile) else printed(self, msg, pos)

    hooks.replace(tqdm, "display", display)


def _take(bar: Any) -> None:
    """Keep a bar out of the log, unless it writes to a file of the user's own."""
    if bar.fp in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        bar.fp = _NoFile()
        bar.sp = bar.fp.write


def _bar(bar: Any, msg: str | None) -> Bar:
    now = time.time()
    return Bar(
        label=str(bar.desc or "").strip().removesuffix(":"),
        done=float(bar.n),
        total=None if bar.total is None else float(bar.total),
        initial=float(bar.initial),
        started=now - bar.format_dict["elapsed"],
        updated=now,
        message=msg or str(bar.postfix or ""),
    )


def _patch_notebook(module: Any, hooks: Hooks) -> None:
    notebook, std = module.tqdm_notebook, module.std_tqdm

    def __init__(self: Any, *args: Any, display: bool = True, **kwargs: Any) -> None:  # noqa: ARG001, N807 -- as tqdm's
        kwargs["disable"] = bool(kwargs.get("disable"))
        super(notebook, self).__init__(*args, **kwargs)
        self.disp = self.display

    hooks.replace(notebook, "__init__", __init__)
    for name in ("__iter__", "clear", "close", "display", "reset", "status_printer", "update"):
        hooks.replace(notebook, name, vars(std)[name])


def _without_widgets(module: ModuleType) -> None:
    """Give a module builtins of its own, whose ``import`` finds neither IPython nor ipywidgets."""
    if "IPython" in sys.modules:
        return

    def import_others(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name.partition(".")[0] in {"IPython", "ipywidgets"}:
            raise ImportError(f"{name} is not needed in a job", name=name)
        return __import__(name, *args, **kwargs)

    vars(module)["__builtins__"] = vars(builtins) | {"__import__": import_others}
