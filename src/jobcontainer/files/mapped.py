"""A file that is being written, mapped, so that digests are those of what lies in it."""

from __future__ import annotations

import mmap
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECES: Final = 8


class MappedFile:
    """The mapping of a file, of which few pieces at a time count as this process's memory.

    It ends with the last reference to it; until then, the file is open for writing.

    Args:
        descriptor: of the file, opened for reading and writing.
        size: of the file.

    Raises:
        OSError: it can't be mapped.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        """Map it; nothing is read."""
        self._mapping = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        self._view = memoryview(self._mapping)
        self._begun: deque[tuple[int, int, Callable[[], bytes]]] = deque()

    def digest_later(
        self, start: int, end: int, digest_later: Callable[[memoryview], Callable[[], bytes]]
    ) -> Callable[[], bytes]:
        """Begin to take the digest of a piece that was written, and unmap one that was begun some pieces before.

        Args:
            start: where the piece begins.
            end: where it ends.
            digest_later: begins to take a digest, and returns what waits for it.

        Returns:
            What waits for the digest.
        """
        digest = digest_later(self._view[start:end])
        self._begun.append((start - start % mmap.PAGESIZE, end, digest))
        if len(self._begun) > _PIECES:
            start, end, earlier = self._begun.popleft()
            earlier()
            self._mapping.madvise(mmap.MADV_DONTNEED, start, end - start)
        return digest
