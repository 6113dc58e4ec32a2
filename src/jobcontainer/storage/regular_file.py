"""The one way in which files of a store are opened whose names are known beforehand: regular files, and nothing else.

A job can put whatever it likes in the place of its own files: a pipe, on which an open would wait for ever; a link to
some other file; a device; a folder; a file of another user. Whoever reads or appends through this module finds none of
them: for a reader there is no such file, and who appends gets an error. Nothing here waits for anybody.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobcontainer.jobfile import ownership
from jobcontainer.jobfile.atomic import write_all
from jobcontainer.jobfile.open_file import open_file

if TYPE_CHECKING:
    import io

_FLAGS: Final = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
# What the system says of an open of something that is no file of the job's, or of one that it has locked away.
_NO_FILE: Final = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENODEV, errno.EISDIR, errno.ENOTDIR, errno.EACCES}


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, own: bool = False) -> io.FileIO:
    """Open a regular file; never wait, and never follow a link to it. One that is made is its owner's alone.

    Args:
        path: the file.
        flags: as for :func:`os.open`.
        own: whether it is refused where another user can write to it too: what is in it is not a job's, but ours.

    Raises:
        FileNotFoundError: there is no such file, or something else is in its place.
        PermissionError: it is to be our own, and something else is in its place; the message says what to do.
        OSError: it can't be opened at the moment: too many files are open, the disk is full.

    Example:
        >>> open_regular("/dev/null")
        Traceback (most recent call last):
        ...
        FileNotFoundError: [Errno 2] A job's file can't be used (it is no regular file): '/dev/null'
    """
    try:
        file = open_file(path, flags | _FLAGS)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise _refusal(path, str(error.strerror), own=own) from error
    found = os.fstat(file.fileno())
    wrong = _what_is_wrong(path, found, writes=flags & os.O_ACCMODE != os.O_RDONLY)
    if own and not wrong and (why := ownership.why_foreign(found)):
        wrong = f"it {why}"
    if wrong:
        file.close()
        raise _refusal(path, wrong, own=own)
    return file


def read_part(path: str | os.PathLike[str], offset: int, size: int) -> bytes:
    """Read so many bytes at the most, from an offset on; empty where there is nothing, or no such file.

    Raises:
        OSError: it can't be read at the moment.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return b""
    with file:
        return os.pread(file.fileno(), size, offset)


def append(path: str | os.PathLike[str], data: bytes) -> None:
    """Add bytes to a file in one write; it is made, readable by its owner alone, where there is none.

    Raises:
        OSError: they can't be written, or something else is in the place of the file.
    """
    with open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
        write_all(file.fileno(), data)


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
    if found.st_uid != ownership.this_user() and (writes or found.st_uid != Path(path).absolute().parent.stat().st_uid):
        return "it belongs to another user"
    return "it has another name, so that it may be some other file" if writes and found.st_nlink > 1 else ""


def _refusal(path: str | os.PathLike[str], reason: str, *, own: bool) -> OSError:
    if own:
        return PermissionError(f"{path} is not used: {reason}. Nothing of yours should be lost if you delete it.")
    return FileNotFoundError(errno.ENOENT, f"A job's file can't be used ({reason})", os.fspath(path))
