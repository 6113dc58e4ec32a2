"""The keeper: a process that runs no user code, makes one fresh process for each job, and supervises it.

It is the one worker of a loky executor, and the engine gives it one job at a time. States: *idle*, in loky's code,
waiting for a call, with a spare process ready; *busy*, in :func:`run_job`. One thread, always: a process that has
several can't be forked safely. Where a module that is loaded ahead starts some, jobs get new interpreters instead.

The lifeline, a socket to the engine, brings cancels, and its end is the engine's: whether the notebook was killed or
closed the engine, the keeper kills everything below it and goes. A busy keeper waits on it beside the job; an idle one
is told by SIGIO. Where there is no such signal, a thread waits for the end of the parent process instead.

Who kills whom: the engine kills the keeper; the keeper kills the job and all that the job started, which become the
keeper's own children when their parents end. Should the keeper be killed, the kernel kills the job.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import socket
import threading
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobcontainer.events import JobState, Outcome, Started, event_to_json
from jobcontainer.files.folder import JobFolder
from jobcontainer.worker import capture, fresh, limits, shield, tree
from jobcontainer.worker.run import took_surroundings
from jobcontainer.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from types import FrameType

    from jobcontainer.process import Surroundings
    from jobcontainer.worker.fresh import JobProcess
    from jobcontainer.worker.run import Order

_here: Keeper | None = None


def begin(lifeline: Connection, preload: Sequence[str], forks: bool) -> None:  # noqa: FBT001 -- loky passes no names
    """Make this worker a keeper; the initializer of its executor."""
    global _here  # noqa: PLW0603 -- what loky calls are functions of modules
    _here = Keeper(lifeline, preload, forks=forks)


def run_job(number: int, order: Order) -> dict[str, Any]:
    """Run one job to its end.

    Args:
        number: what a cancel of this job calls it.
        order: what the job is to do.

    Returns:
        The outcome as plain data; whatever goes wrong is one.
    """
    if _here is None:
        raise RuntimeError("This process is no keeper: begin() was not called.")
    return event_to_json(_here.run(number, order))


class Keeper:
    """Makes processes, gives them their orders, has them supervised, and reports.

    Args:
        lifeline: to the engine.
        preload: names of modules that jobs will need; a process that is forked has them already.
        forks: whether processes are forked, or started anew.
    """

    def __init__(self, lifeline: Connection, preload: Sequence[str], *, forks: bool) -> None:
        """Leave the notebook's session, load what jobs will need, and have a spare process ready."""
        self._lifeline, self._preload, self._forks = lifeline, tuple(preload), forks
        self._busy = False
        self._cancelled: set[int] = set()
        self._surroundings: Surroundings | None = None
        self._ready = False
        self._spare: JobProcess | None = None
        self._reused: JobProcess | None = None
        self._host = socket.gethostname()
        self._base = 0
        shield.settle_in(forks=forks)
        capture.prepare_streams()
        self._watch_lifeline()
        if forks:
            fresh.load_ahead(preload)
            limits.find_thread_pools()
            self._forks = threading.active_count() == 1  # what was loaded ahead may have started some
        gc.collect()
        gc.freeze()
        gc.disable()
        if self._forks:
            self._base = tree.memory_of([os.getpid()])
        self._spare = self._make()

    def run(self, number: int, order: Order) -> Outcome:
        """Run one job to its end."""
        self._busy = True
        try:
            self._read_lifeline()
            self._adopt(order.surroundings)
            if number in self._cancelled:
                outcome = _not_started(order, JobState.CANCELLED, "It was cancelled before it started.")
            else:
                outcome = self._run(number, order)
        except Exception:  # noqa: BLE001 -- a job's end is always told
            reason = f"Its keeper failed; please report this:\n{traceback.format_exc()}"
            outcome = _not_started(order, JobState.LOST, reason)
            tree.end_children()
            self._spare = self._reused = None
        with contextlib.suppress(OSError):  # user code removed the folder, the disk is full
            JobFolder(order.folder).append_event(outcome)
        self._cancelled = {later for later in self._cancelled if later > number}
        self._busy = False
        self._read_lifeline()
        return outcome

    def _run(self, number: int, order: Order) -> Outcome:
        process = self._give(order)

        def is_cancelled() -> bool:
            self._read_lifeline()
            return number in self._cancelled

        if self._spare is None:
            self._spare = self._make()  # while the job runs
        supervisor = Supervisor(process, order, self._lifeline, is_cancelled, self._base)
        spared = {other.pid for other in (self._spare, self._reused) if other is not None and other is not process}
        spared |= shield.own_trackers()
        outcome, kept = supervisor.see_through(spared)
        self._reused = process if kept else None if process is self._reused else self._reused
        return outcome

    def _adopt(self, surroundings: Surroundings | None) -> None:
        """Note new surroundings; a keeper that forks takes them over, and spares its jobs the work."""
        if surroundings is not None:
            self._surroundings = surroundings
            self._ready = self._forks and took_surroundings(surroundings)

    def _give(self, order: Order) -> JobProcess:
        """Have a process begin with an order, and write down that it did."""
        while True:
            process, self._spare = (self._reused, self._spare) if order.reuses else (None, self._spare)
            process = process or self._spare or self._make()
            if process is self._spare:
                self._spare = None
            told = None if process.told is self._surroundings else self._surroundings
            started = Started(at=time.time(), pid=process.pid, attempt=order.attempt, host=self._host)
            with contextlib.suppress(OSError):
                JobFolder(order.folder).append_event(started)
            try:
                process.give(replace(order, surroundings=told))
            except OSError:  # it was killed while it waited
                process.reap()
                self._reused = None if process is self._reused else self._reused
            else:
                return process

    def _make(self) -> JobProcess:
        if self._forks:
            return fresh.fork(self._surroundings if self._ready else None)
        return fresh.start(self._surroundings, self._preload)

    def _watch_lifeline(self) -> None:
        """Have SIGIO sent when something comes over the lifeline, its end included."""
        signal.signal(signal.SIGIO, self._on_message)
        descriptor = self._lifeline.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
        self._read_lifeline()  # what came before

    def _on_message(self, _number: int, _frame: FrameType | None) -> None:
        if not self._busy:  # else the supervisor waits for it
            self._read_lifeline()

    def _read_lifeline(self) -> None:
        """Note what is to be cancelled; go if the engine is gone."""
        try:
            while self._lifeline.poll():
                self._cancelled.add(int(self._lifeline.recv_bytes()))
        except (EOFError, OSError):
            tree.end_children()
            os._exit(0)


def _not_started(order: Order, state: JobState, reason: str) -> Outcome:
    return Outcome(state=state, at=time.time(), reason=reason, attempt=order.attempt)
