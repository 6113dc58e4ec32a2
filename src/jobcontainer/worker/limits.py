"""The ceilings of a job: the threads of numerical libraries, and the memory of its process tree."""

from __future__ import annotations

import os
import time
from typing import Any

from jobcontainer.worker import process_tree, shared_memory

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What numerical libraries read, each when it is loaded, to know how many threads they may use."""

FIRST_LOOK_SECONDS = 0.02
"""When the keeper looks at a job for the first time, and how often at one that has a limit."""

_FIRST_SECONDS, _MOST_SECONDS = 0.05, 1.0  # at one that has none, more and more seldom
_LEAST_SECONDS = 0.002  # at one that will soon be over its limit
_GROWTH = 1_000_000  # bytes of shared memory of the whole machine
_SHARE = 20  # a look may take a twentieth of the time
_URGENT_SHARE = 4  # or a quarter, at one that will soon be over its limit

_loaded: list[tuple[Any, int]] = []


def find_thread_pools() -> None:
    """Look once, in the keeper, which of the loaded libraries have threads; its jobs inherit the list."""
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415 -- it takes longer than a short job

    _loaded[:] = [(library, library.num_threads) for library in ThreadpoolController().lib_controllers]


def announce_cap(threads: int) -> None:
    """Bound the threads of numerical libraries that will be loaded, here and in processes that are made from here."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))


def cap_threads(threads: int) -> None:
    """Bound the threads of numerical libraries, of those that are loaded and those that will be."""
    announce_cap(threads)
    for index, (library, number) in enumerate(_loaded):
        if number != threads:  # to set it starts the threads
            library.set_num_threads(threads)
            _loaded[index] = (library, threads)


class MemoryGauge:
    """Measures a job's process tree now and then, less what a forked process maps of its keeper untouched.

    A look adds up what the processes hold, which counts what a process shares with its forked children several times,
    but is cheap. Where that matters, an exact look decides. What lies in files of memory counts too; they are looked at
    where they could bring the job over its limit.

    Attributes:
        peak: the most that was seen, in bytes.
        next_look: when to look again, on the clock of :func:`time.monotonic`.
    """

    def __init__(self, pid: int, limit: int | None, base: int, files: shared_memory.SharedFiles | None = None) -> None:
        self.peak = 0
        self._pid, self._limit, self._base = pid, limit, base
        self._pause = _FIRST_SECONDS if limit is None else FIRST_LOOK_SECONDS
        self._files = None if limit is None else files or shared_memory.SharedFiles()
        self._machine = 0 if self._files is None else self._files.of_machine_before
        self._last = (time.monotonic(), 0)  # when it was looked at, and what was held
        self.next_look = self._last[0] + self._pause

    def look(self) -> bool:
        """Measure, and return whether the tree holds more than the limit."""
        begun, used = time.monotonic(), time.process_time()
        pids = [self._pid, *process_tree.descendants_of(self._pid)]
        held = max(process_tree.memory_of(pids) - self._base, 0)
        over = self._limit is not None and held > self._limit
        if over or (len(pids) > 1 and held > self.peak):
            held = process_tree.exact_memory_of(pids) or held
        held = self._with_files(pids, held)
        self.peak = max(self.peak, held)
        if self._limit is None:
            self._pause = min(self._pause * 1.5, _MOST_SECONDS)
        else:
            self._pause = self._pause_before(self._limit, held, begun)
        used = time.process_time() - used  # not what it waited for its turn on a busy machine
        is_urgent = self._limit is not None and self._pause < FIRST_LOOK_SECONDS
        self.next_look = time.monotonic() + max(self._pause, used * (_URGENT_SHARE if is_urgent else _SHARE))
        return self._limit is not None and held > self._limit

    def _with_files(self, pids: list[int], held: int) -> int:
        """Add what the job holds in files of memory, where that may make a difference.

        It is at most what the whole machine has of it, which is asked first, as it takes one short read. Where that has
        grown, files are looked at too, while they are open: once they are closed nobody can tell whose they are.
        """
        limit = self._limit
        if limit is None or self._files is None or held > limit:
            return held
        before, self._machine = self._machine, shared_memory.of_machine()
        if self._machine - before < _GROWTH and held + self._machine <= limit:
            return held
        sizes = self._files.sizes(pids)
        in_files = sum(sizes.values())
        if held + in_files <= limit:
            return max(held, in_files)
        exact = process_tree.exact_memory_of(pids) or held
        return max(held, exact + in_files - shared_memory.mapped_share(pids, sizes))

    def _pause_before(self, limit: int, held: int, now: float) -> float:
        """Return how long a limited job may go unseen: one that grows fast is measured again halfway to its limit."""
        (before, less), self._last = self._last, (now, held)
        if held <= less:
            return FIRST_LOOK_SECONDS
        halfway = (limit - held) / 2 * (now - before) / (held - less)
        return min(max(halfway, _LEAST_SECONDS), FIRST_LOOK_SECONDS)
