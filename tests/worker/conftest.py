"""What the tests of the worker share: code run in a process of its own, as a job's ``run()`` is."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from textwrap import dedent

import pytest

from jobcontainer.events import Progress, folded
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.progress_file import read_bars

JOB = """
import sys
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.progress_file import read_bars
from jobcontainer.worker.reporting import display as outputs, progress as bars
folder = JobFolder(sys.argv[1])
for name in sys.argv[3:]:
    __import__(name)
bars.install(folder)
outputs.install(folder)
try:
    exec(compile(sys.argv[2], "<job>", "exec"), {"__name__": "__main__", "folder": folder, "read_bars": read_bars})
finally:
    outputs.finish()
    bars.finish()
"""


@dataclass(frozen=True)
class Ran:
    """What is left of a job."""

    folder: JobFolder
    returncode: int

    @property
    def log(self):
        return self.folder.log_file.read_text()

    @property
    def bars(self):
        return read_bars(self.folder.progress_file)

    @property
    def events(self):
        return self.folder.read_events()[0]

    @property
    def progress(self):
        return [event for event in self.events if isinstance(event, Progress)]

    @property
    def outputs(self):
        return folded(self.events)


@pytest.fixture
def in_job(tmp_path):
    """Run code with the hooks of a job installed, in a fresh process whose output goes to the job's log."""

    def run(code, *, preload=(), env=None, returncode=0):
        folder = JobFolder(tmp_path / "job")
        folder.create()
        environ = {name: value for name, value in os.environ.items() if name not in {"MPLBACKEND", "PLOTLY_RENDERER"}}
        with folder.log_file.open("wb") as log:
            ran = subprocess.run(
                [sys.executable, "-c", JOB, str(folder.path), dedent(code), *preload],
                stdout=log,
                stderr=log,
                env=environ | (env or {}),
                check=False,
            )
        assert ran.returncode == returncode, folder.log_file.read_text()
        return Ran(folder, ran.returncode)

    return run
