"""How often a job's memory is looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobcontainer.worker import limits, process_tree, shared_memory
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


# --- files that are memory ------------------------------------------------------------------------------------------

MB = 1_000_000


@pytest.fixture
def shared_file():
    """Make files in /dev/shm of so many bytes, which are gone after the test."""
    made = []

    def shared_file(size):
        made.append(Path(f"/dev/shm/jobcontainer-test-{os.getpid()}-{len(made)}"))  # noqa: S108
        made[-1].write_bytes(b"x" * size)
        return made[-1]

    yield shared_file
    for path in made:
        path.unlink(missing_ok=True)


@pytest.fixture
def child():
    """A process that does what it is sent, a line of Python at a time."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import mmap, os, sys\nfor line in sys.stdin: exec(line); print(flush=True)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def do(line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "\n"

    do.pid = process.pid
    do("pass")
    with process:
        yield do
        process.kill()


def test_memory_in_files_counts_once_however_it_is_held(child):
    """A memfd that is written, mapped and touched, by two descriptors, is one; what is not touched counts as well."""
    gauge = MemoryGauge(child.pid, 100 * MB, 0)
    child(f"f = os.memfd_create('x'); os.write(f, b'x' * {60 * MB}); g = os.dup(f)")
    child("m = mmap.mmap(f, 0); n = mmap.mmap(f, 0); sum(m[::4096]); sum(n[::4096])")
    assert not gauge.look()
    assert gauge.peak < 90 * MB
    child(f"os.write(f, b'x' * {60 * MB}); m.close(); n.close(); os.close(g)")
    assert gauge.look()
    assert 115 * MB < gauge.peak < 150 * MB


def test_a_file_that_was_closed_counts_until_it_is_deleted(child):
    """It was seen with the job once; it takes memory without being open or mapped anywhere."""
    gauge, path = MemoryGauge(child.pid, 100 * MB, 0), f"/dev/shm/jobcontainer-test-{child.pid}"  # noqa: S108
    child(f"f = os.open({path!r}, os.O_CREAT | os.O_RDWR); os.write(f, b'x' * {80 * MB})")
    assert not gauge.look()
    child("os.close(f); h = bytearray(b'x') * 40_000_000")
    assert gauge.look()
    child(f"os.unlink({path!r})")
    assert not gauge.look()


def test_a_file_that_a_job_makes_at_once_counts(child):
    """It may be there before its keeper, which makes another process first, measures anything."""
    files, path = shared_memory.SharedFiles(), f"/dev/shm/jobcontainer-test-{child.pid}"  # noqa: S108
    child(f"f = os.open({path!r}, os.O_CREAT | os.O_RDWR); os.write(f, b'x' * {120 * MB})")
    assert MemoryGauge(child.pid, 100 * MB, 0, files).look()
    child(f"os.unlink({path!r})")


def test_memory_of_others_counts_for_nobody(child, shared_file):
    """Neither a large segment that the job was given, nor what others write meanwhile."""
    given = shared_file(120 * MB)
    gauge = MemoryGauge(child.pid, 100 * MB, 0)
    shared_file(120 * MB)
    child(f"f = os.open({str(given)!r}, os.O_RDWR); m = mmap.mmap(f, 0)")
    assert not gauge.look()
    assert gauge.peak < 50 * MB


def test_a_job_far_from_its_limit_is_not_searched(child, monkeypatch):
    """Where all shared memory of the machine would not bring it there, a look is as cheap as ever."""
    monkeypatch.setattr(shared_memory, "of_machine", lambda: 50 * MB)  # others may write meanwhile
    gauge = MemoryGauge(child.pid, 2**50, 0)
    monkeypatch.setattr(shared_memory.SharedFiles, "sizes", lambda *_: pytest.fail("it was searched"))
    assert not gauge.look()
