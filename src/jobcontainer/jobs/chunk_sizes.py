"""How many calls a chunk has, where nobody said: as many as are worth a process, and no slot waits long for the last.

The time of a call is known when the first chunk has ended; until then each slot has one chunk, and none waits. From
then on a chunk is a slot's share of what is left, so that they become ever shorter; it takes at least 0.2 s while there
is work for that, and at most a second. None takes less than twice what a process costs here, unless nothing else is
left: some milliseconds, more on a busy machine.
"""

from __future__ import annotations

import math
from typing import Final

_SECONDS: Final = 0.2  # that a chunk is to take, at the least
_MOST_SECONDS: Final = 1.0  # while many calls are left
_FIRST: Final = 200  # calls of a first chunk, at the most
_FIRST_OF_UNKNOWN: Final = 20
_GROWTH: Final = 50  # times as many calls as in the last chunk, at the most
_PER_WORKER: Final = 4  # first chunks
_WORTH: Final = 2  # times what a process costs is to be the work of one, though all would end sooner with less

_IN_FLIGHT: Final = 2  # chunks for each slot that are submitted at the same time: one runs, and one waits


class ChunkSizes:
    """Chooses the sizes of chunks.

    Args:
        calls: how many there are; all that are known now.
        slots: how many jobs run at the same time.
        chunksize: a size that was asked for; None for one that is chosen here.
        buffersize: how many calls may be under way, where not all are known; else None.

    Example:
        >>> sizes = ChunkSizes(1000, 2)
        >>> first = sizes.next(1000, 2)
        >>> sizes.learn(first, 0.01, 0.01 * first, cost=0.02)
        >>> first, [sizes.next(left, 2) for left in (500, 100, 20, 5)]
        (125, [100, 50, 10, 4])
    """

    def __init__(self, calls: int, slots: int, chunksize: int | None = None, buffersize: int | None = None) -> None:
        self._chunksize, self._buffersize = chunksize, buffersize
        if buffersize is not None:
            first = min(_FIRST_OF_UNKNOWN, -(-buffersize // (_IN_FLIGHT * slots)))
        else:
            first = max(1, min(_FIRST, -(-calls // (_PER_WORKER * slots))))
        self._size = self._longest = first  # calls that are worth a chunk, and as many as one may have
        self._least = 1  # that are worth a process
        self._is_known = chunksize is not None

    @property
    def in_flight(self) -> int:
        """How many chunks for each slot are to be submitted at the same time."""
        return _IN_FLIGHT if self._is_known else 1

    def next(self, pending: int, slots: int) -> int:
        """Return how many of the pending calls the next chunk is to have."""
        if self._chunksize is not None:
            return self._chunksize
        share = (pending if self._buffersize is None else self._buffersize / _IN_FLIGHT) / slots
        wanted = max(self._size, min(self._longest, int(share)))
        return max(1, min(wanted, max(math.ceil(share), self._least)))

    def learn(self, made: int, first: float, seconds: float, cost: float) -> None:
        """Learn from a chunk how long a call takes; the first call of a process may load what it needs.

        Args:
            made: how many calls were made.
            first: the seconds that the first took.
            seconds: the seconds that all took.
            cost: the seconds that its process took besides.
        """
        if made:
            self._is_known = True
            call = max((seconds - first) / (made - 1) if made > 1 else seconds, 1e-9)
            most = _GROWTH * made
            wanted = max(1, int(min(_SECONDS / call, most)))
            # A chunk that was too small to show more is no reason for less.
            self._size = max(self._size, wanted) if wanted == most else wanted
            self._longest = max(self._size, int(min(_MOST_SECONDS / call, most)))
            self._least = max(1, int(min(_WORTH * cost / call, self._size)))
