"""The rules of the house, checked on the source itself."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import jobcontainer

ROOT = Path(jobcontainer.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
LAYERS = [
    {"errors", "process", "events"},
    {"pickling"},
    {"jobfile"},
    {"storage"},
    {"worker"},
    {"engines"},
    {"views"},
    {"jobs"},
    {"notebook", "cli"},
    {"__init__", "__main__"},
]
PROMISED = {"errors", "process", "events"}  # the lowest layer, each of which may use the two others


def names(module: Path) -> str:
    return module.relative_to(ROOT).as_posix()


def layer(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def imported(module: Path) -> list[str]:
    """The dotted names that a module imports, those for type checking left out."""
    tree = ast.parse(module.read_text())
    checked = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    skipped = {id(child) for node in checked for child in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{names(module)} imports relatively"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("module", MODULES, ids=names)
def test_imports_only_go_down(module):
    """``errors, process, events → pickling → jobfile → storage → worker → engines → views → jobs → notebook, cli``."""
    here = module.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported(module):
        parts = name.split(".")
        if parts[0] == "jobcontainer" and len(parts) > 1 and parts[1] not in jobcontainer.__all__:
            assert parts[1] == here or layer(parts[1]) < layer(here) or {parts[1], here} <= PROMISED, name


def test_each_third_party_library_is_imported_in_one_module():
    """Replacing a library, or its next major version, touches one file.

    IPython has two users that nothing connects: the magics of a notebook, and the formatters in a job.
    """
    users = defaultdict(set)
    for module in MODULES:
        for name in imported(module):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "jobcontainer":
                users[top].add(names(module))
    assert {top: where for top, where in users.items() if len(where) > 1} == {
        "IPython": {"notebook/magics.py", "worker/reporting/mime_bundle.py"}
    }


@pytest.mark.parametrize("module", MODULES, ids=names)
def test_modules_and_functions_are_short(module):
    """A module under 400 lines, a function's code under 40."""
    text = module.read_text()
    assert len(text.splitlines()) < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            assert lines < 40, f"{node.name} has {lines} lines"


def test_no_module_is_named_for_nothing():
    """Names tell what is inside."""
    assert not {"utils", "common", "helpers", "core", "misc"} & {module.stem for module in MODULES}
