"""The rich outputs of a job on their way into its events, and the limits that keep them there.

Design: any thread may show something; one lock guards the counts. What an output replaces (by an update, or as the
first one after a clearing) stays in the append-only events, so a plot that is redrawn all day would fill the disk.
Therefore, once a tenth of the total is written, an output that replaces another waits until a pause since the last one
is over, and only the latest of each display id is written then; the pause doubles with each further tenth. Once the
total is used up, only the last state is written, at the end. A forked child of the job writes too, as a line is one
append; but it has no end, so what it holds is lost, as is what a killed job held.
"""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from jobcontainer.events import Display
from jobcontainer.process import memory_text
from jobcontainer.storage.event_reader import OF_ONE
from jobcontainer.worker.reporting.log import note

if TYPE_CHECKING:
    from jobcontainer.storage.folder import JobFolder

MAX_OUTPUTS: Final = 500  # that are visible at the same time
MAX_BYTES: Final = 10_000_000  # of one output, and of all that is held
MAX_TOTAL: Final = 100_000_000  # of all, replaced ones too

_PAUSE = 0.2  # seconds between two outputs that replace others, in the second tenth of the total
_KEPT_TEXT = 2_000  # characters of the plain form of an output that is too large
_SAVE = "Save the rest to files in run()."


class OutputQuota:
    """Writes the outputs of one job, as far as its limits allow."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._visible = 0  # outputs
        self._written = 0  # bytes
        self._next = 0.0  # when held outputs may be written, by the monotonic clock; infinite once the total is used up
        self._held: list[Display] = []
        self._clear_first = False
        self._noted: set[str] = set()

    def admits_more(self) -> bool:
        """Whether a further output would be kept that replaces none; if not, card and log say so once."""
        with self._lock:
            clears = self._clear_first or (bool(self._held) and self._held[0].clear)
            if self._clear_first or (self._visible < MAX_OUTPUTS and (clears or math.isfinite(self._next))):
                return True
            self._note_full()
            return False

    def clear(self, *, wait: bool) -> None:
        """Take away all that is shown, at once or (``wait``) as soon as there is something to show instead."""
        with self._lock:
            self._clear_first = wait
            if not wait:
                self.add(Display(at=time.time(), clear=True))
                self._visible = 0

    def add(self, output: Display) -> None:
        """Show an output, update one, or note once why it is not kept."""
        with self._lock:
            if self._clear_first and not output.update:
                output, self._clear_first = replace(output, clear=True), False
            if not (output.update or output.clear) and not self.admits_more():
                return
            self._visible = (0 if output.clear else self._visible) + (not output.update)
            if output.clear:
                self._held = []
            elif output.update:  # instead of what it replaces among those held
                name = output.display_id
                self._held = [held for held in self._held if not (held.update and held.display_id == name)]
            self._held.append(_fitted(output))
            waits = time.monotonic() < self._next and any(held.update or held.clear for held in self._held)
            if not waits or sum(map(_size, self._held)) > MAX_BYTES:
                self._write_held()

    def finish(self) -> None:
        """Write the last state of what is held."""
        with self._lock:
            for output in self._held:
                self._append(output)
            self._held = []

    def renew_lock(self) -> None:
        """Take another lock; for a forked child, where a thread that does not exist there may hold this one."""
        self._lock = threading.RLock()

    def _write_held(self) -> None:
        """Write what is held, up to the total; what replaces others stays held then."""
        while self._held:
            size = _size(self._held[0])
            if self._written + size > MAX_TOTAL:
                self._next = math.inf
                self._note_full()
                if not self._held[0].clear:
                    self._held = [output for output in self._held if output.update]
                while sum(map(_size, self._held)) > MAX_BYTES:
                    self._held.pop()
                return
            output = self._held.pop(0)
            self._append(output)
            self._written += size
            tenths = 10 * self._written // MAX_TOTAL
            if tenths and (output.update or output.clear):
                self._next = time.monotonic() + _PAUSE * 2 ** (tenths - 1)

    def _append(self, output: Display) -> None:
        try:
            self._folder.append_event(output)
        except OSError as error:
            self._note(f"outputs can't be written: {error}")

    def _note_full(self) -> None:
        if math.isinf(self._next):
            last = "no more are kept but the last state of those that are updated"
            text = f"the outputs of this job reached {memory_text(MAX_TOTAL)}, {last}. {_SAVE}"
        else:
            text = f"this job shows {MAX_OUTPUTS} outputs, no more are kept. {_SAVE}"
        if self._note(text):
            self._append(Display(at=time.time(), data={"text/plain": f"jobcontainer: {text}"}))

    def _note(self, text: str) -> bool:
        """Print a note into the log, once."""
        if text in self._noted:
            return False
        self._noted.add(text)
        note(text)
        return True


def _size(output: Display) -> int:
    """Return how many bytes an output counts as; a small one is not for nothing, as whoever shows it decodes it."""
    return OF_ONE + sum(len(form) if isinstance(form, str) else len(json.dumps(form)) for form in output.data.values())


def _fitted(output: Display) -> Display:
    """Return an output without its largest forms, as far as it is too large; its plain form then says so."""
    size = _size(output)
    if size <= MAX_BYTES:
        return output
    reason = f"jobcontainer: an output of {memory_text(size)} is too large. Save it to a file in run()."
    text = str(output.data.get("text/plain", ""))
    while _size(output) > MAX_BYTES:
        data = dict(output.data)
        del data[max(data, key=lambda mime: _size(replace(output, data={mime: data[mime]})))]
        output = replace(output, data=data)
    return replace(output, data=output.data | {"text/plain": f"{text[:_KEPT_TEXT]}\n{reason}".lstrip()})
