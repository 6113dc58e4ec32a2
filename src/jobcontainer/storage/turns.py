"""The turns of a job's life, that is, the starts and ends of its attempts, found among all its other events.

Whoever watches a job needs the last turn, many times, and no output of the job. So the file is read from its end, and
lines that can't be a turn are not decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jobcontainer.events import Outcome, Started, event_from_json
from jobcontainer.storage.jsonl import decode_line
from jobcontainer.storage.regular_file import read_part, size_of

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST: Final = 2**16  # bytes of a line that is a turn, at the most
_BLOCK: Final = 2**20  # bytes that are searched at once
_MOST_SEARCHED: Final = 16 * _BLOCK


class TurnReader:
    """Finds the last start and the last end of an attempt, in a bounded time however large the file is.

    A reader belongs to one thread, and keeps no file open.

    Args:
        path: the file of the events.

    Attributes:
        started: the last start; None where none is found.
        ended: the last end; None where none is found.
        last: the later one of the two.
    """

    def __init__(self, path: Path) -> None:
        self.started: Started | None = None
        self.ended: Outcome | None = None
        self.last: Started | Outcome | None = None
        self._path = path
        self._offset = 0  # of the first line that was not read yet

    def look(self) -> Started | Outcome | None:
        """Read what was added since the last look; return the last turn of all.

        Raises:
            OSError: the file can't be read at the moment.
        """
        size = size_of(self._path)
        if size < self._offset:  # the job has written its file anew
            self._offset, self.started, self.ended, self.last = 0, None, None, None
        first = max(self._offset, size - _MOST_SEARCHED)
        found = self._search(first, size)
        if not found and self.last is None and first > 0:
            # An end that so much follows is not the last turn: another attempt has begun.
            found = [*starts_from(self._path, 0)]
        for turn in found:
            self.last = turn
            if isinstance(turn, Started):
                self.started = turn
            else:
                self.ended = turn
        return self.last

    def _search(self, first: int, size: int) -> list[Started | Outcome]:
        """Return the turns between two offsets, read from the end, back to the last start."""
        found: list[Started | Outcome] = []
        end, read = size, self._offset
        while end > first and not any(isinstance(turn, Started) for turn in found):
            start = max(first, end - _BLOCK)
            data = read_part(self._path, start, end - start + (_LONGEST if end < size else 0))
            read = max(read, start + data.rfind(b"\n") + 1)
            found[:0] = _turns_in(data, end - start)
            end = start
        self._offset = read
        return found


def starts_from(path: Path, offset: int) -> list[Started]:
    """Return the starts of attempts among the first 64 KiB from a byte offset on."""
    return [turn for turn in _turns_in(read_part(path, offset, _LONGEST), _LONGEST) if isinstance(turn, Started)]


def _turns_in(data: bytes, end: int) -> list[Started | Outcome]:
    """Return the turns whose lines begin before an offset, and are whole."""
    turns: list[Started | Outcome] = []
    position = 0
    for line in data[: data.rfind(b"\n") + 1].split(b"\n"):
        if position >= end:
            break
        position += len(line) + 1
        # Inside of a text a quotation mark is escaped, so that no output looks like this.
        if len(line) <= _LONGEST and (b'"started"' in line or b'"ended"' in line):
            event = event_from_json(decode_line(line) or {})
            turns += [event] if isinstance(event, Started | Outcome) else []
    return turns
