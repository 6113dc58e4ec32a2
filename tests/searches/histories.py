"""One store, two kernels, shells, a host of detached jobs; what happened to them, and what must be true therefore."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import select
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from jobcontainer.events import JobState, Outcome
from jobcontainer.storage.folder import JobFolder
from jobcontainer.worker.subreaper import NAME

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 40.0
"""Seconds in which an order must be answered, and a job that may end must have ended."""
ENDED = {state.value for state in JobState if state.ended}
SOON = 60.0
"""Seconds in which nothing is left of a kernel that was killed: 0.2 on an idle machine, many on a busy one."""
NO_LIMIT = resource.RLIM_INFINITY


class FoundError(AssertionError):
    """Something is not as it must be."""


@dataclass
class Known:
    """What the test knows of a job that was submitted.

    Attributes:
        kernel: whose job it is; None for the host's.
        told: how a reader saw it end.
        has_result: whether somebody was given its result.
        may_be_gone: whether a prune may have deleted it.
        may_be_lost: whether its owner, or its keeper, was killed before it had ended, or could not write its end.
        needs: what is known of the job that is its input; None where it has none.
    """

    number: int
    kind: str
    kernel: object
    told: str = ""
    has_result: bool = False
    may_be_gone: bool = False
    needs: object = None
    may_be_lost: bool = False
    was_cancelled: bool = False
    met_full_disk: bool = False


class Nursery:
    """The process that kernels and shells are forked from."""

    def __init__(self, folder, script):
        self.errors = folder / "errors.txt"
        self.traces = folder / "traces.txt"
        self._orders, other = socket.socketpair()
        with self.errors.open("ab") as errors:
            begun = script("kernels.py", other.fileno())
            self.process = subprocess.Popen(**begun, pass_fds=[other.fileno()], stderr=errors)
        other.close()

    def fork(self, **order):
        """Return the lines to and from a new process."""
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        socket.send_fds(self._orders, [json.dumps(order | {"traces": str(self.traces)}).encode()], [theirs.fileno()])
        theirs.close()
        return ours

    def close(self):
        self._orders.close()
        self.process.wait()


class Process:
    """A kernel, as the test drives it."""

    def __init__(self, nursery, **order):
        self._socket = nursery.fork(**order)
        self._lines = self._socket.makefile("rw")
        self._traces, self._errors = nursery.traces, nursery.errors
        self.pid = self.receive()["value"]
        self.disk_is_full = False

    def send(self, **order):
        self._lines.write(json.dumps(order) + "\n")
        self._lines.flush()

    def receive(self):
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise FoundError(f"a call hangs:\n{self.trace()}") from None
        except ConnectionError:
            line = ""
        if not line:
            raise FoundError(f"a kernel died by itself: {self._errors.read_text()[-3000:]}")
        return json.loads(line)

    def ask(self, **order):
        self.send(**order)
        return self.receive()

    def trace(self):
        """Return what its threads do, and which processes are below it."""
        before = self._traces.stat().st_size
        os.kill(self.pid, signal.SIGUSR1)
        until = time.monotonic() + 2
        while self._traces.stat().st_size == before and time.monotonic() < until:
            time.sleep(0.05)
        below = [f"{one.pid} below {one.ppid()}, {one.status()}: {one.cmdline()}" for one in self.below()]
        return "\n".join([self._traces.read_text()[before:], *below])

    def below(self):
        """Return the processes that it started, and all below them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def keepers(self):
        """Return its keepers, and the subreapers above them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            subreapers = [one for one in psutil.Process(self.pid).children() if one.name() == NAME]
            return [keeper for one in subreapers for keeper in (one, *one.children())]
        return []

    def limit_files(self, size):
        """Let no file grow beyond a size, as on a full disk."""
        self.disk_is_full = size != NO_LIMIT
        for pid in (self.pid, *(process.pid for process in self.below())):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, NO_LIMIT))

    def kill(self, *, with_keepers=False):
        """Kill it, as it is or with all that bear Python's name; nothing of it may live on."""
        below = self.below()
        os.kill(self.pid, signal.SIGKILL)
        for process in below if with_keepers else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() != NAME:
                    process.kill()
        self.close()
        if left := psutil.wait_procs(below, timeout=SOON)[1]:
            raise FoundError(f"{left} outlived their kernel")

    def close(self):
        self._lines.close()
        self._socket.close()


@dataclass
class History:
    """What was done on one store, step by step, and what is known of its jobs."""

    nursery: Nursery
    folder: Path
    kernels: list = field(default_factory=lambda: [None, None])
    jobs: dict = field(default_factory=dict)
    steps: list = field(default_factory=list)
    said: dict = field(default_factory=dict)
    host_meets_full_disk: bool = False
    unanswered: int = 0  # submits that an interrupt cut off; each may have made a job

    def __post_init__(self):
        self.store, self.control = self.folder / "store", self.folder / "control"
        self.control.mkdir(parents=True)
        self.witness = f"jobcontainer-test-{secrets.token_hex(6)}"
        self._hearing = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._hearing.bind("\0" + self.witness)
        self._hearing.settimeout(0)
        self._hears = threading.Lock()
        self._is_over = threading.Event()
        self._hearer = threading.Thread(target=self._hear_on)  # or jobs would wait: such a socket holds ten messages
        self._hearer.start()
        self._numbers = 0

    # what happens

    def kernel(self, which):
        """Return a kernel, started where there is none."""
        if self.kernels[which] is None:
            self.kernels[which] = Process(
                self.nursery, store=str(self.store), control=str(self.control), witness=self.witness
            )
        return self.kernels[which]

    def submit(self, which, kind, *, detach=False, stop_after=None, needs=None):
        self._numbers += 1
        number, kernel = self._numbers, self.kernel(which)
        if detach and kernel.disk_is_full and self.host() is None:
            self.host_meets_full_disk = True  # the host that this starts has the limits of the kernel
        answer = self._ask(kernel, stop_after, do="submit", number=number, kind=kind, detach=detach, needs=needs)
        self._add(answer, Known(number, kind, None if detach else kernel, needs=self.jobs.get(needs)))

    def rerun(self, which, job_id, *, stop_after=None):
        kernel, old = self.kernel(which), self.jobs[job_id]
        answer = self._ask(kernel, stop_after, do="rerun", job_id=job_id)
        self._add(answer, Known(old.number, old.kind, kernel))

    def release(self, job_id):
        (self.control / f"go-{self.jobs[job_id].number}").touch()

    def result(self, which, job_id, timeout, *, stop_after=None):
        answer = self._ask(self.kernel(which), stop_after, do="result", job_id=job_id, timeout=timeout)
        self.see_result(job_id, answer)

    def cancel(self, which, job_id, *, stop_after=None):
        self.jobs[job_id].was_cancelled = True
        self._ask(self.kernel(which), stop_after, do="cancel", job_id=job_id)

    def cancel_in_shell(self, job_id):
        self.jobs[job_id].was_cancelled = True
        self.shell("cancel", job_id)

    def list(self, which, *, stop_after=None):
        answer = self._ask(self.kernel(which), stop_after, do="list")
        if "value" in answer:
            self.see({job_id: state for job_id, (_, state) in answer["value"].items()})

    def list_in_shell(self):
        answer = self.shell("list", "--json")
        if answer["code"] != 0:
            raise FoundError(f"jobcontainer list: {answer['out']}")
        self.see({job["id"]: job["state"] for job in json.loads(answer["out"])})

    def prune(self, which, states, *, stop_after=None):
        for known in self.jobs.values():
            known.may_be_gone = True
        if which is None:
            self.shell("prune", *(word for state in states for word in ("--state", state)))
        else:
            self._ask(self.kernel(which), stop_after, do="prune", states=states)

    def shell(self, *arguments):
        ours = self.nursery.fork(command=["--store", str(self.store), *arguments])
        with ours, ours.makefile("r") as lines:
            line = lines.readline()
        if not line:
            raise FoundError(f"jobcontainer {arguments} failed: {self.nursery.errors.read_text()[-3000:]}")
        return json.loads(line)

    def kill_kernel(self, which, *, with_keepers=False):
        kernel = self.kernels[which]
        self._may_be_lost(lambda known: known.kernel is kernel)
        self.kernels[which] = None
        kernel.kill(with_keepers=with_keepers)

    def end_kernel(self, which):
        """Shut it down as a script that ends: what runs is waited for, so only what waits in a queue is cancelled."""
        kernel = self.kernels[which]
        for known in self.jobs.values():
            if known.kernel is kernel:
                known.was_cancelled = True
                (self.control / f"go-{known.number}").touch()
        kernel.ask(do="end")
        kernel.close()
        self.kernels[which] = None

    def kill_keeper(self, which, number):
        self._signal_keeper(which, number, signal.SIGKILL)

    def stop_keeper(self, which, number):
        self._signal_keeper(which, number, signal.SIGSTOP)

    def _signal_keeper(self, which, number, signal_number):
        kernel = self.kernels[which]
        self._may_be_lost(lambda known: known.kernel is kernel)
        if keepers := kernel.keepers():
            with contextlib.suppress(psutil.NoSuchProcess):
                keepers[number % len(keepers)].send_signal(signal_number)

    def host(self):
        """Return the pid of the store's host; None where none runs."""
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "jobcontainer.jobs.detached.host" in command and str(self.store) in command:
                return process.pid
        return None

    def kill_host(self):
        self._may_be_lost(lambda known: known.kernel is None)
        if (pid := self.host()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def fill_disk(self, which, size):
        kernel = self.kernel(which)
        for known in self.jobs.values():
            known.met_full_disk |= known.kernel is kernel
        kernel.limit_files(size)

    def free_disk(self, which):
        if (kernel := self.kernels[which]) is not None:
            for _ in range(2):  # a keeper may just have forked
                kernel.limit_files(NO_LIMIT)
        if (host := self.host()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in (psutil.Process(host), *psutil.Process(host).children(recursive=True)):
                    process.rlimit(resource.RLIMIT_FSIZE, (NO_LIMIT, NO_LIMIT))

    def damage_journal(self, how):
        journal = self.store / "journal.jsonl"
        if not journal.exists():
            return
        if how == "deleted":
            journal.unlink()
        else:
            with journal.open("ab") as file:
                file.write(GARBAGE[how])

    def damage_events(self, job_id, how):
        with contextlib.suppress(FileNotFoundError), (self.store / job_id / "events.jsonl").open("ab") as file:
            file.write(GARBAGE[how])

    def litter(self, how):
        folder = self.store / f"20261128-034732.857353-litter-{secrets.token_hex(3)}"
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir()
            if how != "empty":
                (folder / "job.json").write_bytes(GARBAGE[how])

    # what must be true

    def see(self, states):
        """Compare a listing with what is known."""
        self.hear()
        for job_id, known in list(self.jobs.items()):
            if job_id not in states:
                if not known.may_be_gone:
                    raise FoundError(f"{known} is not listed")
                del self.jobs[job_id]
                continue
            self._see_state(known, states[job_id])
        unknown = [job_id for job_id in states if job_id not in self.jobs and "-litter-" not in job_id]
        if len(unknown) > self.unanswered:
            raise FoundError(f"{unknown} are listed, and {self.unanswered} submits were interrupted")

    def see_result(self, job_id, answer):
        """Compare what a kernel was given with what is known."""
        self.hear()
        if "value" not in answer or job_id not in self.jobs:
            return
        known, given = self.jobs[job_id], answer["value"]
        self._see_state(known, given["state"])
        if "value" in given:
            if given["value"] != known.number * 10:
                raise FoundError(f"{known} has the result {given['value']}")
            known.has_result = True
        elif given["state"] == "succeeded" and not known.may_be_gone:
            raise FoundError(f"{known} succeeded, and its result is {given['error']}")

    def _see_state(self, known, state):
        if known.met_full_disk and state not in ENDED:
            return  # its end may be known to its owner alone, who writes it when the disk has room again
        if known.told and state != known.told and not (known.met_full_disk and not known.has_result):
            raise FoundError(f"{known} is {state}")
        if known.has_result and state != "succeeded":
            raise FoundError(f"{known} is {state}, and somebody has its result")
        if state in ENDED:
            self._see_end(known, state)
            known.told = state

    def _see_end(self, known, state):
        said = self.said.get(known.number, [])
        possible = {
            "returns": {"succeeded"},
            "waits": {"succeeded"},
            "raises": {"failed"},
            "exits": {"crashed"},
            "retried": {"succeeded"},
        }[known.kind]
        possible = possible | ({"cancelled"} if known.was_cancelled else set())
        if known.needs is not None:
            possible |= {"upstream_failed"} if known.needs.told != "succeeded" else set()
            possible |= {"failed", "upstream_failed"} if known.needs.may_be_gone else set()
        if known.may_be_lost:
            possible |= {"lost", "crashed"}
        if known.met_full_disk:
            possible |= {"failed", "lost", "crashed"}
        if state not in possible:
            raise FoundError(f"{known} is {state}, and may be {sorted(possible)}; it said {said}")
        if state == "succeeded" and "returns" not in said:
            raise FoundError(f"{known} succeeded, and said {said}")

    def hear(self):
        """Take what the jobs said so far."""
        with self._hears, contextlib.suppress(BlockingIOError):
            while True:
                number, what = json.loads(self._hearing.recv(4096))
                self.said.setdefault(number, []).append(what)

    def settle(self):
        """Let everything end, and look at it all."""
        for which in (0, 1):
            self.free_disk(which)
        for known in self.jobs.values():
            (self.control / f"go-{known.number}").touch()
        for which, kernel in enumerate(self.kernels):
            for job_id, known in list(self.jobs.items()):
                if kernel is not None and known.kernel in {kernel, None}:
                    answer = kernel.ask(do="result", job_id=job_id, timeout=PATIENCE / 2)
                    if "value" in answer and answer["value"]["state"] not in ENDED:
                        raise FoundError(f"{job_id} {known} never ends:\n{kernel.trace()}\n{self.seen()}")
                    self.see_result(job_id, answer)
            if kernel is not None:
                self.end_kernel(which)
        self.kill_host()
        self.list_in_shell()
        self.list_in_shell()
        for job_id, known in self.jobs.items():
            if not known.told:
                raise FoundError(f"{known} has no end")
            self._check_ends(job_id, known)

    def seen(self):
        """Return what is in the store, and what its host runs."""
        jobs = [f"{path.parent.name}: {path.read_text()}" for path in sorted(self.store.glob("*/events.jsonl"))]
        host = self.host()
        below = psutil.Process(host).children(recursive=True) if host is not None else []
        return "\n".join(
            [*jobs, f"host {host}", *(f"{one.pid} below {one.ppid()}: {one.cmdline()[:4]}" for one in below)]
        )

    def _check_ends(self, job_id, known):
        ends = {}
        for event in JobFolder(self.store / job_id).read_events()[0]:
            if isinstance(event, Outcome):
                ends.setdefault(event.attempt, set()).add(event.state)
        if any(len(states) > 1 for states in ends.values()):
            raise FoundError(f"{known} has several ends: {ends}")

    def close(self):
        for which, kernel in enumerate(self.kernels):
            if kernel is not None:
                self.kill_kernel(which)
        self.kill_host()
        self._is_over.set()
        self._hearer.join()
        self._hearing.close()

    def _hear_on(self):
        while not self._is_over.is_set():
            if select.select([self._hearing], [], [], 0.1)[0]:
                self.hear()

    def _ask(self, kernel, stop_after=None, **order):
        kernel.send(**order)
        if stop_after is not None:
            time.sleep(stop_after)
            os.kill(kernel.pid, signal.SIGINT)
        answer = kernel.receive()
        if "error" in answer:
            self._see_error(order, answer, kernel)
        return answer

    def _see_error(self, order, answer, kernel):
        job = self.jobs.get(order.get("job_id") or order.get("needs"))
        if (
            answer["type"] in {"KeyError", "FileNotFoundError", "JobUpstreamError"}
            and job is not None
            and job.may_be_gone
        ):
            return
        if answer["type"] == "OSError" and kernel.disk_is_full:
            return
        raise FoundError(f"{order} raised {answer['error']}")

    def _add(self, answer, known):
        if "value" not in answer:
            self.unanswered += 1
            return
        known.met_full_disk = self.host_meets_full_disk if known.kernel is None else known.kernel.disk_is_full
        self.jobs[answer["value"]] = known

    def _may_be_lost(self, condition):
        for known in self.jobs.values():
            if condition(known) and not known.told:
                known.may_be_lost = True


GARBAGE = {
    "torn": b'{"event": "ended", "sta',
    "bytes": b"\xff\x00\xfe\n",
    "unknown": b'{"event": "moved", "at": 1.0, "to": {"there": []}}\n',
    "newer": b'{"event": "display", "at": 1.0, "data": {}, "colour": "red"}\n',
    "numbers": b"[1, 2]\n7\nnull\n",
    "nested": b"[" * 3000 + b"\n",
}
