"""OwnDescriptor: an open file of ours in a process whose other code may close any descriptor and open files.

The number of a descriptor that was closed goes to whatever is opened next. So a descriptor that is held while user
code runs is used only after a look whether it still is the file that it was; else what is written there would be in a
file of the user's. A look is one system call, of less than a microsecond.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

from jobcontainer.jobfile.atomic import write_all

if TYPE_CHECKING:
    import io
    from collections.abc import Callable


class OwnDescriptor:
    """A descriptor, and the file that it is.

    Args:
        file: the open file, or the number of a descriptor that somebody else closes.
        reopen: opens the same file again where the descriptor is not ours any more; None where that can't be done.

    Attributes:
        number: of the descriptor.
    """

    __slots__ = ("_file", "_identity", "_reopen", "number")

    def __init__(self, file: io.FileIO | int, reopen: Callable[[], io.FileIO] | None = None) -> None:
        self._file, self._reopen = file, reopen
        self.number = _number(file)
        self._identity = _identity(self.number)

    def is_there(self) -> bool:
        """Whether the descriptor still is the file that it was."""
        return _identity(self.number) == self._identity

    def write(self, data: bytes) -> None:
        """Write, or nothing where the file can't be had any more.

        Raises:
            OSError: the descriptor is not ours any more, and the file can't be had; or it can't be written.
        """
        write_all(self.ensured(), data)

    def ensured(self) -> int:
        """Return a descriptor of the file: the one that it was, or a new one.

        Raises:
            OSError: it can't be had any more.
        """
        if self.is_there():
            return self.number
        if self._reopen is None:
            raise OSError(errno.EBADF, "User code has closed this descriptor")
        file = self._reopen()
        if _identity(file.fileno()) != self._identity:
            file.close()
            raise OSError(errno.ESTALE, "User code has replaced this file")
        _let_go(self._file)
        self._file, self.number = file, file.fileno()
        return self.number

    def close(self) -> None:
        """Close the descriptor, where it still is ours."""
        if not self.is_there():
            _let_go(self._file)
        elif isinstance(self._file, int):
            os.close(self._file)
        else:
            self._file.close()


def _let_go(file: io.FileIO | int) -> None:
    """Keep a file for ever whose descriptor user code has closed: at its end it would close what has the number then.

    A list would keep it until the interpreter exits, when the user's files may still be open.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(file))


def _number(file: io.FileIO | int) -> int:
    return file if isinstance(file, int) else file.fileno()


def _identity(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino
