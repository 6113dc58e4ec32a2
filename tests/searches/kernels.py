"""Processes that a test drives as a person drives kernels and shells: forked from this one, which has all imported.

The test sends a line for each process that it wants, with one end of a socket; over that socket the process takes
orders, a line of JSON each, and answers each with a line. A kernel goes on until it is killed or told to end; a shell
runs one command.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import signal
import socket
import sys
import time
from concurrent.futures import CancelledError

import joblib.externals.loky  # noqa: F401 -- what takes long to import is had before the fork
import psutil  # noqa: F401
import rich.console  # noqa: F401

import jobcontainer.views.console  # noqa: F401
from jobcontainer import JobPool, JobStore, cli
from jobcontainer.jobs.detached import client  # noqa: F401

WITNESS = "JOBCONTAINER_TEST_WITNESS"


class Told:
    """A job that says what it does over a socket of the test's, which no full disk and no kill of a store reaches."""

    def __init__(self, number, kind, control, witness, needed=None):
        self.number, self.kind, self.control, self.witness, self.needed = number, kind, control, witness, needed

    def run(self):
        import os

        self.say("began")
        if self.kind == "waits":
            while not os.path.exists(f"{self.control}/go-{self.number}"):
                time.sleep(0.01)
        if self.kind == "raises":
            raise ValueError(f"number {self.number}")
        if self.kind == "exits":
            os._exit(5)
        if self.kind == "retried":
            try:
                os.close(os.open(f"{self.control}/tried-{self.number}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os._exit(6)
        print("number", self.number)
        self.say("returns")
        return self.number * 10

    def say(self, what):
        import json
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sent:
            sent.sendto(json.dumps([self.number, what]).encode(), "\0" + self.witness)


class Kernel:
    """Obeys orders; an interrupt ends the one that it is busy with, and none else."""

    def __init__(self, store, control, witness):
        self.store, self.control, self.witness = store, control, witness
        self.pool = JobPool(2, store=store)
        self.jobs = {}
        self.busy = False
        signal.signal(signal.SIGINT, self._interrupted)

    def serve(self, lines):
        for line in lines:
            order = json.loads(line)
            if order["do"] == "end":
                self.pool.shutdown(cancel_futures=True)
                lines.write(json.dumps({"value": None}) + "\n")
                lines.flush()
                return
            answer = self.answer(**order)
            lines.write(json.dumps(answer) + "\n")
            lines.flush()
        os._exit(1)  # the test is gone

    def answer(self, do, **order):
        try:
            try:
                self.busy = True
                return {"value": getattr(self, do)(**order)}
            except (Exception, CancelledError) as error:
                return {"error": repr(error), "type": type(error).__name__}
            finally:
                self.busy = False
        except KeyboardInterrupt:
            return {"interrupted": True}

    def submit(self, number, kind, detach, needs=None):
        options = {"retries": 1} if kind == "retried" else {}
        pool = self.pool.with_options(detach=detach, name=f"n{number}", **options)
        needed = None if needs is None else self._job(needs)
        return self._known(pool.submit(Told(number, kind, self.control, self.witness, needed)))

    def rerun(self, job_id):
        return self._known(self.pool.rerun(self._job(job_id)))

    def cancel(self, job_id):
        return self._job(job_id).cancel()

    def result(self, job_id, timeout):
        job = self._job(job_id)
        try:
            return {"value": job.result(timeout), "state": job.state}
        except TimeoutError:
            if not job.done():
                return {"state": job.state}
            raise
        except (Exception, CancelledError) as error:
            return {"error": repr(error), "state": job.state}

    def list(self):
        return {job.id: [job.name, job.state] for job in JobStore(self.store).jobs()}

    def prune(self, states):
        return JobStore(self.store).prune(states=states)

    def _job(self, job_id):
        return self.jobs.get(job_id) or JobStore(self.store).open(job_id)

    def _known(self, job):
        self.jobs[job.id] = job
        return job.id

    def _interrupted(self, *_):
        if self.busy:
            raise KeyboardInterrupt


def run_shell(arguments, lines):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = cli.main(arguments)
    lines.write(json.dumps({"code": code, "out": out.getvalue()}) + "\n")
    lines.flush()


def begin(order, connection):
    """What a forked process does until its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    faulthandler.register(signal.SIGUSR1, file=os.open(order["traces"], os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    lines = connection.makefile("rw")
    if "command" in order:
        run_shell(order["command"], lines)
    else:
        kernel = Kernel(order["store"], order["control"], order["witness"])
        lines.write(json.dumps({"value": os.getpid()}) + "\n")
        lines.flush()
        kernel.serve(lines)


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    orders = socket.socket(fileno=int(sys.argv[1]))
    while True:
        line, descriptors, _, _ = socket.recv_fds(orders, 2**16, 1)
        if not line:
            return
        if os.fork() == 0:
            orders.close()
            try:
                begin(json.loads(line), socket.socket(fileno=descriptors[0]))
            except BaseException:
                faulthandler.dump_traceback()
                raise
            return
        os.close(descriptors[0])


if __name__ == "__main__":
    main()
