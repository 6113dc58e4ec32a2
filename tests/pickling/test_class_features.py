"""A class of the notebook is in a job what it is in the notebook, attribute by attribute."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import sys
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from class_cells import CELLS, REFUSED
from describing import differences, without_addresses
from jobcontainer import SerializationError, Serializer

LIBRARIES = ("attrs", "pydantic")  # of the cells

ASKS = """
from describing import describe
class Asks:
    def run(self):
        return describe({subjects}), check() if {checks} else None
"""


ASKS_OF_HELPER = """
from describing import describe
class Asks:
    def __init__(self, helper, subjects): self.helper, self.subjects = helper, subjects
    def run(self):
        check = vars(self.helper).get("check")
        return describe(*(vars(self.helper)[name] for name in self.subjects)), check and check()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "process.job"


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Import a cell's source as a module beside the notebook."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(source):
        (folder / "helper_of_classes.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        gc.collect()  # pydantic uses what it made for a class of the same kind, as long as that lives
        return importlib.import_module("helper_of_classes")

    yield write
    sys.modules.pop("helper_of_classes", None)


@pytest.mark.parametrize("name", CELLS)
def test_a_class_is_the_same_in_a_job(cell, path, run_in_job, name):
    """What it is made of, what is shared with whom, how it behaves: described on both sides, and compared."""
    subjects, source = CELLS[name]
    namespace = cell(source)
    namespace = cell(ASKS.format(subjects=", ".join(subjects.split()), checks="check" in namespace))
    Serializer.serialize_to_file(namespace["Asks"](), path)
    here, answer_here = namespace["Asks"]().run()
    there, answer_there = run_in_job(path)
    assert answer_there == answer_here
    assert list(differences(here, there)) == []


@pytest.mark.fast_cases(4)
@pytest.mark.parametrize("name", CELLS)
def test_a_class_of_a_helper_module_is_the_same_in_a_job(cell, helper, path, run_in_job, name):
    """As its import makes it there, from the source that came with the process."""
    subjects, source = CELLS[name]
    process = cell(ASKS_OF_HELPER)["Asks"](helper(source), subjects.split())
    Serializer.serialize_to_file(process, path)
    here, answer_here = process.run()
    there, answer_there = run_in_job(path)
    # A type parameter, as in ``class Box[T]``, has no name in its module by which a result could find it.
    assert without_addresses(answer_there) == without_addresses(answer_here)
    assert list(differences(here, there)) == []


GENERIC = """
import pydantic, typing
T = typing.TypeVar("T")
class Far(pydantic.BaseModel, typing.Generic[T]):
    far: T
"""


def test_what_pydantic_makes_of_a_generic_model_is_the_same_there_and_back(cell, helper, path, run_in_job):
    """``Page[int] is type(page)``: of the notebook's generic models and of a module's, whoever has made it first."""
    names = cell("GENERIC = None")
    names["helper_of_classes"] = helper(GENERIC)
    names = cell(
        """
        import pydantic, typing
        T = typing.TypeVar("T")
        class Page(pydantic.BaseModel, typing.Generic[T]):
            item: T
        class Row(pydantic.BaseModel):
            n: int
        def kinds(far):
            return [Page[int], Page[Row], far[str], far[Row], far[list[Row]], Page[far[int]]]
        class Asks:
            def __init__(self, far):
                self.far = far
                self.pages = [Page[int](item=1), Page[Row](item=Row(n=1)), far[str](far="a"), far[Row](far=Row(n=1))]
            def run(self):
                assert [type(page) for page in self.pages] == kinds(self.far)[:4]
                far = self.far
                return *self.pages, far[list[Row]](far=[Row(n=1)]), Page[far[int]](item=far[int](far=2))
        """
    )
    far = names["helper_of_classes"].Far
    Serializer.serialize_to_file(names["Asks"](far), path)
    kept = names["Page"][far[int]]  # that the job has made anew
    found = run_in_job(path)
    assert [type(page) for page in found] == names["kinds"](far)
    assert type(found[5]) is kept
    assert [page.model_dump() for page in found[:2]] == [{"item": 1}, {"item": {"n": 1}}]


PLUGIN = """
import weakref
LOADED = []
class Registry(type):
    known = {}
    def __new__(meta, *parts, plugin=None, **options): return super().__new__(meta, *parts, **options)
    def __init__(cls, *parts, **options):
        super().__init__(*parts)
        Registry.known[cls.__name__] = cls
class Plugin(metaclass=Registry):
    all = []
    def __init_subclass__(cls, *, name, **options):
        cls.name = name
        Plugin.all.append(cls)
        LOADED.append(cls)
        BY_NAME[name] = cls
BY_NAME = weakref.WeakValueDictionary()
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install modules, for the notebook and for jobs."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)

    def install(name, source):
        (folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return folder

    yield install
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def in_job(cell, file, run_in_job, source, **options):
    """Run the process ``Asks`` of a cell inline and in a job; return both answers."""
    process = cell(source)["Asks"]()
    Serializer.serialize_to_file(process, file)
    return process.run(), run_in_job(file, **options)


def test_a_class_is_in_the_registries_of_its_installed_bases(cell, path, run_in_job, installed):
    """Those that a hook has filled when the notebook made it: no hook runs again, and it needs no keyword."""
    folder = installed("plugins_of_a_library", PLUGIN)
    here, there = in_job(
        cell,
        path,
        run_in_job,
        """
        import plugins_of_a_library as library
        class Mine(library.Plugin, name="mine", plugin=3): ...
        class Other(Mine, name="other"): ...
        class Asks:
            def run(self):
                return (
                    Mine.name, Other.name, [cls.__name__ for cls in library.Plugin.all], len(library.LOADED),
                    library.Registry.known["Mine"] is Mine, sorted(library.Registry.known),
                    library.BY_NAME["other"] is Other,
                )
        """,
        path=[folder],
    )
    assert there == here


def test_abstract_classes_of_the_standard_library_know_what_was_registered(cell, path, run_in_job):
    """With ``register``, as a call or a decorator."""
    here, there = in_job(
        cell,
        path,
        run_in_job,
        """
        import collections.abc, numbers, os
        @collections.abc.Sequence.register
        class Rows: ...
        class Number: ...
        numbers.Real.register(Number)
        class Asks:
            def run(self):
                abstract = collections.abc.Sequence, collections.abc.Collection, os.PathLike
                return [issubclass(Rows, cls) for cls in abstract], isinstance(Number(), numbers.Complex)
        """,
    )
    assert there == here == ([True, True, False], True)


def test_subclasses_that_code_asks_for_are_there(cell, path, run_in_job):
    """By ``__subclasses__()``, in a function or in what it defines; as the notebook has them now."""
    cell("class Base: ...\nclass Old(Base): ...\nold = Old\nclass Twice(Base): number = 1")
    here, there = in_job(
        cell,
        path,
        run_in_job,
        """
        class Old(Base): ...
        class Twice(Old): number = 2
        def names(cls):
            return [(sub.__name__, getattr(sub, "number", 0), names(sub)) for sub in cls.__subclasses__()]
        class Asks:
            def run(self): return names(Base)
        """,
    )
    assert there == [("Old", 0, [("Twice", 2, [])])]
    assert there[0] in here  # which has what the first cell defined as well


def test_no_subclass_travels_that_nobody_asks_for(cell, path, run_in_job):
    """It may hold what can't."""
    here, there = in_job(
        cell,
        path,
        run_in_job,
        """
        import threading
        class Base: ...
        class Holds(Base): lock = threading.Lock()
        class Asks:
            def run(self): return Base.__name__
        """,
    )
    assert there == here


def test_classes_of_the_notebook_are_names_of_the_job_s_main(cell, path, run_in_job):
    """Pickle finds them there, and so do ``typing`` and ``globals()``; functions share them."""
    here, there = in_job(
        cell,
        path,
        run_in_job,
        """
        import pickle, sys, __main__
        class Model:
            def __init__(self): self.size = 3
        def change():
            global counter
            counter += 1
        counter = 1
        class Asks:
            def run(self):
                change()
                again = pickle.loads(pickle.dumps(Model()))
                main = sys.modules["__main__"]
                same = main is __main__ and globals()["Model"] is __main__.Model
                return same, type(again) is Model, again.size, counter, main.counter - counter
        """,
    )
    assert there == here


RESULTS = """
import dataclasses, enum, typing
class Color(enum.Enum): RED = 1; CRIMSON = 1
class Perm(enum.Flag): R = 1; W = 2; X = 4
@dataclasses.dataclass
class Row:
    color: Color = Color.RED
    perm: Perm = Perm.R | Perm.X
T = typing.TypeVar("T")
class Box(typing.Generic[T]): ...
class Asks:
    def run(self): return Row(), Color.CRIMSON, Perm.W | Perm.X, Box[int], T, Row, dataclasses.MISSING
"""


def test_results_are_of_the_notebook_s_own_classes(cell, path, run_in_job):
    """Members are the very members, and loading them changes nothing."""
    here, there = in_job(cell, path, run_in_job, RESULTS)
    assert there == here
    assert type(there[0]) is type(here[0])
    assert all(one is other for one, other in list(zip(here, there, strict=True))[1:3])
    assert there[4] is here[4]
    assert there[5] is here[5]
    assert there[6] is dataclasses.MISSING
    assert there[0].perm is here[0].perm


def test_a_data_class_that_joblib_has_copied_is_whole_in_a_job(cell, path, run_in_job):
    """Its workers send classes by cloudpickle, which leaves marks in the notebook's own class that are none."""
    cell(
        """
        import cloudpickle, dataclasses
        @dataclasses.dataclass
        class Cfg:
            path: str
            tags: list = dataclasses.field(default_factory=list)
        """
    )
    namespace = cell("again = cloudpickle.loads(cloudpickle.dumps(Cfg)); field = dataclasses.fields(Cfg)[0]")
    assert namespace["again"] is namespace["Cfg"]
    assert namespace["field"].default is not dataclasses.MISSING
    _, there = in_job(
        cell,
        path,
        run_in_job,
        """
        class Asks:
            def run(self):
                Sub = dataclasses.make_dataclass("Sub", [("more", int, 3)], bases=(Cfg,))
                missing = [field.default is dataclasses.MISSING for field in dataclasses.fields(Sub)]
                return missing, str(Sub("a")), Cfg("b")
        """,
    )
    assert there == ([True, True, False], "Sub(path='a', tags=[], more=3)", namespace["Cfg"]("b"))


def test_a_member_that_is_gone_is_missed_by_its_name(cell, path):
    """A file that is older than the enum says what it looked for."""
    namespace = cell("import enum\nclass Color(enum.Enum): RED = 1; BLUE = 2")
    color = namespace["Color"]
    Serializer.serialize_to_file(color.BLUE, path)
    del color._member_map_["BLUE"]
    with pytest.raises(KeyError, match="BLUE"):
        Serializer.deserialize_from_file(path)


@pytest.mark.parametrize(("message", "source"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_carried_is_refused_with_a_sentence(cell, path, message, source):
    """At submit, by the path of the culprit; never silently different in the job."""
    model = cell(source)["Model"]
    with pytest.raises(SerializationError) as caught:
        Serializer.serialize_to_file(model, path)
    assert message in str(caught.value)


VALUES = st.one_of(st.integers(), st.booleans(), st.text("ab'\"\\ é", max_size=5), st.none(), st.binary(max_size=3))
FIELDS = st.dictionaries(st.sampled_from(["alpha", "beta", "_gamma", "__delta"]), VALUES, min_size=1, max_size=4)
KINDS = {
    "plain": "class {name}({base}):\n{fields}",
    "slotted": "class {name}:\n    __slots__ = {names}",
    "data class": "@dataclasses.dataclass(order={flag}, slots={other})\nclass {name}:\n{fields}",
    "frozen": "@dataclasses.dataclass(frozen=True, eq={flag}, slots={other})\nclass {name}:\n{fields}",
    "enum": "class {name}(enum.Enum):\n    first = {value}\n    def __init__(self, *values): self.seen = values",
    "flag": "class {name}(enum.Flag):\n    a = 1\n    b = 2\n    both = a | b",
    "named tuple": "class {name}(typing.NamedTuple):\n{public_fields}",
    "hooked": """class {name}({base}):
    children = []
{fields}
    def __init_subclass__(cls, **more):
        super().__init_subclass__(**more)
        {name}.children.append(cls)""",
}
INSTANCES = {"enum": "{name}.first", "flag": "{name}.a | {name}.b"}


@st.composite
def cells(draw):
    """The source of a cell with a few classes of all kinds, instances of them in a table, and a process."""
    lines, instances, bases = ["import dataclasses, enum, typing", "from describing import describe"], [], ["object"]
    for number in range(draw(st.integers(1, 4))):
        kind, name, fields = draw(st.sampled_from(list(KINDS))), f"Class{number}", draw(FIELDS)
        texts = [
            f"    {key}: {type(value).__name__ if value else 'int'!r} = {value!r}" for key, value in fields.items()
        ]
        options = {
            "fields": "\n".join(texts),
            "public_fields": "\n".join(text.replace(" __", " ").replace(" _", " ") for text in texts),
            "names": tuple(fields),
            "base": draw(st.sampled_from(bases)),
            "flag": draw(st.booleans()),
            "other": draw(st.booleans()),
            "value": repr(draw(VALUES)),
        }
        lines.append(KINDS[kind].format(name=name, **options))
        lines.append(f"    def method(self): return {draw(VALUES)!r}, {', '.join(bases)}, TABLE[0]")
        instances.append(INSTANCES.get(kind, "{name}()").format(name=name))
        bases += [name] * (kind in {"plain", "hooked"})
    lines.append(f"TABLE = {{{', '.join(f'{place}: {made}' for place, made in enumerate(instances))}}}")
    lines.append("class Asks:\n    kept = list(TABLE.values())\n    def run(self):")
    lines.append(f"        made = [{', '.join(instances)}]")
    lines.append("        return describe(TABLE, self.kept, made), [str(one.method()[:-1]) for one in made]")
    return "\n".join(lines)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=cells())
def test_run_returns_in_a_job_what_it_returns_inline(cell, path, run_in_job, source):
    """For classes of all kinds and instances of them, made at random."""
    (here, answers_here), (there, answers_there) = in_job(cell, path, run_in_job, source)
    assert answers_there == answers_here
    assert list(differences(here, there)) == []
