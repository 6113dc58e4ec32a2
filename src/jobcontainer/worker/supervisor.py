"""Supervisor: sees one job from its order to its last stray.

States of a job here: *running*; *stopping*, after a cancel or its timeout, until its grace is over; *ending*, after it
reported its end, until its exit handlers are done or its grace is over; *ended*, when its process is reaped and nothing
that it started is left. One thread, the keeper's; it waits for whatever comes first: the end of the process, a message
over the channel or the lifeline, the next deadline.

Who kills whom: SIGINT to the job's process group asks politely; SIGKILL to the job's process follows, at once where it
is out of memory. The kernel then hands whatever the job had started to the keeper, which kills that too.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from jobcontainer.events import JobState, Outcome, Usage
from jobcontainer.process import memory_text
from jobcontainer.storage.call_results import present_call_began
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.regular_file import open_regular
from jobcontainer.storage.result import decided_state
from jobcontainer.worker import process_tree, shared_memory
from jobcontainer.worker.limits import MemoryGauge
from jobcontainer.worker.outcome import DECIDED, ExitFacts, classify

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.worker.channel import Channel
    from jobcontainer.worker.job_process import JobProcess
    from jobcontainer.worker.keeper_protocol import Order

_TRACE_SECONDS = 0.06  # for the traceback before a kill
_QUIET_SECONDS = 0.02  # without another line of it, where the process goes on computing
_START_SECONDS = 30.0  # for a new interpreter, on top of the job's timeout, which is not for that
_NEVER = float("inf")
_LONGEST_WAIT = 3_600_000.0  # milliseconds; poll() takes no more than 24 days


class Supervisor:
    """Supervises one attempt of one job.

    Args:
        process: the job's process; it has its order.
        watched: what the keeper watches, its lifeline.
        is_cancelled: reads what came over the lifeline, and returns whether the job of that number is cancelled.
        base: bytes of memory that the process shares with its keeper.
        files: of memory, as they were before it had its order; None where the job has no limit.
    """

    def __init__(
        self,
        process: JobProcess,
        order: Order,
        watched: select.poll,
        is_cancelled: Callable[[int], bool],
        base: int,
        files: shared_memory.SharedFiles | None,
    ) -> None:
        self._process, self._order = process, order
        self._watched, self._is_cancelled = watched, is_cancelled
        self._folder = JobFolder(order.folder)
        self._base = base
        self._start_clock()
        self._kill_at = _NEVER
        self._gauge = MemoryGauge(process.pid, order.options["memory"], base, files)
        self._channel: Channel | None = process.channel
        self._facts = ExitFacts(log=str(self._folder.log_file))
        self._oom_kills: int | None = None
        self._cpu_before = _cpu_of_children()

    @property
    def imported(self) -> tuple[str, ...]:
        """The modules that the job says it has imported."""
        return tuple(self._facts.reported.get("imported", ()))

    def see_through(self, spared: set[int]) -> tuple[Outcome, bool]:
        """Supervise until nothing is left to supervise, but for the children of the keeper that are not this job's.

        Returns:
            The outcome, which is written down, and whether the process is there for another job.
        """
        kept = self._watch()
        if not kept:
            self._receive()
            self._facts.exit_code = self._process.reap()
            self._facts.parent_exit_code = self._process.server.exit_code if self._process.server is not None else None
            ended = process_tree.end_children(spared)
            if ended or self._facts.exit_code:
                shared_memory.remove_left_by({self._process.pid, *ended})
        else:
            process_tree.end_descendants(self._process.pid)
        return write_end(self._folder, self._outcome()), kept

    def _watch(self) -> bool:
        """Wait for what comes, until the process has ended or may be kept; return whether it may."""
        exited, channel = self._process.exited, self._process.channel.fileno()
        self._watched.register(exited, select.POLLIN)
        self._watched.register(channel, select.POLLIN)
        kept = ended = False
        while not (kept or ended):
            ready = {descriptor for descriptor, _ in self._watched.poll(self._milliseconds_left())}
            ended = exited in ready
            if channel in ready:
                self._receive()
                kept = not ended and self._is_kept()
                if self._channel is None:  # nothing more will come
                    self._watched.unregister(channel)
            if ready - {exited, channel} and self._is_cancelled(self._order.number):
                self._stop(JobState.CANCELLED)
            if not ended:
                self._keep_time()
        self._watched.unregister(exited)
        if self._channel is not None:
            self._watched.unregister(channel)
        return kept

    def _start_clock(self) -> None:
        self._begun = time.monotonic()
        timeout = self._order.options["timeout"]
        self._timeout_at = _NEVER if timeout is None else self._begun + timeout
        if self._process.starting:
            self._timeout_at += _START_SECONDS

    def _milliseconds_left(self) -> float | None:
        """Return how long to wait for anything else; None for ever."""
        due = self._kill_at
        if not self._facts.reported:
            due = min(due, self._gauge.next_look, _NEVER if self._facts.stopped else self._timeout_at)
        return None if due == _NEVER else min(max(0.0, due - time.monotonic()) * 1000, _LONGEST_WAIT)

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now >= self._kill_at:
            self._kill()
        if self._facts.reported:
            return
        if now >= self._timeout_at and self._facts.stopped is None and not self._next_call_began():
            self._facts.limit = f"timeout={self._order.options['timeout']:g} s"
            self._stop(JobState.TIMED_OUT)
        if now >= self._gauge.next_look:
            if self._folder.is_asked_to_cancel():  # another process, which has no lifeline to us, asked for its end
                self._stop(JobState.CANCELLED)
            if self._oom_kills is None:  # a job that is over sooner is no match for the OOM killer
                self._oom_kills = process_tree.oom_kills()
            if self._gauge.look():
                limit, held = self._order.options["memory"], self._gauge.peak
                self._facts.limit = f"memory={memory_text(limit)}, and it held {memory_text(held)}"
                self._facts.stopped = JobState.OUT_OF_MEMORY
                self._kill()

    def _next_call_began(self) -> bool:
        """Whether the timeout is for each of several calls, and one began so late that it may go on."""
        calls, timeout = self._order.options.get("calls", 0), self._order.options["timeout"]
        began = present_call_began(self._folder) if calls else None
        if began is None:
            return False
        now, seconds = time.monotonic(), float(timeout)
        most = self._begun + (calls + 1) * seconds  # whatever the job says
        self._timeout_at = min(min(began, now) + seconds, most)
        return bool(self._timeout_at > now)

    def _stop(self, why: JobState) -> None:
        """Ask it to stop; once, and not after it reported its end."""
        if self._facts.stopped is None and not self._facts.reported:
            self._facts.stopped = why
            self._kill_at = time.monotonic() + self._order.options["grace"]
            self._process.interrupt()

    def _kill(self) -> None:
        """Kill it; where it has not reported its end, with a traceback in its log."""
        self._kill_at = _NEVER
        if not self._facts.reported:
            self._trace()
        self._process.kill()

    def _trace(self) -> None:
        """Have it write where it is, and wait until that is written."""
        words = (self._facts.stopped or JobState.CANCELLED).words
        with (
            contextlib.suppress(OSError),  # user code deleted it, or put something else in its place
            open_regular(self._folder.log_file, os.O_WRONLY | os.O_APPEND) as log,
        ):
            if not self._process.traces_into(log.fileno()):
                return
            log.write(f"--- {words}; where it was when it was killed: ---\n".encode())
            before = last = os.fstat(log.fileno()).st_size
            self._process.trace()
            changed = begun = time.monotonic()
            while (now := time.monotonic()) < begun + _TRACE_SECONDS and not wait([self._process.exited], 0.002):
                size = os.fstat(log.fileno()).st_size
                if size != last:
                    last, changed = size, now
                elif before < size and (now > changed + _QUIET_SECONDS or process_tree.is_waiting(self._process.pid)):
                    return  # a busy machine may let it wait for its turn in the middle of a line

    def _receive(self) -> None:
        """Receive what the process reports of its end."""
        if self._channel is None:
            return
        try:
            report = self._channel.receive_report()
        except EOFError:  # user code closed it, or sent nonsense
            self._channel = None
            return
        if report:
            self._facts.reported = report
            self._kill_at = time.monotonic() + self._order.options["grace"]
            self._channel = None
        elif report is not None and self._process.starting:  # it is ready: what it ran so far was not the job
            self._process.starting = False
            self._start_clock()

    def _cpu_used(self) -> float:
        """Return the CPU seconds of the process and what it started, by those who have reaped them."""
        return self._process.cpu + _cpu_of_children() - self._cpu_before

    def _is_kept(self) -> bool:
        """Whether the process may run another job; if it was to, and may not, it is killed."""
        if not (self._order.reuses and self._facts.reported):
            return False
        clean = self._facts.reported["state"] in DECIDED and not self._facts.stopped
        if not clean:
            self._process.kill()
        return clean

    def _outcome(self) -> Outcome:
        facts = self._facts
        peak = max(self._gauge.peak, facts.reported.get("peak_memory", 0) - self._base)
        cpu = facts.reported.get("cpu", 0.0) if self._order.reuses else self._cpu_used()
        if facts.exit_code == -signal.SIGKILL and facts.stopped is None and self._oom_kills is not None:
            facts.oom_killed = process_tree.oom_kills() > self._oom_kills
        if not facts.reported:
            facts.result = decided_state(self._folder.result_file)
        wall = time.monotonic() - self._begun
        outcome = classify(facts, Usage(wall=wall, cpu=cpu, peak_memory=peak), self._order.attempt)
        if outcome.state not in DECIDED:
            self._folder.remove_result()
        return outcome


def _cpu_of_children() -> float:
    """Return the CPU seconds of every child that this process has reaped, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
