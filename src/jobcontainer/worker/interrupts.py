"""Calls that an interrupt can't cut in two.

Python raises KeyboardInterrupt in the main thread, between any two bytecodes: a lock may have been taken and never be
released, a job may be in no queue any more and not yet with its keeper. No other thread has signal handlers run in it.
So whatever moves a job, or takes a lock that others need, is done by another thread, and the main thread only waits for
its answer: an interrupt ends the wait, and the call goes on.

Threads: one for each call, for as long as the call takes. Only where none can be had (none is left, or the interpreter
exits) the call is made in the thread that wants it.
"""

from __future__ import annotations

import _thread
import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

from jobcontainer.worker.cpython_internals import in_background

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")


def uninterrupted(call: Callable[[], R]) -> R:
    """Make a call to its end, whatever happens to the thread that waits for it, and return its result.

    Args:
        call: what to do. It may be done after an interrupt has ended the wait; nobody gets its result then.

    Raises:
        KeyboardInterrupt: the wait was interrupted.
        BaseException: what the call raised.

    Example:
        >>> uninterrupted(lambda: 6 * 7)
        42
    """
    if _thread.get_ident() != threading.main_thread().ident:
        return call()
    answers: list[tuple[Any, BaseException | None]] = []
    has_answered = _thread.allocate_lock()
    has_answered.acquire()

    def answer() -> None:
        try:
            answers.append((call(), None))
        except BaseException as error:  # noqa: BLE001 -- it is raised where somebody waits for it
            answers.append((None, error))
        finally:
            has_answered.release()

    if not in_background(answer):
        answer()
    has_answered.acquire()
    result, error = answers.pop()
    if error is not None:
        try:
            raise error
        finally:
            del error  # or the traceback would keep this frame, and it the error, for ever
    return cast("R", result)
