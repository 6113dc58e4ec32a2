"""Files that appear whole or not at all: written under a temporary name beside their own, then renamed."""

from __future__ import annotations

import contextlib
import os


def temporary_beside(path: str) -> str:
    """Name a temporary file in the folder of a path, such that no other has its name."""
    folder = path[: len(path) - len(os.path.basename(path))]  # noqa: PTH119 -- a tenth of the time
    # A name has at most 255 bytes, and a character may take four of them.
    return f"{folder}.{path[len(folder) :][:55]}.{os.urandom(6).hex()}"


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a small file so that it appears whole or not at all, readable by its owner alone.

    Raises:
        OSError: it can't be written; an older file of that name is as it was, and no temporary file is left.
    """
    temporary = temporary_beside(os.fspath(path))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 -- a Path takes longer than all this
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108 -- as above
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of some bytes; a single ``os.write`` may take fewer."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
