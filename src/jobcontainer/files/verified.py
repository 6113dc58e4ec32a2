"""Which files have had their buffers checked, so that the next reader need not read a gigabyte to check it again.

The record is bound to the file's identity (device, inode, size, times of change) and to its signature, and is itself
signed, so nobody else can write it. It is kept in one small file of fixed size in the user's cache folder: a table of
32-byte records, at a place that follows from the inode. A record that is overwritten or torn is no harm: it does not
match, and the buffers are checked again.

The time of the last status change can't be set back, unlike that of modification. As file systems count it in steps of
up to two seconds, a file that was changed just now is not recorded: it might be changed again within the same step.
"""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING, Final

from jobcontainer.files import trust

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jobcontainer.files.format import Header
    from jobcontainer.files.reader import FileReader

_RECORDED_FROM: Final = 16 * 2**20
_RECORDS: Final = 4096
_RECORD_SIZE: Final = 32
_COARSEST_STEP: Final = 2.0


def check_buffers_once(file: FileReader, header: Header, buffers: Sequence[memoryview]) -> None:
    """Check the buffers of a file, unless they were checked before and nobody has touched it since.

    Raises:
        CorruptFileError: a buffer was altered.
    """
    if sum(map(len, buffers)) < _RECORDED_FROM:
        file.check_buffers(header, buffers)
        return
    place, record = _record(file)
    try:
        descriptor = os.open(_table(), os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError:  # no cache folder, then no record
        file.check_buffers(header, buffers)
        return
    try:
        os.lseek(descriptor, place, os.SEEK_SET)
        if os.read(descriptor, _RECORD_SIZE) == record:
            return
        file.check_buffers(header, buffers)
        if time.time() - max(file.status.st_mtime, file.status.st_ctime) > _COARSEST_STEP:
            os.lseek(descriptor, place, os.SEEK_SET)
            os.write(descriptor, record)
    finally:
        os.close(descriptor)


def _record(file: FileReader) -> tuple[int, bytes]:
    status = file.status
    identity = (platform.node(), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    place = (status.st_dev + status.st_ino) % _RECORDS * _RECORD_SIZE
    return place, trust.sign(b"verified" + repr(identity).encode() + file.signature)


def _table() -> Path:
    folder = trust.cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / "verified"
