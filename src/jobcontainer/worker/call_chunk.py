"""A chunk of calls: one process that calls a function with many arguments, one after another.

What a call returns or raises is written before the next one begins (:mod:`jobcontainer.storage.call_results`). So a
call that ends the process costs no other its result, and whoever reads the file knows which call it was.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobcontainer.storage.call_results import CallWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobcontainer.storage.folder import JobFolder

_PLAIN: Final = frozenset({int, float, bool, type(None), str, bytes})  # most results, of which none is awaited
_LOOK_SECONDS: Final = 0.05  # between two looks whether no more calls are wanted


class Timing(NamedTuple):
    """What a chunk's job returns.

    Attributes:
        calls: how many calls it made.
        first: the seconds that the first took.
        all: the seconds that all of them took.
        failures: how many of them raised.
    """

    calls: int
    first: float
    all: float
    failures: int = 0


class CallChunk:
    """A function and the arguments of several calls of it, as a process.

    Args:
        function: the function.
        columns: the first arguments of all calls, their second arguments, and so on.

    Example:
        >>> CallChunk(pow, ([2, 3], [10, 2])).run()
        [1024, 9]
    """

    def __init__(self, function: Callable[..., Any], columns: Sequence[Sequence[Any]]) -> None:
        self._function, self._columns = function, columns

    def run(self) -> list[Any]:
        """Make the calls here, and return what they return."""
        return list(map(self._function, *self._columns))

    def run_into(
        self,
        folder: JobFolder,
        awaited: Callable[[Any], Any],
        leave_if_forked: Callable[[], None],
        is_stopped: Callable[[], bool],
        describe: Callable[[BaseException], tuple[str, str, str]],
    ) -> Timing:
        """Make the calls, and write their results into a job's folder.

        Args:
            folder: the folder.
            awaited: returns the result of what a call returned, which may be a coroutine.
            leave_if_forked: does not return in a child that a call has forked.
            is_stopped: whether the job was to stop, which a call can catch.
            describe: returns the name of the type, the message and the traceback of what a call raised.

        Raises:
            OSError: a result can't be written.
        """
        results, function = CallWriter(folder), self._function
        next_call, returned, clock, pid = results.next_call, results.returned, time.monotonic, os.getpid
        made, first = 0, 0.0
        this, begun = pid(), clock()
        looked = now = begun
        next_call(now)
        for arguments in zip(*self._columns, strict=True):
            if now - looked > _LOOK_SECONDS:
                if folder.is_asked_for_no_more_calls():
                    break
                looked = now
            try:
                value = function(*arguments)
                if pid() != this:
                    leave_if_forked()
                if type(value) not in _PLAIN:
                    value = awaited(value)
            except (KeyboardInterrupt, SystemExit):  # it ends the process, as that of any job
                raise
            except BaseException as error:  # noqa: BLE001 -- whatever else it raises is its result
                leave_if_forked()
                _drop_own_frame(error)
                results.raised(error, *describe(error))
            else:
                returned(value)
            made += 1
            now = clock()
            next_call(now)
            first = first or now - begun
            if is_stopped():
                next_call(0.0)  # there is none
                break
        results.close()
        return Timing(made, first, now - begun, results.failures)


def _drop_own_frame(error: BaseException) -> None:
    """Take the frame that made the call out of a traceback, unless there is no other."""
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next or error.__traceback__
