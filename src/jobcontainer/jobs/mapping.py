"""The results of many calls of one function, in the order of the arguments, as they come.

The calls are made in chunks (:mod:`jobcontainer.jobs.call_feeder`). Who reads the results, in the thread of the user,
has the chunks from a queue, reads the files of their jobs, and changes nothing of them.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from jobcontainer.errors import SerializationError
from jobcontainer.jobs.call_feeder import Feeder, lost_result
from jobcontainer.jobs.call_progress import CallProgress
from jobcontainer.jobs.group import JobGroup
from jobcontainer.storage.call_results import CallReader
from jobcontainer.views.calls_card import calls_card
from jobcontainer.views.render import card_html, card_text
from jobcontainer.worker.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from jobcontainer.jobs.call_feeder import Chunk, Target, Wishes
    from jobcontainer.process import JobOptions

R = TypeVar("R")

_REFILL: Final = 4  # a buffer is filled when a fourth of it is free
_POLL_SECONDS: Final = 0.02
_TOO_LATE: Final = "The next result is not there yet. The calls that have not begun are cancelled."


class MapResults(Iterator[R], Generic[R]):
    """The results of :meth:`jobcontainer.JobPool.map`, in the order of the arguments, as they come.

    A call that raised raises that here, at its place, and the iteration can go on behind it. :meth:`close`, the end of
    a ``with`` block, or an iteration that is broken off, cancels the calls that have not begun.

    Example:
        >>> with pool.map(simulate, seeds) as results:      # doctest: +SKIP
        ...     for result in results:
        ...         print(result)
    """

    def __init__(self, feeder: Feeder, results: Iterator[tuple[R, BaseException | None]]) -> None:
        self._feeder, self._results = feeder, results
        self.pool: object = None  # which is to live as long as the results

    def __next__(self) -> R:
        """Return the next result, or raise what its call raised.

        Raises:
            TimeoutError: it is not there ``timeout`` seconds after the call of ``map``; the iteration is over.
            concurrent.futures.CancelledError: its call was cancelled.
            JobError: the process of the call died in it, was out of time or of memory.
            Exception: what the call raised.
        """
        value, error = next(self._results)
        if error is not None:
            try:
                raise error
            finally:
                del error  # or the traceback would keep this frame, and it the error, for ever
        return value

    def close(self) -> None:
        """Cancel the calls that have not begun, and end the iteration."""
        self._feeder.stop()
        self._results.close()  # type: ignore[attr-defined]  # it is a generator

    def __enter__(self) -> MapResults[R]:
        """Return the results."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def jobs(self) -> JobGroup[Any]:
        """The jobs so far, one for each chunk of calls."""
        return JobGroup(tuple(self._feeder.jobs))

    @property
    def takes_all(self) -> bool:
        """Whether all calls are made, though nobody takes a result: none waits for room in a buffer."""
        return self._feeder.is_complete

    @property
    def progress(self) -> CallProgress:
        """What follows how far the calls are; for those who show it."""
        return CallProgress(self._feeder)

    def __repr__(self) -> str:
        """Show how many calls have ended and how, and the failures by kind."""
        return card_text(calls_card(self.progress.look(), time.time()))

    def _repr_html_(self) -> str:
        """Show the calls as a card as they are now; with the extension, a notebook shows a live one."""
        now = time.time()
        return card_html(calls_card(self.progress.look(), now), now)


def map_calls(
    function: Callable[..., Any],
    options: JobOptions,
    target: Target,
    iterables: Sequence[Iterable[Any]],
    wishes: Wishes,
) -> MapResults[Any]:
    """Submit the first chunks of calls, and return the results of all; see :meth:`jobcontainer.JobPool.map`."""
    until = math.inf if wishes.timeout is None else time.monotonic() + wishes.timeout
    buffersize = wishes.buffersize
    calls = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
    rows = list(itertools.islice(calls, buffersize))
    repeated = target.repeated(function, len(iterables), options)  # as it is when the code of the iterables has run
    feeder = Feeder(repeated, options, target, rows, wishes)
    try:
        feeder.work() if target.in_caller else uninterrupted(feeder.work)
    except BaseException:
        feeder.stop()
        raise
    if feeder.failure is not None:
        raise feeder.failure
    more = calls if buffersize is not None else iter(())
    return MapResults(feeder, _results(feeder, more, until, buffersize or 0))


def _results(
    feeder: Feeder, more: Iterator[Any], until: float, buffersize: int
) -> Iterator[tuple[Any, BaseException | None]]:
    """Yield value and error of each call, in order; take more calls as results are handed out."""
    waiting: deque[Chunk] = deque()
    outstanding, is_complete = buffersize, not buffersize
    again = 0  # calls that are made again, as their results are gone, though they were handed out before
    try:
        while True:
            chunk = waiting.popleft() if waiting else _get(feeder.chunks, until)
            if chunk is None:
                break
            for result in _results_of(chunk, until):
                if again:
                    again -= 1
                    continue
                outstanding -= 1
                if not is_complete and (free := buffersize - outstanding) >= max(1, buffersize // _REFILL):
                    rows = list(itertools.islice(more, free))
                    is_complete = len(rows) < free
                    outstanding += len(rows)
                    feeder.add(rows, is_complete=is_complete)
                yield result
            if chunk.read < chunk.size:
                again += max(0, chunk.read - chunk.made - chunk.failed)
                waiting.extendleft(reversed(chunk.rest))
        if feeder.failure is not None and not isinstance(feeder.failure, SerializationError):
            raise feeder.failure
    finally:
        feeder.stop()


def _results_of(chunk: Chunk, until: float) -> Iterator[tuple[Any, BaseException | None]]:
    """Yield what is known of a chunk's own calls, as it becomes known.

    Where the job's folder is deleted, fewer may be known in the end than were yielded before.
    """
    while chunk.job is None and not chunk.is_settled:
        _wait(chunk, until)
    if chunk.job is not None:
        reader, is_settled = CallReader(chunk.job.folder), False
        while not is_settled:
            is_settled = chunk.is_settled  # before the look, which then is the last
            for result in reader.read():
                chunk.read += 1
                yield result
            if chunk.read >= chunk.size:
                return
            if not is_settled:
                chunk.job._refuse_to_wait_if_inherited()
                _wait(chunk, until)
        for _ in range(chunk.made - chunk.read):
            yield None, lost_result(chunk.job)
    for _ in range(chunk.failed - max(0, chunk.read - chunk.made)):
        yield None, chunk.error


def _wait(chunk: Chunk, until: float) -> None:
    """Wait a moment for a chunk to be settled, or for more results of it."""
    if (left := until - time.monotonic()) <= 0:
        raise TimeoutError(_TOO_LATE)
    chunk.wait(min(_POLL_SECONDS, left))


def _get(chunks: SimpleQueue[Chunk | None], until: float) -> Chunk | None:
    try:
        return chunks.get(timeout=None if until == math.inf else max(0.0, until - time.monotonic()))
    except Empty:
        raise TimeoutError(_TOO_LATE) from None
