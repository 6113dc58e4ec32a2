"""Waiting for several jobs without a thread, and what follows from an end: one thing after another, never nested.

The end of one job may end a chain of five hundred that need it. Were each ended by a callback of the one before, the
stack would be as deep as the chain. So a call that follows from an end waits for its turn in the thread in which that
came: first everything that moves handles, in memory; then what writes files and starts jobs.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from jobcontainer.events import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobcontainer.jobs.job import Job

_log = logging.getLogger(__name__)


class _Turns(threading.local):
    depth = 0

    def __init__(self) -> None:
        self.moves: deque[Callable[[], object]] = deque()
        self.writes: deque[Callable[[], object]] = deque()


_turns = _Turns()


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """Make the calls that were given to :func:`soon` and :func:`afterwards` in this thread when the block ends."""
    _turns.depth += 1
    try:
        yield
        while _turns.depth == 1 and (_turns.moves or _turns.writes):
            call = (_turns.moves or _turns.writes).popleft()
            try:
                call()
            except BaseException as error:
                if not isinstance(error, Exception):
                    raise
                _log.exception("A job that waits for others could not be moved on.")
    finally:
        _turns.depth -= 1


def soon(call: Callable[[], object]) -> None:
    """Make a call that moves handles when it is its turn."""
    with in_turn():
        _turns.moves.append(call)


def afterwards(call: Callable[[], object]) -> None:
    """Make a call that takes its time, when no handle is to be moved."""
    with in_turn():
        _turns.writes.append(call)


class Prerequisites:
    """The jobs that another one waits for; whose ends may come in several threads at the same time.

    Args:
        jobs: the jobs. They are kept alive until they have ended, as nobody watches a handle that nobody holds.
        call: called once: with the first job that ended and did not succeed, or with None when all have succeeded.
    """

    __slots__ = ("_calls", "_left")

    def __init__(self, jobs: Sequence[Job[Any]], call: Callable[[Job[Any] | None], object]) -> None:
        self._calls = [call]
        self._left = list(range(len(jobs)))
        for job in jobs:
            job._when_ended(partial(self._ended, job))

    def _ended(self, job: Job[Any]) -> None:
        """Note an end. Each number is taken once, and who takes the zero is the last."""
        failed = job.state is not JobState.SUCCEEDED
        if failed or self._left.pop() == 0:
            with contextlib.suppress(IndexError):  # it was called with one that ended before
                soon(partial(self._calls.pop(), job if failed else None))
