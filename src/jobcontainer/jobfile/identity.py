"""The identity of a file on disk: whoever wrote the file vouches for it, so that nobody needs to hash it again."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple


class FileIdentity(NamedTuple):
    """What distinguishes one content of a file from another without reading it.

    It is as trustworthy as the channel that it comes over: a parent sends it to its keeper with the order, a job to its
    keeper with the outcome, and a signed header names those of its blobs. One that lies unsigned in a folder beside the
    file vouches for nothing.

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
        """Return the identity that a file, named by its path or an open descriptor, has now.

        Example:
            >>> FileIdentity.of("/dev/null").size
            0
        """
        status = os.stat(file)  # noqa: PTH116 -- takes descriptors too
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.cache
def boot_id() -> str:
    """Return what distinguishes this start of this machine from all others; empty where the system does not say.

    Of a container, it is the start of the machine that it is on.

    Raises:
        OSError: it can't be read at the moment: too many files are open.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
