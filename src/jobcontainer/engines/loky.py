"""This machine: one keeper per slot, each the one worker of a private loky executor.

States of a slot: *empty*, no keeper; *idle*; *running* one job. A slot gets its keeper with its first job, and another
with the next job when the keeper died. ``_lock`` guards slots and queue; it is held while a keeper is started, and
never while a future is completed.

Threads: ``submit``, ``cancel`` and ``close`` run in the caller's; the end of a job is handled in the thread of its
slot's keeper, which hands out the next job before it completes the future of the last. One more stops the keepers of an
engine that was forgotten.

Who ends what: ``close`` cancels what runs, waits for it, and shuts the executors down. An engine that is garbage
collected lets its jobs run to their end first. At the interpreter's exit every engine is closed before loky joins its
threads, which would wait for running jobs. Where none of it comes to pass, because this process is killed, the keepers
see the end of their lifelines. A fork of this process (``os.fork`` in user code) gives them up in the child.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from jobcontainer.engines import ahead
from jobcontainer.engines.slot import Slot, available_cpus
from jobcontainer.events import JobState, Outcome, Started, event_from_json
from jobcontainer.files.result import kind_of
from jobcontainer.worker.order import Order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from jobcontainer.files.folder import JobFolder
    from jobcontainer.process import JobOptions, Surroundings


_PATIENCE = 5.0  # seconds beyond a job's grace after which its keeper is taken to hang


@dataclass(eq=False)
class _Task:
    """A job that was submitted and has not ended."""

    number: int
    folder: JobFolder
    order: Order
    future: Future[Outcome] = field(default_factory=Future)
    may_be_sent_again: bool = True

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


class LokyEngine:
    """Runs each job in a fresh process, made by one of the slots' keepers.

    Args:
        slots: how many jobs run at the same time; None for the CPUs that are really available.
        preload: names of modules that each keeper imports before any job.
        forks: whether keepers fork the jobs' processes, or start each anew; None for what the system can do.

    Raises:
        ValueError: ``slots`` is not a whole number from 1 up.

    Example:
        >>> LokyEngine(2).slots
        2
    """

    def __init__(self, slots: int | None = None, *, preload: Sequence[str] = (), forks: bool | None = None) -> None:
        """Prepare the slots; the first jobs start their keepers."""
        cpus = available_cpus()
        if slots is None:
            slots = cpus
        elif not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
            raise ValueError(f"slots={slots!r}: it takes a whole number from 1 up, or None.")
        self._threads = max(1, cpus // slots)
        self._crew = _Crew(slots, preload, forks=sys.platform == "linux" if forks is None else forks)
        weakref.finalize(self, self._crew.abandon).atexit = False

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""
        return self._crew.size

    @property
    def threads(self) -> int:
        """A job's fair share of the CPUs."""
        return self._threads

    def submit(
        self, folder: JobFolder, options: JobOptions, surroundings: Surroundings, *, attempt: int = 1
    ) -> Future[Outcome]:
        """Run the process of a folder; see :class:`jobcontainer.engines.Engine`.

        Raises:
            RuntimeError: the engine was closed, or this process was forked from the one that made it.
        """
        if attempt > 1:  # a result of this attempt is known by being there
            with contextlib.suppress(OSError):
                folder.result_file.unlink(missing_ok=True)
        return self._crew.submit(folder, Order(os.fspath(folder), options.to_json(), surroundings, attempt))

    def cancel(self, job_id: str) -> None:
        """End a job, politely first; it returns at once, the job's future tells when it has ended."""
        self._crew.cancel(job_id)

    def close(self) -> None:
        """Cancel what runs, end every process, and return when nothing is left."""
        self._crew.close()


class _Crew:
    """What an engine consists of; alive while a job runs, also when the engine is not."""

    def __init__(self, size: int, preload: Sequence[str], *, forks: bool) -> None:
        self.size = size
        self._idle = [Slot(preload, forks=forks, listener=self) for _ in range(size)]
        self._running: dict[_Task, Slot] = {}
        self._queue: deque[_Task] = deque()
        self._lock = threading.RLock()
        self._stopping = threading.Lock()
        self._count = 0
        self._closed = self._abandoned = False
        self._owner = os.getpid()

    def submit(self, folder: JobFolder, order: Order) -> Future[Outcome]:
        if os.getpid() != self._owner:
            raise RuntimeError("This process was forked from the one that made the engine: make a new JobPool here.")
        with self._lock:
            if self._closed:
                raise RuntimeError("The engine was closed: make a new JobPool.")
            self._count += 1
            task = _Task(self._count, folder, order._replace(number=self._count))
            task.future.set_running_or_notify_cancel()
            self._queue.append(task)
        self._dispatch()
        return task.future

    def cancel(self, job_id: str) -> None:
        with self._lock:
            queued = [task for task in self._queue if task.folder.id == job_id]
            for task in queued:
                self._queue.remove(task)
            for task, slot in self._running.items():
                if task.folder.id == job_id:
                    slot.cancel(task.number)
        for task in queued:
            task.future.set_result(task.end(JobState.CANCELLED, "It had not started."))

    def close(self) -> None:
        """Cancel everything, and stop the keepers."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._closed = True
            queued, running = list(self._queue), list(self._running)
            self._queue.clear()
            for task, slot in self._running.items():
                slot.cancel(task.number)
        for task in queued:
            task.future.set_result(task.end(JobState.CANCELLED, "It had not started."))
        grace = max((task.order.options["grace"] for task in running), default=0.0)
        wait([task.future for task in running], timeout=grace + _PATIENCE)
        self._stop()

    def abandon(self) -> None:
        """Close when the last job has ended; called by the garbage collector, wherever it strikes."""
        self._abandoned = True
        self._stop_if_abandoned()

    def _stop_if_abandoned(self) -> None:
        """Stop in a thread of its own: neither the collector nor a thread of an executor can wait for it."""
        if self._abandoned and not self._queue and not self._running and not self._closed:
            self._closed = True
            with contextlib.suppress(RuntimeError):  # the interpreter exits, and closes every engine
                threading.Thread(target=self._stop, name="jobcontainer-abandoned", daemon=True).start()

    def _stop(self) -> None:
        with self._stopping:
            with self._lock:
                slots, self._idle = [*self._idle, *self._running.values()], []
            for slot in slots:
                slot.stop()
            ahead.send_away()  # that of a pool without a job
            _open.discard(self)

    def _dispatch(self) -> None:
        """Hand queued jobs to idle slots."""
        lost: list[tuple[_Task, Outcome]] = []
        with self._lock:
            while self._queue and self._idle:
                task, slot = self._queue.popleft(), self._idle.pop()
                try:
                    slot.run(task.order)
                except Exception as error:  # noqa: BLE001 -- no semaphores, no processes, no descriptors left
                    slot.discard()
                    self._idle.append(slot)
                    lost.append((task, task.end(JobState.LOST, _no_keeper(error))))
                else:
                    _close_at_exit(self)
                    self._running[task] = slot
        for task, outcome in lost:
            task.future.set_result(outcome)

    def heard(self, slot: Slot, number: int, outcome: dict[str, Any]) -> None:
        """Free the slot of a job that has ended; called in the thread of its keeper."""
        with self._lock:
            task = next((task for task in self._running if task.number == number), None)
            if task is None:
                return
            del self._running[task]
            self._idle.append(slot)
        self._dispatch()
        task.future.set_result(cast("Outcome", event_from_json(outcome)))
        self._stop_if_abandoned()

    def lost(self, slot: Slot, lifeline: Connection, error: BaseException) -> None:
        """Tell the end of a job whose keeper died; called in the thread of that keeper."""
        with self._lock:
            if not slot.is_held_by(lifeline):
                return
            slot.discard()
            task = next((task for task, busy in self._running.items() if busy is slot), None)
            if task is None:
                return
            outcome = None
            if task.has_started() or not task.may_be_sent_again:
                outcome = task.lose(_keeper_died(error))
            del self._running[task]
            self._idle.append(slot)
            if outcome is None:  # the keeper had died while it was idle, and nobody knew yet
                task.may_be_sent_again = False
                self._queue.appendleft(task)
        self._dispatch()
        if outcome is not None:
            task.future.set_result(outcome)
        self._stop_if_abandoned()


_open: set[_Crew] = set()
_exit_registered = False


def _close_at_exit(crew: _Crew) -> None:
    """See to it that a crew is closed when the interpreter exits.

    Functions of ``atexit`` run too late, when loky has waited for what runs. Those that ``concurrent.futures`` and loky
    register run in reverse order; so this must be called when a crew's first keeper was started, and loky's is there.
    """
    global _exit_registered  # noqa: PLW0603 -- once per process
    _open.add(crew)
    if not _exit_registered:
        _exit_registered = True
        getattr(threading, "_register_atexit", atexit.register)(_close_all)


def _close_all() -> None:
    for crew in list(_open):
        crew.close()


def _no_keeper(error: Exception) -> str:
    return (
        f"No keeper process could be started: {type(error).__name__}: {error}. It needs a writable /dev/shm for its "
        "semaphores, free process ids, and a few free file descriptors (`ulimit -n`)."
    )


def _keeper_died(error: BaseException) -> str:
    codes = re.search(r"\{(.*)\}", str(error))
    how = f" ({codes[1]})" if codes else ""
    return (
        f"The process that kept the job died{how}, and the job with it. If the machine ran out of memory, run fewer "
        "jobs at a time, or submit it again."
    )
