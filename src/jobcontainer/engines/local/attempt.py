"""Task: a job at an engine, and the ends of it that no keeper can tell."""

from __future__ import annotations

import contextlib
import re
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobcontainer.events import JobState, Outcome, Started
from jobcontainer.storage.result import kind_of

if TYPE_CHECKING:
    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.worker.order import Order


@dataclass(eq=False)
class Task:
    """One attempt of a job, from its submission to its end.

    Attributes:
        number: what its keeper calls it.
        folder: the job's.
        order: what its process is told.
        future: ends with it.
        may_be_sent_again: whether another keeper may have it, where one died before it had begun.
        cancelled: whether its end was asked for.
    """

    number: int
    folder: JobFolder
    order: Order
    future: Future[Outcome] = field(default_factory=Future)
    may_be_sent_again: bool = True
    cancelled: bool = False

    def has_started(self) -> bool:
        """Whether a keeper has begun with this attempt."""
        attempts = (event.attempt for event in self.folder.read_events()[0] if isinstance(event, Started))
        return self.order.attempt in attempts

    def end(self, state: JobState, reason: str) -> Outcome:
        """Write an outcome that no keeper can write."""
        outcome = Outcome(state=state, at=time.time(), reason=reason, attempt=self.order.attempt)
        with contextlib.suppress(OSError):  # the folder was removed
            self.folder.append_event(outcome)
        return outcome

    def lose(self, reason: str) -> Outcome:
        """Write the outcome of a job whose keeper died; the result file decides, if it stands."""
        try:
            kind = kind_of(self.folder.result_file)
        except OSError:  # FileNotFoundError: there is none
            kind = ""
        return self.end({"result": JobState.SUCCEEDED, "error": JobState.FAILED}.get(kind, JobState.LOST), reason)


def no_keeper(error: Exception) -> str:
    """Say why a job could not begin."""
    return (
        f"No keeper process could be started: {type(error).__name__}: {error}. It needs a writable /dev/shm for its "
        "semaphores, free process ids, and a few free file descriptors (`ulimit -n`)."
    )


def keeper_died(error: BaseException) -> str:
    """Say why a job is lost."""
    codes = re.search(r"\{(.*)\}", str(error))
    how = f" ({codes[1]})" if codes else ""
    return (
        f"The process that kept the job died{how}, and the job with it. If the machine ran out of memory, run fewer "
        "jobs at a time, or submit it again."
    )
