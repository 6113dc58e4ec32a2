"""A soak: 5,000 jobs on two workers, of which 5 % crash and 5 % are cancelled, and the disk fills up again and again.

The store is on a small disk of its own (a tmpfs) where this user may mount one; else no file of this process and its
keepers may grow while the disk is "full". While it is full, a submission is refused and tried again, and a job may fail
because its result can't be written; at all other times each job ends as it must. The script prints how the jobs ended,
what is held after each fifth of them, and what is wrong, and ends with 1 if anything is. Old jobs are pruned meanwhile.

Run it alone::

    python tests/benchmarks/soak.py
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

WORKERS, JOBS, BATCH = 2, 5_000, 50
OF_TWENTY = {7: "crashes", 13: "is cancelled"}
"""What becomes of every twentieth job of a kind."""
DISK = 64 * 2**20
FULL_EVERY, FULL_SECONDS = 5, 0.4
"""Batches from one in which the disk is full to the next, and for how long it is then."""
KEPT = 300
"""Jobs that prune leaves."""
PATIENCE = 120.0
MARK = "JOBCONTAINER_SOAK"


class Works:
    """A job that returns its number, crashes, or waits for its cancel."""

    def __init__(self, number):
        self.number = number

    def run(self):
        print("job", self.number)
        match OF_TWENTY.get(self.number % 20):
            case "crashes":
                crash = (lambda: ctypes.string_at(0), lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL))
                crash[self.number // 20 % 3]()
            case "is cancelled":
                time.sleep(600)
        return self.number


class Disk:
    """A place for the store that can be filled up, and emptied again."""

    def __init__(self, folder):
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", folder]
        try:
            self.is_mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
        except OSError:  # there is no such command
            self.is_mounted = False
        self.kind = "a tmpfs" if self.is_mounted else "limited file sizes"

    def fill(self):
        if not self.is_mounted:
            self._limit(0)
            return
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(2**16)):
                pass

    def free(self):
        if self.is_mounted:
            (self.folder / "filler").unlink(missing_ok=True)
        else:
            self._limit(resource.RLIM_INFINITY)

    def close(self):
        if self.is_mounted:
            subprocess.run(["umount", self.folder], check=True)

    @staticmethod
    def _limit(size):
        import psutil

        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Soak:
    """Submits batches until there were enough jobs, and notes how each ended."""

    def __init__(self, store, disk, number):
        from jobcontainer import JobPool

        self.disk, self.left, self.store = disk, number, store
        self.pool = JobPool(WORKERS, store=store)
        self.ends, self.refused, self.wrong, self.held = Counter(), 0, [], []
        self.next = 0

    def run(self):
        batches = self.left // BATCH
        for batch in range(batches):
            self.batch(is_full=batch % FULL_EVERY == FULL_EVERY - 1)
            if batch % (batches // 5 or 1) == 0:
                self.held.append(held())
        self.held.append(held())
        self.pool.shutdown()

    def batch(self, *, is_full):
        jobs = [(self.next + one, self.submit(self.next + one)) for one in range(BATCH // 2)]
        if is_full:
            self.disk.fill()
            time.sleep(FULL_SECONDS)
        jobs += [(self.next + one, self.submit(self.next + one)) for one in range(len(jobs), BATCH)]
        self.disk.free()
        self.next += BATCH
        cancelled = [job for number, job in jobs if OF_TWENTY.get(number % 20) == "is cancelled"]
        for job in cancelled:
            job.cancel()
        until = time.monotonic() + PATIENCE
        for number, job in jobs:
            self.note(number, job, max(0.1, until - time.monotonic()), may_fail=is_full)
        with contextlib.suppress(OSError):
            self.prune()

    def submit(self, number):
        """Submit one; where the disk is full, again when it is not."""
        for _ in range(2):
            with contextlib.suppress(OSError):
                return self.pool.submit(Works(number))
            self.refused += 1
            time.sleep(FULL_SECONDS)  # in which others write their ends, too
            self.disk.free()
        return self.pool.submit(Works(number))

    def note(self, number, job, timeout, *, may_fail):
        from concurrent.futures import CancelledError

        from jobcontainer import JobContainerError

        wanted = {"crashes": "crashed", "is cancelled": "cancelled"}.get(OF_TWENTY.get(number % 20), "succeeded")
        with contextlib.suppress(JobContainerError, CancelledError, OSError):  # its state says which
            if (value := job.result(timeout)) != number:
                self.wrong.append(f"job {number} returned {value}")
        state = job.state.value
        self.ends[state] += 1
        if not job.done():
            self.wrong.append(f"job {number} is pending: {job!r}")
        elif state != wanted and not may_fail:
            self.wrong.append(f"job {number} is {state} and not {wanted}: {job.outcome}")

    def prune(self):
        from jobcontainer import JobStore

        JobStore(self.store).prune(keep=KEPT)


def held():
    """What this process and its keepers hold."""
    import psutil

    gc.collect()
    me = psutil.Process()
    keepers = [one for above in me.children() if above.name() == "jobcontainer" for one in (above, *above.children())]
    return {
        "MB here": round(me.memory_full_info().uss / 1e6, 1),
        "descriptors here": me.num_fds(),
        "threads here": me.num_threads(),
        "MB in keepers": round(sum(one.memory_full_info().uss for one in keepers) / 1e6, 1),
        "descriptors in keepers": sum(one.num_fds() for one in keepers),
    }


def strays():
    """Processes that bear our mark, wherever they are, and what they are; trackers end with this process."""
    import psutil

    found = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        marked = (process.info["environ"] or {}).get(MARK) == os.environ[MARK]
        if marked and process.pid != os.getpid() and "resource_tracker" not in " ".join(process.info["cmdline"] or []):
            found.append(f"{process.pid} {process.info['cmdline']}")
    return found


def main():
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--jobs", type=int, default=JOBS)
    options = given.parse_args()
    os.environ[MARK] = secrets.token_hex(8)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder))
        soak = Soak(Path(folder, "store"), disk, options.jobs)
        begun = time.perf_counter()
        try:
            soak.run()
        finally:
            seconds = time.perf_counter() - begun
            disk.close()
    wrong = soak.wrong + [f"it is left over: {stray}" for stray in strays()]
    print(f"{options.jobs} jobs in {seconds:.0f} s on {disk.kind}; {soak.refused} submissions refused by a full disk")
    print("ended:", ", ".join(f"{number} {state}" for state, number in soak.ends.most_common()))
    for name in soak.held[0]:
        print(f"{name}:", ", ".join(str(one[name]) for one in soak.held))
    print("wrong:", "\n".join(wrong) or "nothing")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
