"""The life of some jobs in a store, as a script that a test runs and records: ``life.py ENGINE STORE MARKS``.

After each step it adds a line to the file of marks: what a user was told by then. The marks stand in the record between
the operations on the store, and so say what was promised when.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from jobcontainer import JobPool, JobStore, checkpoint, progress, report
from waiting import wait_for

DATA = bytes(range(256)) * 1200
"""More than is written into a job file itself."""


class Works:
    """Leaves something of every kind: a log, progress, a display, a result with a large buffer."""

    def __init__(self, number):
        self.number = number

    def run(self):
        print("works", self.number)
        for _ in progress(range(3)):
            pass
        report(1, 2, message="half way")
        display({"text/plain": "seen"}, raw=True)  # noqa: F821 -- a job has it, as a notebook has
        print("done", self.number)
        return {"number": self.number, "bytes": bytearray(5000)}


class Shares:
    """Has large data, which the store holds once however many jobs and results have it."""

    def __init__(self, number):
        self.number, self.data = number, DATA

    def run(self):
        print("shares", self.number)
        return {"number": self.number, "data": self.data}


class Fails:
    def run(self):
        print("fails")
        raise ValueError("on purpose")


class Crashes:
    def run(self):
        print("crashes", flush=True)
        os._exit(3)


class Saves:
    """Saves three checkpoints, with large data of each alone, and goes on from the last."""

    def __init__(self, crashes):
        self.crashes = crashes

    def run(self):
        begun = checkpoint.load(default={"number": 0})["number"]
        print("saves", begun, flush=True)
        for number in range(begun + 1, 4):
            checkpoint.save({"number": number, "data": DATA + bytes([number])})
            if number == 2 and self.crashes:
                os._exit(3)
        return begun


class Waits:
    def run(self):
        import time

        print("waits", flush=True)
        time.sleep(600)


def main(engine, store, marks):
    marks = os.open(marks, os.O_WRONLY | os.O_APPEND)

    def mark(what, *jobs):
        for job in jobs:
            os.write(marks, json.dumps([what, job if isinstance(job, str) else job.id]).encode() + b"\n")

    def to_the_end(job):
        mark("submitted", job)
        job.result(60)
        mark("succeeded", job)
        return job

    options = {"detach": True} if engine == "detached" else {"engine": engine}
    pool = JobPool(1, store=store, **options)
    good = pool.submit(Works(1))
    mark("submitted", good)
    runs_it = good.record.owner["pid"]
    good.result(60)
    mark("succeeded", good)
    group = pool.submit_all([Fails(), Works(2)])
    mark("submitted", *group)
    group.wait(60)
    mark("failed", group[0])
    mark("succeeded", group[1])
    if engine != "inline":
        running, queued = pool.submit_all([Waits(), Waits()])
        mark("submitted", running, queued)
        wait_for(lambda: running.log)
        queued.cancel()
        wait_for(queued.done)
        mark("cancelled", queued)
        running.cancel()
        wait_for(running.done)
        mark("cancelled", running)
        tried = pool.with_options(retries=1).submit(Crashes())
        mark("submitted", tried)
        wait_for(tried.done)
        mark("crashed", tried)
    saving = to_the_end(pool.with_options(retries=1).submit(Saves(engine != "inline")))
    resumed = to_the_end(pool.rerun(saving, resume=True))
    again = to_the_end(pool.rerun(good))
    sharing = pool.submit_all([Shares(1), Shares(2), Shares(3)])
    mark("submitted", *sharing)
    for job in sharing:
        job.result(60)
        mark("succeeded", job)
    JobStore(store).jobs()
    mark("pruning", *group, good, saving, resumed, again, *sharing[:2])
    gone = JobStore(store).prune(states={"failed"}) + JobStore(store).prune(keep=1, states={"succeeded"})
    mark("pruned", *gone)
    pool.shutdown()
    if runs_it != os.getpid():
        os.kill(runs_it, signal.SIGTERM)


if __name__ == "__main__":
    main(*sys.argv[1:])
