"""The progress of a job: up to six bars in one page of memory-mapped bytes, as they stood at the last update.

Layout of the file, 4096 bytes, numbers in the byte order of the machine that writes::

    offset  bytes  what
         0      8  magic b"jobbars1"
         8     56  zero
        64    672  bar 0: two copies of 336 bytes
       736    672  bar 1, and so on; bar 5 ends at 4096

    one copy
         0      8  f64  total; not a number where it is not known
         8      8  f64  initial
        16      8  f64  started
        24      2  i16  level; -1 for a bar that was taken away
        26      2       zero
        28      4  u32  order: bars are shown in ascending order
        32     96       label, UTF-8, padded with zeros
       128    180       message, UTF-8, padded with zeros
       308      8  u64  sequence: how often this bar was written; the higher of the two valid copies is the bar
       316      8  f64  done
       324      8  f64  updated
       332      4  u32  CRC-32 of the 332 bytes before

Design: there is one writer, and any number of readers that ask nothing of it. An update goes over the *older* copy of
its bar and is valid once the digest fits, so the newer copy is whole at every instant, and a writer that is killed in
the middle of an update leaves the update before. It is a sequence lock whose sequence stands in each copy and whose end
mark is a digest. That needs no store to be atomic and no order of stores, neither of which Python promises, and it
serves readers that call ``read()`` as well as those that map the page. A reader takes the page in one ``read()``; where
both copies of a bar changed under its hands, it reads again.

The writer's threads share one re-entrant lock: a bar that is finalised by the garbage collector in the middle of an
update writes too. A forked child inherits the mapping and must not write; whoever owns the record sees to that.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import sys
import threading
from io import FileIO
from pathlib import Path
from typing import Final
from zlib import crc32

from jobcontainer.events import Bar
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.jobfile.mounts import file_system

MAX_BARS: Final = 6

_SIZE = 4096
_MAGIC = b"jobbars1"
_HEADER = 64
_REST = struct.Struct("=dddhxxI96s180s")
_COUNTS = struct.Struct("=Qdd")
_DIGEST = struct.Struct("=I")
_DIGESTED = _REST.size + _COUNTS.size
_STRIDE = _DIGESTED + _DIGEST.size
_LABEL, _MESSAGE = 96, 180
_GONE = -1
_READS = 10
# Shared mappings of these are not carried over between machines, or not before they are closed.
_REMOTE = frozenset({"9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"})


class ProgressRecord:
    """The writer's side of the record.

    Args:
        path: the file; an older one is replaced, and its readers keep what they had.

    Raises:
        OSError: the file can't be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "progress")
        >>> record = ProgressRecord(path)
        >>> record.put(0, Bar(label="epochs", done=1, total=3))
        >>> record.advance(0, done=2, updated=9.0)
        >>> [(bar.label, bar.done, bar.total) for bar in read_bars(path)]
        [('epochs', 2.0, 3.0)]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Write an empty page, and map it where that is safe."""
        self._lock = threading.RLock()
        self._rest = [b""] * MAX_BARS  # what an update of the counts leaves as it is
        self._digests = [0] * MAX_BARS  # of the rest
        self._sequences = [0] * MAX_BARS
        # The page is written, not left sparse: a store into a hole of a full disk would be a SIGBUS.
        write_whole(Path(path), _MAGIC.ljust(_SIZE, b"\0"))
        self._file = FileIO(path, "r+")
        self._page = None if _is_remote(self._file) else _mapped(self._file)
        if self._page is not None:
            self._file.close()

    def put(self, index: int, bar: Bar, *, order: int = 0) -> None:
        """Write all of a bar.

        Args:
            index: its place, 0 to 5.
            bar: what to write. Its texts are cut to 96 and 180 bytes of UTF-8; a number that is not finite counts as 0,
                or as not known for the total.
            order: where it is shown among the others.
        """
        rest = _REST.pack(
            _finite(bar.total, math.nan),
            _finite(bar.initial, 0.0),
            bar.started,
            bar.level,
            order,
            _fitted(bar.label, _LABEL),
            _fitted(bar.message, _MESSAGE),
        )
        with self._lock:
            self._rest[index], self._digests[index] = rest, crc32(rest)
            self.advance(index, bar.done, bar.updated)

    def advance(self, index: int, done: float, updated: float) -> None:
        """Write the count of a bar, and leave the rest as it was put.

        Args:
            index: its place, 0 to 5.
            done: how many are done.
            updated: when, in seconds since the epoch.
        """
        with self._lock:
            sequence = self._sequences[index] = self._sequences[index] + 1
            counts = _COUNTS.pack(sequence, done if math.isfinite(done) else 0.0, updated)
            raw = self._rest[index] + counts + _DIGEST.pack(crc32(counts, self._digests[index]))
            offset = _HEADER + (2 * index + sequence % 2) * _STRIDE
            if self._page is not None:
                self._page[offset : offset + _STRIDE] = raw
            else:
                self._file.seek(offset)
                self._file.write(raw)

    def remove(self, index: int) -> None:
        """Take a bar away."""
        self.put(index, Bar(level=_GONE))

    def close(self) -> None:
        """Let go of the file; the bars stay as they are."""
        with self._lock:
            if self._page is not None:
                self._page.close()
            self._file.close()


def read_bars(path: str | os.PathLike[str]) -> tuple[Bar, ...]:
    """Read the bars as they stood at the last update; cheap enough to poll.

    Args:
        path: the file of a :class:`ProgressRecord`, in this process or another, alive or dead.

    Returns:
        The bars in the order they are shown; none where the file is missing, half-written or no such record.

    Example:
        >>> read_bars("no such file")
        ()
    """
    bars: list[tuple[int, Bar]] = []
    try:
        with Path(path).open("rb", buffering=0) as file:
            for _ in range(_READS):
                file.seek(0)
                page = file.read(_SIZE)
                if len(page) < _SIZE or not page.startswith(_MAGIC):
                    return ()
                newest = [_newest(page, index) for index in range(MAX_BARS)]
                bars = [bar for bar in newest if bar is not None]
                if not any(bar is None and _written(page, index) for index, bar in enumerate(newest)):
                    break
    except (OSError, ValueError):  # missing, a folder, not ours to read, a NUL in its name
        return ()
    return tuple(bar for _, bar in sorted(bars, key=lambda pair: pair[0]) if bar.level != _GONE)


def _newest(page: bytes, index: int) -> tuple[int, Bar] | None:
    """Return the order and the bar of the newer whole copy; None where neither is whole."""
    first = _HEADER + 2 * index * _STRIDE
    whole = [
        (*_COUNTS.unpack_from(page, offset + _REST.size), offset)
        for offset in (first, first + _STRIDE)
        if _DIGEST.unpack_from(page, offset + _DIGESTED)[0] == crc32(page[offset : offset + _DIGESTED])
    ]
    if not whole:
        return None
    _, done, updated, offset = max(whole)
    total, initial, started, level, order, label, message = _REST.unpack_from(page, offset)
    return order, Bar(
        label=_text(label),
        done=done,
        total=None if math.isnan(total) else total,
        initial=initial,
        started=started,
        updated=updated,
        message=_text(message),
        level=level,
    )


def _written(page: bytes, index: int) -> bool:
    """Whether anything was ever written to a bar, be it half."""
    return page[_HEADER + 2 * index * _STRIDE : _HEADER + 2 * (index + 1) * _STRIDE].strip(b"\0") != b""


def _finite(number: float | None, otherwise: float) -> float:
    return number if number is not None and math.isfinite(number) else otherwise


def _fitted(text: str, size: int) -> bytes:
    """Return the text as UTF-8, cut between characters where it is too long."""
    data = text[:size].encode("utf-8", "replace")
    return data if len(data) <= size else data[:size].decode("utf-8", "ignore").encode()


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _mapped(file: FileIO) -> mmap.mmap | None:
    """Map the page; None where the file system has no shared mappings."""
    try:
        return mmap.mmap(file.fileno(), _SIZE)
    except (OSError, ValueError):
        return None


def _is_remote(file: FileIO) -> bool:
    """Whether the file lies on a network file system, as far as Linux tells."""
    device = os.fstat(file.fileno()).st_dev
    if not sys.platform.startswith("linux") or os.major(device) != 0:  # a block device is local
        return False
    return file_system(file.fileno()) in _REMOTE
