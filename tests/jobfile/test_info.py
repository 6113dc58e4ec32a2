"""What a file says of itself, and what becomes of files from elsewhere."""

from __future__ import annotations

import importlib.metadata
import sys
import time
import warnings

import cloudpickle
import numpy as np
import pytest

from jobcontainer import CorruptFileError, IncompatibleFileError, Serializer
from jobcontainer.jobfile import info
from jobcontainer.jobfile.serializer import write_file
from jobcontainer.jobfile.writer import FileWriter
from jobcontainer.pickling import cloudpickle_internals, package_versions
from jobcontainer.pickling.package_versions import Distribution
from jobcontainer.process import Call
from jobcontainer.worker.job_imports import load_in_job

pytestmark = pytest.mark.usefixtures("as_notebook")


class Train:
    """A process."""

    def __init__(self, value=None):
        self.value = value

    def run(self):
        return self.value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "object.job"


def test_a_file_describes_itself_without_being_loaded(path, monkeypatch):
    """Kind, class, time, versions, packages, sizes, signature."""
    before = time.time()
    array = np.zeros(10**5)
    Serializer.serialize_to_file(Train(array), path)
    monkeypatch.setattr("pickle.loads", None)
    said = Serializer.inspect(path)
    assert (said.kind, said.class_name) == ("process", "Train")
    assert before <= said.created <= time.time()
    assert said.python == ".".join(map(str, sys.version_info[:3]))
    assert said.cloudpickle == cloudpickle.__version__
    assert said.by_value
    assert said.packages["numpy"] == Distribution("numpy", np.__version__)
    assert "numpy" in {name.partition(".")[0] for name in said.modules}
    assert said.size == path.stat().st_size
    assert said.buffers == (array.nbytes,)
    assert said.signed
    assert said.other_versions == {}


@pytest.mark.parametrize(
    ("obj", "kind", "name"),
    [
        (Train(), "process", "Train"),
        (Call(len, ("a",), {}), "process", "len"),
        ({}, "object", "dict"),
        (Train, "object", "Train"),
        (np.zeros(1), "object", "numpy.ndarray"),
    ],
)
def test_kind_and_class_are_those_a_person_would_say(path, obj, kind, name):
    """Of a function's call the function is named, and ``__main__`` is left out."""
    Serializer.serialize_to_file(obj, path)
    said = Serializer.inspect(path)
    assert said.kind == kind
    assert said.class_name == name


@pytest.mark.parametrize("kind", ["process", "result", "error", "object"])
def test_who_writes_says_what_it_is(path, kind):
    """The kind in the header is the one that the writer gave."""
    write_file(1, path, kind=kind)
    assert Serializer.inspect(path).kind == kind


@pytest.mark.parametrize("version", ["2.7.18", "3.10.1", f"3.{sys.version_info.minor + 1}.0", "4.0.0"])
def test_code_of_another_python_is_refused_before_it_is_loaded(path, monkeypatch, version):
    """Bytecode of another minor version crashes the interpreter; the sentence names both."""
    with monkeypatch.context() as patch:
        patch.setattr(info, "PYTHON", version)
        Serializer.serialize_to_file(Train(), path)
    with monkeypatch.context() as patch:
        patch.setattr("jobcontainer.jobfile.loading.load", None)
        for load in (Serializer.deserialize_from_file, load_in_job):
            with pytest.raises(IncompatibleFileError) as caught:
                load(path)
            assert version in str(caught.value)
            assert info.PYTHON in str(caught.value)
    assert Serializer.inspect(path).python == version
    Serializer.verify(path)


def test_data_of_another_python_is_loaded(path, monkeypatch):
    """Without code in it, a file is readable everywhere; so is code of another patch release."""
    with monkeypatch.context() as patch:
        patch.setattr(info, "PYTHON", "3.99.0")
        Serializer.serialize_to_file({"a": np.arange(3)}, path)
    assert Serializer.deserialize_from_file(path)["a"].sum() == 3
    with monkeypatch.context() as patch:
        patch.setattr(info, "PYTHON", ".".join(map(str, (*sys.version_info[:2], 99))))
        Serializer.serialize_to_file(Train(5), path)
    assert Serializer.deserialize_from_file(path).run() == 5


def test_other_versions_are_listed_and_warned_of_once(path, monkeypatch):
    """On the first load; the line shown is the user's."""
    with monkeypatch.context() as patch:
        patch.setattr(
            info.package_versions,
            "distributions_of",
            lambda _: {"numpy": Distribution("numpy", "1.0"), "gone": Distribution("gone-thing", "2.0")},
        )
        Serializer.serialize_to_file(np.arange(3), path)
    assert Serializer.inspect(path).other_versions == {"numpy": ("1.0", np.__version__), "gone-thing": ("2.0", None)}
    with pytest.warns(
        UserWarning, match=rf"numpy 1.0 \(here {np.__version__}\), gone-thing 2.0 \(here none\)"
    ) as caught:
        Serializer.deserialize_from_file(path)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Serializer.deserialize_from_file(path)


def test_another_cloudpickle_is_warned_of_where_there_is_code(path, monkeypatch):
    """Data alone does not depend on it."""
    with monkeypatch.context() as patch:
        patch.setattr(cloudpickle_internals, "VERSION", "1.0")
        Serializer.serialize_to_file(Train(), path)
        Serializer.serialize_to_file(5, path.with_name("data.job"))
    Serializer.deserialize_from_file(path.with_name("data.job"))
    with pytest.warns(UserWarning, match=r"cloudpickle 1\.0"):
        Serializer.deserialize_from_file(path)


def test_the_same_versions_are_not_warned_of(path):
    """A clean run prints nothing."""
    Serializer.serialize_to_file([Train(np.zeros(3))], path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Serializer.deserialize_from_file(path)


def test_what_a_run_imports_later_is_named_too(path):
    """So that a process can be prepared with it."""

    def work():
        import pandas as pd  # noqa: PLC0415 -- inside the job

        return pd.Series([1])

    import pandas as pd  # noqa: PLC0415 -- it must be imported here, as in a notebook

    Serializer.serialize_to_file(Call(work, (), {}), path)
    said = Serializer.inspect(path)
    assert "pandas" in said.modules
    assert said.packages["pandas"].version == pd.__version__


def test_distributions_are_found_whatever_they_are_called(monkeypatch):
    """By their own name, by that of another, by ``__version__``, and not at all."""
    monkeypatch.setattr(package_versions, "_found", {})
    names = {"numpy": "numpy", "PIL": "pillow", "dateutil": "python-dateutil", "six": "six", "yaml": "PyYAML"}
    for top in names:
        importlib.import_module(top)
    found = package_versions.distributions_of(names)
    for top, name in names.items():
        assert found[top].version == importlib.metadata.version(name)
        assert found[top].name == name.lower()
    assert package_versions.distributions_of(["no_such_package"])["no_such_package"] == Distribution(
        "no_such_package", ""
    )


def test_a_loaded_file_shows_which_distribution_a_package_is_from(monkeypatch):
    """A job need not search for what its process file says, as long as the version is the same here."""
    monkeypatch.setattr(package_versions, "_found", {})
    monkeypatch.setattr(package_versions, "_search", None)
    pillow = Distribution("pillow", importlib.import_module("PIL").__version__)
    package_versions.compare("process.job", {"PIL": pillow})
    assert package_versions.distributions_of(["PIL"]) == {"PIL": pillow}


FIELDS = {
    "kind": "process",
    "class": "Train",
    "module": "",
    "created": 1.0,
    "python": "3.12.0",
    "cloudpickle": "3.1",
    "by_value": False,
    "modules": [],
    "packages": {},
}


def forge(path, **fields):
    """Write a file that says these things of itself, unsigned."""
    FileWriter(path).finish(FIELDS | fields, b"", [], lambda _: bytes(32))


@pytest.mark.parametrize(
    "fields",
    [
        *({"created": value} for value in (10**400, float("inf"), float("nan"), -1, "1", None, [1])),
        *({"kind": value} for value in (None, 5, ["process"], "x" * 10**6)),
        *({"class": value} for value in (None, {}, "x" * 10**6)),
        *({"modules": value} for value in (None, 5, [1], [["a"]])),
        *({"packages": value} for value in (None, [1], {"a": 1}, {"a": ["b"]}, {"a": ["b", 1]}, {"a": ["b", None]})),
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_a_header_with_nonsense_is_a_damaged_file(path, fields):
    """Whatever stands where a name, a version or a time should."""
    forge(path, **fields)
    with pytest.raises(CorruptFileError, match="its header can't be read"):
        Serializer.inspect(path)


def test_a_header_that_names_many_packages_is_read_at_once(path):
    """What is installed is listed once, and not searched for each name."""
    forge(path, packages={f"package{number}": (f"package-{number}", "1.0") for number in range(20_000)})
    begun = time.process_time()
    assert len(Serializer.inspect(path).other_versions) == 20_000
    assert time.process_time() - begun < 5


def test_many_versions_are_compared_as_few_are(path):
    """Whatever the spelling of their names."""
    mine = {"numpy": ("NumPy", np.__version__), "pytest": ("PyTest", "0.1")}
    forge(path, packages=mine | {f"package{number}": (f"package-{number}", "1.0") for number in range(100)})
    changed = Serializer.inspect(path).other_versions
    assert "NumPy" not in changed
    assert changed["PyTest"] == ("0.1", pytest.__version__)
    assert changed["package-7"] == ("1.0", None)


def test_a_warning_names_a_few_of_many_versions(path, monkeypatch):
    """And says how many others there are."""
    many = {f"package{number}": Distribution(f"package-{number}", "1.0") for number in range(300)}
    with monkeypatch.context() as patch:
        patch.setattr(info.package_versions, "distributions_of", lambda _: many)
        Serializer.serialize_to_file(np.arange(3), path)
    with pytest.warns(UserWarning, match="and 290 more: ") as caught:
        Serializer.deserialize_from_file(path)
    assert len(str(caught[0].message)) < 1000
