"""Interrupt: what Ctrl-C does to a command or a script that waits for a job.

Python turns it into an exception that is raised wherever the main thread happens to be. In the midst of a wait for a
future that may be where a lock was taken and will never be released, and the thread that is to complete the future
hangs for ever. So here the first interrupt raises nothing: it cancels the job from a thread of its own, and the wait
ends as it always does, with the job. A second one is Python's again.
"""

from __future__ import annotations

import _thread
import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType

    from jobcontainer.jobs.job import Job


class InterruptCancels:
    """Makes an interrupt of this process cancel a job, within a ``with`` block.

    Outside the main thread, and where somebody else handles interrupts, it does nothing.

    Args:
        job: the job.

    Example:
        >>> with InterruptCancels(job) as interrupt:                 # doctest: +SKIP
        ...     wait([job])
        >>> interrupt.came                                           # doctest: +SKIP
        False
    """

    def __init__(self, job: Job[Any]) -> None:
        """Leave interrupts alone yet."""
        self._job = job
        self._installed = False
        self.came = False
        """Whether the job was cancelled by an interrupt."""

    def __enter__(self) -> Self:
        """Handle interrupts."""
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self._installed = True
            signal.signal(signal.SIGINT, self._cancel)
        return self

    def __exit__(self, *_: object) -> None:
        """Handle them as before."""
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _cancel(self, _signal: int, _frame: FrameType | None) -> None:
        """Cancel in a thread; one of `threading` would take locks that the main thread may be holding."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.came = True
        _thread.start_new_thread(self._job.cancel, ())
