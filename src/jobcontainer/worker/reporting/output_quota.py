"""The rich outputs of a job on their way into its events, and the bounds that keep them there.

Design: any thread may show something; one lock guards the counts. What an output replaces (by an update, or as the
first one after a clearing) stays in the append-only events, so a plot that is redrawn all day would fill the disk. For
each tenth of the total that was written, replacing outputs are let through half as often: one that comes too early is
held back, and what comes after it with it; the latest state is written when the next output may pass, or at the end.
Once the total is used up, only the last state is written, at the end. A forked child of the job writes too, as a line
is one append; but it has no end, so what it holds back is lost, as is what a killed job held back.
"""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jobcontainer.events import Display
from jobcontainer.worker.reporting.notes import note

if TYPE_CHECKING:
    from jobcontainer.storage.folder import JobFolder

MAX_OUTPUTS: Final = 500  # that stand at the same time
MAX_BYTES: Final = 10_000_000  # of one output, and of all that is held back
MAX_TOTAL: Final = 100_000_000  # of all, replaced ones too

_FIRST_PAUSE = 0.2  # seconds between two replacing outputs once a tenth of the total is used; doubled for each tenth
_KEPT_TEXT = 2_000  # characters of the plain form of an output that is too large
_SAVE = "Save the rest to files in run()."


class Outputs:
    """The outputs of one job.

    Args:
        folder: the job's.
    """

    def __init__(self, folder: JobFolder) -> None:
        """Show nothing yet."""
        self._folder = folder
        self._lock = threading.RLock()
        self._standing = 0  # outputs that are shown now
        self._spent = 0  # bytes written
        self._next = 0.0  # when a replacing output may be written, by the monotonic clock; infinite once all is spent
        self._held: list[Display] = []
        self._clear_first = False
        self._told: set[str] = set()

    def admits_more(self) -> bool:
        """Tell whether a further output would be kept that replaces none; if not, say so once on card and log."""
        with self._lock:
            full = math.isinf(self._next) and not self._holds_all
            if self._clear_first or not (full or self._standing >= MAX_OUTPUTS):
                return True
            self._tell_full()
            return False

    def clear(self, *, wait: bool) -> None:
        """Take away all that is shown, at once or (``wait``) as soon as there is something to show instead."""
        with self._lock:
            self._clear_first = wait
            if not wait:
                self.add(Display(at=time.time(), clear=True))
                self._standing = 0

    def add(self, output: Display) -> None:
        """Show an output, update one, or tell once why it is not kept."""
        with self._lock:
            if self._clear_first and not output.update:
                output, self._clear_first = replace(output, clear=True), False
            replaces = output.update or output.clear
            if not replaces and not self.admits_more():
                return
            self._standing = (0 if output.clear else self._standing) + (not output.update)
            output = _fitted(output)
            if self._held or (replaces and time.monotonic() < self._next):
                self._hold(output)
            else:
                self._write(output)

    def finish(self) -> None:
        """Write the last state of what was held back."""
        with self._lock:
            for output in self._held:
                self._append(output)
            self._held = []

    def renew_lock(self) -> None:
        """Take another lock; for a forked child, where a thread that is not there may hold this one."""
        self._lock = threading.RLock()

    @property
    def _holds_all(self) -> bool:
        """Whether what is held back begins with a clearing, so that it is all that will be shown."""
        return bool(self._held) and self._held[0].clear

    def _hold(self, output: Display) -> None:
        """Keep an output for later, instead of what it replaces among those kept."""
        if output.clear:
            self._held = []
        elif output.update:
            name = output.display_id
            self._held = [kept for kept in self._held if not (kept.update and kept.display_id == name)]
        fits = sum(map(_size, self._held)) + _size(output) <= MAX_BYTES
        if math.isinf(self._next) and not fits:
            self._tell_full()
            return
        self._held.append(output)
        if time.monotonic() >= self._next or not fits:
            held, self._held = self._held, []
            for kept in held:
                self._write(kept)

    def _write(self, output: Display) -> None:
        size, replaces = _size(output), output.update or output.clear
        if self._spent + size > MAX_TOTAL:
            self._next = math.inf
            self._tell_full()
            if replaces or self._holds_all:
                self._hold(output)
            return
        self._append(output)
        self._spent += size
        tenths = self._spent * 10 // MAX_TOTAL
        if replaces and tenths:
            self._next = time.monotonic() + _FIRST_PAUSE * 2 ** (tenths - 1)

    def _append(self, output: Display) -> None:
        try:
            self._folder.append_event(output)
        except OSError as error:
            self._tell(f"outputs can't be written: {error}")

    def _tell_full(self) -> None:
        if math.isinf(self._next):
            last = "no more are kept but the last state of those that are updated"
            text = f"the outputs of this job reached {MAX_TOTAL // 10**6} MB, {last}. {_SAVE}"
        else:
            text = f"this job shows {MAX_OUTPUTS} outputs, no more are kept. {_SAVE}"
        if self._tell(text):
            self._append(Display(at=time.time(), data={"text/plain": f"jobcontainer: {text}"}))

    def _tell(self, text: str) -> bool:
        """Print a note into the log, once."""
        if text in self._told:
            return False
        self._told.add(text)
        note(text)
        return True


def _size(output: Display) -> int:
    """Return about how many bytes an output takes."""
    return sum(len(form) if isinstance(form, str) else len(json.dumps(form)) for form in output.data.values())


def _fitted(output: Display) -> Display:
    """Return an output without its largest forms, as far as it is too large; its plain form then says so."""
    size = _size(output)
    if size <= MAX_BYTES:
        return output
    reason = (
        f"jobcontainer: an output of {size / 1e6:.0f} MB is too large to be kept whole. Save it to a file in run()."
    )
    text = str(output.data.get("text/plain", ""))
    while _size(output) > MAX_BYTES:
        data = dict(output.data)
        del data[max(data, key=lambda mime: _size(replace(output, data={mime: data[mime]})))]
        output = replace(output, data=data)
    return replace(output, data=output.data | {"text/plain": f"{text[:_KEPT_TEXT]}\n{reason}".lstrip()})
