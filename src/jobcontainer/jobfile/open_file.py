"""The one way in which files and folders are opened by the system's own call: an owner closes each, whatever comes.

An interrupt is raised in the main thread between any two bytecodes. A descriptor that ``os.open`` returns is a number,
and nobody closes that number where an interrupt comes before the next statement. So a number goes into a list, and from
there into a :class:`io.FileIO`, by calls that are made in C alone: at each bytecode one of the two owns it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODES: Final = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "r+"}  # of an open file these truncate nothing
_ALWAYS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

TOO_MANY_FILES: Final = (
    "Too many files are open in this process: close some, or raise the limit before Python starts, `ulimit -n 4096`"
)


def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> io.FileIO:
    """Open a file with flags that :func:`open` has no word for.

    Args:
        path: the file.
        flags: as for :func:`os.open`; no program that is started inherits the file.
        mode: of a file that is made.

    Returns:
        The file, which is closed when nobody has it any more.

    Raises:
        IsADirectoryError: it is a folder.
        OSError: it can't be opened.

    Example:
        >>> with open_file("/dev/null", os.O_RDONLY | os.O_NOFOLLOW) as file:
        ...     file.read()
        b''
    """
    numbers: list[int] = []
    try:
        numbers += map(os.open, [path], [flags | _ALWAYS], [mode])
        if stat.S_ISDIR(os.fstat(numbers[0]).st_mode):  # FileIO would refuse it, and leave it open
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        return next(map(io.FileIO, map(numbers.pop, [0]), [_MODES[flags & os.O_ACCMODE]]))
    except OSError as error:
        _advise(error)
        raise
    finally:
        for number in numbers:
            os.close(number)


@contextlib.contextmanager
def open_folder(path: str | os.PathLike[str]) -> Iterator[int]:
    """Open a folder for a block, and give its descriptor.

    Raises:
        NotADirectoryError: it is no folder.
        OSError: it can't be opened.
    """
    numbers: list[int] = []
    try:
        numbers += map(os.open, [path], [os.O_RDONLY | os.O_DIRECTORY | _ALWAYS])
        yield numbers[0]
    except OSError as error:
        _advise(error)
        raise
    finally:
        for number in numbers:
            os.close(number)


def _advise(error: OSError) -> None:
    """Say what to do where it is this process that has no descriptor left."""
    if error.errno == errno.EMFILE:
        error.strerror = TOO_MANY_FILES
