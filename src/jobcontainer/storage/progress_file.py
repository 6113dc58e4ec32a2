"""The progress of a job: its bars as they stood at the last update, in a small file that is always readable.

Layout of the file: two slots of 16 KiB. A slot holds a header (CRC-32, sequence number and length of the content, in
little-endian order) and the bars as JSON.

Design: one writer, any number of readers, and no lock between them. An update is one ``pwrite`` over the older of the
two slots, so the newer one is whole at every instant: a writer that is killed in the middle of an update leaves the
update before. Nothing is memory-mapped, so that it works on network file systems as well. A reader takes the whole slot
with the higher sequence number; where both changed while it read, it reads again.
"""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

from jobcontainer.events import Bar, checked
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.storage.own_descriptor import OwnDescriptor
from jobcontainer.storage.regular_file import open_regular, read_part

if TYPE_CHECKING:
    from collections.abc import Iterable

_SLOT: Final = 16 * 1024
_HEADER: Final = struct.Struct("<IQI")  # CRC-32 of all that follows, sequence number, length of the content
_LABEL, _MESSAGE = 96, 180  # bytes of a text that are kept
_DEEPEST: Final = 999  # level of a bar
_READS: Final = 10
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class ProgressFile:
    """The writer's side of the file; at most six bars fit.

    Args:
        path: the file; an older one is replaced.

    Raises:
        OSError: the file can't be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        write_whole(Path(path), b"")
        self._file = OwnDescriptor(open_regular(path, os.O_WRONLY), reopen=lambda: open_regular(path, os.O_WRONLY))
        self._sequence = 0

    def write(self, bars: Iterable[Bar]) -> None:
        """Replace the bars, each as :func:`presentable` returns it; one writer at a time.

        Raises:
            OSError: they can't be written, or user code has closed the file and put another in its place.
        """
        content = _ENCODER.encode([[getattr(bar, name) for name in Bar.__slots__] for bar in bars]).encode()
        self._sequence += 1
        record = _HEADER.pack(0, self._sequence, len(content)) + content
        record = _HEADER.pack(crc32(record[4:]), self._sequence, len(content)) + content
        os.pwrite(self._file.ensured(), record, self._sequence % 2 * _SLOT)

    def close(self) -> None:
        """Let go of the file; the bars stay as they are."""
        self._file.close()


def read_bars(path: str | os.PathLike[str]) -> tuple[Bar, ...]:
    """Read the bars as they stood at the last update; none where the file is missing, damaged or no such file."""
    try:
        for _ in range(_READS):
            data = read_part(path, 0, 2 * _SLOT)
            slots = [slot for slot in (_read_slot(data, 0), _read_slot(data, _SLOT)) if slot is not None]
            if slots:
                rows = json.loads(max(slots)[1])
                return tuple(presentable(checked(Bar, dict(zip(Bar.__slots__, row, strict=True)))) for row in rows)
            if not data:
                break
    except (OSError, ValueError, TypeError, RecursionError):  # unreadable, or something else than bars
        pass
    return ()


def presentable(bar: Bar) -> Bar:
    """Return a bar that fits into the file: texts of at most 96 and 180 bytes, numbers that are finite, no odd level.

    Example:
        >>> presentable(Bar(label="x" * 200, done=float("nan"), total=float("inf"))) == Bar(label="x" * 96)
        True
    """
    return Bar(
        label=_fitted(bar.label, _LABEL),
        done=_finite(bar.done),
        total=None if bar.total is None or not math.isfinite(bar.total) else float(bar.total),
        initial=_finite(bar.initial),
        started=_finite(bar.started),
        updated=_finite(bar.updated),
        message=_fitted(bar.message, _MESSAGE),
        level=min(max(int(bar.level), 0), _DEEPEST),
    )


def _read_slot(data: bytes, offset: int) -> tuple[int, bytes] | None:
    """Return sequence number and content of a slot; None where it is not whole."""
    if len(data) < offset + _HEADER.size:
        return None
    digest, sequence, length = _HEADER.unpack_from(data, offset)
    record = data[offset : offset + _HEADER.size + length]
    return (sequence, record[_HEADER.size :]) if sequence and crc32(record[4:]) == digest else None


def _finite(number: float) -> float:
    return float(number) if math.isfinite(number) else 0.0


def _fitted(text: str, size: int) -> str:
    """Return the text, cut between characters where it takes more bytes."""
    return text[:size].encode("utf-8", "replace")[:size].decode("utf-8", "ignore")
