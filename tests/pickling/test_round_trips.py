"""What goes into a file comes out of it: data of any shape, and classes of all kinds."""

from __future__ import annotations

import abc
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import pathlib
import pickle
import types
import typing
import uuid
import weakref

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcontainer import Serializer

LIBRARIES = ("hypothesis.extra.numpy", "pandas", "pytest")  # of this module, which jobs import
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.uuids(),
)
HASHABLE = st.recursive(ATOMS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4), max_leaves=8)
NESTED = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.tuples(inner, inner),
        st.dictionaries(HASHABLE, inner, max_size=5),
        st.sets(HASHABLE, max_size=5),
        st.lists(inner, max_size=5).map(collections.deque),
        st.dictionaries(st.text(), inner, max_size=5).map(collections.OrderedDict),
        st.builds(types.SimpleNamespace, value=inner),
    ),
    max_leaves=40,
)
ARRAYS = hnp.arrays(
    st.one_of(
        hnp.scalar_dtypes(),
        hnp.array_dtypes(),
        hnp.unicode_string_dtypes(),
        hnp.byte_string_dtypes(),
    ),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=8),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("round trips") / "object.job"


def carried(value, path):
    Serializer.serialize_to_file(value, path)
    return Serializer.deserialize_from_file(path)


@given(value=NESTED)
def test_nested_containers(path, value):
    """Whatever is nested in whatever comes back equal."""
    found = carried(value, path)
    assert found == value
    assert type(found) is type(value)


@given(array=ARRAYS, transposed=st.booleans(), step=st.sampled_from([1, 2, -1]))
def test_arrays_of_any_type_shape_and_layout(path, array, transposed, step):
    """Fortran order and strides too; the loaded array can be written to."""
    given_array = array.T if transposed else array
    given_array = given_array[::step] if given_array.ndim else given_array
    found = carried(given_array, path)
    expected = pickle.loads(pickle.dumps(given_array, 5))  # numpy swaps the bytes of some
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
    assert found.flags.writeable


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kind=st.sampled_from(["f8", "i4", "c16", "M8[ns]", "?", "S7"]),
    order=st.sampled_from("CF"),
    count=st.integers(1, 3),
)
def test_arrays_that_go_beside_the_stream(path, shape, kind, order, count):
    """Several in one file, shared ones once; they stay one array."""
    chance = np.random.default_rng(0)
    large = [
        np.asarray(chance.integers(0, 255, (shape[0] * 50, shape[1] * 60)).astype("u1"), order=order).view()
        for _ in range(count)
    ]
    typed = [np.frombuffer(chance.bytes(np.dtype(kind).itemsize * 20_000), dtype=kind) for _ in range(count)]
    found_large, again, found_typed = carried((large, large, typed), path)
    assert found_large is again
    for first, second in zip(large + typed, found_large + found_typed, strict=True):
        assert first.tobytes() == second.tobytes()
        assert first.dtype == second.dtype
        assert second.flags.f_contiguous == first.flags.f_contiguous


def test_a_read_only_array_stays_one(path):
    """A loaded array is as writable as the one that was written."""
    array = np.arange(10**5)
    array.flags.writeable = False
    assert not carried(array, path).flags.writeable


@settings(max_examples=30)
@given(data=st.data())
def test_tables(path, data):
    """Pandas' own types, texts and categories, with an index of any kind."""
    size = data.draw(st.integers(0, 50))
    columns = {
        "floats": st.floats(),
        "integers": st.integers(-(2**40), 2**40),
        "texts": st.text(max_size=8),
        "times": st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2100, 1, 1)),  # noqa: DTZ001 -- naive
        "flags": st.booleans(),
    }
    table = pd.DataFrame(
        {name: data.draw(st.lists(cells, min_size=size, max_size=size)) for name, cells in columns.items()}
    )
    table["categories"] = table["texts"].astype("category")
    table.index = data.draw(
        st.sampled_from(
            [
                table.index,
                pd.Index([f"row {row}" for row in range(size)]),
                pd.MultiIndex.from_product([range(size), ["a"]]),
            ]
        )
    )
    pd.testing.assert_frame_equal(carried(table, path), table)


def test_a_large_table_is_mapped(path):
    """Its numbers go beside the stream, and can be changed."""
    table = pd.DataFrame(np.arange(4 * 10**5).reshape(10**5, 4), columns=list("abcd"))
    found = carried(table, path)
    assert sum(Serializer.inspect(path).buffers) >= table.to_numpy().nbytes
    found["a"] += 1
    assert found["a"].sum() == table["a"].sum() + len(table)


class Plain:
    """Has attributes."""

    kind = "plain"

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None

    def doubled(self):
        return self.value * 2


class Child(Plain):
    def doubled(self):
        return super().doubled() + 1


class Slotted:
    __slots__ = ("__weakref__", "first", "second")

    def __init__(self, first):
        self.first = first

    def __eq__(self, other):
        return self.first == other.first and not hasattr(other, "second")

    __hash__ = None


class SlottedChild(Slotted):
    def __init__(self, first):
        super().__init__(first)
        self.third = 3


@dataclasses.dataclass(order=True)
class Data:
    number: int
    names: list[str] = dataclasses.field(default_factory=list)
    kind: typing.ClassVar[str] = "data"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrozenData:
    number: int = 0


class Point(typing.NamedTuple):
    x: int
    y: int = 2


Pair = collections.namedtuple("Pair", "left right")  # noqa: PYI024 -- the old kind must travel too


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"

    def shout(self):
        return self.name + "!"


class Flags(enum.IntFlag):
    A = enum.auto()
    B = enum.auto()


class Level(enum.StrEnum):
    LOW = enum.auto()


class Options(typing.TypedDict, total=False):
    depth: int


class Meta(type):
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.by = cls.__name__
        return made


class WithMeta(metaclass=Meta):
    def __eq__(self, other):
        return vars(self) == vars(other)

    __hash__ = None


class Abstract(abc.ABC):
    @abc.abstractmethod
    def answer(self): ...


class Concrete(Abstract):
    def answer(self):
        return 42

    def __eq__(self, other):
        return type(self) is type(other)

    __hash__ = None


Abstract.register(Plain)

T = typing.TypeVar("T")


class Box(typing.Generic[T]):
    def __init__(self, value: T):
        self.value = value

    def __eq__(self, other):
        return self.value == other.value

    __hash__ = None


class IntBox(Box[int]): ...


class Mapping(dict):
    pass


class Texts(list):
    def __init__(self, *args):
        super().__init__(*args)
        self.extra = "extra"


class Described:
    class Descriptor:
        def __set_name__(self, owner, name):
            self.name = name

        def __get__(self, instance, owner):
            return self if instance is None else instance.__dict__.get(self.name, "unset")

        def __set__(self, instance, value):
            instance.__dict__[self.name] = value

    field = Descriptor()

    def __eq__(self, other):
        return self.field == other.field

    __hash__ = None


class Computed:
    def __init__(self):
        self.base = 3

    @property
    def tripled(self):
        return self.base * 3

    @functools.cached_property
    def squared(self):
        return self.base**2

    @classmethod
    def named(cls):
        return cls.__name__

    @staticmethod
    def fixed():
        return "fixed"

    @functools.singledispatchmethod
    def kind(self, value):
        return f"object {value}"

    @kind.register
    def _(self, value: int):
        return f"number {value}"

    def __call__(self):
        return self.tripled, self.squared, self.named(), self.fixed(), self.kind(1), self.kind("x")

    def __eq__(self, other):
        return self() == other()

    __hash__ = None


class Reduced:
    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        return Reduced, (self.value + 1,)

    def __eq__(self, other):
        return abs(self.value - other.value) == 1

    __hash__ = None


class Stateful:
    def __init__(self):
        self.kept, self.dropped = 1, object()

    def __getstate__(self):
        return {"kept": self.kept}

    def __setstate__(self, state):
        self.__dict__.update(state, dropped=None)

    def __eq__(self, other):
        return self.kept == other.kept

    __hash__ = None


class OddError(Exception):
    """Takes other arguments than it keeps."""

    def __init__(self, message, code=7):
        super().__init__(message)
        self.code = code

    def __eq__(self, other):
        return (self.args, self.code) == (other.args, other.code)

    __hash__ = None


INSTANCES = {
    "plain": lambda: Plain(5),
    "child": lambda: Child([1]),
    "slots": lambda: Slotted("one"),
    "slots and a dict": lambda: SlottedChild("one"),
    "data class": lambda: Data(1, ["a"]),
    "frozen data class with slots": lambda: FrozenData(number=5),
    "typed named tuple": lambda: Point(1),
    "named tuple": lambda: Pair(1, 2),
    "enum": lambda: Colour.GREEN,
    "flags": lambda: Flags.A | Flags.B,
    "text enum": lambda: Level.LOW,
    "typed dict": lambda: Options(depth=3),
    "metaclass": WithMeta,
    "abstract base": Concrete,
    "generic": lambda: Box[int](5),
    "specialised generic": lambda: IntBox(5),
    "dict subclass": lambda: Mapping(a=1),
    "list subclass": lambda: Texts("abc"),
    "descriptor": Described,
    "computed": Computed,
    "__reduce__": lambda: Reduced(1),
    "__getstate__": Stateful,
    "exception": lambda: OddError("no", code=9),
    "exception group": lambda: [type(error) for error in ExceptionGroup("several", [OddError("a")]).exceptions],
}


@pytest.mark.parametrize("make", INSTANCES.values(), ids=INSTANCES)
def test_instances_of_all_kinds_of_classes(path, make):
    """In this process, where the class is alive: it is the same one."""
    value = make()
    found = carried(value, path)
    assert found == value
    assert type(found) is type(value)


class AskInJob:
    """Answers questions about an object, where its class has never been."""

    def __init__(self, value):
        self.value = value

    def run(self):
        value, cls = self.value, type(self.value)
        return {
            "equal": cls is Reduced or value == value,  # noqa: PLR0124 -- its own comparison, with what it needs
            "repr": None if "0x" in repr(value) else repr(value),
            "class": (cls.__name__, cls.__qualname__, cls.__module__, cls.__doc__),
            "bases": [base.__name__ for base in cls.__mro__],
            "value": value,
        }


@pytest.mark.parametrize("make", INSTANCES.values(), ids=INSTANCES)
def test_instances_go_to_a_fresh_process_and_back(path, run_in_job, make):
    """There the class is made from the file; back here the instance is of the class that was alive all the time."""
    value = make()
    Serializer.serialize_to_file(AskInJob(value), path)
    answer = run_in_job(path)
    cls = type(value)
    assert answer["equal"]
    assert answer["repr"] in {None, repr(value)} or cls is Reduced
    assert answer["class"] == (cls.__name__, cls.__qualname__, cls.__module__, cls.__doc__)
    assert answer["bases"] == [base.__name__ for base in cls.__mro__]
    assert type(answer["value"]) is cls
    assert answer["value"] == value or cls is Reduced


def test_classes_keep_what_they_are_in_a_fresh_process(path, run_in_job):
    """Abstract registration, enum lookup, annotations, ordering, weak references, methods of every kind."""

    class Ask:
        def run(self):
            return {
                "registered": issubclass(Plain, Abstract),
                "abstract": _message_of(Abstract),
                "enum": (Colour("green").shout(), [colour.name for colour in Colour], Colour["RED"] is Colour.RED),
                "flags": int(Flags.A | Flags.B),
                "annotations": sorted(typing.get_type_hints(Point)),
                "ordered": Data(1) < Data(2),
                "frozen": _message_of(lambda: setattr(FrozenData(), "number", 3)),
                "super": Child(2).doubled(),
                "weak": weakref.ref(Slotted(1))() is None,
                "computed": Computed()(),
                "fields": [field.name for field in dataclasses.fields(Data)],
                "defaults": Point(1),
            }

    Serializer.serialize_to_file(Ask(), path)
    answer = run_in_job(path)
    assert answer == Ask().run()
    assert answer["registered"]
    assert answer["super"] == 5
    assert answer["computed"] == (9, 9, "Computed", "fixed", "number 1", "object x")


def _message_of(call):
    try:
        call()
    except Exception as error:  # noqa: BLE001 -- its text is what is compared
        return type(error).__name__
    return None


@functools.lru_cache(maxsize=50)
def fibonacci(number):
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


@functools.singledispatch
def describe(value):
    return f"object {value}"


@describe.register
def _(value: int):
    return f"number {value}"


def counter(start):
    count = start

    def count_on(step=1, *, scale=2):
        nonlocal count
        count += step * scale
        return count

    return count_on


UserId = typing.NewType("UserId", int)
P = typing.ParamSpec("P")
Ts = typing.TypeVarTuple("Ts")


def annotated(user: UserId, call: typing.Callable[P, T], rest: tuple[*Ts]) -> UserId:
    return user if call(rest) == 0 else UserId(0)


FUNCTIONS = {
    "lambda": lambda: sorted([1, -3], key=lambda x: x * x),
    "closure": lambda: (counter(5)(), counter(5)(step=2, scale=3)),
    "recursive, cached": lambda: (fibonacci(30), fibonacci.cache_parameters()["maxsize"], fibonacci.__name__),
    "single dispatch": lambda: (describe(1), describe("x")),
    "partial": lambda: functools.partial(max, 3, key=abs)(-5),
    "generator": lambda: list(x * x for x in range(3)),  # noqa: C400 -- a generator's own code
    "annotated": lambda: (annotated(3, len, ()), annotated.__annotations__["user"]),
    "standard library": lambda: (decimal.Decimal(1), fractions.Fraction(1, 3), pathlib.PurePath("a"), uuid.UUID(int=5)),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_of_all_kinds_run_in_a_fresh_process(path, run_in_job, function):
    """A process that has never seen the notebook runs them."""

    class Call:
        def run(self):
            return function()

    Serializer.serialize_to_file(Call(), path)
    assert run_in_job(path) == function()


def test_a_closure_shares_its_cell_with_its_sibling(path):
    """Functions that share a variable share it after the journey too."""

    def pair():
        value = 0

        def put(new):
            nonlocal value
            value = new

        return put, lambda: value

    put, get = carried(pair(), path)
    put(7)
    assert get() == 7


def test_weak_dictionaries_are_carried(path):
    """With what is still alive in them."""
    key = Slotted(1)
    found, found_key = carried((weakref.WeakValueDictionary({"a": key}), key), path)
    assert found["a"] is found_key


def test_what_refers_to_itself_still_does(path):
    """Cycles come back as cycles."""
    loop = {"list": []}
    loop["list"].append(loop)
    plain = Plain(loop)
    plain.me = plain
    found = carried(plain, path)
    assert found.me is found
    assert found.value["list"][0] is found.value
