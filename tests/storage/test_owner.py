"""Who is alive: decided as the kernel counts, and never by a wall clock."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

from jobcontainer.storage.owner import host_name, is_alive, this_process
from waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="owners are named by the wall clock elsewhere")

PRINT_OWNER = """
import json, sys
from jobcontainer.storage.owner import this_process
print(json.dumps(this_process()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other():
    """Another process, and how it names itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRINT_OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process, json.loads(process.stdout.readline())
        process.kill()


def test_a_step_of_the_clock_ends_nobody(monkeypatch, other):
    """Whoever sets the clock, by a second or by ten years, and looks: what runs is alive."""
    _, owner = other
    for step in (-2.0, 2.0, 1e9):
        now = time.time
        monkeypatch.setattr(time, "time", lambda step=step, now=now: now() + step)
        monkeypatch.setattr(psutil.Process, "create_time", lambda _self, step=step: step)
        monkeypatch.setattr(psutil, "boot_time", lambda step=step: step)
        assert is_alive(owner)
        assert is_alive(this_process())
    assert not {"created", "started"} & set(owner)


def test_an_owner_that_has_ended_is_dead_reaped_or_not(other):
    """A zombie runs no job."""
    process, owner = other
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(owner), within=5)
    assert process.poll() is not None or process.wait() == -signal.SIGKILL
    assert not is_alive(owner)


def test_a_stopped_owner_is_alive(other):
    """It may go on."""
    process, owner = other
    os.kill(process.pid, signal.SIGSTOP)
    assert is_alive(owner)


def test_a_pid_that_another_process_has_now_is_not_the_owner(other):
    """It started at another tick."""
    _, owner = other
    assert not is_alive(owner | {"ticks": owner["ticks"] - 1})


def test_after_a_restart_of_the_machine_nobody_of_before_is_alive(other):
    """Whatever runs under the pid now, started at whatever tick."""
    _, owner = other
    assert not is_alive(owner | {"boot": "0a4c4ad1-b1f9-43a4-bd85-c0a2b2a2b2a2"})


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1])
def test_what_can_not_be_seen_is_not_dead(pid):
    """Another host, another container of this one, and whoever a process without descriptors asks about."""
    owner = this_process() | {"pid": pid}
    assert is_alive(owner | {"host": "another", "boot": "another"})
    assert is_alive(owner | {"namespace": 1})
    assert is_alive(owner | {"namespace": 1, "host": "another"})


def test_a_host_that_was_renamed_is_still_the_same(other):
    """A laptop gets another name with each network; it is known by its boot."""
    process, owner = other
    renamed = owner | {"host": host_name() + ".example.org"}
    assert is_alive(renamed)
    process.kill()
    process.wait()
    assert not is_alive(renamed)


def test_without_descriptors_nobody_is_taken_for_dead(other):
    """For a moment nothing can be opened: what runs is alive."""
    _, owner = other
    assert is_alive(owner)  # what never changes is known from here on
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        assert is_alive(owner)


@pytest.mark.parametrize(
    "damaged",
    [{}, {"pid": "1", "host": "x"}, {"pid": True}, {"pid": -1}, {"pid": 10**400}, {"host": None}, {"host": [1]}],
)
def test_a_damaged_owner_runs_nothing(damaged):
    """And asking about it raises nothing."""
    assert not is_alive(damaged and this_process() | damaged)
