"""The reference: what docstrings show is so, and what types promise holds."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import jobcontainer

ROOT = Path(jobcontainer.__file__).parent
WITH_EXAMPLES = [path for path in sorted(ROOT.rglob("*.py")) if ">>>" in path.read_text()]
CLASSES = [name for name in jobcontainer.__all__ if not name.endswith("Error") and name != "JobState"]

TYPED = """
from typing import Any, assert_type

from jobcontainer import Job, JobContainer, JobGroup, JobPool, JobStore, Process, progress


class Train:
    def run(self) -> int:
        return 42


class Lazy:
    pass


def scaled(number: int, by: float = 2.0) -> float:
    return number * by


process: Process[int] = Train()
wrong: Process[str] = Train()  # type: ignore[assignment]

with JobPool(2, timeout=60, memory="2GB") as pool:
    assert_type(pool.submit(Train()), Job[int])
    assert_type(pool.submit(Train()).result(timeout=1), int)
    assert_type(pool.submit(scaled, 2, by=3.0), Job[float])
    assert_type(pool.submit_all([Train(), Train()]), JobGroup[int])
    assert_type(pool.submit_all([Train()])[0], Job[int])
    assert_type(pool.with_options(retries=2).submit(Train()), Job[int])
    assert_type(pool.submit(Train()).rerun(), Job[int])
    assert_type(pool.submit(Train()).rerun(resume=True), Job[int])
    pool.submit(Lazy())  # type: ignore[call-overload]
    pool.submit(scaled, "2")  # type: ignore[call-overload]
    pool.submit(Train(), 1)  # type: ignore[call-overload]

assert_type(JobContainer("file.job").submit(), Job[Any])
assert_type(JobStore().open("id"), Job[Any])
assert_type([step for step in progress(range(3))], list[int])


async def waits(job: Job[int]) -> None:
    assert_type(await job, int)
"""


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_in_docstrings_run(path, tmp_path, monkeypatch):
    """What a docstring shows comes out when it is typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_name_has_an_example(name):
    """``help(name)`` says what it is, and shows it in use."""
    text = inspect.getdoc(getattr(jobcontainer, name)) or ""
    assert "Example:" in text


@pytest.mark.slow
def test_types_hold(tmp_path):
    """``submit`` keeps the type that ``run()`` returns, and what can't run is refused by a type checker."""
    program = tmp_path / "program.py"
    program.write_text(TYPED)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        tmp_path / "cache",
        "--config-file",
        "",
        program,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
