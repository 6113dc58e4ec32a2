"""``!command`` and ``%magic`` lines in code that travels: refused, by the line as it was typed."""

from __future__ import annotations

import textwrap

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from jobcontainer import JobPool, SerializationError, diagnose

LINES = {
    "!ls -l": "!ls -l",
    "x = !git status": "!git status",
    "%timeit sum(range(3))": "%timeit sum(range(3))",
    "%matplotlib": "%matplotlib",
    "found = %pwd": "%pwd",
    "!!date": "!date",
}


def made(source):
    """Return the class that a cell defines, as IPython runs it."""
    names = {"__name__": "__main__"}
    exec(compile(TransformerManager().transform_cell(textwrap.dedent(source)), "<cell>", "exec"), names)  # noqa: S102
    return names["Task"]


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_ipython_in_run_is_refused_by_its_name(tmp_path, line):
    """At submit, with its number and what to use instead; nothing was submitted."""
    task = made(f"class Task:\n    def run(self):\n        number = 1\n        {line}\n        return number\n")
    pool = JobPool(1, engine="inline", store=tmp_path)
    with pytest.raises(SerializationError, match=r"subprocess\.run") as refused:
        pool.submit(task())
    assert f"Line 4 of the cell, {LINES[line]!r}," in str(refused.value)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_it_is_found_in_what_run_uses():
    """In a function that it calls, in one that is nested in another, in a comprehension."""
    nested = made("class Task:\n    def run(self):\n        def inner():\n            !ls\n        return inner()\n")
    used = made("def helper():\n    %cd /\n\nclass Task:\n    def run(self):\n        return [helper() for _ in ()]\n")
    assert "'!ls'" in diagnose(nested())[0].hint
    (culprit,) = diagnose(used())
    assert "helper" in culprit.path
    assert "'%cd /'" in culprit.hint


def test_code_that_only_asks_for_ipython_is_left_alone():
    """It may ask whether there is one, as code that runs in both does."""
    task = made(
        "class Task:\n    def run(self):\n        try:\n            return get_ipython().user_ns\n"
        "        except NameError:\n            return 'no IPython'\n"
    )
    assert diagnose(task()) == []
    assert task().run() == "no IPython"
