"""The READMEs: code runs and prints what they show, CI finds its commands in them, links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BENCHMARKS = ROOT / "tests" / "benchmarks"
DOCUMENTS = [
    *(ROOT / folder / "README.md" for folder in (".", "src", "tests", "tests/benchmarks", "notebooks")),
    ROOT / "CHANGELOG.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    ROOT / ".github" / "SECURITY.md",
]
SET_UP = {
    "demo": 'pip install -e ".[demo]" && jupyter lab notebooks/quickstart.ipynb',
    "test": 'pip install -e ".[test]" && pytest',
}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2], match.end()) for match in FENCE.finditer(README)]
CELLS = [text for kind, text, _ in BLOCKS if kind == "python" and "%" in {line[:1] for line in text.splitlines()}]
SNIPPETS = [(text, end) for kind, text, end in BLOCKS if kind == "python" and text not in CELLS]
COMMANDS = [text for kind, text, _ in BLOCKS if kind == "sh" and text.startswith("jobcontainer ")]


def printed(end):
    """The output that the README shows after a block, if it shows one."""
    following = re.match(r"\n+```text\n(.*?)^```$", README[end:], re.MULTILINE | re.DOTALL)
    return following[1] if following else None


def environment(folder):
    return os.environ | {
        "JOBCONTAINER_HOME": str(folder / ".jobcontainer"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONWARNINGS": "default",
    }


def run(command, folder):
    """Run a command and return what it printed; it must succeed and complain of nothing."""
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def anchors(document):
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_two_set_up_commands_are_there():
    """One command to the quickstart, one to the tests; nothing else is to be installed."""
    assert [text.strip() for kind, text, _ in BLOCKS if kind == "sh" and "pip install" in text] == list(SET_UP.values())


@pytest.mark.parametrize("name", SET_UP)
def test_ci_finds_the_set_up_commands_by_their_names(name):
    """``.ci/run`` asks for a command by the name that stands above it, and gets what the reader sees."""
    script = ROOT / ".ci" / "readme_command.py"
    done = subprocess.run([sys.executable, script, name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SET_UP[name]
    done = subprocess.run([sys.executable, script, f"no-{name}"], capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_the_readme_is_short():
    """A reader gets through it in a few minutes; what takes longer has a README in its own folder."""
    assert len(README.splitlines()) <= 200


def test_python_snippets_are_found():
    """The tests below have something to run."""
    assert CELLS
    assert len(SNIPPETS) >= 2
    assert COMMANDS
    assert any(printed(end) for _, end in SNIPPETS)


@pytest.mark.slow
def test_every_python_snippet_and_command_runs_as_printed(tmp_path):
    """Copied into a file and run, in the order of the README, each does what is said, and prints what is shown."""
    for number, (text, end) in enumerate(SNIPPETS):
        script = tmp_path / f"snippet_{number}.py"
        script.write_text(text)
        output = run([sys.executable, script], tmp_path)
        assert printed(end) in {None, output}
    run(["jobcontainer", "list"], tmp_path)
    newest = json.loads(run(["jobcontainer", "list", "--json"], tmp_path))[-1]["id"]
    for text in COMMANDS:
        run(["bash", "-ec", text.replace("ID", newest)], tmp_path)


@pytest.mark.slow
def test_every_notebook_cell_runs_as_printed(tmp_path):
    """Typed into one notebook, after the extension is loaded, the README's cells run."""
    import nbformat  # noqa: PLC0415 -- it takes seconds, which the fast suite does not have

    assert "`%load_ext jobcontainer`" in README
    typed = ["%load_ext jobcontainer", *CELLS]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in typed])
    path = tmp_path / "readme.ipynb"
    nbformat.write(notebook, path)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "notebooks.py", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outputs = [str(cell.outputs) for cell in nbformat.read(path, as_version=4).cells]
    submitting = [output for cell, output in zip(typed, outputs, strict=True) if "%%jobcontainer" in cell]
    assert submitting
    assert all('data-state="succeeded"' in output for output in submitting)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    """Every relative link and picture is a file of the repository, and every anchor a heading."""
    text = FENCE.sub("", document.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:href|src|srcset)="([^"]+)"', text)
    for link in links:
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_comparison_shows_its_command_and_its_goal():
    """Each block of figures names the script that made it, and a goal that is met or missed; none is a quick try."""
    tables = (BENCHMARKS / "README.md").read_text()
    blocks = re.findall(r"<!-- benchmarks: (\w+) -->\n(.*?)<!-- /benchmarks: \1 -->", tables, re.DOTALL)
    assert blocks
    for script, text in blocks:
        assert (BENCHMARKS / f"{script}.py").exists()
        command = re.search(r"`python (tests/benchmarks/\S+)(.*?)`", text)
        assert command[1] == f"tests/benchmarks/{script}.py"
        assert "--quick" not in command[2]
        assert re.search(r"^\| \*goal\* \|.*: \*\*(met|missed: .*)\*\*", text, re.MULTILINE), script


def test_the_architecture_names_modules_that_exist():
    """Whoever follows ``src/README.md`` to a module finds it there."""
    text = (ROOT / "src" / "README.md").read_text()
    package = ROOT / "src" / "jobcontainer"
    names = {name.rstrip("/") for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", text)}
    assert len(names) > 30
    assert [name for name in sorted(names) if not any((base / name).exists() for base in (package, ROOT))] == []
