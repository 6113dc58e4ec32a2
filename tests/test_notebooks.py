"""The notebooks: they run from the top, and their saved outputs are what a reader should see."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLACEHOLDERS = ("Error displaying widget", "model not found", "application/vnd.jupyter.widget-view+json")
OF_A_MACHINE = re.compile(r"/tmp/(?!ipykernel/)|/home/\w|/root/|/Users/\w|[A-Z]:\\\\Users")  # noqa: S108 -- looked for, not made

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in content(path)["cells"] if cell["cell_type"] == "code"]


def content(path):
    """Read a notebook as plain JSON: to import nbformat takes seconds."""
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def check_outputs(path):
    """Every cell was run in order, from the top; no output is a placeholder; exactly the tagged cells raise."""
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [word for word in PLACEHOLDERS if word in path.read_text()]
    for cell in cells:
        errors = [output["ename"] for output in cell["outputs"] if output["output_type"] == "error"]
        assert bool(errors) == ("raises-exception" in cell["metadata"].get("tags", ())), source(cell)
        shown = str(cell["outputs"])
        submits = source(cell).startswith(("%%jobcontainer", "%jobcontainer")) and "--save" not in source(cell)
        if submits and "SerializationError" not in errors:  # it is raised before there is a job
            assert "data-card=" in shown, source(cell)
        assert "data-snapshot" not in shown, "a job was still running when the notebook was saved"


def test_there_are_notebooks():
    """The tests below have notebooks to check."""
    assert NOTEBOOKS


@each_notebook
def test_saved_outputs_are_whole(path):
    """A committed notebook was run from the top to its end, and has no widget, which a reader's page can't show."""
    check_outputs(path)


@each_notebook
def test_saved_notebooks_have_no_trace_of_the_machine_they_were_made_on(path):
    """No folder of a person, no times of execution: a difference between two commits is one that matters."""
    found = OF_A_MACHINE.search(path.read_text())
    assert not found, path.read_text()[found.start() - 80 : found.end() + 80]
    notebook = content(path)
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])


@pytest.mark.slow
@each_notebook
def test_a_saved_notebook_is_of_the_format(path):
    """By the schema of nbformat."""
    import nbformat  # noqa: PLC0415 -- it takes seconds, which the fast suite does not have

    nbformat.validate(nbformat.read(path, as_version=4))


@each_notebook
def test_notebooks_are_short(path):
    """A reader needs a few minutes for one."""
    lines = sum(len(source(cell).splitlines()) for cell in code_cells(path))
    assert lines <= 120
    assert path.stat().st_size < 600_000


@pytest.mark.slow
@pytest.mark.timeout(600)
@each_notebook
def test_notebooks_run_from_the_top(path, tmp_path):
    """Each runs in an empty folder with a new kernel, as it does for a new user, and shows what it should."""
    command = [sys.executable, ROOT / ".ci" / "notebooks.py", "--into", tmp_path, path]
    env = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(tmp_path / "dask")}  # where its workers leave a folder
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    check_outputs(tmp_path / path.name)
    test_a_saved_notebook_is_of_the_format(tmp_path / path.name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pipeline_with_keys_that_is_run_twice_does_nothing_the_second_time(tmp_path):
    """Run All again: only what has no key runs."""
    notebook = content(ROOT / "notebooks" / "pipeline.ipynb")
    notebook["cells"] = [{**cell, "id": f"twice-{number}"} for number, cell in enumerate(notebook["cells"] * 2)]
    twice = tmp_path / "twice.ipynb"
    twice.write_text(json.dumps(notebook), encoding="utf-8")
    command = [sys.executable, ROOT / ".ci" / "notebooks.py", twice]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (str(cell["outputs"]) for cell in code_cells(twice) if "JobStore().jobs()" in source(cell))
    assert "'succeeded': 7, 'failed': 1, 'upstream_failed': 2" in first
    assert "'succeeded': 7, 'failed': 2, 'upstream_failed': 4" in second
