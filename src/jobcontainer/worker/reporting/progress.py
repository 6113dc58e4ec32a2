"""Progress from inside ``run()``: the public ``progress()`` and ``report()``, and where a job's bars come and go.

Outside of a job both are plain pass-throughs. Inside one, :func:`install` makes
:class:`~jobcontainer.worker.reporting.bars.Bars`, shared by ``progress()``, ``report()`` and the bars of tqdm and rich,
which are picked up from unchanged user code (:mod:`jobcontainer.worker.reporting.tqdm_bars`,
:mod:`jobcontainer.worker.reporting.rich_bars`).

A forked child of the job must not write to its parent's progress file: ``os.register_at_fork`` ends the bars in the
child, so that its loops pass through and its tqdm prints into the log as it does in any script.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from jobcontainer.events import Bar
from jobcontainer.worker.reporting import rich_bars, tqdm_bars
from jobcontainer.worker.reporting.bars import Bars
from jobcontainer.worker.reporting.import_hooks import Hooks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jobcontainer.storage.folder import JobFolder

T = TypeVar("T")

_MOVE_SECONDS: Final = 0.05

_hooks = Hooks()
_bars: Bars | None = None  # of the job that runs in this process


def progress(iterable: Iterable[T], total: float | None = None, desc: str | None = None) -> Iterator[T]:
    """Go through an iterable, and show on the job's card how far it is.

    Args:
        iterable: what to go through.
        total: how many items there are; None for ``len(iterable)`` where it has one.
        desc: what is counted, for the bar's label.

    Yields:
        The items, unchanged.

    Example:
        >>> list(progress("abc", desc="letters"))
        ['a', 'b', 'c']
    """
    bars = _bars
    if bars is None:
        yield from iterable
        return
    if total is not None:
        total = float(total)
    elif isinstance(iterable, Sized):
        total = len(iterable)
    done, key, clock = 0, object(), time.monotonic
    bar = Bar(label=desc or "", total=total, started=time.time(), updated=time.time())
    bars.show(key, bar)
    due = clock() + _MOVE_SECONDS
    try:
        for item in iterable:
            yield item
            done += 1
            if clock() >= due:
                bars.show(key, replace(bar, done=done, updated=time.time()))
                due = clock() + _MOVE_SECONDS
    finally:
        bars.show(key, replace(bar, done=done, updated=time.time()))
        bars.end(key)


def report(done: float, total: float | None = None, message: str | None = None) -> None:
    """Report how far the job is, where no loop does.

    Args:
        done: how many are done.
        total: how many there are; None leaves it as it was last reported.
        message: a short text beside the bar; None leaves it as it was last reported.

    Raises:
        TypeError: ``done`` or ``total`` is no number.
        ValueError: it is a text that is no number.

    Example:
        >>> report(3, total=10, message="loss 0.31")
    """
    done, total = float(done), None if total is None else float(total)
    if _bars is not None:
        _bars.report(done, total, message)


def install(folder: JobFolder) -> None:
    """Begin to record the progress of a job; called in its process before user code."""
    global _bars  # noqa: PLW0603 -- one job at a time in a process
    _bars = Bars(folder)
    tqdm_bars.install(_hooks, _bars)
    rich_bars.install(_hooks, _bars)


def finish() -> None:
    """Write the bars as they are at the end, and leave tqdm and rich as they were.

    Raises:
        OSError: the last event can't be written; everything else is done.
    """
    global _bars
    if _bars is not None:
        bars, _bars = _bars, None
        _hooks.undo()
        bars.finish()


def _forget() -> None:
    global _bars  # noqa: PLW0603 -- see install
    if _bars is not None:
        _bars.forget()
        _bars = None


os.register_at_fork(after_in_child=_forget)
