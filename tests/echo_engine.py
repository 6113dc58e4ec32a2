"""An engine without processes, whose jobs all return 1: for tests of what is around an engine."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue

from jobcontainer.events import JobState, Outcome, Started
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.result import write_returned


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
        self.jobs.put((folder, attempt, future))
        return future

    def cancel(self, job_id):
        pass

    def close(self):
        self.jobs.put(None)
        self.closed.set()

    def _work(self):
        while (job := self.jobs.get()) is not None:
            self.hold.wait()
            folder, attempt, future = job
            with contextlib.suppress(FileNotFoundError):  # a folder that a test has deleted
                write_returned(folder.result_file, 1)
            outcome = write_end(folder, Outcome(state=JobState.SUCCEEDED, at=time.time(), attempt=attempt))
            self.running -= 1
            future.set_result(outcome)


class Works:
    def run(self):
        return 1
