"""An engine without processes, whose jobs all return 1: for tests of what is around an engine."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue

from jobcontainer.events import JobState, Outcome, Started
from jobcontainer.process import ChunkOptions
from jobcontainer.storage.call_results import CallWriter
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.result import write_returned
from jobcontainer.worker.call_chunk import Timing


class EchoEngine:
    """One slot, whose job ends in a thread of its own as soon as it has begun, unless the test clears ``hold``."""

    slots, threads = 1, 1

    def __init__(self):
        self.hold = threading.Event()
        self.hold.set()
        self.jobs = SimpleQueue()
        self.most = self.running = 0
        self.closed = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, folder, options, environment, *, attempt=1, identity=None):  # noqa: ARG002 -- the protocol's
        self.running += 1
        self.most = max(self.most, self.running)
        future = Future()
        with contextlib.suppress(OSError):  # a disk that a test has filled
            folder.append_event(Started(at=time.time(), pid=os.getpid(), attempt=attempt))
        calls = options.calls if isinstance(options, ChunkOptions) else None
        self.jobs.put((folder, attempt, calls, future))
        return future

    def cancel(self, job_id):
        pass

    def close(self):
        self.jobs.put(None)
        self.closed.set()

    def _work(self):
        while (job := self.jobs.get()) is not None:
            self.hold.wait()
            folder, attempt, calls, future = job
            with contextlib.suppress(FileNotFoundError):  # a folder that a test has deleted
                write_returned(folder.result_file, 1 if calls is None else made_of(calls, folder))
            outcome = write_end(folder, Outcome(state=JobState.SUCCEEDED, at=time.time(), attempt=attempt))
            self.running -= 1
            future.set_result(outcome)


def made_of(calls, folder):
    """Write the results of so many calls."""
    results = CallWriter(folder)
    for _ in range(calls):
        results.returned(1)
    results.close()
    return Timing(calls, 0.0, 0.1)


class Works:
    def run(self):
        return 1
