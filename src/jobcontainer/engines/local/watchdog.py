"""Watchdog: notices a keeper that was stopped (SIGSTOP) or hangs, so that no job waits for it for ever.

A keeper ends what must end by itself: a job that was cancelled, or whose time is over, after its grace. It is given
some patience beyond that, and is asked now and then whether it still reads its lifeline. Nothing else is expected of
it, as a job may run for days.

Time is counted in looks, of which none counts for more than twice the pause between two: where the whole machine stood
still, suspended or in a frozen container, a keeper has not been late.

No thread: that of the keeper looks; the other methods are called from any thread, and each sets numbers only.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.events import JobState
from jobcontainer.worker import process_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

PATIENCE: Final = 5.0
"""Seconds beyond a job's grace, after which its keeper is taken to hang."""

LOOK_SECONDS: Final = 0.2
"""How often to look."""

_PING_SECONDS: Final = 5.0  # of silence
_SILENT_SECONDS: Final = 60.0  # a machine that swaps, and a network file system that is away, take long
_START_SECONDS: Final = 30.0  # for a new interpreter, as the supervisor allows it, or for an import ahead of the job
_NEVER: Final = float("inf")


class Watchdog:
    """Watches one keeper.

    Args:
        starting: returns the process ids of the keeper and the processes above it, as far as they were made. It is
            asked while a keeper that takes long to start has not said which one it is.

    Attributes:
        reason: why the keeper was taken to hang, as the end of a sentence; empty before.
        state: how a job of a keeper that hangs has ended.
    """

    def __init__(self, starting: Callable[[], Collection[int]]) -> None:
        self._starting = starting
        self.reason, self.state = "", JobState.LOST
        self._pids: dict[int, int] = {}  # of the keeper, and of its parent: pidfds, so that they name no other process
        self._keeper = 0
        self._answers = False  # it has been ready once
        self._is_busy = self._pinged = False
        self._grace = self._silent = self._stopped = self._unanswered = 0.0
        self._grace_left = self._time_left = _NEVER

    def keeper_started(self, pid: int) -> None:
        """Take the process id of the keeper, which is a child of this process, or of one of its children."""
        self._keeper, parent = pid, process_tree.parent_of(pid)
        for one in {pid, parent} - {os.getpid(), 0}:
            with contextlib.suppress(OSError, AttributeError):  # it has ended; no pidfds on this system
                self._pids[one] = os.pidfd_open(one)

    def answered(self) -> None:
        """Note that the keeper has answered."""
        self._answers, self._silent, self._pinged = True, 0.0, False

    def job_sent(self, options: Mapping[str, Any]) -> None:
        """Begin to expect what the options of a job say."""
        self._grace, timeout = options["grace"], options["timeout"]
        if timeout is not None:
            calls = options.get("calls", 0)  # of a chunk, each of which has that time; see the supervisor
            self._time_left = timeout * (calls + 1) + _START_SECONDS + self._grace + PATIENCE
        self._silent = self._stopped = 0.0
        self._pinged, self._is_busy = False, True

    def end_asked(self) -> None:
        """Expect the end of the job, as it was cancelled."""
        self._grace_left = min(self._grace_left, self._grace + PATIENCE)

    def job_ended(self) -> None:
        """Expect nothing any more."""
        self._is_busy = False
        self._grace_left = self._time_left = _NEVER

    def wants_ping(self) -> bool:
        """Whether the keeper should be asked for an answer; once for each silence."""
        wanted = self._is_busy and self._answers and self._silent >= _PING_SECONDS and not self._pinged
        self._pinged = self._pinged or wanted
        return wanted

    def look(self, passed: float) -> bool:
        """Look at a keeper that has sent nothing for so many seconds; return whether it hangs, and note why."""
        if not self._is_busy:
            return False
        passed = min(passed, 2 * LOOK_SECONDS)
        self._grace_left -= passed
        self._stopped = self._stopped + passed if self._is_stopped(passed) else 0.0
        if self._answers:
            self._time_left -= passed
            self._silent += passed
        if self._stopped >= self._grace + PATIENCE:
            self.reason = "was stopped (SIGSTOP)"
        elif min(self._grace_left, self._time_left) <= 0 or self._silent >= _SILENT_SECONDS:
            self.reason = "did not answer any more"
        if self.reason and self._time_left < _START_SECONDS + self._grace + PATIENCE:
            self.state = JobState.TIMED_OUT
        return bool(self.reason)

    def _is_stopped(self, passed: float) -> bool:
        if self._answers:
            return process_tree.is_stopped(self._keeper)
        self._unanswered += passed
        return self._unanswered >= PATIENCE and any(map(process_tree.is_stopped, self._starting()))

    def kill_keeper(self) -> None:
        """Kill the keeper; the process above it ends the rest."""
        self._kill(self._keeper)

    def kill_all(self) -> None:
        """Kill the keeper, the process above it, and all below them."""
        for pid in list(self._pids):
            process_tree.end_descendants(pid)
            self._kill(pid)

    def close(self) -> None:
        """Let go of the processes."""
        while self._pids:
            os.close(self._pids.popitem()[1])

    def _kill(self, pid: int) -> None:
        if pid in self._pids:
            with contextlib.suppress(OSError):  # it has ended
                signal.pidfd_send_signal(self._pids[pid], signal.SIGKILL)
