"""The bars of ``rich.progress``, picked up from unchanged user code: each method that changes a task also shows it.

A ``Progress`` that would paint on the job's standard streams is not started, as the card shows it; one with a console
of the user's own is painted there as ever, and so is a ``Live`` that holds it.
"""

from __future__ import annotations

import functools
import sys
import time
from typing import TYPE_CHECKING, Any

from jobcontainer.events import Bar

if TYPE_CHECKING:
    from jobcontainer.worker.reporting.bars import Bars
    from jobcontainer.worker.reporting.import_hooks import Hooks


def install(hooks: Hooks, bars: Bars) -> None:
    """Show the bars of rich on the card, as soon as user code imports ``rich.progress``."""
    hooks.when_imported("rich.progress", lambda module: _patch(module.Progress, hooks, bars))


def _patch(progress: Any, hooks: Hooks, bars: Bars) -> None:
    def followed(method: Any) -> Any:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = method(self, *args, **kwargs)
            number = result if method.__name__ == "add_task" else (args[0] if args else kwargs["task_id"])
            _show(bars, self, number, next((task for task in self.tasks if task.id == number), None))
            return result

        return call

    for name in ("add_task", "advance", "update", "reset", "remove_task"):
        hooks.replace(progress, name, followed(getattr(progress, name)))
    started, stopped = progress.start, progress.stop

    def start(self: Any) -> None:
        for task in self.tasks:  # of one that is started again
            _show(bars, self, task.id, task)
        if not bars.live or self.console.file not in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            started(self)

    def stop(self: Any) -> None:
        for task in self.tasks:
            bars.end((id(self), task.id), leave=not self.live.transient)
        if self.live.is_started:
            stopped(self)

    hooks.replace(progress, "start", start)
    hooks.replace(progress, "stop", stop)


def _show(bars: Bars, progress: Any, number: int, task: Any) -> None:
    """Show a task as it is now, or take it away."""
    if task is None or not task.visible:
        bars.end((id(progress), number), leave=False)
    elif not progress.disable:
        now = time.time()
        bar = Bar(
            label=_label(task.description),
            done=float(task.completed),
            total=None if task.total is None else float(task.total),
            started=now - (task.elapsed or 0.0),
            updated=now,
        )
        bars.show((id(progress), number), bar, nested=False)


def _label(description: str) -> str:
    try:
        return str(sys.modules["rich.text"].Text.from_markup(description).plain)
    except Exception:  # noqa: BLE001 -- rich would not show it at all
        return description
