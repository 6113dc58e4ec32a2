"""The bars of ``rich.progress``, picked up from untouched user code.

rich's tasks do not tell when they move, they are looked at: one daemon thread looks at every ``Progress`` ten times a
second while one of them, or a ``rich.live.Live`` that may hold them, is started; otherwise there is no such thread.

A ``Progress`` that would paint on the job's standard streams is not painted, as the card shows it; one with a console
of the user's own is painted there as ever, and so is a ``Live``.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from jobcontainer.events import Bar

if TYPE_CHECKING:
    from jobcontainer.worker.reporting.bars import Bars
    from jobcontainer.worker.reporting.import_hooks import Hooks

_PERIOD = 0.1  # seconds


def install(hooks: Hooks, bars: Bars) -> None:
    """Show the bars of rich on the card, as soon as user code imports ``rich.progress``."""
    hooks.when_imported("rich.progress", lambda module: _patch(module, hooks, bars))


def _patch(module: Any, hooks: Hooks, bars: Bars) -> None:
    sampler = _Sampler(bars, module)
    _patch_live(module.Live, hooks, sampler)
    progress = module.Progress
    made, started, stopped = progress.__init__, progress.start, progress.stop

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 -- as rich's
        made(self, *args, **kwargs)
        sampler.watch(self)

    def start(self: Any) -> None:
        if bars.live:
            sampler.watch(self)
            if not self.disable and self.console.file in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
                self.live = _Unpainted(self.live, sampler)
        started(self)

    def stop(self: Any) -> None:
        sampler.leave(self)
        if isinstance(self.live, _Unpainted):
            self.live.stop()  # Progress.stop would print an empty line as well
            self.live = self.live.painted
        else:
            stopped(self)

    hooks.replace(progress, "__init__", __init__)
    hooks.replace(progress, "start", start)
    hooks.replace(progress, "stop", stop)


def _patch_live(live: Any, hooks: Hooks, sampler: _Sampler) -> None:
    started, stopped = live.start, live.stop

    def start(self: Any, refresh: bool = False) -> None:  # noqa: FBT001, FBT002 -- as rich's
        before = self.is_started
        started(self, refresh)
        sampler.count(self.is_started - before)

    def stop(self: Any) -> None:
        before = self.is_started
        stopped(self)
        sampler.count(self.is_started - before)

    hooks.replace(live, "start", start)
    hooks.replace(live, "stop", stop)


class _Unpainted:
    """Stands in for the ``Live`` of a ``Progress`` that the card shows."""

    def __init__(self, painted: Any, sampler: _Sampler) -> None:
        self.painted: Any = painted.painted if isinstance(painted, _Unpainted) else painted
        self.is_started = False
        self._sampler = sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self.painted, name)

    def start(self, refresh: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 -- as rich's
        self._sampler.count(1 - self.is_started)
        self.is_started = True

    def stop(self) -> None:
        self._sampler.count(-int(self.is_started))
        self.is_started = False

    def refresh(self) -> None:
        """Paint nothing."""


class _Sampler:
    """Looks at every ``Progress`` while any is started.

    A task is shown when it changed since the last look, so that one of an ended ``Progress`` does not come back.
    """

    def __init__(self, bars: Bars, module: Any) -> None:
        self._bars = bars
        self._text = module.Text
        self._seen: WeakKeyDictionary[Any, dict[int, tuple[object, ...]]] = WeakKeyDictionary()
        self._started = 0
        self._lock = threading.RLock()
        self._done: threading.Event | None = None  # ends the thread, where there is one

    def watch(self, progress: Any) -> None:
        """Look at a Progress from now on, unless the user has disabled it."""
        if not progress.disable:
            self._seen.setdefault(progress, {})
            self.count(0)

    def count(self, started: int) -> None:
        """Take note of what was started (1) or stopped (-1), and have a thread while there is need."""
        if not self._bars.live:
            return
        with self._lock:
            self._started += started
            if self._started and self._seen and self._done is None:
                self._done = threading.Event()
                threading.Thread(target=self._run, args=[self._done], name="jobcontainer-rich", daemon=True).start()
            elif not self._started and self._done is not None:
                self._done.set()
                self._done = None
                for progress in list(self._seen):
                    self.look(progress)
                    self._end(progress, leave=True)

    def leave(self, progress: Any) -> None:
        """Look at a Progress for the last time."""
        if self._bars.live and progress in self._seen:
            self.look(progress)
            self._end(progress, leave=not progress.live.transient)
            del self._seen[progress]

    def look(self, progress: Any) -> None:
        """Show the tasks of a Progress that changed."""
        with self._lock:
            seen = self._seen[progress]
            tasks = {task.id: task for task in progress.tasks if task.visible}
            for gone in seen.keys() - tasks.keys():
                del seen[gone]
                self._bars.end((id(progress), gone), leave=False)
            for number, task in tasks.items():
                state = (task.completed, task.total, task.description)
                if seen.get(number) != state:
                    seen[number] = state
                    self._bars.show((id(progress), number), self._bar(task), nested=False)

    def _bar(self, task: Any) -> Bar:
        now = time.time()
        try:
            label = self._text.from_markup(task.description).plain
        except Exception:  # noqa: BLE001 -- rich would not show it at all
            label = task.description
        return Bar(
            label=label,
            done=float(task.completed),
            total=None if task.total is None else float(task.total),
            started=now - (task.elapsed or 0.0),
            updated=now,
        )

    def _end(self, progress: Any, *, leave: bool) -> None:
        for number in self._seen[progress]:
            self._bars.end((id(progress), number), leave=leave)

    def _run(self, done: threading.Event) -> None:
        while not done.wait(_PERIOD) and self._bars.live:
            for progress in list(self._seen):
                self.look(progress)
