"""Which files have had their buffers checked, so that the next reader need not read a gigabyte to check it again.

The record is bound to the file's identity (device, inode, size, times of change) and to its signature, and is itself
signed, so nobody else can write it. It is kept in one small file of fixed size in the user's cache folder: a table of
32-byte records, at a place that follows from the inode. A record that is overwritten or torn is no harm: it does not
match, and the buffers are checked again.

It holds until the machine is started again: one that lost its power may have kept a file's times, and lost its bytes.

The time of the last status change can't be set back, unlike that of modification. Who records a file when:

- A *reader*, after a check, unless the file was changed just now: file systems count time in steps of up to two
  seconds, and it might be changed again within the same step.
- The *writer* of a large file, at once: the digests were taken of what lies in the file, which nobody else had.
- Whoever *links* a file that is recorded, as a link is a change of status.

The latter two must know more of the file system, and hold the file still: :mod:`jobcontainer.jobfile.stillness` tells
how, and which changes show in no file's times. A file that is changed in one of those ways after it was recorded, by
whomever, passes for whole until it is verified.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobcontainer.errors import CorruptFileError
from jobcontainer.jobfile import signing
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.jobfile.stillness import clock, held_still, settled, times_tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobcontainer.jobfile.format import Header
    from jobcontainer.jobfile.stillness import Written

_RECORDED_FROM: Final = 16 * 2**20
_AWAITED_FROM: Final = 64 * 2**20  # whose check takes longer than the wait for a record
_RECORDS: Final = 4096
_RECORD_SIZE: Final = 32
_COARSEST_STEP: Final = 2.0
_SHORTLY: Final = 30_000_000  # nanoseconds from a change until whoever made it has recorded the file
_PAUSE: Final = 0.002


def check_buffers_once(file: FileReader, header: Header, buffers: Sequence[memoryview]) -> None:
    """Check the buffers of a file, unless they were checked before and nobody has touched it since.

    Raises:
        CorruptFileError: a buffer was altered.
    """
    size = sum(map(len, buffers))
    if size < _RECORDED_FROM:
        file.check_buffers(header, buffers)
        return
    if _is_recorded(file.status, file.signature) or (size >= _AWAITED_FROM and _is_recorded_shortly(file)):
        return
    file.check_buffers(header, buffers)
    if time.time() - max(file.status.st_mtime, file.status.st_ctime) > _COARSEST_STEP:
        _record(file.status, file.signature)


def record_written(written: Written) -> None:
    """Record a file that was written just now, where it is sure that nobody has touched it since."""
    try:
        descriptor = os.open(written.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # somebody took it away again
        return
    try:
        with held_still(descriptor) as still:
            status = settled(descriptor, written.since) if still else None
            if status is not None and written.is_of(status):
                _record(status, written.signature)
    finally:
        os.close(descriptor)


def link(path: Path, target: Path) -> None:
    """Make a hard link to a file; one that is recorded stays so.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it can't be linked.
    """
    with contextlib.ExitStack() as stack:
        file = None
        with contextlib.suppress(CorruptFileError):
            file = stack.enter_context(FileReader(path))
        recorded = False
        if file is not None and file.status.st_size >= _AWAITED_FROM and times_tell(file.descriptor):
            # The status is taken while it is held still: what was recorded for it is true until it is let go.
            still = stack.enter_context(held_still(file.descriptor))
            recorded = still and _is_recorded(os.fstat(file.descriptor), file.signature)
        since = clock()
        os.link(path, target)
        if file is not None and recorded:
            status = settled(file.descriptor, since)
            if status is not None:
                _record(status, file.signature)


def _is_recorded_shortly(file: FileReader) -> bool:
    """Whether a file that was written or linked this very moment is recorded by whoever did that."""
    if not times_tell(file.descriptor):
        return False
    waiting = True
    while waiting:
        status = os.fstat(file.descriptor)
        waiting = abs(clock() - status.st_ctime_ns) < _SHORTLY
        if status.st_mtime_ns == file.status.st_mtime_ns and _is_recorded(status, file.signature):
            return True
        if waiting:
            time.sleep(_PAUSE)
    return False


def _is_recorded(status: os.stat_result, signature: bytes) -> bool:
    place, record = _entry(status, signature)
    try:
        with _table().open("rb") as table:
            table.seek(place)
            return table.read(_RECORD_SIZE) == record
    except OSError:  # nothing was ever recorded
        return False


def _record(status: os.stat_result, signature: bytes) -> None:
    place, record = _entry(status, signature)
    with contextlib.suppress(OSError):  # no cache folder, then no record
        _table().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(_table(), os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            os.lseek(descriptor, place, os.SEEK_SET)
            os.write(descriptor, record)
        finally:
            os.close(descriptor)


def _entry(status: os.stat_result, signature: bytes) -> tuple[int, bytes]:
    """Return the record of a file, and where in the table it belongs."""
    machine = platform.node(), _boot()
    identity = (*machine, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    place = (status.st_dev + status.st_ino) % _RECORDS * _RECORD_SIZE
    return place, signing.sign(b"verified" + repr(identity).encode() + signature)


@functools.cache
def _boot() -> str:
    """Name the time since the machine was started; empty where it has no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return ""


def _table() -> Path:
    return signing.cache_folder() / "verified"
