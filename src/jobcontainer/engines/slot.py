"""Slot: a keeper's place in this process.

A keeper is the one worker of a private loky executor, never of the reusable one that ``joblib.Parallel`` shares.

Design: a slot has no thread and no lock; its engine calls it under its own. ``_forking`` keeps the rest of the process
from forking between the making of a lifeline and its entry in ``_lifelines``: a child that inherits one would hold it
open, and the keeper would not notice the end of this process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

from jobcontainer.engines import ahead, lean
from jobcontainer.engines.lean import BrokenProcessPool, ProcessPoolExecutor, cpu_count
from jobcontainer.worker import keeper, limits, shield, tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from jobcontainer.process import Surroundings
    from jobcontainer.worker.run import Order

_lifelines: set[Connection] = set()
_forking = threading.RLock()


def available_cpus() -> int:
    """Return how many CPUs this process may really use: by its affinity, its cgroup, and ``LOKY_MAX_CPU_COUNT``.

    Example:
        >>> available_cpus() >= 1
        True
    """
    return int(cpu_count())


class Slot:
    """One keeper, started with the first job and again after it died.

    Args:
        preload: names of modules that the keeper imports before any job.
        forks: whether the keeper forks the jobs' processes, or starts each anew.
    """

    def __init__(self, preload: Sequence[str], *, forks: bool) -> None:
        """Start nothing yet."""
        self._preload, self._forks = tuple(preload), forks
        self._mark = ""
        self._executor: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None
        self._told: Surroundings | None = None
        self._threads: list[threading.Thread] = []
        self._workers: list[BaseProcess] = []

    def run(self, number: int, order: Order) -> Future[dict[str, Any]]:
        """Have the keeper run a job.

        Args:
            number: what :meth:`cancel` calls it.
            order: what the job is to do, surroundings included.

        Returns:
            The outcome as plain data; an exception if the keeper died.

        Raises:
            OSError: no keeper could be started.
        """
        if self._executor is not None:
            with contextlib.suppress(BrokenProcessPool):  # it died while it was idle
                return self._send(number, order)
            self.discard()
        lean.ready_trackers()
        with _sigint_blocked(), _may_have_children(), _forking:
            theirs = self._start(order.options["threads"])
            try:
                future = self._send(number, order)
            finally:
                theirs.close()  # the keeper has its copy
            self._workers += _workers_of(self._executor)
        return future

    def cancel(self, number: int) -> None:
        """Have a job cancelled; nothing happens if it has ended."""
        if self._lifeline is not None:
            with contextlib.suppress(OSError):  # the keeper died
                self._lifeline.send_bytes(b"%d" % number)

    def discard(self) -> None:
        """Give up a keeper that died, and kill what it left behind."""
        self._dismiss()
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._workers = [worker for worker in self._workers if worker.is_alive()]  # which also reaps
        while self._mark and (strays := tree.marked_with(self._mark)):
            tree.kill(strays)
            if tree.running(strays):
                break

    def stop(self) -> None:
        """End the keeper, and return when it has ended.

        Called from a thread of its executor it returns at once: that thread has yet to end the keeper.
        """
        self._dismiss()
        threads, self._threads = self._threads, []
        workers, self._workers = self._workers, []
        if threading.current_thread() not in threads:
            for thread in threads:
                thread.join()
            for worker in workers:  # only now: of two threads that wait for a process, one misses its end
                worker.join()

    def _start(self, threads: int | None) -> Connection:
        """Prepare an executor; its worker starts with the first call.

        Returns:
            The keeper's end of the lifeline.
        """
        context, mark = lean.new_context()
        self._mark = f"{shield.MARK}={mark}"
        self._told = None
        self._lifeline, theirs = Pipe()
        _lifelines.add(self._lifeline)
        self._executor = ProcessPoolExecutor(
            max_workers=1,
            context=context,  # it never imports the user's __main__
            initializer=keeper.begin,
            initargs=(theirs, self._preload, self._forks),
            env=dict([self._mark.split("=")]) | _thread_variables(threads) | ahead.bytecode_variables(),
        )
        return theirs

    def _send(self, number: int, order: Order) -> Future[dict[str, Any]]:
        assert self._executor is not None  # noqa: S101 -- told by the caller
        surroundings = order.surroundings
        told = None if surroundings is self._told else surroundings
        future: Future[dict[str, Any]] = self._executor.submit(
            keeper.run_job, number, replace(order, surroundings=told)
        )
        self._told = surroundings
        return future

    def _dismiss(self) -> None:
        """Close the lifeline, on which the keeper kills what runs and ends, and see that it does."""
        if self._lifeline is not None:
            _lifelines.discard(self._lifeline)
            self._lifeline.close()
            self._lifeline = None
        executor, self._executor = self._executor, None
        if executor is not None:
            self._threads += _threads_of(executor)
            executor.shutdown(wait=False, kill_workers=True)  # this may be one of its threads, which can't wait


def _thread_variables(threads: int | None) -> dict[str, str]:
    """Have the libraries that a keeper loads start no more threads than its jobs may have."""
    return {} if threads is None else dict.fromkeys(limits.THREAD_VARIABLES, str(threads))


def _threads_of(executor: Any) -> Iterator[threading.Thread]:  # noqa: ANN401 -- what is looked for is private to loky
    """Find an executor's threads, to wait for their end as well.

    Loky does not wait for the one that feeds the queue. It holds a semaphore, and where the interpreter exits before it
    has let go of that, loky's resource tracker warns of a leak.
    """
    for thread in (executor._executor_manager_thread, executor._call_queue._thread):  # noqa: SLF001 -- told above
        if thread is not None:
            yield thread


def _workers_of(executor: Any) -> list[BaseProcess]:  # noqa: ANN401 -- what is looked for is private to loky
    """Find an executor's worker, to reap it: of one that loky killed, a semaphore and a pipe stay until then."""
    return list(executor._processes.values())  # noqa: SLF001 -- told above


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
