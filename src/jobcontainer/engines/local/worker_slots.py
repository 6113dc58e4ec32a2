"""WorkerSlots: the slots of an engine, the jobs that wait for one, and the jobs that run in them.

A slot is a place for a keeper: *empty*, until a job needs it and after its keeper died; *idle*; *busy* with one job.
``_lock`` guards the keepers, their jobs and the queue, and is never held while a future is completed.

Threads: ``submit``, ``cancel`` and ``close`` run in the caller's; the end of a job is handled in the thread of its
keeper, which hands out the next job before it completes the future of the last. One more ends the keepers of an engine
that nobody holds any more.

Who ends what: ``close`` cancels what runs, waits for it, and ends the keepers, all of them at once. An engine that is
garbage collected lets its jobs run to their end first. At the interpreter's exit every engine is closed before loky
joins its threads, which would wait for running jobs. When this process is killed, the keepers see the end of their
lifelines.

A process may have one spare keeper, started before any engine needs it; the first engine takes it.

Where no keeper can be made for the moment (no descriptors, no process ids), its job waits for a slot that lives, and
another keeper is tried when a job has ended or comes. Only a job that no slot is left for ends, and says why.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections import deque
from concurrent.futures import wait
from functools import cached_property
from typing import TYPE_CHECKING, Final

from jobcontainer.engines.local.keeper_process import KeeperProcess
from jobcontainer.engines.local.loky_executor import available_cpus
from jobcontainer.engines.local.wanted_modules import WantedModules
from jobcontainer.engines.local.watchdog import PATIENCE
from jobcontainer.events import JobState
from jobcontainer.worker.cpython_internals import in_background
from jobcontainer.worker.forked_child import BoundToProcess, renew_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    from jobcontainer.engines.attempt import Attempt
    from jobcontainer.events import Outcome

_PATIENCE: Final = PATIENCE  # seconds for a keeper's own end
FORKS: Final = sys.platform == "linux"
"""Whether keepers fork the jobs' processes where nobody says otherwise."""


class WorkerSlots(BoundToProcess):
    """What an engine consists of; alive while a job runs, also when the engine is not."""

    def __init__(self, size: int | None, preload: Sequence[str] | None = (), *, forks: bool) -> None:
        super().__init__()
        self._given_size, self._forks = size, forks
        self._modules = WantedModules(preload, learns=forks)
        self._keepers: dict[KeeperProcess, Attempt | None] = {}
        self._queue: deque[Attempt] = deque()
        self._sent_twice: set[Attempt] = set()
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._closed = self._abandoned = False

    @cached_property
    def size(self) -> int:
        """How many slots there are; the first look may import loky."""
        return self._given_size or available_cpus()

    @cached_property
    def threads(self) -> int:
        """A job's fair share of the CPUs."""
        return max(1, available_cpus() // self.size)

    def warm_up(self) -> None:
        """Start the first keeper, if there is none; return at once."""
        with self._lock:
            if not self._keepers and not self._closed:
                with contextlib.suppress(OSError, RuntimeError):  # the first job will fail for it, and say why
                    self._add_keeper()

    def submit(self, attempt: Attempt) -> Future[Outcome]:
        """Run a job as soon as a slot is free; a RuntimeError where the engine was closed, or made before a fork."""
        self.refuse_if_inherited()
        itself = attempt.order.imports_all_itself
        named = ([], []) if itself else self._modules.named_in(attempt.folder.process_file)
        with self._lock:
            if self._closed:
                raise RuntimeError("The engine was closed: make a new JobPool.")
            self._modules.add_named(*named)
            teaches = self._modules.learns and not itself
            attempt.order = attempt.order._replace(number=next(self._numbers), teaches=teaches)
            attempt.future.set_running_or_notify_cancel()
            self._queue.append(attempt)
        self._dispatch()
        return attempt.future

    def wait_until_started(self) -> None:
        """Return when every keeper's process was made, or could not be."""
        with self._lock:
            keepers = list(self._keepers)
        for keeper in keepers:
            keeper.has_started.wait()

    def cancel(self, job_id: str) -> None:
        """End a job, politely first."""
        if self.is_inherited:
            return
        with self._lock:
            queued = [attempt for attempt in self._queue if attempt.folder.id == job_id]
            for attempt in queued:
                self._queue.remove(attempt)
            self._cancel_running(lambda attempt: attempt.folder.id == job_id)
        _end_unstarted(queued)

    def close(self) -> None:
        """Cancel everything, and end the keepers."""
        if self.is_inherited:
            return
        with self._lock:
            self._closed = True
            keepers, queued = list(self._keepers), list(self._queue)
            self._queue.clear()
            running = self._cancel_running(lambda _: True)
        _end_unstarted(queued)
        grace = max((attempt.order.options["grace"] for attempt in running), default=0.0)
        wait(
            [attempt.future for attempt in running], timeout=grace + 2 * _PATIENCE
        )  # for keepers, and for those who watch them
        for keeper in keepers:
            keeper.end()
        for keeper in keepers:
            if not keeper.join(_PATIENCE):
                keeper.kill()
                keeper.join(2 * _PATIENCE)
        _open.discard(self)

    def abandon(self) -> None:
        """Close when the last job has ended; called by the garbage collector, wherever it strikes."""
        if not self.is_inherited:
            self._abandoned = True
            self._close_if_abandoned()

    def module_refused(self, name: str, reason: str) -> None:
        """Have no keeper import a module that one had to refuse."""
        with self._lock:
            self._modules.refuse(name, reason)

    def job_ended(self, keeper: KeeperProcess, number: int, outcome: Outcome, imported: Sequence[str] = ()) -> None:
        """Free the slot of a job that has ended, and have keepers import what it has imported."""
        with self._lock:
            if self._modules.add(imported):
                for one in self._keepers:
                    one.want(self._modules.message)
            attempt = self._keepers.get(keeper)
            if attempt is None or attempt.order.number != number:
                return
            self._keepers[keeper] = None
            self._sent_twice.discard(attempt)
        self._dispatch()
        attempt.future.set_result(outcome)
        self._close_if_abandoned()

    def keeper_ended(self, keeper: KeeperProcess, reason: str, state: JobState) -> None:
        """Empty the slot of a keeper that has ended, and end its job, or send it to another where it had not begun."""
        outcome = None
        with self._lock:
            attempt = self._keepers.pop(keeper, None)
            if attempt is not None:
                outcome = self._end_of_orphan(attempt, keeper, reason, state)
                if outcome is None:
                    self._queue.appendleft(attempt)
        self._dispatch(may_grow=keeper.was_made)
        if attempt is not None and outcome is not None:
            self._sent_twice.discard(attempt)
            attempt.future.set_result(outcome)
        self._close_if_abandoned()

    def _end_of_orphan(self, attempt: Attempt, keeper: KeeperProcess, reason: str, state: JobState) -> Outcome | None:
        """Return how the job of a keeper that has ended ended with it; None where it had not begun and can wait."""
        if not keeper.was_made:
            if attempt.cancelled:
                return attempt.end_unstarted()
            return None if self._keepers else attempt.end_lost(reason)
        if attempt.has_started():
            return attempt.end_lost(reason, JobState.CANCELLED if attempt.cancelled else state)
        if attempt.cancelled:
            return attempt.end_unstarted()
        if attempt in self._sent_twice:
            return attempt.end_lost(reason)
        self._sent_twice.add(attempt)  # the keeper had died before it came to this one, and nobody knew yet
        return None

    def _cancel_running(self, which: Callable[[Attempt], bool]) -> list[Attempt]:
        cancelled = []
        for keeper, attempt in self._keepers.items():
            if attempt is not None and which(attempt):
                attempt.cancelled = True
                keeper.cancel(attempt.order.number)
                cancelled.append(attempt)
        return cancelled

    def _dispatch(self, *, may_grow: bool = True) -> None:
        """Hand queued jobs to idle keepers, and start keepers for the others while slots are empty.

        Args:
            may_grow: whether more keepers are started though there are some.
        """
        failed: list[tuple[Attempt, Outcome]] = []
        with self._lock:
            while self._queue and not self._closed:
                keeper = next((keeper for keeper, attempt in self._keepers.items() if attempt is None), None)
                try:
                    if keeper is None and len(self._keepers) < (self.size if may_grow else 1):
                        keeper = self._add_keeper()
                except (OSError, RuntimeError) as error:  # no descriptors, no threads left
                    if self._keepers:  # one of their slots will be free
                        break
                    attempt = self._queue.popleft()
                    failed.append((attempt, attempt.end_lost(f"No keeper could be started: {error}.")))
                    continue
                if keeper is None:
                    break
                self._keepers[keeper] = attempt = self._queue.popleft()
                try:
                    keeper.want(self._modules.message)
                    keeper.run(attempt.order)
                except (MemoryError, RuntimeError, TypeError, ValueError) as error:  # it can't be pickled
                    del self._keepers[keeper]
                    keeper.kill()
                    failed.append((attempt, attempt.end_lost(f"It could not be sent to a keeper: {error!r}.")))
        for attempt, outcome in failed:
            attempt.future.set_result(outcome)

    def _add_keeper(self) -> KeeperProcess:
        keeper = _take_spare() if self._forks is FORKS else None
        if keeper is None or not keeper.report_to(self):
            keeper = KeeperProcess(forks=self._forks, threads=lambda: self.threads)
            keeper.report_to(self)
            keeper.want(self._modules.message)
            keeper.start(_close_all)
        _open.add(self)
        self._keepers[keeper] = None
        return keeper

    def _close_if_abandoned(self) -> None:
        """Close in a thread of its own: neither the collector nor the thread of a keeper can wait for it."""
        if self._abandoned and not self._queue and not any(self._keepers.values()) and not self._closed:
            self._closed = True
            in_background(self.close)  # where no thread can be had, the interpreter exits, and closes every engine


def _end_unstarted(attempts: Iterable[Attempt]) -> None:
    for attempt in attempts:
        attempt.future.set_result(attempt.end_unstarted())


_open: set[WorkerSlots] = set()
_spare: KeeperProcess | None = None
_spare_lock = threading.Lock()


def start_spare_keeper() -> None:
    """Start a keeper for the engine that will need one next, and return at once; nothing happens where there is one."""
    global _spare  # noqa: PLW0603 -- one for the process
    with _spare_lock, contextlib.suppress(OSError, RuntimeError):  # the first job will fail for it, and say why
        if _spare is None and not _open:
            _spare = KeeperProcess(forks=FORKS, threads=lambda: 1)
            _spare.start(_close_all)


def _take_spare() -> KeeperProcess | None:
    global _spare
    with _spare_lock:
        spare, _spare = _spare, None
    return spare


def _close_all() -> None:
    spare = _take_spare()
    if spare is not None:
        spare.kill()
        spare.join()
    for slots in list(_open):
        slots.close()


def _forget() -> None:
    """Have nothing of the parent's: its engines close there, and its spare keeper serves it."""
    global _spare, _spare_lock  # another thread may have held the lock at the fork
    _open.clear()
    _spare, _spare_lock = None, threading.Lock()


renew_in_forked_child(_forget)
