"""A script that interrupts itself in the public calls of a pool: ``stopped_calls.py SEED SECONDS STORE``.

It runs in a process of its own, and writes a line of JSON for each find, and one with counts at its end. A stop is a
SIGINT, which comes in one of two ways: at a random time, by a timer; or at a random one of the places in the code of
the package where Python looks for signals, which a seed gives again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path
from random import Random

import jobcontainer
from jobcontainer import JobPool, JobStore
from waiting import wait_for

PACKAGE = str(Path(jobcontainer.__file__).parent)
PATIENCE = 20.0
"""Seconds in which a pool must have run a job after a stop."""


class Quick:
    def __init__(self, number):
        self.number = number

    def run(self):
        return self.number


class Long:
    def run(self):
        time.sleep(600)


class Places:
    """Counts the places where Python would look for a signal in the package's code, and stops at one of them."""

    def __init__(self, stop_at=0):
        self.count, self.stop_at, self.where = 0, stop_at, ""

    def __enter__(self):
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_error):
        sys.setprofile(None)

    def _note(self, frame, event, argument):
        if event not in {"call", "c_return"} or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        self.count += 1
        if self.count == self.stop_at:
            name = Path(frame.f_code.co_filename).relative_to(PACKAGE)
            self.where = f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
            if event == "c_return":
                self.where += f" after {argument.__name__}"
            signal.raise_signal(signal.SIGINT)


class Timer:
    """Stops after a time."""

    def __init__(self, seconds):
        self.where = f"after {seconds * 1000:.2f} ms"
        self._seconds = seconds

    def __enter__(self):
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        return self

    def __exit__(self, *_error):
        signal.setitimer(signal.ITIMER_REAL, 0)


class Calls:
    """The public calls, each on a pool that has run before; what one needs is made before the stop may come."""

    def __init__(self, store, random):
        self.store, self.random = store, random
        self.pool = JobPool(2, store=store)
        self.hosts = set()  # processes that run detached jobs

    def names(self):
        return [name.removeprefix("call_") for name in dir(self) if name.startswith("call_")]

    def call_submit(self):
        return lambda: self.pool.submit(Quick(1))

    def call_submit_with_options(self):
        return lambda: self.pool.with_options(name="other", retries=1).submit(pow, 2, 3)

    def call_submit_detached(self):
        pool = self.pool.with_options(detach=True)
        self.hosts.add(pool.submit(Quick(0)).record.owner["pid"])  # so that there is a host, which takes long to start
        return lambda: pool.submit(Quick(1)).result()

    def call_submit_all(self):
        return lambda: self.pool.submit_all([Quick(number) for number in range(5)])

    def call_map(self):
        return lambda: list(self.pool.map(pow, range(3), range(3)))

    def call_result(self):
        job = self.pool.submit(Quick(2))
        return job.result

    def call_wait(self):
        group = self.pool.submit_all([Quick(number) for number in range(3)])
        return group.wait

    def call_as_completed(self):
        group = self.pool.submit_all([Quick(number) for number in range(3)])
        return lambda: list(group.as_completed())

    def call_cancel_running(self):
        job = self.pool.submit(Long())
        wait_for(job.running)
        return job.cancel, job.cancel

    def call_cancel_queued(self):
        group = self.pool.submit_all([Long() for _ in range(4)])
        return group.cancel, group.cancel

    def call_rerun(self):
        job = self.pool.submit(Quick(3))
        job.result()
        return lambda: self.pool.rerun(job)

    def call_rerun_of_a_job(self):
        job = self.pool.submit(Quick(3))
        job.result()
        return job.rerun

    def call_jobs(self):
        return lambda: JobStore(self.store).jobs().summary()

    def call_open(self):
        job = self.pool.submit(Quick(3))
        job.result()
        return lambda: JobStore(self.store).open(job.id).result()

    def call_prune(self):
        self.pool.submit(Quick(3)).result()
        return lambda: JobStore(self.store).prune(keep=1)

    def call_shutdown(self):
        pool = JobPool(1, store=self.store)
        pool.submit(Quick(4))
        return pool.shutdown, pool.shutdown

    def call_shutdown_with_cancel(self):
        pool = JobPool(1, store=self.store)
        group = pool.submit_all([Long(), Long()])
        return lambda: pool.shutdown(cancel_futures=True, wait=False), group.cancel, pool.shutdown

    def call_with(self):
        def block():
            with JobPool(1, store=self.store) as pool:
                pool.submit(Quick(5))

        return block


RARE = {"shutdown", "shutdown_with_cancel", "with"}
"""They start a worker each time, which takes as long as many of the others."""


class Stops:
    """Stops calls until the time is over, and looks after each whether all is well."""

    def __init__(self, seed, seconds, store):
        self.random = Random(seed)  # noqa: S311 -- it is to be replayed
        self.store = Path(store)
        self.calls = Calls(self.store, self.random)
        self.until = time.monotonic() + seconds
        self.counts = Counter()
        self.usual = {}  # places and seconds of a call that nobody stopped
        self.last = "before any stop"

    def run(self):
        names = self.calls.names()
        for name in names * 2:  # the first time something may start that goes on
            self._measure(name)
        self._prepared("cancel_queued")[0]()
        self._settle()
        self.before = self._held()
        frequent = [name for name in names if name not in RARE]
        while time.monotonic() < self.until:
            self._stop(self.random.choice(names if self.random.random() < 0.05 else frequent))
        self.calls.pool.shutdown()
        for host in self.calls.hosts:
            with contextlib.suppress(ProcessLookupError):
                os.kill(host, signal.SIGTERM)
        print(json.dumps({"counts": self.counts}), flush=True)

    def _measure(self, name):
        call, *after = self._prepared(name)
        begun = time.monotonic()
        with Places() as places:
            call()
        self.usual[name] = places.count, time.monotonic() - begun
        for one in after:
            one()

    def _prepared(self, name):
        calls = getattr(self.calls, f"call_{name}")()
        return calls if isinstance(calls, tuple) else (calls,)

    def _stop(self, name):
        faulthandler.dump_traceback_later(3 * PATIENCE, exit=True)
        call, *after = self._prepared(name)
        places, seconds = self.usual[name]
        if self.random.random() < 0.6:
            stop = Places(self.random.randint(1, max(1, places)))
        else:
            stop = Timer(self.random.uniform(0.0001, 1.1 * seconds))
        self.counts["stops"] += 1
        try:
            with stop:
                call()
            self.counts["calls that a stop did not reach"] += 1
        except KeyboardInterrupt:
            pass
        except Exception:
            self._find(f"raised\n{traceback.format_exc()}")
        self.last = f"{name}, stopped at {stop.where}"
        for one in after:
            one()
        self._check()
        self._settle()
        self._compare_held()

    def _check(self):
        """The pool runs a job, and every job comes to an end."""
        try:
            if self.calls.pool.submit(pow, 2, 3).result(PATIENCE) != 8:
                self._find("a job after it had a wrong result")
        except TimeoutError:
            self._find("the pool runs no job any more")
            self._replace_pool()
        except (Exception, CancelledError):
            self._find(f"the pool takes no job any more\n{traceback.format_exc()}")
            self._replace_pool()

    def _settle(self):
        """Wait until every job has ended, the long ones by a cancel, and delete them; nothing may be left.

        A call that was stopped may go on in another thread: what it makes may come a little later.
        """
        until = time.monotonic() + PATIENCE
        while left := self._left():
            if time.monotonic() > until:
                self._find(f"jobs never end, or are pending though nobody has them: {left}")
                self._replace_pool()
                break
            time.sleep(0.02)
        for path in self.store.iterdir():
            if path.is_dir():
                self.counts["folders of submissions that were cut off"] += not left
                shutil.rmtree(path)

    def _left(self):
        """End and delete what can be; return the jobs that are still there."""
        store = JobStore(self.store)
        jobs = store.jobs()
        for job in jobs:
            if job.name == "Long":
                job.cancel()
        jobs.wait(0.5)
        store.prune(keep=0)
        return [repr(job) for job in store.jobs()]

    def _compare_held(self):
        """Threads and descriptors are as many as before, once what is on its way out is gone."""
        until = time.monotonic() + PATIENCE
        while more := self._more_held():
            if time.monotonic() > until:
                self._find(f"more is held than before: {more}\n{stacks()}")
                self.before = self._held()
                break
            time.sleep(0.02)

    def _more_held(self):
        now = self._held()
        return {
            what: list((Counter(now[what]) - Counter(before)).elements())
            for what, before in self.before.items()
            if len(now[what]) > len(before)
        }

    def _held(self):
        """Return the names of threads, and the descriptors with what they lead to."""
        descriptors = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                descriptors.append((name, os.readlink(f"/proc/self/fd/{name}")))
        return {"threads": [thread.name for thread in threading.enumerate()], "descriptors": descriptors}

    def _replace_pool(self):
        self.calls.pool.shutdown(wait=False, cancel_futures=True)
        self.calls.pool = JobPool(2, store=self.store)
        self.calls.pool.submit(Quick(0)).result(PATIENCE)
        self.before = self._held()

    def _find(self, what):
        print(json.dumps({"find": what, "call": self.last, "stop": self.counts["stops"]}), flush=True)


def stacks():
    """Return what each thread does."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "".join(
        f"{names.get(number)}:\n{''.join(traceback.format_stack(frame)[-4:])}"
        for number, frame in sys._current_frames().items()
    )


if __name__ == "__main__":
    Stops(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]).run()
