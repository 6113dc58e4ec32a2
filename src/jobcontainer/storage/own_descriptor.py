"""OwnDescriptor: an open file of ours in a process whose other code may close any descriptor and open files.

The number of a descriptor that was closed goes to whatever is opened next. So a descriptor that is held while user
code runs is used only after a look whether it still is the file that it was; else what is written there would be in a
file of the user's. A look is one system call, of less than a microsecond.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from jobcontainer.jobfile.atomic import write_all

if TYPE_CHECKING:
    from collections.abc import Callable


class OwnDescriptor:
    """A descriptor, and the file that it is.

    Args:
        number: the descriptor.
        reopen: opens the same file again where the descriptor is not ours any more; None where that can't be done.
    """

    __slots__ = ("_identity", "_reopen", "number")

    def __init__(self, number: int, reopen: Callable[[], int] | None = None) -> None:
        self.number, self._reopen = number, reopen
        self._identity = _identity(number)

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
        number = self._reopen()
        if _identity(number) != self._identity:
            os.close(number)
            raise OSError(errno.ESTALE, "User code has replaced this file")
        self.number = number
        return number

    def close(self) -> None:
        """Close the descriptor, where it still is ours."""
        if self.is_there():
            os.close(self.number)


def _identity(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino
