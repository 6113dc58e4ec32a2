"""The keeper: a process that runs no user code, makes one fresh process for each job, and supervises it.

A loky executor has one worker, whose only call, :func:`serve`, lasts as long as the keeper. On Linux the worker is a
subreaper (:mod:`jobcontainer.worker.subreaper`), and the keeper its child; elsewhere the worker is the keeper. States:
*starting*, from :func:`begin`, the executor's initializer, to :meth:`Keeper.serve`; *idle*, waiting for an order, with
a spare process ready; *busy*, with one job; *ending*, when it has sent its last message. One thread, always: a process
that has several can't be forked safely. What jobs import is loaded in a child of the keeper, the fork server, see
:mod:`jobcontainer.worker.warm_imports`, which then makes the processes.

The lifeline, a socket to the engine, brings orders and cancels, and takes the ends of jobs; the messages are in
:mod:`jobcontainer.worker.keeper_protocol`. When it ends without a message to end, or brings what is no message, the
engine's process is dead: the keeper kills everything below it and exits at once. An idle keeper waits on the lifeline,
a busy one on the lifeline and the job; while it starts and ends, the end of the lifeline comes as SIGIO. So does,
always, the death of the subreaper.

Who kills whom: the engine's process kills the keeper; the keeper kills the job and all that the job started, which
become the keeper's own children when their parents end. Should the keeper be killed, the kernel kills the job, and the
subreaper all that is left; should the subreaper be killed, the keeper kills all below it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import sys
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from jobcontainer.events import JobState, Outcome, Started
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.owner import host_name
from jobcontainer.worker import isolation, job_process, limits, process_tree, shared_memory, subreaper
from jobcontainer.worker.cpython_internals import tracker_descriptor
from jobcontainer.worker.environment import take_over_early
from jobcontainer.worker.keeper_protocol import (
    CancelJob,
    EndKeeper,
    JobEnded,
    KeeperEnded,
    KeeperStarted,
    ModuleRefused,
    Ping,
    Pong,
    RunJob,
    SetEnvironment,
    WantModules,
)
from jobcontainer.worker.reporting import log
from jobcontainer.worker.supervisor import Supervisor
from jobcontainer.worker.warm_imports import WarmImports

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from types import FrameType

    from jobcontainer.process import Environment
    from jobcontainer.worker.fork_server import ForkServer
    from jobcontainer.worker.job_process import JobProcess
    from jobcontainer.worker.keeper_protocol import Inherited, Order, ToEngine, ToKeeper

_PATIENCE: Final = 30.0  # seconds in which a process must have been made for a job
_PAUSE_MS: Final = 100.0  # milliseconds between two attempts to make one

_here: Keeper | None = None


class _NoProcessError(Exception):
    """No process could be made for a job; the cause says why."""


def begin(lifeline: Connection, *, forks: bool) -> None:
    """Make this worker a keeper."""
    global _here  # noqa: PLW0603 -- what loky calls are functions of modules
    isolation.leave_session()
    _here = Keeper(lifeline, forks=forks)


def serve() -> None:
    """Run what the engine orders, one job after another, until it sends the message to end."""
    if _here is None:
        raise RuntimeError("This process is no keeper: begin() was not called.")
    if isolation.ADOPTS:
        subreaper.run_below(_here.live, _here.close_lifeline)
        return
    joblib = isolation.take_out_joblib()
    try:
        _here.live()
    except BaseException:
        _here.close_lifeline()  # by which the engine knows that nobody serves it
        raise
    finally:
        sys.modules.update(joblib)


class Keeper:
    """Makes processes, gives them their orders, has them supervised, and reports over the lifeline."""

    def __init__(self, lifeline: Connection, *, forks: bool) -> None:
        self._lifeline, self._forks = lifeline, forks
        self._preload: tuple[str, ...] = ()  # what new interpreters import
        self._warm = WarmImports(
            job_process.live_clean, self._drop_forks, lambda name, reason: self._send(ModuleRefused(name, reason))
        )
        self._order: Order | None = None  # the next one
        self._cancelled: set[int] = set()
        self._is_to_end = False
        self._environment: Environment | None = None  # of the orders that come
        self._inherited: Inherited | None = None  # what forks have already
        self._spare: JobProcess | None = None
        self._reused: JobProcess | None = None
        self._imported: tuple[str, ...] = ()  # by the last job
        self._host = host_name()
        self._parent: int | None = None  # the subreaper
        self._base = 0
        self._messages, self._watched = select.poll(), select.poll()  # the latter is for the job as well
        for watched in (self._messages, self._watched):
            watched.register(lifeline.fileno(), select.POLLIN)
        signal.signal(signal.SIGIO, self._exit_if_alone)
        self._signal_lifeline(on=True)

    def live(self, parent: int | None = None) -> None:
        """Be the keeper, from its start to its end; ``parent`` is the subreaper, where there is one."""
        if parent is not None:
            self._parent = parent
            isolation.close_descriptors_but({self._lifeline.fileno(), tracker_descriptor()})
            isolation.take_out_joblib()
            self._signal_lifeline(on=True)
            isolation.die_with(parent, signal.SIGIO)
        self._send(KeeperStarted(os.getpid()))
        self.prepare()
        self._send(Pong())
        self.serve()

    def prepare(self) -> None:
        """Load what jobs will need, and have a spare process ready."""
        isolation.settle_in()
        log.prepare_streams()
        if self._forks:
            job_process.preload_for_jobs()
            limits.find_thread_pools()
        gc.collect()
        gc.freeze()
        gc.disable()
        if self._forks:
            self._base = process_tree.memory_of([os.getpid()])
        self._read_lifeline()  # it may bring what a new interpreter is to import
        self._make_spare()

    def serve(self) -> None:
        """Run one order after another, until the message to end."""
        self._signal_lifeline(on=False)
        while not self._is_to_end:
            if self._order is None:
                self._prepare_for_next()
                self._wait()
            if self._order is not None:
                order, self._order = self._order, None
                outcome = self.run(order)
                self._cancelled.clear()
                self._send(JobEnded(order.number, outcome, self._imported))
        self._warm.end()
        for process in (self._spare, self._reused):
            if process is not None:
                process.end()
        process_tree.end_children()
        self._signal_lifeline(on=True)
        self._send(KeeperEnded())

    def run(self, order: Order) -> Outcome:
        """Run one job to its end; whatever goes wrong is an outcome, and stands in the job's events."""
        try:
            self._imported = ()
            self._take_over_for_forks(order)
            self._await_imports(order)
            if order.number not in self._cancelled:
                return self._run(order)
            state, reason = JobState.CANCELLED, "It was cancelled before it started."
        except _NoProcessError as error:
            state = JobState.CANCELLED if order.number in self._cancelled else JobState.LOST
            reason = f"No process could be made for it ({error.__cause__}). Submit it again."
        except Exception:  # noqa: BLE001 -- a job's end is always reported
            self._spare = self._reused = None
            self._warm.end()
            process_tree.end_children()
            state, reason = JobState.LOST, f"Its keeper failed; please report this:\n{traceback.format_exc()}"
        outcome = Outcome(state=state, at=time.time(), reason=reason, attempt=order.attempt)
        return write_end(JobFolder(order.folder), outcome)

    def close_lifeline(self) -> None:
        """Let the engine know that nobody serves it any more."""
        self._lifeline.close()

    def _run(self, order: Order) -> Outcome:
        files = None if order.options["memory"] is None else shared_memory.SharedFiles()
        process = self._process_for(order)
        if self._spare is None:  # one is made while the job runs
            server = self._warm.server_for(self._inherited)
            if server is None:
                self._make_spare()
            else:
                with contextlib.suppress(OSError):  # no descriptors
                    server.begin_fork()
        supervisor = Supervisor(process, order, self._watched, self._is_cancelled, self._shared_with(process), files)
        others = (self._spare, self._reused, self._warm.server)
        spared = {other.pid for other in others if other is not None and other is not process}
        outcome, kept = supervisor.see_through(spared)
        self._imported = supervisor.imported
        self._warm.note_use()
        self._reused = process if kept else None if process is self._reused else self._reused
        return outcome

    def _take_over_for_forks(self, order: Order) -> None:
        """Take over an environment when it changes, so that processes which are forked later have it already."""
        wanted = order.environment, order.options["threads"], order.keys
        if self._forks and order.environment is not None and wanted != self._inherited:
            self._inherited = (
                (order.environment, *wanted[1:]) if take_over_early(order.environment, *wanted[1:]) else None
            )

    def _process_for(self, order: Order) -> JobProcess:
        """Send the order to a process, and write down that the job has started."""
        while True:
            if order.needs_interpreter:
                make = partial(job_process.start, order.environment, (), order.options["env"])
                process = self._made_for(order, make)
            else:
                process = (self._reused if order.reuses else None) or self._fresh(order)
            shared = self._shared_with(process)
            started = Started(at=time.time(), pid=process.pid, attempt=order.attempt, host=self._host, shared=shared)
            with contextlib.suppress(OSError):
                JobFolder(order.folder).append_event(started)
            has_it = not order.reuses and process.inherited == (order.environment, order.options["threads"], order.keys)
            try:
                process.send(_without_environment(order) if has_it else order)
            except OSError:  # it was killed while it waited
                process.reap()
                self._reused = None if process is self._reused else self._reused
            else:
                return process

    def _fresh(self, order: Order) -> JobProcess:
        """Return the spare process, if it is one for this job, or else make one."""
        server = None if order.imports_all_itself else self._warm.server_for(self._inherited)
        spare = self._spare
        if spare is not None and spare.server is server:
            self._spare = None
            return spare
        return self._made_for(order, partial(self._make, server))

    def _made_for(self, order: Order, make: Callable[[], JobProcess]) -> JobProcess:
        """Make a process for a job; try again for a while where the machine has no room for another one."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return make()
            except OSError as error:  # no process ids, memory or descriptors
                if self._is_cancelled(order.number) or time.monotonic() > until:
                    raise _NoProcessError from error
            self._messages.poll(_PAUSE_MS)

    def _make_spare(self) -> None:
        """Have a process ready for the next job; where none can be made now, that job makes its own."""
        with contextlib.suppress(OSError):  # no descriptors, no process ids
            self._spare = self._make(self._warm.server_for(self._inherited))

    def _prepare_for_next(self) -> None:
        """Do, while no job runs and none waits, what the next one will need."""
        self._warm.prepare(self._inherited)
        if self._warm.is_importing:
            return
        if self._spare is not None and self._spare.server is not self._warm.server_for(self._inherited):
            self._spare.end()
            self._spare = None
        if self._spare is None:
            self._make_spare()

    def _await_imports(self, order: Order) -> None:
        """Wait while what the job most likely imports is imported, and no longer than one import may take."""
        if not self._forks or order.imports_all_itself:
            return
        self._warm.prepare_for_job(self._inherited)
        until = time.monotonic() + (self._warm.seconds_left or 0.0)
        while self._warm.is_importing and time.monotonic() < until:
            self._wait()
            if order.number in self._cancelled or self._is_to_end:
                return

    def _drop_forks(self) -> None:
        """End the processes of the fork server that wait for a job."""
        if self._spare is None and self._warm.server is not None and self._warm.server.is_forking:
            with contextlib.suppress(OSError):
                self._spare = job_process.fork_warm(self._warm.server)
        if self._spare is not None and self._spare.server is not None:
            self._spare.end()
            self._spare = None
        if self._reused is not None and self._reused.server is not None:
            self._reused.end()
            self._reused = None

    def _shared_with(self, process: JobProcess) -> int:
        """Return how much memory, in bytes, a process has from its parent: none, if it is a new interpreter."""
        if process.starting:
            return 0
        return self._base if process.server is None else process.server.memory

    def _make(self, server: ForkServer | None = None) -> JobProcess:
        if not self._forks:
            return job_process.start(self._environment, self._preload)
        if server is not None:
            with contextlib.suppress(OSError):  # it has ended, say
                return job_process.fork_warm(server)
        return job_process.fork(self._inherited)

    def _is_cancelled(self, number: int) -> bool:
        self._read_lifeline()
        return number in self._cancelled

    def _send(self, message: ToEngine) -> None:
        with contextlib.suppress(OSError):  # the engine is gone; the next look at the lifeline shows it
            self._lifeline.send(message)

    def _wait(self) -> None:
        """Wait until the engine wants something, the fork server says something, or its time is over."""
        watched, seconds = select.poll(), self._warm.seconds_left
        watched.register(self._lifeline.fileno(), select.POLLIN)
        if self._warm.server is not None:
            watched.register(self._warm.server.fileno(), select.POLLIN)
        ready = {descriptor for descriptor, _ in watched.poll(None if seconds is None else seconds * 1000 + 1)}
        if self._lifeline.fileno() in ready:
            self._read_lifeline()
        if ready - {self._lifeline.fileno()}:
            self._warm.receive()
        self._warm.keep_time()

    def _read_lifeline(self) -> None:
        """Note what the engine wants; exit if its process is dead."""
        try:
            while self._messages.poll(0):
                self._note(self._lifeline.recv())
        except Exception:  # noqa: BLE001 -- its end, and what is no message: nothing that follows would be one
            _exit()

    def _note(self, message: ToKeeper) -> None:
        match message:
            case SetEnvironment(environment):
                self._environment = environment
            case WantModules(names):
                self._preload = names
                self._warm.want(message)
            case RunJob(order):
                self._order = order._replace(environment=self._environment)
            case CancelJob(number):
                self._cancelled.add(number)
            case Ping():
                self._send(Pong())
            case EndKeeper():
                self._is_to_end = True

    def _signal_lifeline(self, *, on: bool) -> None:
        """Have SIGIO sent, or not, when something comes over the lifeline, its end included."""
        descriptor = self._lifeline.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)
        if on:  # it may have ended before
            self._exit_if_alone()

    def _exit_if_alone(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Exit where the engine's process or the subreaper is dead; the handler of SIGIO."""
        has_ended = not self._lifeline.closed and _has_ended(self._lifeline.fileno())
        if has_ended or self._parent not in {None, os.getppid()}:
            _exit()


def _without_environment(order: Order) -> Order:
    """Return an order for a process that has inherited the environment, but for the settings, which are made there."""
    return order._replace(environment=None, settings=order.environment.settings if order.environment else None)


def _has_ended(descriptor: int) -> bool:
    """Return whether a socket's other end is closed; something that came over it may be unread."""
    looked = select.poll()
    looked.register(descriptor, 0)  # POLLHUP is always reported
    return any(event & select.POLLHUP for _, event in looked.poll(0))


def _exit() -> NoReturn:
    """End with everything below."""
    shared_memory.remove_left_by(process_tree.end_children())
    os._exit(0)
