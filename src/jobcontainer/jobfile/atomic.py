"""Files that appear whole or not at all: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from jobcontainer.jobfile.open_file import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_WRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
"""What the system says where a disk takes nothing more: it is full, or broken."""


def temporary_beside(path: Path) -> Path:
    """Return a path in the same folder that no other file has."""
    # A name has at most 255 bytes, and a character may take four of them.
    return path.with_name(f".{path.name[:55]}.{os.urandom(6).hex()}")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file, readable by its owner alone, that takes its place when the block ends.

    Raises:
        OSError: it can't be written; an older file of that name is as it was, and no temporary file is left.
    """
    temporary = temporary_beside(Path(path))
    try:
        with io.BufferedWriter(open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)) as file:
            yield file
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a small file as :func:`replacing` does."""
    with replacing(path) as file:
        file.write(data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of some bytes; a single ``os.write`` may take fewer."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
