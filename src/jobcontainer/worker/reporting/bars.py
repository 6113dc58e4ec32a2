"""The bars of a job: which of them are shown in the six places of the record, and when an event tells of them.

Design: any thread of the job may show and move bars; one lock guards the places. It is re-entrant, as a bar that the
garbage collector finalises may move in the middle of another's move. No thread of ours runs. Whether the bars have
ended is looked at before the lock is taken, which a forked child must not do, and again once it is held.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from jobcontainer.events import Bar, Progress
from jobcontainer.storage.folder import PROGRESS
from jobcontainer.storage.progress_file import MAX_BARS, ProgressRecord, read_bars
from jobcontainer.worker.reporting.notes import note

if TYPE_CHECKING:
    from collections.abc import Hashable

    from jobcontainer.storage.folder import JobFolder

_EVENT_SECONDS: Final = 20.0  # three Progress events a minute: a history, the live bars are in the record
_REPORT: Final = "report"


class _Place(NamedTuple):
    """What one of the six places shows."""

    label: str
    level: int
    order: int
    thread: int  # within whose open bars it is nested; 0 for none


class Bars:
    """The bars of a job, six at the most; the record is made by the first that shows.

    A bar that ended keeps its place until another needs it. A new bar takes the place of an ended one of the same level
    and label (the inner loop of the next epoch), else a free place, else that of the bar that was opened first of those
    that ended. A seventh bar at the same time is not shown until a place is left.

    Until :meth:`begin` there is no job, and nothing is shown.
    """

    def __init__(self) -> None:
        """Show nothing yet."""
        self._folder: JobFolder | None = None
        self._lock = threading.RLock()
        self._record: ProgressRecord | None = None
        self._places: list[_Place | None] = [None] * MAX_BARS
        self._open: dict[Hashable, int] = {}  # the places of the bars that have not ended
        self._order = 0
        self._next_event = 0.0
        self._reported = Bar()
        self._ended = True

    def begin(self, folder: JobFolder) -> None:
        """Be those of a job, and forget what an earlier attempt left."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder.file(PROGRESS))  # noqa: PTH108 -- a text, as every job does it
        self._folder = folder
        self._next_event = time.time() + _EVENT_SECONDS
        self._ended = False

    @property
    def live(self) -> bool:
        """Whether what is shown is still written: not after the end, nor in a forked child."""
        return not self._ended

    def show(self, key: Hashable, bar: Bar, *, nested: bool = True) -> None:
        """Show a bar as it stands, or open it.

        Args:
            key: what the bar is known by.
            bar: how it stands; its level is set here.
            nested: whether it lies within the bars that its thread has open.
        """
        if self._ended:
            return
        with self._lock:
            index = self._open.get(key)
            if index is None:
                index = self._opened(key, bar.label, nested=nested)
            place = None if index is None else self._places[index]
            if index is None or place is None or self._folder is None or self._ended:
                return
            try:
                self._record = self._record or ProgressRecord(self._folder.progress_file)
                self._record.put(index, replace(bar, level=place.level), order=place.order)
                self._tell_now_and_then(bar.updated)
            except OSError as error:
                self._fail(error)

    def move(self, key: Hashable, done: float) -> bool:
        """Move a bar that is shown already, and leave the rest of it as it is.

        Returns:
            Whether it is shown; if not, :meth:`show` finds it a place.
        """
        if self._ended:
            return True
        with self._lock:
            index = self._open.get(key)
            if index is None or self._record is None:
                return False
            if not self.live:
                return True
            now = time.time()
            try:
                self._record.advance(index, done, now)
                self._tell_now_and_then(now)
            except OSError as error:
                self._fail(error)
            return True

    def report(self, done: float, total: float | None, message: str | None) -> None:
        """Move the bar that :func:`report` shows."""
        if message is None and total in {None, self._reported.total} and self.move(_REPORT, done):
            return
        now, before = time.time(), self._reported
        self._reported = Bar(
            done=done,
            total=before.total if total is None else total,
            started=before.started or now,
            updated=now,
            message=before.message if message is None else message,
        )
        self.show(_REPORT, self._reported, nested=False)

    def end(self, key: Hashable, *, leave: bool = True) -> None:
        """Let go of a bar.

        Args:
            key: what the bar is known by.
            leave: whether it stays to be seen.
        """
        if self._ended:
            return
        with self._lock:
            index = self._open.pop(key, None)
            if index is None or self._record is None or leave or self._ended:
                return
            self._places[index] = None
            try:
                self._record.remove(index)
            except OSError as error:
                self._fail(error)

    def finish(self) -> None:
        """Write the last event, and nothing after it.

        Raises:
            OSError: it can't be written.
        """
        with self._lock:
            if self._record is not None:
                self._record.close()
                if not self._ended:
                    self._tell()
            self._ended = True

    def forget(self) -> None:
        """Write nothing more; for a forked child, where the lock may be held by a thread that is not there."""
        self._ended = True

    def _opened(self, key: Hashable, label: str, *, nested: bool) -> int | None:
        """Give a new bar a place; None while all are taken."""
        thread = threading.get_ident() if nested else 0
        outer = [
            place for place in map(self._places.__getitem__, self._open.values()) if place and place.thread == thread
        ]
        new = _Place(label, len(outer) if nested else 0, self._order, thread)
        free = set(range(MAX_BARS)) - set(self._open.values())
        if not free:
            return None
        index = min(free, key=lambda index: _fit(self._places[index], new))
        self._order += 1
        self._places[index] = new
        self._open[key] = index
        return index

    def _tell_now_and_then(self, now: float) -> None:
        """Append an event where the last one is long ago."""
        if now >= self._next_event:
            self._next_event = now + _EVENT_SECONDS
            self._tell()

    def _tell(self) -> None:
        assert self._folder is not None  # noqa: S101 -- nothing is shown before there is one
        self._folder.append_event(Progress(at=time.time(), bars=read_bars(self._folder.progress_file)))

    def _fail(self, error: OSError) -> None:
        """End the progress, not the job."""
        self._ended = True
        note(f"no more progress, it can't be written: {error}")


def _fit(place: _Place | None, new: _Place) -> tuple[int, int]:
    """Tell how well a place that is not taken suits a new bar; the lowest does best."""
    if place is None:
        return 1, 0
    return (0 if (place.level, place.label) == (new.level, new.label) else 2), place.order
