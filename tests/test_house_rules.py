"""The house rules, checked on the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import jobcontainer

REPOSITORY = Path(__file__).parents[1]
ROOT = Path(jobcontainer.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
TEST_MODULES = sorted((REPOSITORY / "tests").rglob("test_*.py"))
WRITTEN = [
    *sorted(path for path in ROOT.rglob("*") if path.suffix in {".py", ".js", ".css"}),
    *(REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", REPOSITORY / "src" / "README.md"),
    *sorted((REPOSITORY / "tests").rglob("README.md")),
    *sorted((REPOSITORY / ".github").rglob("*.md")),
]
MOST_NOQA = 121

METAPHORS = {
    *("crew", "errand", "errands", "courier", "resident", "residents", "tally", "tallies", "verdict", "evidence"),
    *("superior", "surroundings", "stillness", "hasty", "living", "lean", "lazily", "born", "volunteer", "volunteers"),
    *("bell", "judge", "judges", "judged", "hears", "heard", "told", "tells"),
}
"""Words of our own for what the field has a word for. *keeper* and *lifeline* are the only metaphors."""

PHRASES = re.compile(r"\b(?:gives?|given|gave) back\b|\bbrings? home\b|\bbrought home\b", re.IGNORECASE)
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of text, and of names in snake_case and CamelCase


def names(module: Path) -> str:
    return module.relative_to(ROOT).as_posix()


def dotted(module: Path) -> str:
    return ".".join(module.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


@cache
def imported(module: Path) -> list[str]:
    """The dotted names that a module imports: at its top, inside functions and for type checking alike."""
    found = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{names(module)} imports relatively"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def import_graph() -> dict[str, set[str]]:
    """Which module imports which others of the package."""
    known = {dotted(module) for module in MODULES}
    graph = {}
    for module in MODULES:
        here, targets = dotted(module), set()
        for name in imported(module):
            parts = name.split(".")
            beginnings = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
            targets.add(next((beginning for beginning in beginnings if beginning in known), ""))
        graph[here] = targets - {"", here}
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """All that a module imports, directly or through others."""
    found: set[str] = set()
    waiting = set(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting |= graph[module]
    return found


def test_imports_only_go_down():
    """The layers in ``[tool.importlinter]`` hold, for imports of types and imports inside functions too."""
    command = ["lint-imports", "--no-cache", "--config", REPOSITORY / "pyproject.toml"]
    done = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_no_modules_import_each_other_in_a_circle():
    """Any module can be read, and loaded, before those that use it; an import inside a function is no way round."""
    graph = import_graph()
    assert [module for module in graph if module in reachable(graph, module)] == []


def test_each_third_party_library_is_imported_in_one_module():
    """Replacing a library, or its next major version, changes one file.

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


def test_libraries_are_used_through_their_public_names():
    """Of joblib, loky and distributed no module is imported but the public ones, and no private name."""
    public = {"joblib", "joblib.externals.loky", "distributed"}
    for module in MODULES:
        for name in imported(module):
            if name.split(".")[0] in {"joblib", "loky", "distributed"}:
                library, _, used = name.rpartition(".")
                assert name in public or library in public, f"{names(module)}: {name}"
                assert not used.startswith("_"), f"{names(module)}: {name}"


@pytest.mark.parametrize("module", MODULES, ids=names)
def test_modules_and_functions_are_short(module):
    """A module has fewer than 400 lines, a function fewer than 40 lines of code."""
    text = module.read_text()
    assert len(text.splitlines()) < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            assert lines < 40, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_names_and_texts_use_the_words_of_the_field(path):
    """Names, docstrings, messages and documents use the words that an engineer of this field would look for."""
    for number, line in enumerate(path.read_text().replace("resident memory", "RSS").splitlines(), 1):
        found = {word for word in WORD.findall(line) if word.lower() in METAPHORS} | set(PHRASES.findall(line))
        assert not found, f"{path}:{number}: {line.strip()}"


def test_no_module_is_named_for_nothing():
    """A module's name says what is inside."""
    assert not {"utils", "common", "helpers", "core", "misc"} & {module.stem for module in MODULES}


def test_few_lines_are_exempt_from_lint():
    """``# noqa`` is for the few lines where a rule is wrong, and each of them says why."""
    exempt = [
        (names(module), line.strip())
        for module in MODULES
        for line in module.read_text().splitlines()
        if "# noqa" in line
    ]
    assert [line for line in exempt if not re.search(r"# noqa: [A-Z0-9, ]+ -- \S", line[1])] == []
    assert len(exempt) <= MOST_NOQA


@pytest.mark.parametrize("module", TEST_MODULES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_test_states_its_promise(module):
    """A test that fails says in a sentence what does not hold any more."""
    tests = [
        node
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert [test.name for test in tests if not ast.get_docstring(test)] == []
