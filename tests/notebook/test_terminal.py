"""The magics in a real terminal IPython: a line when a job is submitted, and one above the prompt at its end."""

from __future__ import annotations

import os
import re
import sys

import pytest

pexpect = pytest.importorskip("pexpect")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="a terminal is opened with pexpect")]

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


@pytest.fixture
def terminal(tmp_path):
    """IPython in a terminal, in a folder of its own."""
    environment = os.environ | {
        "JOBCONTAINER_HOME": str(tmp_path / "jobs"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }
    command = ["-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=nocolor"]
    terminal = pexpect.spawn(sys.executable, command, env=environment, cwd=str(tmp_path), encoding="utf-8", timeout=60)
    terminal.setwinsize(50, 200)
    yield terminal
    terminal.close(force=True)


def test_a_terminal_shows_the_start_and_the_end_of_a_job(terminal, tmp_path):
    """The end is shown while the prompt waits, above what is being typed, which is kept."""
    terminal.expect(r"In \[1\]:")
    terminal.sendline("%load_ext jobcontainer")
    terminal.expect(r"In \[2\]:")
    (tmp_path / "task.py").write_text(
        "import time\nclass Task:\n    def __init__(self, result): self.result = result\n"
        "    def run(self):\n        time.sleep(1)\n        return self.result\n"
    )
    terminal.sendline("from task import Task")
    terminal.expect(r"In \[3\]:")
    terminal.sendline("%jobcontainer Task(41)")
    terminal.expect(r"Task: submitted as \d{8}-\S+-Task-\w+")
    terminal.expect(r"In \[4\]:")
    terminal.send("_job.result()")
    terminal.expect(r"✔ Task succeeded · 1\.\d s")
    terminal.sendline(" + 1")
    terminal.expect(r"Out\[4\]: \S*42")
    terminal.sendline("exit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert "Error" not in ESCAPES.sub("", terminal.before)


def test_a_terminal_shows_the_table_of_a_group_at_its_end(terminal, tmp_path):
    """Below the line that counts the jobs, a row for each."""
    terminal.expect(r"In \[1\]:")
    terminal.sendline("%load_ext jobcontainer")
    terminal.expect(r"In \[2\]:")
    (tmp_path / "task.py").write_text(
        "class Task:\n    def __init__(self, n): self.n = n\n    def run(self): return {'double': 2 * self.n}\n"
    )
    terminal.sendline("from task import Task")
    terminal.expect(r"In \[3\]:")
    terminal.sendline("%jobcontainer [Task(n) for n in (20, 30)]")
    terminal.expect(r"✔ Task, 2 jobs 2 succeeded")
    terminal.expect(r"job +n +state.*double")
    terminal.expect(r"20 +✔ succeeded.* 40")
    terminal.expect(r"30 +✔ succeeded.* 60")
    terminal.sendline("exit")
    terminal.expect(pexpect.EOF)


@pytest.mark.parametrize(
    ("call", "frame"),
    [
        ("wait(lambda: _job.result())", "inner"),
        ("wait(_job.result)", "of wait"),
        ("_job.result()", "of the cell"),
        ("%jobcontainer --wait Fails()", "of the cell"),
        ("json.loads('nothing')", "no name"),
        ("%jobcontainer --engine inline --wait Fails()", "of run"),
        ("jobcontainer.JobPool(engine='inline').submit(Fails()).result()", "of run"),
    ],
)
def test_the_debugger_stops_where_user_code_asked_for_the_result(terminal, tmp_path, call, frame):
    """With ``%pdb on``, the prompt is in the frame that called this package; where the error is if that is here."""
    (tmp_path / "fails.py").write_text(
        "class Fails:\n    def run(self):\n        here = 'of run'\n        raise KeyError('no')\n"
        "def wait(get):\n    here = 'of wait'\n    return get()\n"
    )
    lines = (
        "%load_ext jobcontainer",
        "import json, concurrent.futures, jobcontainer; from fails import Fails, wait; here = 'of the cell'",
        "%jobcontainer Fails()",
        "concurrent.futures.wait([_job]); None",
        "%pdb on",
    )
    for number, line in enumerate(lines, 2):
        terminal.expect(rf"In \[{number - 1}\]:")
        terminal.sendline(line)
    terminal.expect(r"In \[6\]:")
    terminal.sendline(call.replace("lambda: _job", "lambda here='inner': _job"))
    terminal.expect("ipdb>")
    terminal.sendline("p here if 'here' in dir() else 'no name'")
    terminal.expect(f"'{frame}'")
    terminal.sendline("q")
