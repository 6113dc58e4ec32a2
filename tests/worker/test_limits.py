"""How often a job's memory is looked at."""

from __future__ import annotations

import os

import pytest

from jobcontainer.worker import limits, process_tree
from jobcontainer.worker.limits import FIRST_LOOK_SECONDS, MemoryGauge


@pytest.fixture
def clocks(monkeypatch):
    """Clocks that stand still until they are moved: of the wall, and of the CPU."""
    now = {"monotonic": 100.0, "process_time": 1.0}
    monkeypatch.setattr(limits.time, "monotonic", lambda: now["monotonic"])
    monkeypatch.setattr(limits.time, "process_time", lambda: now["process_time"])
    return now


@pytest.fixture
def held(monkeypatch, clocks):
    """What the job holds, and how long a look at it takes by either clock."""
    facts = {"bytes": 0, "monotonic": 0.0, "process_time": 0.0}

    def memory_of(_pids):
        for name in clocks:
            clocks[name] += facts[name]
        return facts["bytes"]

    monkeypatch.setattr(process_tree, "memory_of", memory_of)
    monkeypatch.setattr(process_tree, "exact_memory_of", lambda _pids: facts["bytes"])
    monkeypatch.setattr(process_tree, "descendants_of", lambda _pid: [])
    return facts


def pause_after(gauge, clocks):
    gauge.look()
    return gauge.next_look - clocks["monotonic"]


def test_a_job_that_grows_fast_is_looked_at_again_halfway_to_its_limit(clocks, held):
    """So that it overshoots by little; one that does not grow is looked at as ever."""
    gauge = MemoryGauge(os.getpid(), 200_000_000, 0)
    clocks["monotonic"] += 0.02
    held["bytes"] = 100_000_000
    assert pause_after(gauge, clocks) == pytest.approx(0.01)
    clocks["monotonic"] += 0.01
    held["bytes"] = 190_000_000
    assert pause_after(gauge, clocks) == pytest.approx(0.002)
    clocks["monotonic"] += 0.002
    assert pause_after(gauge, clocks) == pytest.approx(FIRST_LOOK_SECONDS)


def test_a_look_that_waited_for_its_turn_does_not_delay_the_next(clocks, held):
    """On a busy machine a job would else go unseen for twenty times as long as its keeper had to wait."""
    gauge = MemoryGauge(os.getpid(), 200_000_000, 0)
    clocks["monotonic"] += 0.02
    held["monotonic"], held["process_time"] = 0.5, 0.0001
    assert pause_after(gauge, clocks) == pytest.approx(FIRST_LOOK_SECONDS)


def test_a_look_that_is_expensive_is_taken_more_seldom(clocks, held):
    """A keeper shall not use more than a twentieth of a core for it."""
    gauge = MemoryGauge(os.getpid(), 200_000_000, 0)
    clocks["monotonic"] += 0.02
    held["monotonic"] = held["process_time"] = 0.01
    assert pause_after(gauge, clocks) == pytest.approx(0.2)
