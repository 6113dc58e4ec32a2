"""What is used of CPython's undocumented parts is there and does what is expected of it."""

from __future__ import annotations

import ast
import linecache
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import jobcontainer
from jobcontainer.pickling import cpython_internals

NAME = "/tmp/ipykernel_1/a_cell_of_this_test.py"  # noqa: S108 -- as ipykernel calls cells


@pytest.fixture
def source():
    """A text that is no file, and is gone afterwards."""
    yield cpython_internals.add_source
    for name in (NAME, NAME + "2"):
        linecache.cache.pop(name, None)


def test_only_one_module_knows_them():
    """A new Python touches one file."""
    known = {"cache": "linecache", "getfile": "inspect", "whichmodule": "pickle"}
    for module in Path(jobcontainer.__file__).parent.joinpath("pickling").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == known.get(node.attr):
                assert module.name == "cpython_internals.py", module


def test_a_traceback_shows_the_line_of_a_source_that_was_added(source):
    """Also after linecache has checked which of its texts are still true."""
    source(NAME, "first = 1\nfirst / 0\n")
    assert cpython_internals.has_source(NAME)
    assert not cpython_internals.has_source(NAME + "2")
    linecache.checkcache()
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("first = 1\nfirst / 0\n", NAME, "exec"), {})  # noqa: S102 -- a cell
    assert "first / 0" in "".join(traceback.format_exception(caught.value))


def test_cells_come_with_the_latest_first(source):
    """Texts of files on disk are not among them."""
    assert linecache.getlines(__file__)
    source(NAME, "first = 1\n")
    source(NAME + "2", "second = 2\n")
    assert cpython_internals.cells()[:2] == [NAME + "2", NAME]
    assert __file__ not in cpython_internals.cells()


def test_inspect_asks_for_the_file_of_a_class():
    """Once, however often it is extended; and it goes on by itself with what is not known."""
    code = """
import inspect, json
from jobcontainer.pickling import cpython_internals
class Known: pass
class Unknown: pass
for _ in range(3):
    cpython_internals.extend_getfile(lambda cls: "known.py" if cls is Known else None)
assert inspect.getfile(Known) == "known.py"
assert inspect.getfile(json.JSONDecoder).endswith("decoder.py")
assert not hasattr(inspect.getfile.__wrapped__, "__wrapped__")
try:
    inspect.getfile(Unknown)
except (TypeError, OSError):
    print("as ever")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "as ever\n", result.stderr
