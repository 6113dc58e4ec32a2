"""Files of JSON lines: appended to in whole lines, read from an offset."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from jobcontainer.jobfile.atomic import write_all
from jobcontainer.storage.own_descriptor import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def append_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Add records to a file of JSON lines, in one write, so that two writers never mix their lines."""
    if data := "".join([json.dumps(record) + "\n" for record in records]).encode():
        append(path, data)


def append(path: str | os.PathLike[str], data: bytes) -> None:
    """Add whole lines to a file in one write; it is made, readable by its owner alone, where there is none.

    Raises:
        OSError: it can't be written, or there is something else than a file, which is not waited for.
    """
    descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def read_lines(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read a file of JSON lines from a byte offset on.

    Returns:
        The records, and the offset behind the last whole line. A line that is no JSON object is passed over, and so is
        a torn last one until the rest of it is there.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data.rfind(b"\n") + 1
    records = []
    for line in data[:whole].splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)], offset + whole
