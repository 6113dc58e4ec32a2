"""The one way in which files that a job can reach are opened: regular files, and nothing that stands in their place.

A job can put whatever it likes in the place of its own files: a pipe, on which an open would wait for ever; a link to
some other file; a device; a folder; a file of another user. Whoever reads or appends through this module finds none of
them: for a reader there is no such file, and who appends gets an error. Nothing here waits for anybody.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from jobcontainer.jobfile.atomic import write_all

_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
# What the system says of an open of something that is no file of the job's, or of one that it has locked away.
_NO_FILE: Final = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENODEV, errno.EISDIR, errno.ENOTDIR, errno.EACCES}


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file, and return its descriptor; never wait, and never follow a link to it.

    Args:
        path: the file.
        flags: as for :func:`os.open`.
        mode: of a file that is made.

    Raises:
        FileNotFoundError: there is no such file, or something else is in its place.
        OSError: it can't be opened at the moment: too many files are open, the disk is full.

    Example:
        >>> open_regular("/dev/null")
        Traceback (most recent call last):
        ...
        FileNotFoundError: [Errno 2] A job's file can't be used (it is no regular file): '/dev/null'
    """
    try:
        descriptor = os.open(path, flags | _FLAGS, mode)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise _no_file(path, str(error.strerror)) from error
    if wrong := _what_is_wrong(path, os.fstat(descriptor), writes=flags & os.O_ACCMODE != os.O_RDONLY):
        os.close(descriptor)
        raise _no_file(path, wrong)
    return descriptor


def read_part(path: str | os.PathLike[str], offset: int, size: int) -> bytes:
    """Read so many bytes at the most, from an offset on; empty where there is nothing, or no such file.

    Raises:
        OSError: it can't be read at the moment.
    """
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def append(path: str | os.PathLike[str], data: bytes) -> None:
    """Add bytes to a file in one write; it is made, readable by its owner alone, where there is none.

    Raises:
        OSError: they can't be written, or something else is in the place of the file.
    """
    descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def status_of(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> os.stat_result | None:
    """Return what the system says of a regular file; None where there is none. A path may begin at an open folder."""
    try:
        found = os.lstat(path, dir_fd=dir_fd)
    except (OSError, ValueError):  # also a name that no file can have
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def size_of(path: str | os.PathLike[str]) -> int:
    """Return the bytes of a regular file; 0 where there is none."""
    found = status_of(path)
    return 0 if found is None else found.st_size


def _what_is_wrong(path: str | os.PathLike[str], found: os.stat_result, *, writes: bool) -> str:
    """Return why an open file is none of the job's; empty where it is one."""
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file"
    if found.st_uid != os.geteuid() and found.st_uid != Path(path).absolute().parent.stat().st_uid:
        return "it belongs to another user"
    return "it has another name, so that it may be some other file" if writes and found.st_nlink > 1 else ""


def _no_file(path: str | os.PathLike[str], reason: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, f"A job's file can't be used ({reason})", os.fspath(path))
