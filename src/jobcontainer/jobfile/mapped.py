"""A file that is being written, mapped piece by piece, so that digests are those of what lies in it."""

from __future__ import annotations

import mmap
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECES: Final = 8  # mapped at once: they count as this process's memory, and each holds a descriptor


class MappedFile:
    """Takes digests of pieces of a file.

    Args:
        descriptor: of the file, opened for reading and writing.
    """

    def __init__(self, descriptor: int) -> None:
        """Keep the descriptor; nothing is mapped."""
        self._descriptor = descriptor
        self._begun: deque[Callable[[], bytes]] = deque()

    def digest_later(
        self, start: int, end: int, digest_later: Callable[[memoryview], Callable[[], bytes]]
    ) -> Callable[[], bytes]:
        """Begin to take the digest of a piece that was written; it is mapped until that is taken.

        Args:
            start: where the piece begins.
            end: where it ends.
            digest_later: begins to take a digest, and returns what waits for it.

        Returns:
            What waits for the digest.

        Raises:
            OSError: it can't be mapped.
        """
        if len(self._begun) == _PIECES:
            self._begun.popleft()()
        skipped = start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            self._descriptor, end - start + skipped, mmap.MAP_SHARED, mmap.PROT_READ, offset=start - skipped
        )
        digest = digest_later(memoryview(mapped)[skipped:])
        self._begun.append(digest)
        return digest
