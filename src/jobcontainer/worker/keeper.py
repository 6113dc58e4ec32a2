"""The keeper: a process that runs no user code, makes one fresh process for each job, and supervises it.

It is the one worker of a loky executor, whose only call, :func:`serve`, lasts as long as the keeper. States: *idle*,
waiting for an order, with a spare process ready; *busy*, with one job. One thread, always: a process that has several
can't be forked safely. Where a module that is loaded ahead starts some, jobs get new interpreters instead.

The lifeline, a socket to the engine, brings orders and cancels, and takes the jobs' ends. Its own end is the engine's:
whether the notebook was killed or closed the engine, the keeper kills everything below it and goes. An idle keeper
waits on it, a busy one waits on it beside the job; one that does not serve yet is told by SIGIO.

Who kills whom: the engine kills the keeper; the keeper kills the job and all that the job started, which become the
keeper's own children when their parents end. Should the keeper be killed, the kernel kills the job.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from jobcontainer.events import JobState, Outcome, Started, event_line
from jobcontainer.storage.folder import JobFolder
from jobcontainer.worker import isolation, job_process, limits, process_tree
from jobcontainer.worker.environment import were_taken_over
from jobcontainer.worker.order import Order
from jobcontainer.worker.reporting import log
from jobcontainer.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from types import FrameType

    from jobcontainer.process import Environment
    from jobcontainer.worker.job_process import JobProcess

CANCEL = b"cancel "
"""What a message begins with that cancels the job whose number follows; every other one is an order."""

BACK = b"back"
"""What a message to the engine begins with that gives back the orders whose numbers follow."""

_here: Keeper | None = None


def begin(lifeline: Connection, preload: Sequence[str], forks: bool) -> None:  # noqa: FBT001 -- loky passes no names
    """Make this worker a keeper; the initializer of its executor."""
    global _here  # noqa: PLW0603 -- what loky calls are functions of modules
    _here = Keeper(lifeline, preload, forks=forks)


def serve() -> None:
    """Run what the engine orders, one job after another, until the lifeline ends."""
    if _here is None:
        raise RuntimeError("This process is no keeper: begin() was not called.")
    _here.serve()


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
        self._orders: deque[Order] = deque()
        self._runs_long = False
        self._cancelled: set[int] = set()
        self._told: Environment | None = None  # what an order means that names none
        self._environment: Environment | None = None  # those of the present job
        self._spare: JobProcess | None = None
        self._reused: JobProcess | None = None
        self._host = socket.gethostname()
        self._base = 0
        isolation.settle_in(forks=forks)
        log.prepare_streams()
        self._messages, self._watched = select.poll(), select.poll()  # the latter is for the job as well
        for watched in (self._messages, self._watched):
            watched.register(lifeline.fileno(), select.POLLIN)
        self._flags = self._mind_lifeline()
        if forks:
            job_process.load_ahead(preload)
            limits.find_thread_pools()
            self._forks = threading.active_count() == 1  # what was loaded ahead may have started some
        gc.collect()
        gc.freeze()
        gc.disable()
        if self._forks:
            self._base = process_tree.memory_of([os.getpid()])
        self._spare = self._make()

    def serve(self) -> NoReturn:
        """Run one order after another; it ends with the lifeline, and this process with it."""
        fcntl.fcntl(self._lifeline.fileno(), fcntl.F_SETFL, self._flags)
        while True:
            self._read_lifeline(wait=not self._orders)
            if self._orders:
                order = self._orders.popleft()
                line = self.run(order)
                self._runs_long = False
                self._cancelled = {later for later in self._cancelled if later > order.number}
                with contextlib.suppress(OSError):  # the engine is gone; the next look at the lifeline tells
                    self._lifeline.send_bytes(b"%d %s" % (order.number, line))

    def run(self, order: Order) -> bytes:
        """Run one job to its end; whatever goes wrong is an outcome.

        Returns:
            The outcome as a line of the job's events, where it stands already.
        """
        try:
            self._adopt(order.environment, order.options["threads"])
            if order.number not in self._cancelled:
                return self._run(order)
            state, reason = JobState.CANCELLED, "It was cancelled before it started."
        except Exception:  # noqa: BLE001 -- a job's end is always told
            process_tree.end_children()
            self._spare = self._reused = None
            state, reason = JobState.LOST, f"Its keeper failed; please report this:\n{traceback.format_exc()}"
        line = event_line(Outcome(state=state, at=time.time(), reason=reason, attempt=order.attempt))
        with contextlib.suppress(OSError):  # the folder was removed, the disk is full
            JobFolder(order.folder).append_line(line)
        return line

    def is_cancelled(self, number: int) -> bool:
        """Read what came over the lifeline, and tell whether a job is to be cancelled."""
        self._read_lifeline()
        return number in self._cancelled

    def note_that_it_runs_long(self) -> None:
        """Give back what was ordered ahead: it can run elsewhere sooner."""
        self._runs_long = True
        self._read_lifeline()
        self._give_back()

    def _give_back(self) -> None:
        numbers = [order.number for order in self._orders]
        self._orders.clear()
        with contextlib.suppress(OSError):  # the engine is gone; the next look at the lifeline tells
            self._lifeline.send_bytes(b" ".join([BACK, *(b"%d" % number for number in numbers)]))

    def _run(self, order: Order) -> bytes:
        process = self._give(order)
        if self._spare is None:
            self._spare = self._make()  # while the job runs
        supervisor = Supervisor(process, order, self._watched, self, self._base)
        spared = {other.pid for other in (self._spare, self._reused) if other is not None and other is not process}
        spared |= isolation.own_trackers()
        line, kept = supervisor.see_through(spared)
        self._reused = process if kept else None if process is self._reused else self._reused
        return line

    def _adopt(self, environment: Environment | None, threads: int | None) -> None:
        """Note new environment; a keeper that forks takes them over, and spares its jobs the work."""
        self._environment = environment
        if self._forks and self._environment is not None:
            were_taken_over(self._environment, threads)

    def _give(self, order: Order) -> JobProcess:
        """Have a process begin with an order, and write down that it did."""
        while True:
            process, self._spare = (self._reused, self._spare) if order.reuses else (None, self._spare)
            process = process or self._spare or self._make()
            if process is self._spare:
                self._spare = None
            told = None if process.told is self._environment else self._environment
            if not order.reuses:  # else the process does it
                started = Started(at=time.time(), pid=process.pid, attempt=order.attempt, host=self._host)
                with contextlib.suppress(OSError):
                    JobFolder(order.folder).append_event(started)
            try:
                process.give(order._replace(environment=told))
            except OSError:  # it was killed while it waited
                process.reap()
                self._reused = None if process is self._reused else self._reused
            else:
                return process

    def _make(self) -> JobProcess:
        if self._forks:
            return job_process.fork(self._environment)
        return job_process.start(self._environment, self._preload)

    def _read_lifeline(self, *, wait: bool = False) -> None:
        """Note what is to be done and what is to be cancelled; go if the engine is gone.

        Args:
            wait: whether to wait until there is something.
        """
        try:
            while wait or self._messages.poll(0):
                message = self._lifeline.recv_bytes()
                wait = False
                if message.startswith(CANCEL):
                    self._cancelled.add(int(message.removeprefix(CANCEL)))
                else:
                    order = Order.unpacked(message)
                    self._told = order.environment or self._told  # also where it is given back
                    self._orders.append(order._replace(environment=self._told))
        except (EOFError, OSError):
            _go()
        if self._runs_long and self._orders:  # sent before the engine knew
            self._give_back()

    def _mind_lifeline(self) -> int:
        """Have SIGIO sent when something comes over the lifeline, its end included, while this thread can't look.

        Returns:
            The lifeline's flags as they were.
        """
        descriptor = self._lifeline.fileno()

        def go_if_ended(_number: int, _frame: FrameType | None) -> None:
            if _has_ended(descriptor):
                _go()

        signal.signal(signal.SIGIO, go_if_ended)
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
        if _has_ended(descriptor):  # before the signal was asked for
            _go()
        return flags


def _has_ended(descriptor: int) -> bool:
    """Tell whether a socket's other end is closed; something that came over it may be unread."""
    looked = select.poll()
    looked.register(descriptor, 0)  # POLLHUP is always told
    return any(event & select.POLLHUP for _, event in looked.poll(0))


def _go() -> NoReturn:
    """End with everything below."""
    process_tree.end_children()
    os._exit(0)
