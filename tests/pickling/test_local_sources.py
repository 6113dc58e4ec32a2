"""Modules beside the notebook are imported in a job from the source that they had at submit; installed ones by name."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.resources
import importlib.util
import inspect
import os
import py_compile
import sys
import textwrap
import threading
import time
import traceback
import types
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import jobcontainer
from jobcontainer import IncompatibleFileError, JobState, SerializationError, Serializer
from jobcontainer.jobfile import signing
from jobcontainer.jobfile.serializer import write_file
from jobcontainer.pickling import module_origin, package_versions, source_importer
from jobcontainer.pickling.module_origin import is_local, lies_beside, may_be_edited, travels
from jobcontainer.pickling.source_code import source_of

pytestmark = pytest.mark.usefixtures("as_notebook")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "process.job"


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Write files beside the notebook, and forget the modules among them afterwards."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name, source):
        file = folder / (name if Path(name).suffix else f"{name}.py")
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return file

    yield write
    new = {name: sys.modules[name] for name in set(sys.modules) - before}
    places = {name: str((getattr(it, "__file__", ""), *getattr(it, "__path__", ()))) for name, it in new.items()}
    for name, place in places.items():
        if str(folder.parent) in place:
            del sys.modules[name]
    lies_beside.cache_clear()


@pytest.fixture
def in_job(path, run_in_job):
    """Write a function as a process, and run it in a job that has no folder of the notebook on its path."""

    def run(function, **options):
        Serializer.serialize_to_file(Calls(function), path)
        return run_in_job(path, **options)

    return run


class Calls:
    """Calls a function, with what the notebook has."""

    def __init__(self, function):
        self.function = function

    def run(self):
        return self.function()


def named_in(path):
    """Return the modules beside the notebook that a file names."""
    return Serializer.inspect(path).local_modules


# --- what an import gives -------------------------------------------------------------------------------------------


def test_a_helper_is_imported_without_its_folder(beside, in_job):
    """Functions, classes, constants, of the module or imported by name; results are of the notebook's own classes."""
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

    doubled, number, point, same = in_job(work)
    assert (doubled, number, same) == (8, 2.5, True)
    assert type(point) is Point
    assert point == Point(1.5)


def test_what_only_an_import_makes_is_as_the_import_makes_it(beside, in_job):
    """Fields of data classes, enums, locks, context variables, loggers, the module's own names, ``__getattr__``."""
    file = beside(
        "helper_b",
        """
        import contextvars, dataclasses, enum, logging, sqlite3, threading
        @dataclasses.dataclass
        class Cfg:
            path: str
            tags: list = dataclasses.field(default_factory=list)
        class Planet(enum.Enum):
            EARTH = (5.97e24, 6.37e6)
            GLOBE = (5.97e24, 6.37e6)
            def __init__(self, mass, radius): self.mass, self.radius = mass, radius
        class Flags(enum.IntFlag):
            A = 11
            B = 37
        variable = contextvars.ContextVar("variable", default="default")
        event, semaphore, condition = threading.Event(), threading.Semaphore(2), threading.Condition()
        barrier, lock, local = threading.Barrier(1), threading.RLock(), threading.local()
        connection = sqlite3.connect(":memory:")
        log = logging.getLogger(__name__)
        generator = (number for number in range(3))
        def __getattr__(name): return f"made for {name}"
        def use():
            variable.set("set")
            event.set()
            with semaphore, condition, lock:
                local.value = barrier.wait()
            return variable.get(), event.is_set(), local.value, connection.execute("select 1").fetchone(), [*generator]
        """,
    )
    import helper_b  # noqa: PLC0415 -- written just now

    helper_b.connection.close()  # whatever their state here
    helper_b.semaphore.acquire()
    helper_b.lock.acquire()

    def work():
        field, tags = dataclasses.fields(helper_b.Cfg)
        sub = dataclasses.make_dataclass("Sub", ["x"], bases=(helper_b.Cfg,), kw_only=True)
        return {
            "default": field.default is dataclasses.MISSING,
            "factory": tags.default_factory is list,
            "sub": sub(path="p", x=1).tags,
            "mass": helper_b.Planet.EARTH.mass,
            "alias": helper_b.Planet["GLOBE"].name,
            "flags": list(map(int, helper_b.Flags)),
            "used": helper_b.use(),
            "names": (helper_b.__name__, helper_b.__spec__.name, helper_b.__file__, helper_b.log.name),
            "loader": helper_b.__loader__ is helper_b.__spec__.loader,
            "attribute": helper_b.anything,
            "earth": helper_b.Planet.EARTH,
        }

    found = in_job(work)
    assert found.pop("earth") is helper_b.Planet.EARTH
    assert found == {
        "default": True,
        "factory": True,
        "sub": [],
        "mass": 5.97e24,
        "alias": "EARTH",
        "flags": list(map(int, helper_b.Flags)),
        "used": ("set", True, 0, (1,), [0, 1, 2]),
        "names": ("helper_b", "helper_b", str(file), "helper_b"),
        "loader": True,
        "attribute": "made for anything",
    }


def test_what_is_known_by_its_identity_is_the_modules_own(beside, in_job):
    """Sentinels, locks, events and context variables of a helper, imported by name into the notebook."""
    beside(
        "helper_ff",
        """
        import contextvars, threading
        MISSING = object()
        lock, event, variable = threading.RLock(), threading.Event(), contextvars.ContextVar("variable")
        def is_missing(value): return value is MISSING
        def seen(): return event.is_set(), variable.get("none")
        """,
    )
    from helper_ff import MISSING, event, is_missing, lock, seen, variable  # noqa: PLC0415 -- written just now

    def work(default=MISSING):
        event.set()
        variable.set("set")
        with lock:
            return is_missing(default), seen(), MISSING

    assert in_job(work) == (True, (True, "set"), MISSING)
    assert not event.is_set()


def test_packages_with_all_that_they_import(beside, in_job, path):
    """Subpackages, relative imports, circles, at the top or in a function, imported here yet or not, ``import *``."""
    beside("helper_c", "import helper_d\ndef outer(): return helper_d.inner() + 1\ndef base(): return 10")
    beside("helper_d", "import helper_c\ndef inner():\n    from helper_c import base\n    return base() + 1")
    beside("package_d/__init__", "from . import part\nfrom .part import *\nNAME = 'd'")
    beside(
        "package_d/part",
        "def call():\n    from .deep.er import answer\n    from . import NAME\n    return NAME, answer()\n",
    )
    beside("package_d/deep/__init__", "")
    beside("package_d/deep/er", "from .. import NAME as N\ndef answer(): return N, 42")
    beside("package_d/unused", "1 / 0")
    beside("helper_alone", "1 / 0")
    import helper_c  # noqa: PLC0415 -- written just now
    import package_d  # noqa: PLC0415

    def work():
        import helper_d  # noqa: PLC0415 -- inside the job

        same = helper_d.helper_c is helper_c, package_d.call is package_d.part.call
        return helper_c.outer(), package_d.part.call(), same

    assert in_job(work) == (12, ("d", ("d", 42)), (True, True))
    assert named_in(path) == (
        "helper_c",
        "helper_d",
        "package_d",
        "package_d.deep",
        "package_d.deep.er",
        "package_d.part",
    )


def test_packages_without_init_and_their_submodules(beside, in_job):
    """A namespace package is one in the job, with its folder; so is one inside a package."""
    beside("space_e/inner/part", "def call(): return __package__, __name__")
    beside("package_e/__init__", "")
    beside("package_e/data/rows", "ROWS = 3")
    import package_e.data.rows  # noqa: PLC0415 -- written just now
    import space_e  # noqa: PLC0415
    from space_e.inner import part  # noqa: PLC0415

    def work():
        import space_e  # noqa: PLC0415 -- inside the job

        return part.call(), package_e.data.rows.ROWS, list(space_e.__path__), list(package_e.__path__)

    names = "space_e.inner", "space_e.inner.part"
    assert in_job(work) == (names, 3, list(space_e.__path__), list(package_e.__path__))


def test_a_module_that_run_imports_itself(beside, in_job, path):
    """The notebook has not imported it; by ``import``, from a package, by ``importlib.import_module`` with a text."""
    beside("helper_f", "VALUE = 'f'")
    beside("package_f/__init__", "")
    beside("package_f/part", "VALUE = 'part'")
    beside("helper_by_text", "VALUE = 'text'")
    beside("plugins/__init__", "import importlib\ndef load(name): return importlib.import_module('.' + name, __name__)")
    beside("plugins/first", "VALUE = 'first'")
    import plugins  # noqa: PLC0415 -- written just now

    plugins.load("first")  # by a name that the package makes up: it travels if it is imported here

    def work():
        import helper_f  # noqa: PLC0415 -- inside the job
        from package_f import part  # noqa: PLC0415

        by_text = importlib.import_module("helper_by_text")
        return helper_f.VALUE, part.VALUE, by_text.VALUE, plugins.load("first").VALUE

    assert in_job(work) == ("f", "part", "text", "first")
    assert not {"helper_f", "package_f", "helper_by_text"} & set(sys.modules)
    assert {"helper_f", "package_f.part", "helper_by_text", "plugins.first"} <= set(named_in(path))


def test_packages_without_init_that_only_run_imports(beside, in_job):
    """One in another, both of which nobody has imported here."""
    beside("package_late/inner/module.py", "from . import sibling\nVALUE = sibling.VALUE")
    beside("package_late/inner/sibling.py", "VALUE = 'late'")
    beside("asks_late", "def work():\n    import package_late.inner.module as module\n    return module.VALUE")
    import asks_late  # noqa: PLC0415 -- written just now

    def work():
        from package_late.inner import module  # noqa: PLC0415 -- as above

        return module.VALUE

    assert in_job(work) == "late"
    assert in_job(asks_late.work) == "late"


@pytest.mark.parametrize("left", ["Name: put-here\nVersion: 1.0\n", ""], ids=["whole", "broken"])
def test_what_pip_installs_into_a_folder_goes_by_name(beside, path, left):
    """``pip install --target FOLDER`` leaves names of what it has installed there; one that broke off leaves less."""
    beside("put_here", "VALUE = 3")
    folder = beside("put_here-1.0.dist-info/RECORD.txt", "").parent
    (folder / "METADATA").write_text(left)
    import put_here  # noqa: PLC0415 -- written just now

    Serializer.serialize_to_file(Calls(lambda: put_here.VALUE), path)
    assert not is_local("put_here")
    assert named_in(path) == ()


def test_data_files_beside_a_module_are_found(beside, in_job):
    """By ``importlib.resources``, ``pkgutil``, ``__file__``; and a submodule that did not travel, by ``__path__``."""
    beside(
        "package_g/__init__",
        """
        import importlib.resources, pkgutil
        from pathlib import Path
        def texts():
            return (
                importlib.resources.files(__name__).joinpath("words.txt").read_text(),
                pkgutil.get_data(__name__, "words.txt").decode(),
                (Path(__file__).parent / "words.txt").read_text(),
            )
        """,
    )
    beside("package_g/words.txt", "words")
    beside("package_g/late", "VALUE = 'late'")
    import package_g  # noqa: PLC0415 -- written just now

    def work():
        late = importlib.import_module(f"package_g.{'late'}")
        return package_g.texts(), importlib.resources.files("package_g").joinpath("words.txt").is_file(), late.VALUE

    assert in_job(work) == (("words",) * 3, True, "late")


READERS = {
    "file": "def read(): return (pathlib.Path(__file__).parent / 'data.txt').read_text()",
    "deeper": """
def read():
    with open(os.path.join(os.path.dirname(__file__), 'more', 'data.txt')) as file:
        return file.read()
""",
    "resource": "def read(): return importlib.resources.files(__package__).joinpath('data.txt').read_text()",
    "pandas": "import pandas\ndef read(): return pandas.read_csv(pathlib.Path(__file__).with_name('data.txt'))",
    "wrapped": """
def read():
    try:
        return pathlib.Path(__file__).with_name('data.txt').read_bytes()
    except OSError as error:
        raise RuntimeError('no data') from error
""",
}


@pytest.mark.parametrize("source", READERS.values(), ids=READERS)
def test_a_data_file_that_is_not_where_the_job_runs_is_explained(beside, path, pool, tmp_path, source):
    """As on a machine that does not see the notebook's folder: the reason says that no data files travel."""
    beside("reads/__init__.py", f"import importlib.resources, os, pathlib\n{source}")
    beside("reads/data.txt", "data")
    beside("reads/more/data.txt", "data")
    module = importlib.import_module("reads")
    module.read()
    Serializer.serialize_to_file(Calls(module.read), path)
    (tmp_path / "notebook").rename(tmp_path / "elsewhere too")
    job = pool.submit_file(path)
    assert "data.txt is of the folder of the module reads, which is not on the machine" in str(
        job.exception(60).__notes__
    )
    assert "Put them there, or pass in what is in them" in job.outcome.reason


def test_a_file_that_is_nowhere_has_no_such_note(beside, pool):
    """Nor one that is missing in a folder which the job sees, nor one of no module's folder."""
    beside("reads", "import pathlib\ndef read(name): return (pathlib.Path(__file__).parent / name).read_text()")
    module = importlib.import_module("reads")
    for name in ("missing.txt", "/nowhere/data.txt"):
        job = pool.submit(module.read, name)
        assert isinstance(job.exception(60), FileNotFoundError)
        assert "machine" not in job.outcome.reason


def test_tracebacks_and_inspect_show_the_lines_as_they_were(beside, path, run_in_job):
    """Of a helper that was edited, or removed, since."""
    source = 'class Thing:\n    """Doc."""\n    SIZE = 3\n\ndef fail():\n    raise ValueError("as it was")  # first\n'
    file = beside("helper_h", source)
    import helper_h  # noqa: PLC0415 -- written just now

    def work():
        try:
            helper_h.fail()
        except ValueError:
            return traceback.format_exc(), inspect.getsource(helper_h), inspect.getsource(helper_h.Thing)

    Serializer.serialize_to_file(Calls(work), path)
    for change in (lambda: file.write_text("def fail():\n\n\n\n    return 'other'\n"), file.unlink):
        change()
        trace, module, thing = run_in_job(path, path=[file.parent])
        assert 'raise ValueError("as it was")  # first' in trace
        assert f'File "{file}", line 6, in fail' in trace
        assert module == source
        assert thing == source.partition("\n\n")[0] + "\n"


def test_functions_of_a_module_share_its_globals(beside, in_job):
    """A function that sets a global is seen by others and by the module; so is one that has no name there."""
    beside(
        "helper_i",
        """
        COUNT = 0
        def count():
            global COUNT
            COUNT += 1
        def get(): return COUNT
        def made(step):
            def add():
                global COUNT
                COUNT += step
                return COUNT
            return add
        """,
    )
    import helper_i  # noqa: PLC0415 -- written just now
    from helper_i import count, get  # noqa: PLC0415

    add = helper_i.made(10)

    def work():
        count()
        helper_i.count()
        return get(), helper_i.COUNT, vars(helper_i) is count.__globals__, add(), get()

    assert in_job(work) == (2, 2, True, 12, 12)
    assert helper_i.COUNT == 0


def test_a_class_of_the_notebook_extends_one_of_a_helper(beside, in_job):
    """It is in the helper's registry in the job, as it is in the notebook; loading changes nothing there."""
    beside(
        "helper_j",
        """
        REGISTRY = {}
        class Base:
            def __init_subclass__(cls, *, tag, **options):
                super().__init_subclass__(**options)
                REGISTRY[tag] = cls
        class Own(Base, tag="own"): pass
        """,
    )
    import helper_j  # noqa: PLC0415 -- written just now

    class Mine(helper_j.Base, tag="mine"):
        pass

    def work():
        return sorted(helper_j.REGISTRY), helper_j.REGISTRY["mine"] is Mine, Mine(), helper_j.Own()

    names, same, mine, own = in_job(work)
    assert (names, same) == (["mine", "own"], True)
    assert (type(mine), type(own)) == (Mine, helper_j.Own)
    assert {"mine": Mine, "own": helper_j.Own} == helper_j.REGISTRY


# --- which source it is ---------------------------------------------------------------------------------------------


def test_what_is_on_disk_at_submit_counts(beside, in_job):
    """Neither values set from the notebook, nor the code that it has imported, if that was edited since."""
    file = beside("helper_k", "LIMIT = 1\ndef limit(): return LIMIT, 'old'")
    import helper_k  # noqa: PLC0415 -- written just now

    helper_k.LIMIT = 7
    assert in_job(helper_k.limit) == (1, "old")
    file.write_text("LIMIT = 2\ndef limit(): return LIMIT, 'edited'")
    assert in_job(helper_k.limit) == (2, "edited")


def test_a_queued_job_runs_the_source_as_it_was_at_submit(beside, path, run_in_job):
    """Whatever was edited, reloaded or deleted meanwhile, and whatever the job itself reloads."""
    file = beside("helper_l", "def version(): return 'old'")
    import helper_l  # noqa: PLC0415 -- written just now

    def work():
        import helper_l as again  # noqa: PLC0415 -- inside the job

        return helper_l.version(), again.version(), importlib.reload(helper_l).version()

    Serializer.serialize_to_file(Calls(work), path)
    file.write_text("def version(): return 'new and longer'")
    importlib.invalidate_caches()
    importlib.reload(helper_l)
    later = path.with_name("later.job")
    Serializer.serialize_to_file(Calls(work), later)
    assert run_in_job(later, path=[file.parent]) == ("new and longer",) * 3
    assert run_in_job(path, path=[file.parent]) == ("old",) * 3
    file.unlink()
    assert run_in_job(path, path=[file.parent]) == ("old",) * 3


def test_a_job_that_waits_for_a_slot_runs_the_source_as_at_submit(beside, pool, tmp_path):
    """What is edited, added or deleted while it is queued is of no matter to it, nor to its second attempt."""
    file = beside("helper_queued", "import part_queued\ndef version(): return 'old', part_queued.VERSION")
    part = beside("part_queued", "VERSION = 'old'")
    import helper_queued  # noqa: PLC0415 -- written just now

    gate, tried = tmp_path / "gate", tmp_path / "tried"

    def hold():
        while not gate.exists():
            time.sleep(0.01)

    def work():
        if not tried.exists():
            tried.touch()
            file.write_text("def version(): return 'written by the first attempt'")
            os._exit(1)
        return helper_queued.version()

    before = pool.submit(hold)
    jobs = [pool.submit(helper_queued.version), pool.with_options(retries=1).submit(work)]
    assert {job.state for job in jobs} == {JobState.QUEUED}
    file.write_text("def version(): return 'new'")
    part.unlink()
    later = pool.submit(importlib.reload(helper_queued).version)
    gate.touch()
    before.result(60)
    assert [job.result(60) for job in jobs] == [("old", "old")] * 2
    assert later.result(60) == "new"


def test_no_bytecode_is_written_or_believed(beside, in_job):
    """A stale ``.pyc`` of the same size and time would be another program."""
    file = beside("helper_m", "VALUE = 1\n")
    import helper_m  # noqa: PLC0415 -- written just now

    py_compile.compile(str(file))
    status = file.stat()
    file.write_text("VALUE = 2\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    before = sorted(file.parent.rglob("*.pyc"))
    assert in_job(lambda: helper_m.VALUE) == 2
    assert sorted(file.parent.rglob("*.pyc")) == before


WARNS = "NUMBER = 1\ndef same(): return NUMBER is 1"  # as the compiler says


@pytest.mark.parametrize("compiled_by", ["this Python", "another"])
def test_a_job_compiles_only_what_another_python_has_compiled(beside, in_job, monkeypatch, compiled_by):
    """The code of a module goes with its source, at its top or in a package, with its lines."""
    beside("helper_warns", WARNS + "\nfrom package_warns import part\n")
    beside("package_warns/__init__", WARNS)
    beside("package_warns/part", "\n\ndef fail():\n    raise ValueError")
    if compiled_by == "another":
        monkeypatch.setattr(source_importer, "_CODE_OF", b"another")

    def work():
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            import helper_warns  # noqa: PLC0415 -- inside the job
        try:
            helper_warns.part.fail()
        except ValueError as error:
            return [str(one.message)[:4] for one in warned], traceback.extract_tb(error.__traceback__)[-1][1:]

    warned, place = in_job(work)
    assert warned == ([] if compiled_by == "this Python" else ['"is"'] * 2)
    assert place[0] == 4
    assert place[-1] == "raise ValueError"


def test_what_the_compiler_warns_of_is_no_matter_of_the_submission(beside, in_job, path):
    """The import has told it; where warnings are errors too, and from several threads, which keep their filters."""
    beside("helper_warns_too", WARNS + "\nimport helper_that_is_needed")
    beside("helper_that_is_needed", "")
    beside("helper_with_escape", "PATTERN = '\\d'")
    with warnings.catch_warnings(action="ignore"):
        import helper_warns_too  # noqa: PLC0415 -- written just now
        import helper_with_escape  # noqa: PLC0415
    before = list(warnings.filters)
    with warnings.catch_warnings(action="error"), ThreadPoolExecutor(4) as threads:
        files = [path.with_name(f"{number}.job") for number in range(8)]
        list(threads.map(functools.partial(Serializer.serialize_to_file, Calls(helper_warns_too.same)), files))
        assert in_job(lambda: (helper_warns_too.same(), helper_with_escape.PATTERN)) == (True, "\\d")
    assert "helper_that_is_needed" in named_in(files[-1])
    assert warnings.filters == before


@pytest.mark.slow
def test_code_is_compiled_for_the_interpreter_of_the_job(beside, pool):
    """One that leaves assertions out leaves those of helper modules out."""
    beside("helper_asserts", "def check():\n    assert False\n    return __debug__")
    import helper_asserts  # noqa: PLC0415 -- written just now

    optimized = pool.with_options(env={"PYTHONOPTIMIZE": "1"})
    assert optimized.submit(helper_asserts.check).result(60) is False
    assert isinstance(pool.submit(helper_asserts.check).exception(60), AssertionError)


def test_encodings_and_empty_files(beside, in_job):
    """The source is what Python would read there: an encoding line, a byte order mark, line ends, nothing at all."""
    beside("package_n/__init__", "")
    latin = "# -*- coding: latin-1 -*-\r\nWORD = 'é'\r\nLINES = '''a\r\nb'''\r\n"
    beside("package_n/latin", "").write_bytes(latin.encode("latin-1"))
    beside("package_n/marked", "").write_bytes(b"\xef\xbb\xbfWORD = '\xc3\xa9'\n")
    import package_n.latin  # noqa: PLC0415 -- written just now
    import package_n.marked  # noqa: PLC0415

    assert in_job(lambda: (package_n.latin.WORD, package_n.latin.LINES, package_n.marked.WORD)) == ("é", "a\nb", "é")


def test_a_module_from_an_archive_or_another_folder(beside, in_job, tmp_path, monkeypatch):
    """In a zip file on the path; and one that was loaded from its file by hand, and entered into ``sys.modules``."""
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped_o.py", "def value(): return 'zipped'")
    monkeypatch.syspath_prepend(archive)
    beside("../other/file_o", "def value(): return 'loaded'")
    spec = importlib.util.spec_from_file_location("name_o", tmp_path / "other" / "file_o.py")
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "name_o", loaded)
    spec.loader.exec_module(loaded)
    import zipped_o  # noqa: PLC0415 -- written just now

    assert in_job(lambda: (zipped_o.value(), loaded.value())) == ("zipped", "loaded")
    monkeypatch.delitem(sys.modules, "zipped_o")


def test_modules_of_the_same_name_as_others(beside, in_job, monkeypatch):
    """A helper that hides a module of the standard library, and packages with modules of one name, as tests have."""
    beside("antigravity", "VALUE = 'mine'")
    for package in ("one_p", "two_p"):
        beside(f"{package}/__init__", "from . import conftest")
        beside(f"{package}/conftest", f"VALUE = '{package}'")
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    import antigravity  # noqa: PLC0415 -- written just now

    import one_p  # noqa: PLC0415
    import two_p  # noqa: PLC0415

    values = in_job(lambda: (antigravity.VALUE, one_p.conftest.VALUE, two_p.conftest.VALUE))
    assert values == ("mine", "one_p", "two_p")


# --- files and results ----------------------------------------------------------------------------------------------


def test_loading_changes_nothing_in_the_notebook(beside, path):
    """Neither ``sys.modules``, ``sys.meta_path`` nor a module: what is loaded refers to the notebook's own."""
    beside("helper_q", "STATE = []\ndef get(): return STATE")
    import helper_q  # noqa: PLC0415 -- written just now

    Serializer.serialize_to_file([helper_q, helper_q.get], path)
    helper_q.STATE.append("here")
    modules, finders = dict(sys.modules), list(sys.meta_path)
    module, get = Serializer.deserialize_from_file(path)
    assert (dict(sys.modules), sys.meta_path) == (modules, finders)
    assert helper_q.STATE == ["here"]
    assert (module, get) == (helper_q, helper_q.get)


def test_results_name_their_modules_and_have_no_source(beside, path):
    """A process and what a person writes carry the sources; a result is opened where its classes are."""
    beside("helper_r", "import helper_s\nclass Thing: pass")
    beside("helper_s", "SECRET = 'only in the source'")
    import helper_r  # noqa: PLC0415 -- written just now

    for kind in ("process", "object", "result", "error"):
        write_file(helper_r.Thing(), path, kind=kind)
        with_sources = kind in {"process", "object"}
        assert named_in(path) == (("helper_r", "helper_s") if with_sources else ("helper_r",))
        assert (b"only in the source" in path.read_bytes()) is with_sources
        assert type(Serializer.deserialize_from_file(path)) is helper_r.Thing


def test_a_later_kernel_imports_the_module_or_says_where_it_was(beside, path, monkeypatch):
    """The sentence names the module, its file, and what to do."""
    file = beside("package_t/__init__", "class Thing: pass")
    beside("package_t/deep/part", "class Part: pass")
    import package_t.deep.part  # noqa: PLC0415 -- written just now

    names = ("package_t", "package_t.deep", "package_t.deep.part")
    write_file([package_t.Thing(), package_t.deep.part.Part()], path, kind="result")
    for name in names:
        del sys.modules[name]
    first, _ = Serializer.deserialize_from_file(path)
    assert type(first).__module__ == "package_t"
    for name in names:
        del sys.modules[name]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(file.parent.parent)])
    with pytest.raises(IncompatibleFileError) as caught:
        Serializer.deserialize_from_file(path)
    assert f"needs the module package_t, which was {file} when it was written" in str(caught.value)
    assert f"sys.path.append('{file.parent.parent}')" in str(caught.value)


def test_another_module_of_that_name_is_named(beside, path, tmp_path, monkeypatch):
    """A later kernel of another project has a helper of the same name, without the class."""
    file = beside("helper_u", "class Thing: pass")
    import helper_u  # noqa: PLC0415 -- written just now

    write_file(helper_u.Thing(), path, kind="result")
    other = beside("../other/helper_u", "")
    del sys.modules["helper_u"]
    monkeypatch.syspath_prepend(tmp_path / "notebook" / ".." / "other")
    with pytest.raises(IncompatibleFileError, match=f"which was {file} when it was written and is {other} here"):
        Serializer.deserialize_from_file(path)


def test_the_source_on_a_card_is_that_of_the_right_module(beside, path):
    """Two helpers define a class of one name."""
    beside("helper_v", "class Train:\n    def run(self): return 'v'\n")
    beside("helper_w", "import helper_v\nclass Train(helper_v.Train):\n    '''The one.'''\n")
    import helper_w  # noqa: PLC0415 -- written just now

    Serializer.serialize_to_file(helper_w.Train(), path)
    assert Serializer.inspect(path).source == "class Train(helper_v.Train):\n    '''The one.'''\n"


def test_jobs_within_jobs_run_the_same_source(beside, in_job, run_in_job, tmp_path):
    """What a job writes carries the source that the job has, not what is on disk by now."""
    file = beside("helper_x", "def value(): return 'old'")
    import helper_x  # noqa: PLC0415 -- written just now

    def work():
        file.write_text(file.read_text().replace("old", "new"))
        Serializer.serialize_to_file(Calls(helper_x.value), tmp_path / "inner.job")

    in_job(work)
    assert "new" in file.read_text()
    assert run_in_job(tmp_path / "inner.job") == "old"


# --- pools ----------------------------------------------------------------------------------------------------------


def test_rerun_runs_the_source_that_the_job_had(beside, pool):
    """A new job runs what is on disk, a rerun what the process has."""
    file = beside("helper_aa", "class Thing:\n    def __init__(self): self.version = 'old'")
    import helper_aa  # noqa: PLC0415 -- written just now

    job = pool.submit(helper_aa.Thing)
    assert job.result(60).version == "old"
    file.write_text(file.read_text().replace("old", "new"))
    assert pool.submit(helper_aa.Thing).result(60).version == "new"
    again = job.rerun().result(60)
    assert again.version == "old"
    assert type(again) is helper_aa.Thing


def test_the_inline_engine_uses_the_modules_of_the_notebook(beside, new_pool):
    """Their state too, and no finder is left behind."""
    beside("helper_bb", "STATE = 'imported'\ndef state(): return STATE")
    import helper_bb  # noqa: PLC0415 -- written just now

    helper_bb.STATE = "set by the notebook"
    finders = list(sys.meta_path)
    assert new_pool(engine="inline").submit(helper_bb.state).result() == "set by the notebook"
    assert sys.meta_path == finders


def test_a_helper_that_was_imported_before_the_job_is_not_the_one_it_gets(beside, new_pool, monkeypatch):
    """Workers import what ``preload`` names once; a job has the source of its own submit."""
    file = beside("helper_cc", "VALUE = 'old'\ndef value(): return VALUE")
    monkeypatch.setenv("PYTHONPATH", str(file.parent))
    import helper_cc  # noqa: PLC0415 -- written just now

    pool = new_pool(preload=["helper_cc"])
    assert pool.submit(helper_cc.value).result(60) == "old"
    file.write_text(file.read_text().replace("old", "new"))
    assert pool.submit(helper_cc.value).result(60) == "new"


def test_a_helper_that_submits_jobs_when_it_is_imported_does_not_multiply(beside, key_file, tmp_path, monkeypatch):
    """The notebook imports it once, and so would each of its jobs."""
    signing.sign(signing.Purpose.JOB_FILE, b"")  # makes the key
    monkeypatch.setenv(signing.KEY_VARIABLE, str(key_file))
    monkeypatch.setenv("STORE", str(tmp_path / "other"))
    beside(
        "helper_ee",
        """
        import os
        from jobcontainer import JobPool
        def work(): return 1
        with JobPool(1, store=os.environ["STORE"]) as pool:
            error = pool.submit(work).exception()
        """,
    )
    import helper_ee  # noqa: PLC0415 -- written just now

    assert isinstance(helper_ee.error, SerializationError)
    assert "helper_ee submits a job when it is imported" in str(helper_ee.error)
    assert len(list((tmp_path / "other").glob("2*"))) == 1


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_a_job_import_the_same_source(beside, pool, method):
    """Also those that start a new interpreter, where the folder has another version by now, or is gone."""
    file = beside("package_dd/__init__", "from .part import Part, version")
    beside("package_dd/part", "class Part: pass\ndef version(_): return 'old', Part()")
    import package_dd  # noqa: PLC0415 -- written just now

    def work():
        import multiprocessing  # noqa: PLC0415 -- inside the job

        for file in folder.glob("*.py"):
            file.unlink()
        with multiprocessing.get_context(method).Pool(1) as workers:
            [(version, part)] = workers.map(package_dd.version, [1])
            [same] = workers.map(type, [part])
        return version, type(part) is package_dd.Part, same is package_dd.Part, part

    folder = file.parent
    version, *same, part = pool.submit(work).result(60)
    assert (version, same) == ("old", [True, True])
    assert type(part) is package_dd.Part


# --- what does not travel -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["FIFO", "device"])
def test_a_module_whose_file_is_no_regular_one_is_refused(beside, path, make):
    """Nobody writes into a FIFO, and a device has no end: whoever read one would never come back."""
    beside("helper_fa", "import helper_fb\ndef f(): return 1")
    special = beside("helper_fb", "class C:\n    def run(self): return 1\ndef g(): return 1")
    import helper_fa  # noqa: PLC0415 -- written just now
    import helper_fb  # noqa: PLC0415

    special.unlink()
    make(special)
    assert source_of(helper_fb.g) == source_of(helper_fb.C()) == ""
    for function in (helper_fb.g, helper_fa.f):
        with pytest.raises(SerializationError, match=f"helper_fb was imported from {special}.*no regular file"):
            Serializer.serialize_to_file(Calls(function), path)


def test_a_module_whose_file_is_gone_is_refused(beside, path):
    """It was imported here, but a job can't do that any more; also if another module imports it."""
    beside("helper_y", "import helper_z\ndef f(): return 1")
    gone = beside("helper_z", "def g(): return 1")
    import helper_y  # noqa: PLC0415 -- written just now
    import helper_z  # noqa: PLC0415

    gone.unlink()
    for function in (helper_z.g, helper_y.f):
        with pytest.raises(SerializationError, match=f"helper_z was imported from {gone}.*Put the file back"):
            Serializer.serialize_to_file(Calls(function), path)
    assert not path.exists()


def test_a_module_made_by_hand_is_refused_and_its_code_travels(path, in_job, monkeypatch):
    """It can be imported nowhere; a function of it goes as one of the notebook does."""
    made = types.ModuleType("made_by_hand")
    exec("SIZE = 3\ndef size(): return SIZE", vars(made))  # noqa: S102 -- by hand
    for entered in (False, True):
        if entered:
            monkeypatch.setitem(sys.modules, "made_by_hand", made)
        with pytest.raises(SerializationError) as caught:
            Serializer.serialize_to_file(Calls(lambda: made.SIZE), path)
        [culprit] = caught.value.culprits
        assert culprit.path.endswith("made")
        assert "import it inside run()" in culprit.hint
        assert in_job(made.size) == 3


def test_broken_neighbours_do_no_harm(beside, in_job, path):
    """A module that can't be compiled, or read as text, fails where it is imported, and only there."""
    folder = beside("helper_broken", "def f(:\n").parent
    beside("helper_binary", "").write_bytes(b"\xff\xfe nonsense")
    beside(
        "helper_careful",
        """
        failed = []
        try:
            import helper_broken
        except SyntaxError:
            failed.append("broken")
        try:
            import helper_binary
        except SyntaxError:
            failed.append("binary")
        """,
    )
    import helper_careful  # noqa: PLC0415 -- written just now

    assert in_job(lambda: helper_careful.failed, path=[folder]) == ["broken", "binary"]
    assert "helper_careful" in named_in(path)


def test_names_in_classes_made_inside_a_function_travel(beside, in_job):
    """Decorators, defaults, annotations and plain values of a class body; in a function and in a function of that."""
    beside("helper_classes", "import functools\ndef cached(f): return functools.cached_property(f)\nSTART = 5")
    import helper_classes  # noqa: PLC0415 -- written just now

    unit = {}
    exec(  # noqa: S102 -- a cell, whose names are globals
        textwrap.dedent("""
        import functools, dataclasses
        SIDE = 3
        def deepest():
            def made():
                class Square:
                    side = SIDE
                    start = helper_classes.START
                    @functools.cached_property
                    def area(self): return self.side ** 2
                    @helper_classes.cached
                    def twice(self): return self.side * 2
                @dataclasses.dataclass
                class Point:
                    x: int = SIDE
                return Square(), Point()
            square, point = made()
            return square.area, square.start, square.twice, point.x
        """),
        cell := {"helper_classes": helper_classes, "__name__": "__main__"},
        unit,
    )
    cell.update(unit)
    assert in_job(unit["deepest"]) == (9, 5, 6, 3)


def test_submodules_that_only_nested_code_names_are_there(in_job):
    """Of installed packages, imported in the notebook by whoever; the job has not imported them by itself."""
    import wsgiref.headers  # noqa: PLC0415 -- as in a cell

    def work():
        def parse(text):
            return [wsgiref.headers.Headers([("name", one)])["name"] for one in [text]]

        return parse("a")

    for function in (work, types.FunctionType(_parses.__code__, {"wsgiref": wsgiref, "__name__": "__main__"})):
        assert in_job(function) == ["a"]


def _parses():
    return [wsgiref.headers.Headers([("name", one)])["name"] for one in "a"]  # noqa: F821 -- given above


def test_installed_packages_never_travel(path):
    """Nor does the standard library, nor this package: they are named in the file."""
    import pandas as pd  # noqa: PLC0415 -- only here

    def work():
        return np.zeros(3), pd.DataFrame(), os.sep, jobcontainer.JobState.RUNNING

    Serializer.serialize_to_file(Calls(work), path)
    facts = Serializer.inspect(path)
    assert {"numpy", "pandas"} <= set(facts.packages)
    assert named_in(path) == ()
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
        assert not is_local(name), name


def test_packages_that_helpers_import_are_named(beside, path):
    """They are imported by the job as well, so their versions count; those that are not imported here have none."""
    beside("helper_gg", "from package_gg import part\ndef f():\n    import pandas as pd, absent\n    return pd")
    beside("package_gg/__init__", "")
    beside("package_gg/part", "from numpy import array")
    import helper_gg  # noqa: PLC0415 -- written just now
    import pandas  # noqa: F401, ICN001, PLC0415 -- in the notebook by another way

    Serializer.serialize_to_file(Calls(helper_gg.f), path)
    assert {"numpy", "pandas"} <= set(Serializer.inspect(path).packages)
    assert named_in(path) == ("helper_gg", "package_gg", "package_gg.part")
    write_file(helper_gg.f, path, kind="result")
    assert set(Serializer.inspect(path).packages) == set()


def test_a_module_of_no_distribution_has_no_version_to_compare(path, run_in_job, tmp_path, monkeypatch):
    """One that was copied into site-packages, or the standard library's own tests: no job warns of it."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "copied_there.py").write_text("def f(): return 1")
    monkeypatch.syspath_prepend(folder)
    import copied_there  # noqa: PLC0415 -- written just now

    def work():
        from test import support  # noqa: PLC0415 -- inside the job

        return copied_there.f(), support.__name__

    try:
        Serializer.serialize_to_file(Calls(work), path)
        assert Serializer.inspect(path).other_versions == {}
        assert Serializer.deserialize_from_file(path).run() == (1, "test.support")
        assert run_in_job(path, path=[folder]) == (1, "test.support")
    finally:
        del sys.modules["copied_there"]


def test_what_is_installed_to_be_edited_does_not_travel_either(tmp_path, monkeypatch):
    """Neither what a ``.pth`` file puts on the path, nor what setuptools' finders map; what lies beside it does.

    Nor is it loaded ahead of jobs, as it may be edited between two of them.
    """
    project, site = tmp_path / "project", tmp_path / "site-packages"
    (project / "src").mkdir(parents=True)
    (project / "notebooks").mkdir()
    site.mkdir()
    (site / "__editable__.thing.pth").write_text(f"{project / 'src'}\nimport thing_finder\n# {project}\n")
    monkeypatch.setattr(module_origin.site, "getsitepackages", lambda: [str(site)])
    module_origin._editable_roots.cache_clear()
    lies_beside.cache_clear()
    try:
        assert not lies_beside("thing", str(project / "src" / "thing" / "__init__.py"))
        assert not lies_beside("single", str(project / "src" / "single.py"))
        assert lies_beside("helper", str(project / "notebooks" / "helper.py"))
        finder = type("Finder", (), {"__module__": "editable_thing_finder"})
        module = type(sys)("editable_thing_finder")
        module.MAPPING = {"mapped": str(project / "mapped")}
        monkeypatch.setitem(sys.modules, "editable_thing_finder", module)
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
        assert not lies_beside("mapped", str(project / "mapped" / "__init__.py"))
        mapped = type(sys)("mapped")
        mapped.__file__ = str(project / "mapped" / "__init__.py")
        monkeypatch.setitem(sys.modules, "mapped", mapped)
        assert may_be_edited("mapped")
        assert not may_be_edited("numpy")
        assert lies_beside("unmapped", str(project / "unmapped" / "__init__.py"))
    finally:
        module_origin._editable_roots.cache_clear()
        lies_beside.cache_clear()


@pytest.mark.parametrize(
    ("origin", "local"),
    [
        ("/home/me/notebook/helper.py", True),
        ("/home/me/notebook/helper.cpython-311-x86_64-linux-gnu.so", False),
        ("/home/me/env/lib/python3.11/site-packages/thing.py", False),
        ("/usr/lib/python3/dist-packages/thing/__init__.py", False),
        ("/home/me/notebook/helper.pyc", False),
        ("built-in", False),
    ],
)
def test_where_a_module_is_from_decides(origin, local):
    """Compiled code has no way but by name."""
    lies_beside.cache_clear()
    assert lies_beside("some_module", origin) is local


def test_the_registry_of_cloudpickle_is_not_touched(beside, path):
    """It belongs to the whole process, and two threads that pickle would see each other's changes."""
    beside("helper_registry", "def f(): return 1")
    import helper_registry  # noqa: PLC0415 -- written just now

    seen = []

    class Looks:
        def __reduce__(self):
            seen.append(cloudpickle.list_registry_pickle_by_value())
            return dict, ()

    Serializer.serialize_to_file([Looks(), helper_registry], path)
    assert seen == [set()]


def test_threads_write_and_load_side_by_side(beside, tmp_path):
    """Each file is whole and right, whatever others do at the same time."""
    beside(
        "helper_threads",
        "class Thing:\n    def __init__(self, n): self.n = n\n    def square(self): return self.n ** 2",
    )
    import helper_threads  # noqa: PLC0415 -- written just now

    wrong = []

    def work(number):
        try:
            for turn in range(30):
                file = tmp_path / f"{number}.job"
                Serializer.serialize_to_file({"thing": helper_threads.Thing(number), "turn": turn}, file)
                found = Serializer.deserialize_from_file(file)
                if (found["thing"].square(), found["turn"], type(found["thing"])) != (
                    number**2,
                    turn,
                    helper_threads.Thing,
                ):
                    wrong.append(found)
        except Exception as error:  # noqa: BLE001 -- any is wrong
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("entry", [b"/nowhere", None, 3, Path("/nowhere")], ids=repr)
def test_entries_of_the_path_that_are_no_texts_hide_no_package(path, monkeypatch, entry):
    """The packages of a process are named, and it can be submitted."""
    monkeypatch.setattr(package_versions, "_found", {})
    monkeypatch.setattr(sys, "path", [entry, *sys.path])
    Serializer.serialize_to_file(Calls(lambda: np.zeros(3)), path)
    assert "numpy" in Serializer.inspect(path).packages


@pytest.mark.parametrize("name", ["speedups", "package_ext.speedups"])
def test_a_compiled_extension_beside_the_notebook_goes_by_name(beside, path, run_in_job, tmp_path, name):
    """The module and a function of it, alone or in a package whose source travels: where the job sees the file."""
    built = Path(importlib.import_module("tornado.speedups").__file__)
    beside("package_ext/__init__", "")
    file = beside(f"{name.replace('.', '/')}{''.join(built.suffixes)}", "")
    file.write_bytes(built.read_bytes())
    module = importlib.import_module(name)
    mask = module.websocket_mask

    def work():
        return module.websocket_mask(b"abcd", b"data"), mask(b"abcd", b"data"), module.__file__

    Serializer.serialize_to_file(Calls(work), path)
    assert name not in named_in(path)
    assert run_in_job(path, path=[tmp_path / "notebook"]) == work()
