"""Keepers, and what is above and below them, that are stopped (SIGSTOP) or hang: no job waits for them for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from jobcontainer.engines.local import keeper_process, watchdog, worker_slots
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.events import JobState, Started
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker import process_tree
from waiting import is_running, wait_for

PATIENCE = 0.5
GRACE = 0.2
BOUND = GRACE + PATIENCE + 2.0
"""Seconds in which the end must be told, on a busy machine."""


class Waits:
    """Says that it runs, leaves a child in a session of its own, and waits."""

    def __init__(self, reached):
        self.reached = reached

    def run(self):
        child = os.fork()
        if child == 0:
            os.setsid()
            time.sleep(1000)
        Path(self.reached + ".part").write_text(str(child))
        Path(self.reached + ".part").rename(self.reached)
        time.sleep(1000)


class Ends:
    def run(self):
        return 42


class Slot:
    """One slot with a job that waits in it, and the processes that belong to it."""

    def __init__(self, folder):
        self.store = StoreFolder(folder / "store")
        self.store.create()
        self.engine = LokyEngine(1)
        self.run().result(60)  # its keeper is up

    def run(self, process=None, **options):
        self.folder = self.store.new_job("job")
        Serializer.serialize_to_file(process or Ends(), self.folder.process_file)
        return self.engine.submit(self.folder, JobOptions(grace=GRACE, **options), Environment.here())

    def wait_in_job(self, folder, **options):
        reached = folder / f"reached {time.monotonic_ns()}"
        future = self.run(Waits(str(reached)), **options)
        wait_for(reached.exists)
        (started,) = (event for event in self.folder.read_events()[0] if isinstance(event, Started))
        self.job, self.child = started.pid, int(reached.read_text())
        self.keeper = process_tree.parent_of(self.job)
        return future

    @property
    def subreaper(self):
        (found,) = (pid for pid in process_tree.children_of(os.getpid()) if process_tree.children_of(pid))
        return found


@pytest.fixture
def slot(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "PATIENCE", PATIENCE)
    monkeypatch.setattr(worker_slots, "_PATIENCE", PATIENCE)
    monkeypatch.setattr(keeper_process, "_REASON_SECONDS", PATIENCE)
    slot = Slot(tmp_path)
    yield slot
    slot.engine.close()


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: process_tree.is_stopped(pid))


@pytest.fixture(params=["keeper", "keeper and subreaper", "everything"])
def stopped(request, slot, tmp_path):
    """Stop some processes of a slot in which a job waits; returns the job's future."""

    def stopped(**options):
        future = slot.wait_in_job(tmp_path, **options)
        for pid in {
            "keeper": [slot.keeper],
            "keeper and subreaper": [slot.subreaper, slot.keeper],
            "everything": [slot.subreaper, slot.keeper, slot.job, slot.child],
        }[request.param]:
            stop(pid)
        return future

    return stopped


def assert_gone(slot):
    """All that belonged to the slot has ended, and the slot takes the next job."""
    wait_for(lambda: not any(map(is_running, (slot.keeper, slot.job, slot.child))), within=2)
    assert slot.run().result(30).state is JobState.SUCCEEDED


@pytest.mark.fast_cases(1)
def test_a_job_that_is_cancelled_ends_though_its_keeper_is_stopped(slot, stopped):
    """After its grace and the engine's patience; it is cancelled, and the sentence says what happened."""
    future = stopped()
    slot.engine.cancel(slot.folder.id)
    outcome = future.result(BOUND + 5)
    assert outcome.state is JobState.CANCELLED
    assert "SIGSTOP" in outcome.reason or "did not answer" in outcome.reason
    assert slot.folder.read_events()[0][-1] == outcome
    assert_gone(slot)


@pytest.mark.slow
def test_a_job_times_out_though_its_keeper_is_stopped(slot, stopped, monkeypatch):
    """It is told as timed out, and so is not tried again."""
    monkeypatch.setattr(watchdog, "PATIENCE", 3.0)
    outcome = stopped(timeout=2.0).result(BOUND + 8)
    assert outcome.state is JobState.TIMED_OUT
    assert_gone(slot)


@pytest.mark.slow
def test_a_job_whose_keeper_is_stopped_is_lost(slot, stopped):
    """Though nobody asked for its end: nobody would tell it. It may be tried again."""
    outcome = stopped().result(BOUND + 5)
    assert outcome.state is JobState.LOST
    assert "SIGSTOP" in outcome.reason
    assert_gone(slot)


@pytest.mark.slow
def test_an_engine_closes_though_a_keeper_is_stopped(slot, stopped):
    """Its job is told as cancelled, and nothing is left."""
    future = stopped()
    begun = time.monotonic()
    slot.engine.close()
    assert time.monotonic() - begun < BOUND + 5
    assert future.result(0).state is JobState.CANCELLED
    wait_for(lambda: not any(map(is_running, (slot.keeper, slot.job, slot.child))), within=2)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["keeper", "subreaper", "both"])
def test_an_engine_closes_though_an_idle_slot_is_stopped(slot, who):
    """Nothing runs, and nothing answers."""
    subreaper = slot.subreaper
    (keeper,) = process_tree.children_of(subreaper)
    for pid in {"keeper": [keeper], "subreaper": [subreaper], "both": [subreaper, keeper]}[who]:
        stop(pid)
    begun = time.monotonic()
    slot.engine.close()
    assert time.monotonic() - begun < 15
    assert not is_running(keeper)
    assert not is_running(subreaper)


@pytest.mark.slow
def test_a_job_that_a_stopped_keeper_never_began_is_run_by_another(slot):
    """An order that was sent to it is sent again."""
    (keeper,) = process_tree.children_of(slot.subreaper)
    stop(keeper)
    assert slot.run().result(BOUND + 30).state is JobState.SUCCEEDED


@pytest.mark.slow
def test_a_keeper_that_was_stopped_for_a_moment_goes_on(slot, tmp_path, monkeypatch):
    """It is not late before grace and patience are over, and it is asked again from the beginning then."""
    monkeypatch.setattr(watchdog, "PATIENCE", 1000.0)
    future = slot.wait_in_job(tmp_path)
    stop(slot.keeper)
    slot.engine.cancel(slot.folder.id)
    os.kill(slot.keeper, signal.SIGCONT)
    outcome = future.result(10)
    assert (outcome.state, outcome.reason) == (JobState.CANCELLED, "It was cancelled.")


@pytest.mark.slow
def test_a_keeper_that_hangs_without_being_stopped_is_replaced(slot, tmp_path, monkeypatch):
    """It runs, and reads nothing: it is asked, and does not answer."""
    monkeypatch.setattr(watchdog, "_PING_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "_SILENT_SECONDS", 0.6)
    future = slot.wait_in_job(tmp_path)
    assert not future.done()
    time.sleep(1.5)  # which is what is tried: one that answers is left alone
    assert not future.done()
    monkeypatch.setattr(process_tree, "is_stopped", lambda _pid: False)
    stop_only = slot.keeper
    os.kill(stop_only, signal.SIGSTOP)
    outcome = future.result(BOUND + 5)
    assert outcome.state is JobState.LOST
    assert "did not answer" in outcome.reason
    assert_gone(slot)


def test_a_result_that_was_written_counts_though_the_keeper_is_stopped(slot, tmp_path):
    """A job that ends under a stopped keeper has succeeded, and is told so."""
    future = slot.run(WaitsFor(str(tmp_path / "reached"), str(tmp_path / "go")))
    wait_for((tmp_path / "reached").exists)
    (started,) = (event for event in slot.folder.read_events()[0] if isinstance(event, Started))
    stop(process_tree.parent_of(started.pid))
    (tmp_path / "go").touch()
    assert future.result(BOUND + 5).state is JobState.SUCCEEDED


class WaitsFor:
    def __init__(self, reached, go):
        self.reached, self.go = reached, go

    def run(self):
        Path(self.reached).touch()
        while not os.path.exists(self.go):
            time.sleep(0.005)
        return 42


# --- stopped jobs ---------------------------------------------------------------------------------------------------


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("how", ["cancel", "timeout", "close"])
def test_a_stopped_job_ends_as_any_other(slot, tmp_path, how):
    """Its whole session is stopped, and a child of it: no signal but SIGKILL reaches them."""
    options = {"timeout": 3.0} if how == "timeout" else {}  # in which a busy machine starts it
    future = slot.wait_in_job(tmp_path, **options)
    with contextlib.suppress(ProcessLookupError):
        for pid in (slot.job, slot.child):
            os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    if how == "cancel":
        slot.engine.cancel(slot.folder.id)
    elif how == "close":
        slot.engine.close()
    outcome = future.result(options.get("timeout", 0) + GRACE + 2)
    assert time.monotonic() - begun < options.get("timeout", 0) + GRACE + 2.5
    assert outcome.state is (JobState.TIMED_OUT if how == "timeout" else JobState.CANCELLED)
    wait_for(lambda: not any(map(is_running, (slot.job, slot.child))), within=2)
