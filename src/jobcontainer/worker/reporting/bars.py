"""The progress bars of a job: which of them are shown, and when they are written.

Design: any thread of the job may show and move bars; one lock guards them. It is re-entrant, as a bar that the garbage
collector finalises may move in the middle of another's move. No thread of ours runs. Whether the bars have ended is
checked before the lock is taken, which a forked child must not do, and again once it is held.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from jobcontainer.events import Bar, Progress
from jobcontainer.storage.progress_file import ProgressFile, presentable
from jobcontainer.worker.reporting.log import note

if TYPE_CHECKING:
    from collections.abc import Hashable

    from jobcontainer.storage.folder import JobFolder

MAX_BARS: Final = 6

_EVENT_SECONDS: Final = 20.0  # three Progress events a minute: a history, the live bars are in the progress file
_WRITES_PER_SECOND: Final = 1000.0
_BURST: Final = 10_000.0  # writes that may follow one another without a pause
_REPORT: Final = "report"


@dataclass(slots=True)
class _Shown:
    """A bar that is shown, and the thread within whose open bars it is nested; 0 for none."""

    bar: Bar
    thread: int
    is_open: bool = True


class Bars:
    """The bars of a job, six at the most; the progress file is made by the first that shows.

    A bar that ended stays until another needs its place. A new bar replaces an ended one of the same level and label
    (the inner loop of the next epoch); where six are shown, it replaces the earliest that ended. A seventh bar at the
    same time is not shown until one of them ends.

    Every change is written at once, except in a loop that moves its bar tens of thousands of times at more than a
    thousand a second: then every thousandth of a second, and when the bar is complete or ends.

    Attributes:
        live: whether what is shown is still written: not after the end, nor in a forked child.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._file: ProgressFile | None = None
        self._shown: list[_Shown] = []  # in the order they were opened
        self._open: dict[Hashable, _Shown] = {}
        self._next_event = time.time() + _EVENT_SECONDS
        self._writes_left, self._refilled = _BURST, time.monotonic()
        self._pending = False  # whether anything is shown that is not written yet
        self._reported = Bar()
        self.live = True
        with contextlib.suppress(FileNotFoundError):
            folder.progress_file.unlink()

    def show(self, key: Hashable, bar: Bar, *, nested: bool = True) -> None:
        """Show a bar as it is now, or open it: at a level of its own, or within the bars that its thread has open."""
        if not self.live:
            return
        with self._lock:
            shown = self._open.get(key) or self._opened(key, bar.label, nested=nested)
            if shown is None:
                return
            before, now = shown.bar, presentable(replace(bar, level=shown.bar.level))
            shown.bar, self._pending = now, True
            only_moved = (before.label, before.total, before.message) == (now.label, now.total, now.message)
            if not only_moved or now.done == now.total or self._may_write():
                self._write()

    def report(self, done: float, total: float | None, message: str | None) -> None:
        """Move the bar of :func:`~jobcontainer.worker.reporting.progress.report`."""
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
        """Mark a bar as ended; with ``leave``, it stays visible."""
        if not self.live:
            return
        with self._lock:
            shown = self._open.pop(key, None)
            if shown is None:
                return
            shown.is_open = False
            if not leave:
                self._shown.remove(shown)
            if self._pending or not leave:
                self._write()

    def finish(self) -> None:
        """Write the bars as they are at the end, and nothing after it.

        Raises:
            OSError: the last event can't be written.
        """
        with self._lock:
            if self._file is not None:
                if self.live:
                    self._write()
                self._file.close()
                if self.live:
                    self.live = False
                    self._folder.append_event(self._event())
            self.live = False

    def forget(self) -> None:
        """Write nothing more; for a forked child, where a thread that does not exist there may hold the lock."""
        self.live = False

    def _opened(self, key: Hashable, label: str, *, nested: bool) -> _Shown | None:
        """Add a new bar; None while six are open."""
        thread = threading.get_ident() if nested else 0
        level = sum(shown.thread == thread for shown in self._open.values()) if nested else 0
        ended = [shown for shown in self._shown if not shown.is_open]
        replaced = [shown for shown in ended if (shown.bar.level, shown.bar.label) == (level, label)][:1]
        if not replaced and len(self._shown) >= MAX_BARS:
            if not ended:
                return None
            replaced = ended[:1]
        new = _Shown(Bar(label=label, level=level), thread)
        self._shown = [shown for shown in self._shown if shown not in replaced] + [new]
        self._open[key] = new
        return new

    def _may_write(self) -> bool:
        """Whether a move is written, or left to the next one: a bucket of writes, refilled as time passes."""
        now = time.monotonic()
        self._writes_left = min(self._writes_left + (now - self._refilled) * _WRITES_PER_SECOND, _BURST)
        self._refilled = now
        if self._writes_left < 1:
            return False
        self._writes_left -= 1
        return True

    def _write(self) -> None:
        """Write all bars, and an event where the last one is long ago; if that fails, end the progress, not the job."""
        self._pending = False
        try:
            self._file = self._file or ProgressFile(self._folder.progress_file)
            self._file.write([shown.bar for shown in self._shown])
            if time.time() >= self._next_event:
                self._next_event = time.time() + _EVENT_SECONDS
                self._folder.append_event(self._event())
        except OSError as error:
            self.live = False
            note(f"no more progress, it can't be written: {error}")

    def _event(self) -> Progress:
        return Progress(at=time.time(), bars=tuple(shown.bar for shown in self._shown))
