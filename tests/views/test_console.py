"""Progress in a terminal: bars where there is one, nothing where there is not."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

SCRIPT = """
import pathlib, time
from jobcontainer import JobPool, report

class Counts:
    def run(self):
        report(7, total=10)
        deadline = time.monotonic() + 60
        while not pathlib.Path("gate").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

with JobPool(2, store="store") as pool:
    group = pool.submit_all([Counts(), Counts()])
    assert pathlib.Path("gate").exists() or not group.wait(0.01, progress=True)
    assert group.wait(progress=True)
"""


@pytest.mark.slow
def test_bars_are_drawn_in_a_terminal(tmp_path):
    """One for all jobs, and those of the running ones; the jobs end once they were seen."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SCRIPT]
    environment = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"} | {"TERM": "xterm"}
    with subprocess.Popen(command, cwd=tmp_path, stderr=theirs, env=environment) as script:
        os.close(theirs)
        drawn = b""
        while script.poll() is None:
            try:
                drawn += os.read(ours, 65536)
            except OSError:  # the script has ended
                break
            if b"7/10" in drawn:
                (tmp_path / "gate").touch()
    os.close(ours)
    assert script.returncode == 0, drawn.decode()
    assert b"jobs" in drawn
    assert b"7/10" in drawn


@pytest.mark.slow
def test_nothing_is_drawn_in_a_pipe(tmp_path):
    """A log file is no place for bars."""
    (tmp_path / "gate").touch()
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_nothing_is_drawn_in_the_terminal_of_a_kernels_shell_command(tmp_path):
    """``!jobcontainer run`` in a cell has a terminal, but one that shows every step of a bar for ever."""
    (tmp_path / "gate").touch()
    ours, theirs = pty.openpty()
    command, environment = [sys.executable, "-c", SCRIPT], os.environ | {"TERM": "xterm", "JPY_PARENT_PID": "1"}
    done = subprocess.run(command, cwd=tmp_path, stderr=theirs, env=environment, check=False)
    os.write(theirs, b"end")
    drawn = os.read(ours, 65536)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, drawn) == (0, b"end")
