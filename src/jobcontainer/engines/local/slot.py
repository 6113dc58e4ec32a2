"""Slot: a keeper's place in this process.

A keeper is the one worker of a private loky executor, never of the reusable one that ``joblib.Parallel`` shares. Its
only call lasts as long as it does; orders, and how they ended, go over its lifeline, a pair of sockets, in a tenth of
the time that loky's queues and their threads take.

States of a slot: *empty*; *held* by a keeper, from its first order until it is given up. Threads: one for each keeper
listens to its lifeline and ends with it. All the rest is called by the engine, under its lock. ``_forking`` keeps the
rest of the process from forking between the making of a lifeline and its entry in ``_lifelines``: a child that inherits
one would hold it open, and the keeper would not notice the end of this process.

Who ends what: a keeper that is given up has its lifeline shut down, on which it ends with all below it, and is killed
by loky in case it does not. The listening thread closes the lifeline, so that nobody hears a descriptor that is
another's by then.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import threading
from concurrent.futures import CancelledError
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobcontainer.engines.local import ahead, exiting, lean
from jobcontainer.engines.local.lean import ProcessPoolExecutor, cpu_count
from jobcontainer.worker import isolation, keeper, limits, process_tree

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from concurrent.futures import Future
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from jobcontainer.process import Environment
    from jobcontainer.worker.order import Order

_LAST_WORDS_SECONDS: Final = 5.0  # until loky knows how a keeper died whose lifeline has ended

_lifelines: set[Connection] = set()
_forking = threading.RLock()


def available_cpus() -> int:
    """Return how many CPUs this process may really use: by its affinity, its cgroup, and ``LOKY_MAX_CPU_COUNT``.

    Example:
        >>> available_cpus() >= 1
        True
    """
    return int(cpu_count())


class Listener(Protocol):
    """Hears of a slot, in the thread of its keeper."""

    def heard(self, slot: Slot, number: int, outcome: dict[str, Any]) -> None:
        """Take the end of a job."""
        ...

    def given_back(self, slot: Slot, numbers: Collection[int]) -> None:
        """Take back orders that lie at a keeper, whose job takes long; also if there are none."""
        ...

    def lost(self, slot: Slot, lifeline: Connection, error: BaseException) -> None:
        """Take the end of the lifeline of a keeper that was not given up, and discard it if it still holds the slot."""
        ...


class Slot:
    """One keeper, started with the first job and again after it died.

    Args:
        preload: names of modules that the keeper imports before any job.
        forks: whether the keeper forks the jobs' processes, or starts each anew.
        listener: is told what the keeper tells.
    """

    def __init__(self, preload: Sequence[str], *, forks: bool, listener: Listener) -> None:
        """Start nothing yet."""
        self._preload, self._forks, self._listener = tuple(preload), forks, listener
        self._mark = ""
        self._executor: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None
        self._told: Environment | None = None
        self._threads: list[threading.Thread] = []
        self._workers: list[BaseProcess] = []

    def run(self, order: Order) -> None:
        """Have the keeper run a job; the listener will hear of its end.

        Args:
            order: what the job is to do, environment included.

        Raises:
            OSError: no keeper could be started.
        """
        if self._lifeline is not None:
            try:
                self._send(order)
            except OSError:  # it died while it was idle
                self.discard()
            else:
                return
        lean.ready_trackers()
        with _sigint_blocked(), _may_have_children(), _forking:
            self._lifeline, theirs = Pipe()
            _lifelines.add(self._lifeline)
            try:
                self._start(self._lifeline, theirs, order.options["threads"])
            except BaseException:
                _close(self._lifeline)  # as nobody listens to it
                self._lifeline = None
                raise
            finally:
                theirs.close()  # the keeper has its copy
        self._send(order)

    def run_ahead(self, order: Order) -> bool:
        """Have the keeper run a job when it has run those that it was given before.

        Returns:
            Whether it was sent; the keeper may have died.
        """
        try:
            self._send(order)
        except OSError:
            return False
        return True

    def is_held_by(self, lifeline: Connection) -> bool:
        """Tell whether a lifeline is that of the present keeper."""
        return lifeline is self._lifeline

    def cancel(self, number: int) -> None:
        """Have a job cancelled; nothing happens if it has ended."""
        if self._lifeline is not None:
            with contextlib.suppress(OSError):  # the keeper died
                self._lifeline.send_bytes(keeper.CANCEL + b"%d" % number)

    def discard(self) -> None:
        """Give up a keeper that died, and kill what it left behind."""
        self._dismiss()
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._workers = [worker for worker in self._workers if worker.is_alive()]  # which also reaps
        while self._mark and (strays := process_tree.marked_with(self._mark)):
            process_tree.kill(strays)
            if process_tree.running(strays):
                break

    def stop(self) -> None:
        """End the keeper, and return when it has ended.

        Called from a thread of its own or of its executor it returns at once: that thread has yet to end.
        """
        self._dismiss()
        threads, self._threads = self._threads, []
        workers, self._workers = self._workers, []
        if threading.current_thread() not in threads:
            for thread in threads:
                thread.join()
            for worker in workers:  # only now: of two threads that wait for a process, one misses its end
                worker.join()

    def _start(self, lifeline: Connection, theirs: Connection, threads: int | None) -> None:
        context, mark = lean.new_context()
        self._mark = f"{isolation.MARK}={mark}"
        self._told = None
        self._executor = ProcessPoolExecutor(
            max_workers=1,
            context=context,  # it never imports the user's __main__
            initializer=keeper.begin,
            initargs=(theirs, self._preload, self._forks),
            env=dict([self._mark.split("=")]) | _thread_variables(threads) | ahead.bytecode_variables(),
        )
        life = self._executor.submit(keeper.serve)
        self._workers += _workers_of(self._executor)
        thread = threading.Thread(target=self._listen, args=(lifeline, life), name="jobcontainer-keeper", daemon=True)
        self._threads += [thread, *_threads_of(self._executor)]
        thread.start()
        exiting.be_first()

    def _listen(self, lifeline: Connection, life: Future[None]) -> None:
        """Hear what a keeper tells, until its end; the life of its thread."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                word, _, rest = lifeline.recv_bytes().partition(b" ")
                if word == keeper.BACK:
                    self._listener.given_back(self, set(map(int, rest.split())))
                else:
                    self._listener.heard(self, int(word), json.loads(rest))
        if self.is_held_by(lifeline):  # else it was given up, and somebody waits for this thread
            try:
                error = life.exception(_LAST_WORDS_SECONDS) or RuntimeError("it stopped serving")
            except (TimeoutError, CancelledError) as unknown:
                error = unknown
            self._listener.lost(self, lifeline, error)
        _close(lifeline)

    def _send(self, order: Order) -> None:
        assert self._lifeline is not None  # noqa: S101 -- told by the caller
        told = order.environment is self._told
        self._lifeline.send_bytes((order._replace(environment=None) if told else order).packed())
        self._told = order.environment

    def _dismiss(self) -> None:
        """End the lifeline, on which the keeper kills what runs and ends, and see that it does."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            _end(lifeline)
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, kill_workers=True)  # this may be one of its threads, which can't wait


def _thread_variables(threads: int | None) -> dict[str, str]:
    """Have the libraries that a keeper loads start no more threads than its jobs may have."""
    return {} if threads is None else dict.fromkeys(limits.THREAD_VARIABLES, str(threads))


def _threads_of(executor: Any) -> Iterator[threading.Thread]:
    """Find an executor's threads, to wait for their end as well.

    Loky does not wait for the one that feeds the queue. It holds a semaphore, and where the interpreter exits before it
    has let go of that, loky's resource tracker warns of a leak.
    """
    for thread in (executor._executor_manager_thread, executor._call_queue._thread):  # noqa: SLF001 -- told above
        if thread is not None:
            yield thread


def _workers_of(executor: Any) -> list[BaseProcess]:
    """Find an executor's worker, to reap it: of one that loky killed, a semaphore and a pipe stay until then."""
    return list(executor._processes.values())  # noqa: SLF001 -- told above


def _end(lifeline: Connection) -> None:
    """End a lifeline for both sides; the thread that listens to it closes it."""
    ended = socket.socket(fileno=lifeline.fileno())
    try:
        ended.shutdown(socket.SHUT_RDWR)
    except OSError:  # the keeper is gone
        pass
    finally:
        ended.detach()


def _close(lifeline: Connection | None) -> None:
    if lifeline is not None:
        with _forking:
            _lifelines.discard(lifeline)
            lifeline.close()


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Let a process start that an interrupt of the notebook does not hit before it stands apart."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _may_have_children() -> Iterator[None]:
    """Let a daemonic process, a Dask worker under its nanny, start a keeper.

    Python forbids it, as nobody would end the children of a process that is simply terminated; keepers end themselves.
    """
    config: Any = multiprocessing.current_process()._config  # type: ignore[attr-defined] # noqa: SLF001 -- no other way
    before = config.get("daemon", False)
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before


def _give_up_lifelines() -> None:
    """In a forked child: let the parent's keepers notice when the parent ends."""
    for lifeline in _lifelines:
        lifeline.close()
    _lifelines.clear()
    _forking.release()


os.register_at_fork(before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_give_up_lifelines)
