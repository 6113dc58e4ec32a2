"""KeeperProcess: one keeper as its engine sees it.

A keeper is the one worker of an executor of its own (:mod:`jobcontainer.engines.local.loky_executor`). Its only call,
:func:`jobcontainer.worker.keeper.serve`, lasts as long as it does. Orders, and how they ended, go over its lifeline, a
pair of sockets, in a tenth of the time that loky's queues and their threads take.

States: *starting*, while the worker's process is made; *serving*; *ending*, while the executor shuts down; *ended*.
Each keeper has one thread here, which takes it through all of them: it starts the executor, receives what the keeper
sends, looks whether it hangs, shuts the executor down and reports the end. An interrupt, which Python raises in the
main thread, so can't cut a start in two. The other methods are called from any thread.

Who ends what: :meth:`KeeperProcess.end` asks the keeper to end; :meth:`KeeperProcess.kill` kills it, on which the
process above it kills all below. A keeper that hangs is killed so by its thread. Should the process above hang as well,
the thread kills everything itself. A child that user code forks gives up the lifelines, else it would hold them open
and the keepers would not notice the end of this process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobcontainer.engines.local.loky_executor import import_loky, new_executor, process_can_be_made, refuse_at_exit
from jobcontainer.engines.local.watchdog import LOOK_SECONDS, Watchdog
from jobcontainer.jobfile import signing
from jobcontainer.worker import MARK, keeper, limits, process_tree
from jobcontainer.worker.cpython_internals import (
    call_at_exit,
    come_first_at_exit,
    exit_waits_for_others,
    forget_siblings,
)
from jobcontainer.worker.keeper_protocol import (
    CancelJob,
    EndKeeper,
    JobEnded,
    KeeperEnded,
    KeeperStarted,
    ModuleRefused,
    Ping,
    RunJob,
    SetEnvironment,
    WantModules,
)
from jobcontainer.worker.keeper_start import SAFE_START, begin_keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from multiprocessing.connection import Connection

    from jobcontainer.events import JobState, Outcome
    from jobcontainer.worker.keeper_protocol import Order, ToEngine, ToKeeper

_STANDARD_ERROR: Final = 2  # the last of the standard descriptors
_REASON_SECONDS: Final = 5.0  # until loky knows how a keeper died whose lifeline has ended, and all below it is dead
_SEND_SECONDS: Final = 30  # until a keeper takes a message that its lifeline has no room for

_EXIT_LOOKS: Final = 2  # so that our own exit calls, which end keepers in order, come first where they can

_lifelines: set[Connection] = set()
_lifelines_lock = threading.RLock()


class KeeperListener(Protocol):
    """Receives what happens to a keeper, in the keeper's thread."""

    def job_ended(self, keeper: KeeperProcess, number: int, outcome: Outcome, imported: Sequence[str]) -> None:
        """Take the end of the job whose order has this number, and the modules that it has imported."""

    def module_refused(self, name: str, reason: str) -> None:
        """Take a module that a keeper could not import ahead."""

    def keeper_ended(self, keeper: KeeperProcess, reason: str, state: JobState) -> None:
        """Take the end of a keeper, whatever it came from; reason and state are for the job that it ran."""


class KeeperProcess:
    """One keeper: its executor, its lifeline, and the thread that serves both.

    Attributes:
        has_started: set when the keeper's process was made, or could not be.
        was_made: whether it was.
    """

    def __init__(self, *, forks: bool, threads: Callable[[], int]) -> None:
        """Make the lifeline; :meth:`start` does the rest.

        Raises:
            OSError: there are no free descriptors.
        """
        self._forks = forks
        self._threads = threads  # of the numerical libraries that it loads; to ask may import loky
        self._mark = secrets.token_hex(8)
        self.was_made = self._has_run_jobs = self._is_killed = self._is_busy = self._is_ending = False
        self._sending = threading.Lock()
        self._environment = ""  # the digest of the one that was sent last
        self._wanted = WantModules(())  # as it was sent last
        self._listener: KeeperListener | None = None
        self._watchdog = Watchdog(self._marked)
        self._lock = threading.Lock()  # of the listener and the end
        self._has_ended = False
        self.has_started = threading.Event()
        with _lifelines_lock:
            _open_standard_descriptors()
            self._lifeline, self._keeper_end = multiprocessing.Pipe()
            _bound_waiting(self._lifeline)
            _lifelines.update((self._lifeline, self._keeper_end))
        self._thread = threading.Thread(target=self._live, name="jobcontainer-keeper", daemon=True)

    def start(self, at_exit: Callable[[], object]) -> None:
        """Import loky, start it, and return; a RuntimeError where the interpreter exits and starts no thread any more.

        Args:
            at_exit: ends the keeper when the interpreter exits, before loky joins its threads, and waits for jobs.
        """
        with contextlib.suppress(Exception):  # the thread fails for it too, and reports it
            import_loky()
        call_at_exit(at_exit, last=True)
        try:
            refuse_at_exit()
            self._thread.start()
        except RuntimeError:
            self._close_lifeline()
            raise

    def report_to(self, listener: KeeperListener) -> bool:
        """Set who receives what happens, before the first order; return whether the keeper has not ended already."""
        with self._lock:
            self._listener = listener
            return not self._has_ended

    def want(self, modules: WantModules) -> None:
        """Have the keeper import modules ahead of jobs, from the next one on."""
        if modules is not self._wanted:
            self._wanted = modules
            self._send(modules)

    def run(self, order: Order) -> None:
        """Have the keeper run a job; where it died, its end will be reported, and the job has not started."""
        self._is_busy = True
        self._watchdog.job_sent(order.options)
        environment = order.environment
        if environment is not None and environment.digest != self._environment:
            self._environment = environment.digest
            self._send(SetEnvironment(environment))
        self._send(RunJob(order._replace(environment=None, keys=signing.keys_for_jobs())))

    def cancel(self, number: int) -> None:
        """Have the job of an order cancelled; nothing happens if it has ended."""
        self._watchdog.end_asked()
        self._send(CancelJob(number))

    def end(self) -> None:
        """Ask the keeper to end, or kill one that may not be up yet; see :meth:`join`."""
        if self._has_run_jobs:
            self._send(EndKeeper())
        else:
            self.kill()

    def kill(self) -> None:
        """End the keeper with all below it, whatever it does."""
        self._is_killed = True
        with _lifelines_lock, contextlib.suppress(OSError):  # the keeper is gone
            self._watchdog.kill_keeper()
            if self._is_ending:  # but the process above it, which waits for nothing but loky, is not
                self._watchdog.kill_all()
            if not self._lifeline.closed:
                with _as_socket(self._lifeline) as ended:
                    ended.shutdown(socket.SHUT_RDWR)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the keeper has ended and its end was reported, and return whether; never in its own thread."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _send(self, message: ToKeeper) -> None:
        try:
            with self._sending:
                self._lifeline.send(message)
        except BlockingIOError:  # a part of it is sent, and nothing that follows would be a message
            self.kill()
        except OSError:  # it died, or was killed; its thread will report it
            pass

    def _live(self) -> None:
        """Take the keeper from its start to its end."""
        executor = call = None
        reason = ""
        try:
            executor = self._executor()
            call = self._submit(executor)
        except Exception as error:  # noqa: BLE001 -- no semaphores, no processes, no descriptors left, exit
            reason = (
                f"No keeper process could be started: {type(error).__name__}: {error}. It needs a writable /dev/shm "
                "for its semaphores, free process ids, and a few free file descriptors (`ulimit -n`)."
            )
        finally:
            with _lifelines_lock:
                _lifelines.discard(self._keeper_end)
                self._keeper_end.close()  # the keeper has its copy
            self.has_started.set()
        if call is not None and not self._receive():
            reason = self._why_it_died(call)
        self._is_ending = True
        with contextlib.suppress(Exception):  # at exit, from Python 3.12 on, its threads may not have started
            if executor is not None:
                executor.shutdown(wait=True, kill_workers=bool(reason))
                if self._is_killed:
                    multiprocessing.active_children()  # forgets those that have ended, which loky may not have joined
        with contextlib.suppress(Exception):  # no descriptors: whatever fails here, the end is reported
            if reason:
                self._kill_strays()
        self._close_lifeline()
        executor = call = None  # with their descriptors
        with self._lock:
            self._has_ended = True
        if self._listener is not None:
            self._listener.keeper_ended(self, reason, self._watchdog.state)

    def _executor(self) -> Any:
        return new_executor(
            begin_keeper,
            (self._keeper_end, self._forks),
            SAFE_START | {MARK: self._mark} | dict.fromkeys(limits.THREAD_VARIABLES, str(self._threads())),
        )

    def _submit(self, executor: Any) -> Future[None]:
        """Start the worker and its only call."""
        with process_can_be_made():
            if self._is_killed:
                raise RuntimeError("the engine was closed")
            call: Future[None] = executor.submit(keeper.serve)
        self.was_made = True
        if not come_first_at_exit():  # loky is joining its threads, and nobody else will end the keeper before that
            self.kill()
        return call

    def _receive(self) -> bool:
        """Receive what the keeper sends, until its end; return whether it ended because it was asked to."""
        try:
            while not isinstance(message := self._next_message(), KeeperEnded):
                self._watchdog.answered()
                if isinstance(message, KeeperStarted):
                    self._watchdog.keeper_started(message.pid)
                elif isinstance(message, JobEnded):
                    self._has_run_jobs, self._is_busy = True, False
                    self._watchdog.job_ended()
                    if self._listener is not None:  # which may have another job for this keeper
                        self._listener.job_ended(self, message.number, message.outcome, message.imported)
                elif isinstance(message, ModuleRefused) and self._listener is not None:
                    self._listener.module_refused(message.name, message.reason)
        except Exception:  # noqa: BLE001 -- its end, and what is no message: nothing that follows would be one
            self._watchdog.kill_keeper()
            return False
        return True

    def _next_message(self) -> ToEngine:
        """Receive a message; let the keeper end where the interpreter exits and others wait for the keeper first."""
        looks, before = 0, time.monotonic()
        while not self._lifeline.poll(LOOK_SECONDS):
            before, passed = time.monotonic(), time.monotonic() - before
            if self._watchdog.look(passed):
                raise TimeoutError
            if self._watchdog.wants_ping():
                self._send(Ping())
            looks = looks + 1 if exit_waits_for_others() else 0
            if looks == _EXIT_LOOKS and not self._is_busy:
                self.end()
            elif looks >= _EXIT_LOOKS and hasattr(sys, "ps1"):  # an interactive session waits for no job
                self.kill()
        message: ToEngine = self._lifeline.recv()
        return message

    def _why_it_died(self, call: Future[None]) -> str:
        """Wait until the keeper and all below it have ended, by force if need be, and say how it died."""
        error: BaseException | None = None
        try:
            error = call.exception(_REASON_SECONDS)
        except TimeoutError:
            with _lifelines_lock:
                self._watchdog.kill_all()
        if self._watchdog.reason:
            return (
                f"The process that kept the job {self._watchdog.reason}, and was killed with the job. Submit it again."
            )
        if self._is_killed:
            return "Its keeper did not end it when the engine was closed, and was killed."
        how = "" if error is None else f" ({' '.join(str(error).split())})"
        return (
            f"The process that kept the job died, and the job with it{how}. If the machine ran out of memory, run "
            "fewer jobs at a time, or submit it again."
        )

    def _kill_strays(self) -> None:
        """Kill what the keeper has left behind."""
        while strays := self._marked():
            process_tree.kill(strays)
            if process_tree.running(strays):
                return

    def _marked(self) -> list[int]:
        """Return the keeper's processes, those that it was started by and those that it has started."""
        return process_tree.marked_with(f"{MARK}={self._mark}")

    def _close_lifeline(self) -> None:
        with _lifelines_lock:
            for end in (self._lifeline, self._keeper_end):
                _lifelines.discard(end)
                end.close()
            self._watchdog.close()


@contextlib.contextmanager
def _as_socket(connection: Connection) -> Iterator[socket.socket]:
    """Use a connection as the socket that it is."""
    found = socket.socket(fileno=connection.fileno())
    try:
        yield found
    finally:
        found.detach()


def _bound_waiting(lifeline: Connection) -> None:
    """Have no message wait for ever: for room, where a keeper that hangs reads nothing, or for its second half."""
    seconds = struct.pack("ll", _SEND_SECONDS, 0)  # struct timeval
    with _as_socket(lifeline) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)


def _open_standard_descriptors() -> None:
    """Open those from 0 to 2 that are closed, as where this process was started with ``<&-``, on nothing.

    In a new process they are the standard three, whatever has got their numbers here in the meantime.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 -- it takes no names
    os.close(descriptor)


def _give_up_lifelines() -> None:
    """In a forked child: let the parent's keepers notice when the parent ends, and don't wait for them."""
    if _lifelines:
        forget_siblings()
    for lifeline in _lifelines:
        lifeline.close()
    _lifelines.clear()
    _lifelines_lock.release()


os.register_at_fork(
    before=_lifelines_lock.acquire, after_in_parent=_lifelines_lock.release, after_in_child=_give_up_lifelines
)
