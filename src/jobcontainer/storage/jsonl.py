"""Files of JSON lines: appended to in whole lines, read from an offset, a bounded piece at a time.

Anybody may have written into such a file. A line that is no JSON object, or that is longer than
:data:`LONGEST_LINE`, is passed over, and so is a torn last one until the rest of it is there.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.jobfile.atomic import write_all
from jobcontainer.storage.regular_file import open_regular, read_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

AT_ONCE: Final = 4 * 2**20
"""Bytes that one read takes at the most, unless a single line is longer."""

LONGEST_LINE: Final = 64 * 2**20
"""Bytes of the longest line that is read: the largest output that a job may show, with every character escaped."""


def append_lines(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Add records to a file of JSON lines, in one write, so that two writers never mix their lines.

    They begin on a line of their own, also where the last writer was cut off within its line.

    Returns:
        The inode of the file that they were written to.

    Raises:
        OSError: they can't be written.
    """
    data = "".join([json.dumps(record) + "\n" for record in records]).encode()
    with open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as file:
        descriptor = file.fileno()
        found = os.fstat(descriptor)
        if data and found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
            data = b"\n" + data
        write_all(descriptor, data)
        return found.st_ino


def read_lines(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read the next records of a file of JSON lines, from a byte offset on.

    Returns:
        The records, some of those that there are; and the offset behind the last line that was read, at which the next
        call goes on. Where that is the one given, there are no more.
    """
    size = AT_ONCE
    while True:
        data = read_part(path, offset, size)
        whole = data.rfind(b"\n") + 1
        if whole or len(data) < size:
            break
        if size >= LONGEST_LINE:
            return [], offset + size  # what is left of this line is no JSON, and passed over with the next read
        size = min(4 * size, LONGEST_LINE)
    decoded = map(decode_line, data[:whole].split(b"\n"))
    return [record for record in decoded if record is not None], offset + whole


def all_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Go through all records of a file of JSON lines."""
    offset = -1
    following = 0
    while following != offset:
        offset = following
        records, following = read_lines(path, offset)
        yield from records


def decode_line(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a line holds; None where it holds none.

    Half a pair of surrogates, which no UTF-8 can hold, becomes a question mark.

    Example:
        >>> decode_line(b'{"event": "started"}'), decode_line(b'{"event": "sta')
        ({'event': 'started'}, None)
    """
    try:
        record = json.loads(line.decode())
        if b"\\ud" in line or b"\\uD" in line:
            record = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
