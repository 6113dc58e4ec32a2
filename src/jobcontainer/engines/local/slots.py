"""Crew: the slots of an engine, and the jobs that wait for them or run in them.

States of a slot: *idle*; *busy* with one job; *quick*, busy with reused jobs of a few milliseconds, of which some more
lie ahead at its keeper, so that it need not wait for us between two. A slot gets its keeper with its first job, and
another with the next job when the keeper died. A keeper whose job turns out to take long gives back what lies ahead.
``_lock`` guards slots and queue; it is held while a keeper is started, and never while a future is completed.

Threads: ``submit``, ``cancel`` and ``close`` run in the caller's; the end of a job is handled in the thread of its
slot's keeper, which hands out the next job before it completes the future of the last. One more stops the keepers of an
engine that was forgotten.

Who ends what: ``close`` cancels what runs, waits for it, and shuts the executors down. An engine that is garbage
collected lets its jobs run to their end first. At the interpreter's exit every engine is closed before loky joins its
threads, which would wait for running jobs. Where none of it comes to pass, because this process is killed, the keepers
see the end of their lifelines. A fork of this process (``os.fork`` in user code) gives them up in the child.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, Final, cast

from jobcontainer.engines.local import ahead, exiting
from jobcontainer.engines.local.attempt import Task, keeper_died, no_keeper
from jobcontainer.engines.local.slot import Slot
from jobcontainer.events import JobState, Outcome, event_from_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from concurrent.futures import Future
    from multiprocessing.connection import Connection

    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.worker.order import Order

_PATIENCE: Final = 5.0  # seconds beyond a job's grace after which its keeper is taken to hang
_QUICK_SECONDS: Final = 0.01  # a slot whose last job took no longer gets orders ahead
_AHEAD: Final = 3  # how many, beside the one it runs
_NOT_STARTED: Final = "It had not started."


class Crew:
    """What an engine consists of; alive while a job runs, also when the engine is not.

    Args:
        size: how many slots it has.
        preload: names of modules that each keeper imports before any job.
        forks: whether keepers fork the jobs' processes, or start each anew.
    """

    def __init__(self, size: int, preload: Sequence[str], *, forks: bool) -> None:
        """Make the slots, all of them empty."""
        self.size = size
        self._held: dict[Slot, list[Task]] = {Slot(preload, forks=forks, listener=self): [] for _ in range(size)}
        self._quick: set[Slot] = set()
        self._queue: deque[Task] = deque()
        self._lock = threading.RLock()
        self._stopping = threading.Lock()
        self._count = 0
        self._closed = self._abandoned = False
        self._owner = os.getpid()

    @property
    def ahead(self) -> int:
        """How many jobs it takes at the moment beside those that run."""
        return len(self._quick) * _AHEAD

    def submit(self, folder: JobFolder, order: Order) -> Future[Outcome]:
        """Run a job as soon as a slot is free.

        Raises:
            RuntimeError: the crew was closed, or this process was forked from the one that made it.
        """
        if os.getpid() != self._owner:
            raise RuntimeError("This process was forked from the one that made the engine: make a new JobPool here.")
        with self._lock:
            if self._closed:
                raise RuntimeError("The engine was closed: make a new JobPool.")
            self._count += 1
            task = Task(self._count, folder, order._replace(number=self._count))
            task.future.set_running_or_notify_cancel()
            self._queue.append(task)
        self._dispatch()
        return task.future

    def cancel(self, job_id: str) -> None:
        """End a job, politely first."""
        with self._lock:
            queued = [task for task in self._queue if task.folder.id == job_id]
            for task in queued:
                self._queue.remove(task)
            for slot, tasks in self._held.items():
                self._cancel(slot, [task for task in tasks if task.folder.id == job_id])
        _settle_unstarted(queued)

    def close(self) -> None:
        """Cancel everything, and stop the keepers."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._closed = True
            queued, running = list(self._queue), [task for tasks in self._held.values() for task in tasks]
            self._queue.clear()
            for slot, tasks in self._held.items():
                self._cancel(slot, tasks)
        _settle_unstarted(queued)
        grace = max((task.order.options["grace"] for task in running), default=0.0)
        wait([task.future for task in running], timeout=grace + _PATIENCE)
        self._stop()

    def abandon(self) -> None:
        """Close when the last job has ended; called by the garbage collector, wherever it strikes."""
        self._abandoned = True
        self._stop_if_abandoned()

    def heard(self, slot: Slot, number: int, outcome: dict[str, Any]) -> None:
        """Free the slot of a job that has ended; called in the thread of its keeper."""
        with self._lock:
            task = next((task for task in self._held[slot] if task.number == number), None)
            if task is None:
                return
            self._held[slot].remove(task)
            if task.order.reuses and outcome["usage"]["wall"] < _QUICK_SECONDS:
                self._quick.add(slot)
            else:
                self._quick.discard(slot)
        self._dispatch()
        task.future.set_result(cast("Outcome", event_from_json(outcome)))
        self._stop_if_abandoned()

    def given_back(self, slot: Slot, numbers: Collection[int]) -> None:
        """Take back what lay ahead of a job that takes long; called in the thread of its keeper."""
        with self._lock:
            self._quick.discard(slot)
            back = [task for task in self._held[slot] if task.number in numbers]
            self._held[slot] = [task for task in self._held[slot] if task not in back]
            self._queue.extendleft(task for task in reversed(back) if not task.cancelled)
        self._dispatch()
        _settle_unstarted(task for task in back if task.cancelled)
        self._stop_if_abandoned()

    def lost(self, slot: Slot, lifeline: Connection, error: BaseException) -> None:
        """Tell the end of the jobs of a keeper that died; called in the thread of that keeper."""
        ended: list[tuple[Task, Outcome]] = []
        with self._lock:
            if not slot.is_held_by(lifeline):
                return
            slot.discard()
            self._quick.discard(slot)
            for task in reversed(self._held[slot]):
                if task.has_started() or not task.may_be_sent_again:
                    ended.append((task, task.lose(keeper_died(error))))
                elif task.cancelled:
                    ended.append((task, task.end(JobState.CANCELLED, _NOT_STARTED)))
                else:  # the keeper had died before it came to this one, and nobody knew yet
                    task.may_be_sent_again = False
                    self._queue.appendleft(task)
            self._held[slot] = []
        self._dispatch()
        for task, outcome in ended:
            task.future.set_result(outcome)
        self._stop_if_abandoned()

    def _cancel(self, slot: Slot, tasks: Iterable[Task]) -> None:
        for task in tasks:
            task.cancelled = True
            slot.cancel(task.number)

    def _stop_if_abandoned(self) -> None:
        """Stop in a thread of its own: neither the collector nor a thread of an executor can wait for it."""
        if self._abandoned and not self._queue and not any(self._held.values()) and not self._closed:
            self._closed = True
            with contextlib.suppress(RuntimeError):  # the interpreter exits, and closes every engine
                threading.Thread(target=self._stop, name="jobcontainer-abandoned", daemon=True).start()

    def _stop(self) -> None:
        with self._stopping:
            ahead.send_away()
            for slot in self._held:
                slot.stop()
            _open.discard(self)
        with self._lock:
            left = [task for tasks in self._held.values() for task in tasks]
            self._held = {slot: [] for slot in self._held}
        for task in left:
            task.future.set_result(task.lose("Its keeper did not end it when the engine was closed, and was killed."))

    def _dispatch(self) -> None:
        """Hand queued jobs to slots."""
        lost: list[tuple[Task, Outcome]] = []
        with self._lock:
            while self._queue and (slot := self._slot_for(self._queue[0])) is not None:
                if self._held[slot]:
                    if not slot.run_ahead(self._queue[0].order):
                        self._quick.discard(slot)  # its keeper died; its thread will tell
                        continue
                    self._held[slot].append(self._queue.popleft())
                    continue
                task = self._queue.popleft()
                try:
                    slot.run(task.order)
                except Exception as error:  # noqa: BLE001 -- no semaphores, no processes, no descriptors left
                    slot.discard()
                    lost.append((task, task.end(JobState.LOST, no_keeper(error))))
                else:
                    _open.add(self)
                    self._held[slot].append(task)
        for task, outcome in lost:
            task.future.set_result(outcome)

    def _slot_for(self, task: Task) -> Slot | None:
        """Find an idle slot, or one whose keeper may have an order ahead; None while there is none."""
        if self._closed:
            return None
        idle = next((slot for slot, tasks in self._held.items() if not tasks), None)
        if idle is not None or not task.order.reuses:
            return idle
        ready = [slot for slot in self._quick if len(self._held[slot]) <= _AHEAD]
        return min(ready, key=lambda slot: len(self._held[slot]), default=None)


def _settle_unstarted(tasks: Iterable[Task]) -> None:
    for task in tasks:
        task.future.set_result(task.end(JobState.CANCELLED, _NOT_STARTED))


_open: set[Crew] = set()


def _close_all() -> None:
    for crew in list(_open):
        crew.close()


exiting.close_engines(_close_all)
