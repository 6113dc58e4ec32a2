"""The identity of a file on disk: whoever wrote it vouches for it, so that nobody need hash it again."""

from __future__ import annotations

import os
from typing import NamedTuple


class FileIdentity(NamedTuple):
    """What tells one content of a file from another without reading it.

    It is only worth what its channel is worth: a parent gives it to its keeper with the order, a job to its keeper
    with the end. What lies in a folder beside the file vouches for nothing.

    Attributes:
        device: of the file system.
        inode: of the file; a file that is written anew and renamed has another.
        size: in bytes.
        modified: time of the last modification, in nanoseconds.
    """

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, file: int | str | os.PathLike[str]) -> FileIdentity:
        """Return the identity of a file as it is now.

        Args:
            file: its path or an open descriptor.

        Raises:
            OSError: there is no such file.

        Example:
            >>> FileIdentity.of("/dev/null").size
            0
        """
        found = os.stat(file)  # noqa: PTH116 -- takes descriptors too
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
