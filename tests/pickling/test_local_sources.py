"""Modules beside the notebook travel as they are in memory; installed ones never do."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
import threading
import types

import cloudpickle
import numpy as np
import pytest

import jobcontainer
from jobcontainer import SerializationError, Serializer
from jobcontainer.pickling import module_origin
from jobcontainer.pickling.module_origin import travels


@pytest.fixture
def path(tmp_path):
    return tmp_path / "process.job"


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Write modules beside the notebook, and forget them afterwards."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name, source):
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return file

    yield write
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    module_origin._is_local.cache_clear()


class Calls:
    """Calls a function, with what the notebook has."""

    def __init__(self, function):
        self.function = function

    def run(self):
        return self.function()


def test_a_helper_travels_without_its_file(beside, path, run_in_job):
    """Functions, classes, constants, as attributes of the module or imported by name; the job has no such file."""
    beside(
        "helper_a",
        """
        import dataclasses
        RATE = 0.5
        @dataclasses.dataclass
        class Point:
            x: float
            def scaled(self): return Point(self.x * RATE)
        def double(x): return x * 2
        def through(x): return double(x) + RATE
        """,
    )
    import helper_a  # noqa: PLC0415 -- written just now
    from helper_a import Point, through  # noqa: PLC0415

    def work():
        return helper_a.double(4), through(1), Point(3.0).scaled(), helper_a.Point is Point

    Serializer.serialize_to_file(Calls(work), path)
    doubled, number, point, same = run_in_job(path)
    assert (doubled, number, same) == (8, 2.5, True)
    assert type(point) is Point
    assert point == Point(1.5)


def test_names_in_classes_made_inside_a_function_travel(beside, path, run_in_job):
    """Decorators, defaults, annotations and plain values of a class body; in a function and in a function of that."""
    beside("helper_k", "import functools\ndef cached(f): return functools.cached_property(f)\nSTART = 5")
    import helper_k  # noqa: PLC0415 -- written just now

    unit = {}
    exec(  # noqa: S102 -- a cell, whose names are globals
        textwrap.dedent("""
        import functools, dataclasses
        SIDE = 3
        def deepest():
            def made():
                class Square:
                    side = SIDE
                    start = helper_k.START
                    @functools.cached_property
                    def area(self): return self.side ** 2
                    @helper_k.cached
                    def twice(self): return self.side * 2
                @dataclasses.dataclass
                class Point:
                    x: int = SIDE
                return Square(), Point()
            square, point = made()
            return square.area, square.start, square.twice, point.x
        """),
        cell := {"helper_k": helper_k, "__name__": "__main__"},
        unit,
    )
    cell.update(unit)
    Serializer.serialize_to_file(Calls(unit["deepest"]), path)
    assert run_in_job(path) == (9, 5, 6, 3)


def test_submodules_that_only_nested_code_names_are_there(path, run_in_job):
    """Of installed packages, imported in the notebook by whoever; the job has not imported them by itself."""
    import wsgiref.headers  # noqa: PLC0415 -- as in a cell

    def work():
        def parse(text):
            return [wsgiref.headers.Headers([("name", one)])["name"] for one in [text]]

        return parse("a")

    for function in (work, types.FunctionType(_parses.__code__, {"wsgiref": wsgiref, "__name__": "__main__"})):
        Serializer.serialize_to_file(Calls(function), path)
        assert run_in_job(path) == ["a"]


def _parses():
    return [wsgiref.headers.Headers([("name", one)])["name"] for one in "a"]  # noqa: F821 -- given above


def test_nested_imports_travel_too(beside, path, run_in_job):
    """Of modules that helpers import, even each other, at their top or inside a function; packages, relatively."""
    beside("helper_b", "import helper_c\ndef outer(): return helper_c.inner() + 1\ndef base(): return 10")
    beside("helper_c", "import helper_b\ndef inner():\n    from helper_b import base\n    return base() + 1")
    beside("package_d/__init__", "from . import part\nNAME = 'd'")
    beside(
        "package_d/part", "def call():\n    from .deep import answer\n    from . import NAME\n    return NAME, answer()"
    )
    beside("package_d/deep", "def answer(): return 42")
    import helper_b  # noqa: PLC0415 -- written just now
    import package_d.deep  # noqa: PLC0415

    def work():
        import helper_c  # noqa: PLC0415 -- inside the job

        return helper_b.outer(), helper_c.helper_b is helper_b, package_d.part.call()

    Serializer.serialize_to_file(Calls(work), path)
    assert run_in_job(path) == (12, True, ("d", 42))


def test_functions_of_a_module_share_its_globals(beside, path, run_in_job):
    """A function that sets a global is seen by others and by the module, as when it is imported."""
    beside(
        "helper_e",
        """
        COUNT = 0
        def count():
            global COUNT
            COUNT += 1
        def get(): return COUNT
        """,
    )
    import helper_e  # noqa: PLC0415 -- written just now
    from helper_e import count, get  # noqa: PLC0415

    def work():
        count()
        helper_e.count()
        return get(), helper_e.COUNT, vars(helper_e) is count.__globals__

    Serializer.serialize_to_file(Calls(work), path)
    assert run_in_job(path) == (2, 2, True)
    assert helper_e.COUNT == 0


def test_what_is_in_memory_counts_and_not_the_file(beside, path, run_in_job):
    """Values set from the notebook travel; an edit that was not reloaded does not."""
    file = beside("helper_f", "LIMIT = 1\ndef limit(): return LIMIT, 'old'")
    import helper_f  # noqa: PLC0415 -- written just now

    helper_f.LIMIT = 7
    file.write_text("LIMIT = 2\ndef limit(): return LIMIT, 'edited'")
    Serializer.serialize_to_file(Calls(helper_f.limit), path)
    assert run_in_job(path, path=[file.parent]) == (7, "old")


def test_an_edited_and_reloaded_helper_runs_new_in_the_next_job_and_old_in_a_queued_one(beside, path, run_in_job):
    """A job runs the helper as it was in memory at submit."""
    file = beside("helper_g", "def version(): return 'old'")
    import helper_g  # noqa: PLC0415 -- written just now

    def work():
        import helper_g as again  # noqa: PLC0415 -- inside the job

        return helper_g.version(), again.version()

    Serializer.serialize_to_file(Calls(work), path)
    file.write_text("def version(): return 'new and longer'")
    importlib.invalidate_caches()
    importlib.reload(helper_g)
    later = path.with_name("later.job")
    Serializer.serialize_to_file(Calls(work), later)
    assert run_in_job(later, path=[file.parent]) == ("new and longer",) * 2
    assert run_in_job(path, path=[file.parent]) == ("old", "old")


def test_the_notebooks_modules_stay_as_they_are(beside, path):
    """Loading puts nothing into ``sys.modules``, and changes none of its modules."""
    beside("helper_h", "STATE = []\ndef get(): return STATE")
    import helper_h  # noqa: PLC0415 -- written just now

    Serializer.serialize_to_file([helper_h, helper_h.get], path)
    helper_h.STATE.append("here")
    before = dict(sys.modules)
    module, get = Serializer.deserialize_from_file(path)
    assert dict(sys.modules) == before
    assert helper_h.STATE == ["here"]
    assert get() == []
    assert module.get() is get()


def test_what_of_a_module_can_not_travel_is_named_when_it_is_used(beside, path, run_in_job):
    """The rest of the module goes; locks are made anew, as an import would make them."""
    beside(
        "helper_i",
        """
        import sqlite3, threading
        connection = sqlite3.connect(":memory:")
        lock = threading.Lock()
        again = threading.RLock()
        local = threading.local()
        def locked():
            with lock, again:
                local.value = 5
                return local.value
        def fine(): return "fine"
        """,
    )
    import helper_i  # noqa: PLC0415 -- written just now

    def work():
        try:
            helper_i.connection.execute("select 1")
        except AttributeError as error:
            return helper_i.fine(), helper_i.locked(), str(error)

    helper_i.lock.acquire()  # whatever its state here
    Serializer.serialize_to_file(Calls(work), path)
    fine, locked, message = run_in_job(path)
    helper_i.lock.release()
    helper_i.connection.close()
    assert (fine, locked) == ("fine", 5)
    assert message.startswith("helper_i.connection (Connection) could not travel into the job. Make it inside run()")


def test_what_a_function_needs_and_can_not_travel_is_refused_at_once(beside, path):
    """The error comes at submit and names the part."""
    beside(
        "helper_j",
        """
        import sqlite3
        connection = sqlite3.connect(":memory:")
        def ask(): return connection.execute("select 1")
        """,
    )
    from helper_j import ask, connection  # noqa: PLC0415 -- written just now

    with pytest.raises(SerializationError) as caught:
        Serializer.serialize_to_file(Calls(ask), path)
    connection.close()
    assert [culprit.path for culprit in caught.value.culprits] == ["process.function -> global connection"]


def test_installed_packages_never_travel(path):
    """Nor does the standard library, nor this package: they are named in the file."""
    import pandas as pd  # noqa: PLC0415 -- only here

    def work():
        return np.zeros(3), pd.DataFrame(), os.sep, jobcontainer.JobState.RUNNING

    Serializer.serialize_to_file(Calls(work), path)
    facts = Serializer.inspect(path)
    assert {"numpy", "pandas"} <= set(facts.packages)
    assert path.stat().st_size < 20_000
    for name in (
        "numpy",
        "pandas.core.frame",
        "json",
        "os.path",
        "jobcontainer.jobfile",
        "cloudpickle",
        "_thread",
        "sys",
    ):
        assert not travels(name), name


def test_what_is_installed_to_be_edited_does_not_travel_either(tmp_path, monkeypatch):
    """Neither what a ``.pth`` file puts on the path, nor what setuptools' finders map; what lies beside it does."""
    project, site = tmp_path / "project", tmp_path / "site-packages"
    (project / "src").mkdir(parents=True)
    (project / "notebooks").mkdir()
    site.mkdir()
    (site / "__editable__.thing.pth").write_text(f"{project / 'src'}\nimport thing_finder\n# {project}\n")
    monkeypatch.setattr(module_origin.site, "getsitepackages", lambda: [str(site)])
    module_origin._editable_roots.cache_clear()
    module_origin._is_local.cache_clear()
    try:
        assert not module_origin._is_local("thing", str(project / "src" / "thing" / "__init__.py"))
        assert not module_origin._is_local("single", str(project / "src" / "single.py"))
        assert module_origin._is_local("helper", str(project / "notebooks" / "helper.py"))
        finder = type("Finder", (), {"__module__": "editable_thing_finder"})
        module = type(sys)("editable_thing_finder")
        module.MAPPING = {"mapped": str(project / "mapped")}
        monkeypatch.setitem(sys.modules, "editable_thing_finder", module)
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
        assert not module_origin._is_local("mapped", str(project / "mapped" / "__init__.py"))
        assert module_origin._is_local("unmapped", str(project / "unmapped" / "__init__.py"))
    finally:
        module_origin._editable_roots.cache_clear()
        module_origin._is_local.cache_clear()


@pytest.mark.parametrize(
    ("origin", "local"),
    [
        ("/home/me/notebook/helper.py", True),
        ("/home/me/notebook/helper.cpython-311-x86_64-linux-gnu.so", False),
        ("/home/me/env/lib/python3.11/site-packages/thing.py", False),
        ("/usr/lib/python3/dist-packages/thing/__init__.py", False),
        ("built-in", False),
        (None, True),
    ],
)
def test_where_a_module_is_from_decides(origin, local):
    """Compiled code has no way but by name; a module that was made by hand is nowhere else."""
    module_origin._is_local.cache_clear()
    assert module_origin._is_local("some_module", origin) is local


def test_the_registry_of_cloudpickle_is_not_touched(beside, path):
    """It belongs to the whole process, and two threads that pickle would see each other's changes."""
    beside("helper_k", "def f(): return 1")
    import helper_k  # noqa: PLC0415 -- written just now

    seen = []

    class Looks:
        def __reduce__(self):
            seen.append(cloudpickle.list_registry_pickle_by_value())
            return dict, ()

    Serializer.serialize_to_file([Looks(), helper_k], path)
    assert seen == [set()]


def test_threads_write_and_load_side_by_side(beside, tmp_path):
    """Each file is whole and right, whatever others do at the same time."""
    beside("helper_l", "class Thing:\n    def __init__(self, n): self.n = n\n    def square(self): return self.n ** 2")
    import helper_l  # noqa: PLC0415 -- written just now

    wrong = []

    def work(number):
        try:
            for turn in range(30):
                file = tmp_path / f"{number}.job"
                Serializer.serialize_to_file({"thing": helper_l.Thing(number), "turn": turn}, file)
                found = Serializer.deserialize_from_file(file)
                if (found["thing"].square(), found["turn"], type(found["thing"])) != (number**2, turn, helper_l.Thing):
                    wrong.append(found)
        except Exception as error:  # noqa: BLE001 -- any is wrong
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
