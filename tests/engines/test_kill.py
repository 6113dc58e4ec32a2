"""Kills from outside: of a job, of its keeper, of the notebook, at each phase of a job's life."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.events import JobState, Started
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker import process_tree, shared_memory
from waiting import is_running, wait_for

BOUND = 2.0
"""Seconds in which the end of whatever was killed must be told."""

GONE = 1.0
"""Seconds in which nothing may be left of a notebook that was killed."""


class Stays:
    """Stays in one phase of its life, and says so by making a file."""

    def __init__(self, phase, reached):
        self.phase, self.reached = phase, reached

    def stay_if(self, phase):
        if phase == self.phase and "JOBCONTAINER_SLOT" in os.environ:
            Path(self.reached).touch()
            time.sleep(1000)

    def __setstate__(self, state):
        self.__dict__ = state
        self.stay_if("load")

    def run(self):
        self.stay_if("run")
        return Written(self)

    def __del__(self):
        self.stay_if("after end")


class Written:
    def __init__(self, process):
        self.process = process

    def __reduce__(self):
        self.process.stay_if("result write")
        return str, ("written",)


PHASES = ["load", "run", "result write", "after end"]


@pytest.fixture(scope="module", params=[None, ["attr"]], ids=["forked by the keeper", "forked warm"])
def engine(request):
    engine = LokyEngine(1, preload=request.param)
    yield engine
    engine.close()


@pytest.fixture
def staying(engine, tmp_path):
    """Start a job that stays in a phase; returns its folder, its future and its pid when it is there."""

    def staying(phase):
        store = StoreFolder(tmp_path / "store")
        store.create()
        folder, reached = store.new_job("job"), tmp_path / "reached"
        Serializer.serialize_to_file(Stays(phase, str(reached)), folder.process_file)
        future = engine.submit(folder, JobOptions(grace=1000), Environment.here())
        wait_for(reached.exists)
        (started,) = (event for event in folder.read_events()[0] if isinstance(event, Started))
        return folder, future, started.pid

    return staying


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("phase", PHASES)
def test_a_job_that_is_killed_has_crashed(staying, phase):
    """Unless its result was written: then its state was decided."""
    folder, future, pid = staying(phase)
    os.kill(pid, signal.SIGKILL)
    outcome = future.result(BOUND)
    assert outcome.state is (JobState.SUCCEEDED if phase == "after end" else JobState.CRASHED)
    assert outcome.exit_code == -signal.SIGKILL
    assert folder.read_events()[0][-1] == outcome


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("phase", PHASES)
def test_a_job_whose_keeper_is_killed_is_lost(staying, phase):
    """And gone. Unless its result was written: then its state was decided. The slot gets another keeper."""
    folder, future, pid = staying(phase)
    os.kill(keeper_of(pid), signal.SIGKILL)
    outcome = future.result(BOUND)
    assert outcome.state is (JobState.SUCCEEDED if phase == "after end" else JobState.LOST)
    assert "SIGKILL" in outcome.reason
    assert folder.read_events()[0][-1] == outcome
    wait_for(lambda: not is_running(pid), within=GONE)


@pytest.mark.slow
def test_a_keeper_that_is_killed_while_it_is_idle_costs_no_job(engine, tmp_path):
    """The next job gets another."""
    store = StoreFolder(tmp_path / "store")
    store.create()

    def run():
        folder = store.new_job("job")
        Serializer.serialize_to_file(Stays("never", ""), folder.process_file)
        return folder, engine.submit(folder, JobOptions(), Environment.here()).result(30)

    folder, _ = run()
    pid = next(event.pid for event in folder.read_events()[0] if isinstance(event, Started))
    (keeper,) = (pid for pid in process_tree.children_of(os.getpid()) if process_tree.children_of(pid))
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: keeper not in process_tree.children_of(os.getpid()))
    assert run()[1].state is JobState.SUCCEEDED
    assert not is_running(pid)


def keeper_of(pid):
    """The child of this process's child, from which the process comes."""
    parents = [pid, parent_of(pid)]
    while parents[-1] != os.getpid():
        parents.append(parent_of(parents[-1]))
    return parents[-3]


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def session_of(pid):
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)


NOTEBOOK = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.process import JobOptions, Environment
from test_kill import Stays

class Runs:
    def __init__(self, function, reached):
        self.function, self.reached = function, reached
    def run(self):
        Path(self.reached).touch()
        self.function()

def sleep():
    time.sleep(1000)

def hold_the_gil():
    ctypes.PyDLL(None).sleep(1000)

def leave_daemons():
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 100)
                sleep()
            os._exit(0)
    subprocess.Popen(["sh", "-c", "trap '' INT TERM HUP; sleep 1000"], start_new_session=True)
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    sleep()

store = StoreFolder(os.environ["STORE"])
store.create()
reached = []

def start(engine, process):
    folder = store.new_job("job")
    Serializer.serialize_to_file(process, folder.process_file)
    return engine.submit(folder, JobOptions(grace=1000), Environment.here())

def mark():
    reached.append(store.path / f"reached {len(reached)}")
    return str(reached[-1])

busy, idle, starting = LokyEngine(4), LokyEngine(1), LokyEngine(1)
start(idle, Stays("never", "")).result()
for phase in ("load", "after end"):
    start(busy, Stays(phase, mark()))
for function in (hold_the_gil, leave_daemons):
    start(busy, Runs(function, mark()))
while not all(path.exists() for path in reached):
    time.sleep(0.005)
start(starting, Stays("run", mark()))
print("ready", flush=True)
sleep()
"""


@pytest.mark.slow
def test_nothing_survives_the_notebook(tmp_path):
    """A notebook is killed with a job in each phase: no process of it is left a second later, daemons included.

    What still belongs to the notebook's own session may take longer: a keeper that was just starting, which ends when
    its interpreter is up, and resource trackers, which clean up after the others.
    """
    token = f"TEST_KILL={os.getpid()}-{time.monotonic_ns()}"
    name, value = token.split("=")
    here = Path(__file__).parent
    notebook = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOK],
        env=os.environ | {name: value, "STORE": str(tmp_path / "store"), "PYTHONPATH": f"{here}:{here.parent}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert notebook.stdout.readline() == "ready\n"
        assert len(process_tree.marked_with(token)) > 15
    finally:
        notebook.kill()
        notebook.wait()
        notebook.stdout.close()
    wait_for(
        lambda: not [pid for pid in process_tree.marked_with(token) if session_of(pid) != notebook.pid], within=GONE
    )
    wait_for(lambda: not process_tree.marked_with(token))


STRAYS = """
import os, subprocess, time
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.process import JobOptions, Environment

class LeavesStrays:
    def __init__(self, reached):
        self.reached = reached
    def run(self):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:  # a daemon with nothing in its environment that names us, and another's name
                os.execve("/bin/sh", ["sh", "-c", f"echo $$ > {self.reached}.1; exec sleep 1000"], {})
            os._exit(0)
        shell = f"echo $$ > {self.reached}.2; trap '' TERM HUP INT; while :; do sleep 1000; done"
        subprocess.Popen(["/bin/sh", "-c", shell], env={}, start_new_session=True)
        subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {self.reached}.3; exec sleep 1000"], env={})
        time.sleep(1000)

def submit(store, engine, reached):
    folder = store.new_job("job")
    Serializer.serialize_to_file(LeavesStrays(reached), folder.process_file)
    return engine.submit(folder, JobOptions(grace=1000), Environment.here())
"""

NOTEBOOK_WITH_STRAYS = (
    STRAYS
    + """
store = StoreFolder(os.environ["STORE"])
store.create()
engine = LokyEngine(2)
futures = [submit(store, engine, str(store.path / name)) for name in ("one", "other")]
print("ready", flush=True)
time.sleep(1000)
"""
)


def strays_of(store, *names):
    """The pids of what jobs left behind, once all are there."""
    files = [store / f"{name}.{number}" for name in names for number in (1, 2, 3)]
    wait_for(lambda: all(file.exists() and file.read_text().strip() for file in files), within=60)
    return [int(file.read_text()) for file in files]


def notebook_with_strays(store):
    """Start it; return its process, and the mark that all below it have in their environment."""
    name, value = "TEST_KILL", f"{os.getpid()}-{time.monotonic_ns()}"
    notebook = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOK_WITH_STRAYS],
        env=os.environ | {name: value, "STORE": str(store)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    return notebook, f"{name}={value}"


def python_processes(token, by):
    """What ``pkill python`` or ``pkill -f python`` finds, among the processes that have a mark."""
    found = []
    for pid in process_tree.marked_with(token):
        with contextlib.suppress(OSError):
            if b"python" in Path(f"/proc/{pid}/{by}").read_bytes():
                found.append(pid)
    return found


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("by", ["comm", "cmdline"])
def test_nothing_survives_a_notebook_and_keepers_that_are_killed_together(tmp_path, by):
    """``pkill -9 python``, or ``-f``: whatever jobs started ends too, daemons with their own environment included."""
    store = tmp_path / "store"
    notebook, token = notebook_with_strays(store)
    killed = []
    try:
        assert notebook.stdout.readline() == "ready\n"
        strays = strays_of(store, "one", "other")
        killed = python_processes(token, by)
        assert len(killed) >= 5  # the notebook, two keepers, two jobs
    finally:
        for pid in killed or [notebook.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        notebook.wait()
        notebook.stdout.close()
    wait_for(lambda: not any(map(is_running, strays)), within=GONE)
    wait_for(lambda: not process_tree.marked_with(token))
    shared_memory.remove_left_by({notebook.pid})  # its trackers were killed as well


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("who", ["keepers", "subreapers", "both"])
def test_nothing_survives_a_notebook_whose_keepers_are_stopped(tmp_path, who):
    """One that is stopped (SIGSTOP) sees no end of its lifeline; the kernel and the process above it end it."""
    store = tmp_path / "store"
    notebook, token = notebook_with_strays(store)
    try:
        assert notebook.stdout.readline() == "ready\n"
        strays = strays_of(store, "one", "other")
        subreapers = [pid for pid in process_tree.children_of(notebook.pid) if process_tree.children_of(pid)]
        keepers = [pid for above in subreapers for pid in process_tree.children_of(above)]
        assert len(keepers) == 2
        for pid in {"keepers": keepers, "subreapers": subreapers, "both": subreapers + keepers}[who]:
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda pid=pid: process_tree.is_stopped(pid))
    finally:
        notebook.kill()
        notebook.wait()
        notebook.stdout.close()
    wait_for(lambda: not any(map(is_running, strays)), within=2 * GONE)  # the keepers are given half a second
    wait_for(lambda: not process_tree.marked_with(token))


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("who", ["keeper", "subreaper", "job"])
def test_nothing_of_a_job_survives_its_keeper(engine, tmp_path, who):
    """Whichever of the processes around a job is killed alone, and whatever environment the job's children have."""
    namespace = {"__name__": "__main__"}
    exec(STRAYS, namespace)  # noqa: S102 -- the class goes by value, as from a notebook
    store = StoreFolder(tmp_path / "store")
    store.create()
    future = namespace["submit"](store, engine, str(store.path / "one"))
    strays = strays_of(store.path, "one")
    (folder,) = store.folders()
    job = next(event.pid for event in folder.read_events()[0] if isinstance(event, Started))
    keeper = keeper_of(job)
    os.kill({"job": job, "keeper": keeper, "subreaper": parent_of(keeper)}[who], signal.SIGKILL)
    outcome = future.result(BOUND)
    assert outcome.state is (JobState.CRASHED if who == "job" else JobState.LOST)
    assert "SIGKILL" in outcome.reason
    wait_for(lambda: not any(map(is_running, [job, *strays])), within=GONE)


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("moment", [0.0, 0.15, 0.3, 0.5, 0.8])
def test_a_keeper_that_just_starts_does_not_survive_the_notebook(tmp_path, moment):
    """A notebook is killed before its keeper has been given its only call: the keeper notices and ends."""
    token = f"TEST_KILL={os.getpid()}-{time.monotonic_ns()}"
    name, value = token.split("=")
    text = "import time\nfrom jobcontainer.jobs.pool import warm_up\nwarm_up()\nprint(flush=True)\ntime.sleep(1000)"
    notebook = subprocess.Popen(
        [sys.executable, "-c", text],
        env=os.environ | {name: value},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        notebook.stdout.readline()
        wait_for(lambda: len(process_tree.marked_with(token)) > 3, within=30)  # the trackers and a keeper
        time.sleep(moment)  # which is what is tried
    finally:
        notebook.kill()
        notebook.wait()
        notebook.stdout.close()
    wait_for(lambda: not process_tree.marked_with(token))
