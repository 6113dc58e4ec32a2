"""What is built from this checkout, and what Binder installs of it: they are whole, and they work alone."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BINDER = ROOT / "binder"
SOURCES = {
    path.relative_to(ROOT).as_posix()
    for folder in ("src", "notebooks", "binder")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "IPython": "ipython"}
"""Packages whose distribution has another name."""

ONE_JOB = r"""
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in ("%load_ext jobcontainer", "%%jobcontainer --wait --as job\nclass Answer:\n    def run(self): return 42\n"):
    shell.run_cell(cell).raise_error()
print("the answer is", shell.user_ns["job"].result())
"""


def run(command, **options):
    """Run a command that must succeed, and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def pins():
    """What Binder installs beside the package: name -> version."""
    lines = [line.split("#")[0].strip() for line in (BINDER / "requirements.txt").read_text().splitlines()]
    return dict(line.split("==") for line in lines if "==" in line)


def requirements(*extras):
    """The requirements of the package and some of its extras: name -> the versions that are allowed."""
    texts = PROJECT["dependencies"] + [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    parsed = map(Requirement, texts)
    return {one.name: one.specifier for one in parsed if one.name != PROJECT["name"]}


def bound(specifier, operator):
    """The one version that a specifier has with an operator."""
    (version,) = (one.version for one in specifier if one.operator == operator)
    return version


def imported(code):
    """The top-level names that a cell or script imports."""
    lines = [line for line in code.splitlines() if not line.lstrip().startswith(("%", "!"))]
    nodes = list(ast.walk(ast.parse("\n".join(lines))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", folder, ROOT])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(distributions):
    """Every module, the card's script and styles, ``py.typed``, the licence; no test, no cache."""
    wheel, _ = distributions
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    assert package == {name.removeprefix("src/") for name in SOURCES if name.startswith("src/jobcontainer/")}
    assert {"jobcontainer/py.typed", "jobcontainer/notebook/panel.js"} <= package
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_sdist_holds_what_a_contributor_needs(distributions):
    """Sources, tests, notebooks, and what is read by the tests."""
    _, sdist = distributions
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert names >= SOURCES | {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "tests/conftest.py"}
    assert not [name for name in names if "__pycache__" in name or name.startswith(".jobcontainer")]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("versions", ["newest", "lowest"])
def test_the_wheel_works_in_an_empty_environment(distributions, tmp_path, versions):
    """It brings all it needs: the extension loads and a cell runs, with the lowest versions allowed too."""
    wheel, _ = distributions
    python = tmp_path / "venv" / "bin" / "python"
    run([sys.executable, "-m", "venv", tmp_path / "venv"])
    lowest = [f"{name}=={bound(allowed, '>=')}" for name, allowed in requirements().items()]
    run([python, "-m", "pip", "install", "--quiet", wheel, *(lowest if versions == "lowest" else ())])
    script = tmp_path / "one_job.py"
    script.write_text(ONE_JOB)
    assert "the answer is 42" in run([python, "-I", script], cwd=tmp_path)
    assert "usage: jobcontainer" in run([python.with_name("jobcontainer"), "--help"])


def test_every_dependency_has_a_reason_and_a_floor():
    """Whoever installs the package can read beside each name what it is for, and gets no version it fails with."""
    text = (ROOT / "pyproject.toml").read_text()
    for name, allowed in requirements("dask", "demo", "docs", "test").items():
        assert bound(allowed, ">="), name
    for name in requirements("dask"):
        assert re.search(rf'"{name}>=[^"]*"\]?,? *# \w', text), name


@pytest.mark.parametrize("name", ["cloudpickle", "distributed", "joblib"])
def test_a_ceiling_is_at_the_next_minor_version(name):
    """A library whose inside matters is allowed up to the minor version that Binder pins, and no further."""
    pinned, ceiling = Version(pins()[name]), Version(bound(requirements("dask")[name], "<"))
    assert ceiling.release == (pinned.major, pinned.minor + 1)


def test_binder_installs_this_checkout_with_what_the_notebooks_import():
    """Its requirements name the package with its demo, and pin all that a notebook imports."""
    assert ".[demo]" in (BINDER / "requirements.txt").read_text().splitlines()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            names = imported("".join(cell["source"])) if cell["cell_type"] == "code" else set()
            wanted = {DISTRIBUTIONS.get(name, name) for name in names - set(sys.stdlib_module_names)}
            assert wanted - {"jobcontainer"} <= pins().keys(), path.name


def test_binder_pins_what_the_package_requires():
    """Each requirement of the package and its demo is pinned once, at a version that is allowed."""
    required = requirements("demo", "dask")
    assert requirements("demo").keys() <= pins().keys()
    for name, version in pins().items():
        assert re.fullmatch(r"[\d.]+", version), name
        assert name not in required or required[name].contains(version), name


def test_binder_follows_the_rules_of_repo2docker():
    """With ``binder/`` only files in there count: a Python that we support, and a start that goes on to the command."""
    python = (BINDER / "runtime.txt").read_text().strip().removeprefix("python-")
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    start = BINDER / "start"
    assert start.read_text().rstrip().endswith('exec "$@"')
    assert start.stat().st_mode & 0o111
    assert not {path.name for path in BINDER.iterdir()} - {"requirements.txt", "runtime.txt", "start", "apt.txt"}
