"""Cells that define classes of every kind, for tests that compare what they are in the notebook and in a job.

Each cell names its subjects and may have a function ``check()``, whose answer must be the same on both sides.
"""

from __future__ import annotations

import sys

DATA_CLASSES = {
    "data class": (
        "Cfg make",
        """
        import dataclasses
        @dataclasses.dataclass
        class Cfg:
            path: str
            n: int = 3
            tags: list = dataclasses.field(default_factory=list)
        def make(): return Cfg("a")
        def check():
            class Sub(Cfg):
                more: int = 4
            Made = dataclasses.dataclass(Sub)
            missing = [field.default is dataclasses.MISSING for field in dataclasses.fields(Cfg)]
            try:
                Cfg()
            except TypeError as error:
                return missing, str(error), str(Made("b")), str(dataclasses.replace(Cfg("a"), n=4)), Cfg("a") == Cfg("a")
        """,
    ),
    "data class of every option": (
        "Base Point",
        """
        import dataclasses, typing
        @dataclasses.dataclass(kw_only=True, order=True)
        class Base:
            scale: dataclasses.InitVar[int]
            unit: typing.ClassVar[str] = "m"
            length: float = dataclasses.field(default=1.0, metadata={"help": "how long"}, compare=False, repr=False)
            def __post_init__(self, scale): self.length *= scale
        @dataclasses.dataclass(frozen=True, slots=True)
        class Point:
            x: int
            _: dataclasses.KW_ONLY
            y: int = 2
            z: int = dataclasses.field(default=3, init=False)
        TABLE = {Point(1): "one"}
        def check():
            try:
                Point(1).x = 2
            except Exception as error:
                return type(error).__name__, TABLE[Point(1)], str(Base(scale=2)), Base(scale=1) <= Base(scale=1), hash(Point(1, y=5))
        """,
    ),
    "data class with text annotations": (
        "Cfg Node load",
        """
        from __future__ import annotations
        import dataclasses, typing
        from pathlib import Path
        from collections import abc as collections_abc
        @dataclasses.dataclass
        class Cfg:
            path: Path
            items: collections_abc.Sequence[Size | None]
            kind: typing.ClassVar[str] = "a"
            first: dataclasses.InitVar[int] = 3
        class Size: ...
        class Node:
            children: list[Node]
            parent: "typing.Optional[Node]"
            other: Missing
        def load(path: Path, node: Node = None) -> dict[str, Size]: ...
        def check():
            return [field.type for field in dataclasses.fields(Cfg)], typing.get_type_hints(load)["path"].__name__
        """,
    ),
    "data class that is the key of a table that its methods use": (
        "Point",
        """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class Point:
            x: int
            def neighbours(self): return GRAPH.get(self), self in SET
        GRAPH = {Point(1): [Point(2)]}
        SET = {Point(1)}
        def check(): return str(Point(1).neighbours()), str(Point(2).neighbours())
        """,
    ),
    "data class with fields of a decorator and of a base in the standard library": (
        "Job Derived",
        """
        import dataclasses, functools, collections
        @functools.total_ordering
        @dataclasses.dataclass(eq=False)
        class Job(collections.UserDict):
            rank: int = 0
            def __eq__(self, other): return self.rank == other.rank
            def __lt__(self, other): return self.rank < other.rank
            def __hash__(self): return self.rank
        @dataclasses.dataclass
        class Derived(Job):
            rank: int = 1
            last: object = dataclasses.field(default=..., hash=False)
        Made = dataclasses.make_dataclass("Made", [("a", int), ("b", list, dataclasses.field(default_factory=list))])
        def check(): return Job(1) >= Job(0), str(Made(3)), Made.__module__
        """,
    ),
}

ENUMS = {
    "enum with __init__": (
        "Planet",
        """
        import enum
        class Planet(enum.Enum):
            EARTH = (5.97e24, 6.37e6)
            MARS = (6.4e23, 3.4e6)
            def __init__(self, mass, radius): self.mass, self.radius = mass, radius
            def weight(self): return TABLE[self], DEFAULTS.get(self)
            def best(self=None): return Planet.EARTH
        TABLE = {Planet.EARTH: 1, Planet.MARS: 2}
        DEFAULTS = {Planet.MARS: [Planet.EARTH]}
        def check():
            return Planet.EARTH.mass, [p.weight() for p in Planet], Planet((6.4e23, 3.4e6)) is Planet.MARS, str(Planet.best())
        """,
    ),
    "enum with __new__": (
        "Coordinate Temperature",
        """
        import enum
        class Coordinate(bytes, enum.Enum):
            def __new__(cls, value, label, unit):
                obj = bytes.__new__(cls, [value])
                obj._value_, obj.label, obj.unit = value, label, unit
                return obj
            PX = (0, "P.X", "km")
            PY = (1, "P.Y", "km")
        class Temperature(enum.Enum):
            def __new__(cls, value):
                obj = object.__new__(cls)
                obj._value_ = value * 2
                obj.seen = [cls]
                return obj
            LOW = 1
            @classmethod
            def _missing_(cls, value): return cls.LOW
        def check(): return Coordinate(1).label, bytes(Coordinate.PY), Temperature("x").value, Temperature.LOW.seen[0] is Temperature
        """,
    ),
    "enum with aliases": (
        "Color Shade",
        """
        import enum
        class Color(enum.Enum): RED = 1; CRIMSON = 1; BLUE = 2
        class Shade(enum.IntEnum): DARK = 1; BLACK = 1; LIGHT = 2
        def check():
            return Color["CRIMSON"] is Color.RED, list(Color.__members__), Shade.BLACK is Shade.DARK, len(Color), Shade(2).name
        """,
    ),
    "flags": (
        "Perm Odd",
        """
        import enum
        class Perm(enum.Flag):
            R = enum.auto(); W = enum.auto(); X = enum.auto()
            RW = R | W
            ALL = RW | X
            def both(self, other=R | X): return self | other
        class Odd(enum.IntFlag):
            A = 11
            B = 37
        KEPT = Odd.A | Odd.B
        NONE = Perm(0)
        def check():
            return (
                str(Perm.R | Perm.W), Perm.RW is (Perm.R | Perm.W), [p.name for p in Perm], str(~Perm.R), (Perm.R | Perm.X) in Perm.ALL,
                str(Odd(48)), [o.name for o in Odd], int(KEPT), KEPT is Odd.A | Odd.B, NONE is Perm(0), [p.name for p in Perm.ALL], str(Odd(64))
            )
        """,
    ),
    "flags with boundaries": (
        "Strict Keep Eject Conform",
        """
        import enum
        class Strict(enum.Flag, boundary=enum.STRICT): A = 1; B = 2
        class Keep(enum.IntFlag, boundary=enum.KEEP): A = 1; B = 4
        class Eject(enum.IntFlag, boundary=enum.EJECT): A = 1
        class Conform(enum.Flag, boundary=enum.CONFORM): A = 1; B = 2
        def check():
            try:
                Strict(5)
            except ValueError as error:
                return str(error), str(Keep(7)), Eject(9), str(Conform(7))
        """,
    ),
    "text enum": (
        "Level Mode",
        """
        import enum
        class Level(enum.StrEnum):
            LOW = enum.auto()
            HIGH = enum.auto()
        class Mode(str, enum.Enum):
            @staticmethod
            def _generate_next_value_(name, start, count, last): return name + str(count)
            A = enum.auto()
            B = enum.auto()
            def __str__(self): return "mode " + self.value
        def check(): return f"{Level.LOW}", Level("high") is Level.HIGH, f"{Mode.B}", Mode.A == "A0", "A0" in {Mode.A}
        """,
    ),
    "enum of data class members": (
        "Creature Animal",
        """
        import dataclasses, enum
        @dataclasses.dataclass
        class Creature:
            size: str
            legs: int = dataclasses.field(default=4, repr=False)
        class Animal(Creature, enum.Enum):
            BEETLE = "small", 6
            DOG = "medium"
        @dataclasses.dataclass(frozen=True)
        class Body:
            mass: float
        class Sky(Body, enum.Enum):
            SUN = 1.0
        WEIGHTS = {Sky.SUN: 3}
        class Asked:
            WEIGHTS = {Sky.SUN: 3}
        def check():
            return repr(Animal.DOG), Animal.BEETLE.legs, repr(Animal.DOG.value), WEIGHTS[Sky.SUN], Asked.WEIGHTS[Sky.SUN], Sky.SUN.mass
        """,
    ),
    "enum of unhashable values": (
        "Lists Callables",
        """
        import enum, functools
        class Lists(enum.Enum):
            A = [1]
            B = {"x": 1}
        class Callables(enum.Enum):
            ADD = enum.member(functools.partial(max, 1))
            @enum.property
            def name_again(self): return self._name_ + "!"
            @property
            def doubled(self): return self.name * 2
        def check(): return Lists([1]) is Lists.A, Callables.ADD.name_again, Callables.ADD.doubled, Callables.ADD.value(0)
        """,
    ),
    "enum of tuples, numbers, dates": (
        "Pairs Floats Days",
        """
        import datetime, enum, typing
        class Pairs(tuple, enum.Enum):
            A = (1, 2)
        class Floats(float, enum.Enum):
            PI = 3.14
        class Days(datetime.date, enum.Enum):
            FIRST = 2020, 1, 2
        class Complexes(complex, enum.Enum):
            I = 1j
        def check(): return Pairs.A[1], Floats.PI + 1, str(Days.FIRST.year), Floats(3.14) is Floats.PI, Complexes.I * 2
        """,
    ),
    "enum from a call, with a base of the notebook and a metaclass of its own": (
        "Made Kind",
        """
        import enum
        class Meta(enum.EnumMeta):
            def __contains__(cls, item): return item in cls.__members__
        class Base(enum.Enum, metaclass=Meta):
            def shout(self): return self.name.upper()
        class Kind(Base):
            a = 1
            _ignore_ = ["left"]
            left = 3
        Made = enum.Enum("Made", "ONE TWO", module="__main__")
        def check(): return "a" in Kind, Kind.a.shout(), [m.name for m in Made]
        """,
    ),
    "enum in a class, in a table, as a default, in a partial": (
        "Outer use Part",
        """
        import enum, functools
        class Outer:
            class Kind(enum.Enum):
                A = "a"
                @classmethod
                def first(cls): return cls.A
            kinds = {Kind.A: "first"}
            default = Kind.A
        def use(kind=Outer.Kind.A, *, more=[Outer.Kind.A]): return kind.first() is more[0]
        Part = functools.partial(use, Outer.Kind.A)
        def check(): return use(), Part(), Outer.kinds[Outer.default], repr(Outer.Kind.A), Outer.Kind.__qualname__
        """,
    ),
}

HOOKS = {
    "__init_subclass__ with a keyword": (
        "Tagged T U",
        """
        class Tagged:
            registry = {}
            order = []
            def __init_subclass__(cls, *, tag, **more):
                super().__init_subclass__(**more)
                cls.tag = tag
                Tagged.registry[tag] = cls
                Tagged.order.append(cls.__name__)
        class T(Tagged, tag="one"): ...
        class U(T, tag="two"): ...
        def check():
            class V(T, tag="three"): ...
            answer = list(Tagged.registry), Tagged.order[:], T.tag, Tagged.registry["one"] is T, V.tag
            del Tagged.registry["three"], Tagged.order[-1]
            return answer
        """,
    ),
    "__init_subclass__ that only counts": (
        "Base A",
        """
        import weakref
        CALLS = []
        class Base:
            subclasses = weakref.WeakSet()
            by_name = weakref.WeakValueDictionary()
            def __init_subclass__(cls, /, **options):
                CALLS.append((cls.__name__, options))
                Base.subclasses.add(cls)
                Base.by_name[cls.__name__] = cls
        class A(Base, x=1): ...
        class B(A, y=2): ...
        def check():
            return CALLS, sorted(cls.__name__ for cls in Base.subclasses), sorted(Base.by_name), Base.by_name["B"] is B
        """,
    ),
    "__set_name__": (
        "Table field",
        """
        NAMED = []
        class Field:
            def __set_name__(self, owner, name):
                NAMED.append((owner.__name__, name))
                self.name, self.owner = name, owner
            def __get__(self, instance, owner): return self if instance is None else instance.__dict__.get(self.name, 0)
            def __set__(self, instance, value): instance.__dict__[self.name] = value * 2
        class Table:
            first = Field()
            second = third = Field()
            fields = [first, second]
        Table.late = Field()
        field = Table.first
        def check():
            table = Table()
            table.first = 4
            return NAMED, table.first, Table.second.name, hasattr(Table.late, "name"), Table.fields[0] is Table.first
        """,
    ),
    "metaclass with keywords": (
        "Meta Made Child",
        """
        class Meta(type):
            made = []
            @classmethod
            def __prepare__(meta, name, bases, **options): return {"prepared": name}
            def __new__(meta, name, bases, namespace, *, size=0, **options):
                cls = super().__new__(meta, name, bases, namespace)
                cls.size = size
                return cls
            def __init__(cls, name, bases, namespace, **options):
                super().__init__(name, bases, namespace)
                Meta.made.append(cls)
                cls.number = len(Meta.made)
            def __call__(cls, *args): return [super().__call__(*args)]
            def __len__(cls): return cls.size
            @property
            def shape(cls): return (cls.size,)
        class Made(metaclass=Meta, size=5): ...
        class Child(Made, size=6): ...
        def check():
            return len(Made), len(Child), Made.shape, type(Made()).__name__, [c.__name__ for c in Meta.made], Child.number
        """,
    ),
    "metaclass that forbids and that orders": (
        "Sealed Ordered",
        """
        class Sealing(type):
            def __setattr__(cls, name, value): raise AttributeError("sealed")
            def __delattr__(cls, name): raise AttributeError("sealed")
            def __getattribute__(cls, name): return type.__getattribute__(cls, name)
            def __hash__(cls): return 5
            def __eq__(cls, other): return cls is other
        class Sealed(metaclass=Sealing):
            x = [1]
        class Reversing(type):
            def mro(cls): return [cls, *reversed(super().mro()[1:-1]), object]
        class A:
            who = "a"
        class B:
            who = "b"
        class Ordered(A, B, metaclass=Reversing): ...
        def check():
            try:
                Sealed.x = 2
            except AttributeError as error:
                return str(error), Ordered().who, {Sealed: 1}[Sealed]
        """,
    ),
    "metaclasses of both bases": (
        "Both Final",
        """
        import abc
        class Named(type):
            def __new__(meta, *args, **options): return super().__new__(meta, *args)
        class Mixed(abc.ABCMeta, Named): ...
        class Plain(metaclass=Named): ...
        class Both(Plain, abc.ABC, metaclass=Mixed, option=1):
            @abc.abstractmethod
            def answer(self): ...
            @property
            @abc.abstractmethod
            def value(self): ...
        class Final(Both):
            def answer(self): return 42
            value = 5
        Both.register(int)
        def check():
            try:
                Both()
            except TypeError as error:
                return str(error), Final().answer(), isinstance(3, Both), isinstance(Final(), Plain)
        """,
    ),
    "decorators of classes": (
        "Plain Once",
        """
        import functools
        REGISTRY = {}
        def register(name):
            def decorate(cls):
                REGISTRY.setdefault(name, []).append(cls)
                cls.registered = name
                return cls
            return decorate
        def singleton(cls):
            made = {}
            @functools.wraps(cls, updated=())
            def get(*args):
                if cls not in made:
                    made[cls] = cls(*args)
                return made[cls]
            return get
        @register("plain")
        class Plain: ...
        @singleton
        class Once:
            def __init__(self): self.plain = Plain()
        Once()
        def check(): return {k: len(v) for k, v in REGISTRY.items()}, REGISTRY["plain"][0] is Plain, Once() is Once(), Once().plain is Once().plain
        """,
    ),
    "classes that keep their instances": (
        "Single Interned Counted",
        """
        class Single:
            _instance = None
            def __new__(cls):
                if cls._instance is None:
                    cls._instance = super().__new__(cls)
                return cls._instance
        class Interned:
            _made = {}
            def __new__(cls, name):
                if name not in cls._made:
                    cls._made[name] = super().__new__(cls)
                    cls._made[name].name = name
                return cls._made[name]
            def __getnewargs__(self): return (self.name,)
        class Counted:
            count, instances = 0, []
            __slots__ = ("number",)
            def __new__(cls):
                cls.count += 1
                made = super().__new__(cls)
                made.number = cls.count
                cls.instances.append(made)
                return made
        Single().value = 5
        a = Interned("a")
        Counted(), Counted()
        def check():
            counted = Counted.count, [made.number for made in Counted.instances], Counted.instances
            return Single().value, Single._instance is Single(), Interned("a") is a, sorted(Interned._made), counted[:2]
        """,
    ),
}

ABSTRACT = {
    "abstract class": (
        "Shape Square Virtual",
        """
        import abc, collections.abc
        class Shape(abc.ABC):
            @abc.abstractmethod
            def area(self): ...
            @classmethod
            def __subclasshook__(cls, other): return True if hasattr(other, "looks_like_shape") else NotImplemented
        class Square(Shape):
            def area(self): return 4
        class Virtual: ...
        class Looks:
            looks_like_shape = True
        Shape.register(Virtual)
        Shape.register(str)
        class Sized(collections.abc.Sequence):
            def __len__(self): return 2
            def __getitem__(self, place): return [1, 2][place]
        def check():
            match Sized():
                case [a, b]: matched = a, b
            return isinstance(Virtual(), Shape), issubclass(Looks, Shape), issubclass(int, Shape), "a" in "a", matched, isinstance("", Shape)
        """,
    ),
    "protocol": (
        "Runs Named Both",
        """
        import typing
        @typing.runtime_checkable
        class Runs(typing.Protocol):
            def run(self) -> int: ...
        @typing.runtime_checkable
        class Named(typing.Protocol):
            name: str
            size: int = 3
        class Both(Runs, Named, typing.Protocol): ...
        class Real(Named):
            def __init__(self): self.name = "a"
        class Duck:
            def run(self): return 1
        def check():
            answers = isinstance(Duck(), Runs), isinstance(Real(), Named), isinstance(3, Runs), Real().size
            try:
                Runs()
            except TypeError as error:
                first = str(error)
            try:
                isinstance(3, Both)
            except TypeError as error:
                return answers, first, str(error)
        """,
    ),
    "generic protocol and generic class": (
        "Box IntBox Source Node",
        """
        import typing
        T = typing.TypeVar("T")
        K = typing.TypeVar("K", bound="Box")
        P = typing.ParamSpec("P")
        Ts = typing.TypeVarTuple("Ts")
        class Box(typing.Generic[T]):
            items: list[T]
            registry: "dict[str, Box[int]]" = {}
            def __init__(self, item: T = None): self.item = item
            def get(self) -> T: return self.item
        class IntBox(Box[int]): ...
        class Pair(Box[T], typing.Generic[T, K]): ...
        class Call(typing.Generic[P, T]):
            call: typing.Callable[P, T]
        class Row(typing.Generic[*Ts]): ...
        class Source(typing.Protocol[T]):
            def read(self) -> T: ...
        class Node(typing.Generic[T]):
            root: "Node[T] | None" = None
        Node.alias = Node[int]
        Box.registry["a"] = Box[int](3)
        Box.default = IntBox(5)
        def check():
            return (
                str(Box[int]), Pair[int, Box].__args__[0], Pair.__parameters__ == (T, K), str(Call[[int], str]), str(Row[int, str]),
                typing.get_args(IntBox.__orig_bases__[0]), T.__module__, str(Box.__class_getitem__(str)), Node.alias == Node[int],
                Box.registry["a"].__orig_class__ == Box[int]
            )
        """,
    ),
    "named tuple": (
        "Point Pair Named",
        """
        import collections, typing
        T = typing.TypeVar("T")
        class Point(typing.NamedTuple):
            "A point."
            x: int
            y: int = 2
            def length(self): return self.x + self.y
            @property
            def doubled(self): return self.x * 2
        Pair = collections.namedtuple("Pair", "left right", defaults=[[]])
        class Named(Pair):
            __slots__ = ()
            def swap(self): return self._replace(left=self.right)
        class Generic(typing.NamedTuple, typing.Generic[T]):
            item: T
        ORIGIN = Point(0)
        TABLE = {Point(1): "a"}
        def check():
            match Point(5):
                case Point(x, y): matched = x, y
            return str(Point(1)), Point(1).length(), Pair(1)._asdict(), str(Named(1, 2).swap()), matched, TABLE[Point(1, 2)], str(Generic[int](3))
        """,
    ),
    "typed dict": (
        "Options More",
        """
        import typing
        class Options(typing.TypedDict, total=False):
            depth: int
            name: typing.Required[str]
        class More(Options):
            size: "float"
        Made = typing.TypedDict("Made", {"in": int})
        def check():
            return sorted(Options.__required_keys__), Options.__total__, More(depth=3, size=1.0), sorted(More.__annotations__), typing.is_typeddict(More), list(Made.__annotations__)
        """,
    ),
}

MEMBERS = {
    "slots": (
        "Plain Mangled Full Documented Single",
        """
        class Plain:
            __slots__ = ("b", "a")
            def __init__(self): self.a = 1
        class Mangled(Plain):
            __slots__ = ["__hidden", "c"]
            def hide(self): self.__hidden = 3; return self.__hidden
        class Full:
            __slots__ = ("x", "__dict__", "__weakref__")
        class Documented:
            __slots__ = {"x": "what it is"}
            y = 5
        class Single:
            __slots__ = "only"
        class Iterated:
            __slots__ = iter(("one", "two"))
        class WithDict(Plain): ...
        def check():
            import weakref
            plain = Plain()
            try:
                plain.c = 1
            except AttributeError as error:
                kept = Full()
                kept.other = 1
                one = Iterated()
                one.one = 4
                return plain.a, str(error), Mangled().hide(), weakref.ref(kept)() is kept, Documented.__slots__, Single.only.__name__, one.one
        """,
    ),
    "slots that are changed afterwards": (
        "Late Renamed Hidden",
        """
        class Late:
            x = 1
        Late.__slots__ = ("y",)
        class Renamed:
            __slots__ = ("a", "b")
        Renamed.alias = Renamed.a
        class Hidden:
            __slots__ = ("a",)
        Hidden.real = Hidden.a
        Hidden.a = property(lambda self: Hidden.real.__get__(self) * 2)
        del Renamed.b
        def check():
            late, renamed, hidden = Late(), Renamed(), Hidden()
            late.z = 1
            renamed.alias = 4
            Hidden.real.__set__(hidden, 5)
            return late.z, renamed.a, hidden.a, hasattr(Renamed, "b")
        """,
    ),
    "attributes equal to those of the base": (
        "Parent Child",
        """
        class Parent:
            version = 1
            items = []
            def method(self): return 1
            __hash__ = None
        class Child(Parent):
            version = 1
            items = Parent.items
            method = Parent.method
            __hash__ = None
        def check():
            Parent.version = 2
            answer = Child.version, Child.items is Parent.items, "method" in vars(Child)
            Parent.version = 1
            return answer
        """,
    ),
    "nested classes": (
        "Outer make",
        """
        class Outer:
            class Cfg:
                class Deep:
                    def who(self): return type(self).__qualname__
                deep = Deep()
            def cfg(self): return self.Cfg
        def make():
            class Local(Outer):
                class Inner: ...
                def __init__(self): super().__init__()
            return Local
        Local = make()
        def check(): return Outer.Cfg.__qualname__, Outer.Cfg.deep.who(), repr(Local), Local.Inner.__qualname__, type(Local()).__name__
        """,
    ),
    "descriptors of the standard library": (
        "Computed P",
        """
        import functools
        class Computed:
            "Computes."
            def __init__(self): self.base = 3
            @functools.cached_property
            def squared(self): "Square."; return self.base ** 2
            @property
            def tripled(self): "Triple."; return self.base * 3
            @tripled.setter
            def tripled(self, value): self.base = value / 3
            @classmethod
            def named(cls, x: int = 1) -> str: return cls.__name__
            @staticmethod
            def fixed(x: "int" = 2) -> str: "Fixed."; return "fixed"
            @functools.singledispatchmethod
            def kind(self, value): return "object"
            @kind.register
            def _(self, value: int): return "int"
            half = functools.partialmethod(lambda self, x, y: (x, y), 1)
            @functools.lru_cache(maxsize=7)
            def cached(self, x): return x
            write_only = property(None, lambda self, value: None, doc="only written")
            alias = tripled
        class P(Computed):
            @Computed.tripled.getter
            def tripled(self): return -1
            @functools.wraps(Computed.fixed)
            def wrapped(self): ...
        def check():
            computed = Computed()
            computed.tripled = 12
            try:
                P().squared
                Computed().write_only
            except AttributeError as error:
                first = str(error)
            try:
                del computed.tripled
            except AttributeError as error:
                second = str(error)
            return (
                first, second, computed.squared, computed.named(), computed.fixed(), computed.kind(1), computed.kind(""), computed.half(2),
                computed.cached(3), Computed.cached.cache_parameters(), P().tripled, Computed.tripled.__doc__, {computed: 1}[computed]
            )
        """,
    ),
    "tables of instances that special methods need": (
        "Salted",
        """
        class Salted:
            def __init__(self, x): self.x = x
            def __hash__(self): return hash((self.x, SALT["salt"]))
            def __eq__(self, other): return self.x == other.x
            def others(self): return len(SET), self in SET, self in self.ALL
        SALT = {"salt": 3}
        SET = {Salted(1), Salted(2)}
        Salted.ALL = frozenset(SET)
        PAIRS = frozenset({(Salted(1), Salted(3))})
        def check(): return Salted(1).others(), (Salted(1), Salted(3)) in PAIRS
        """,
    ),
    "a class that is another to isinstance": (
        "Posing Chained",
        """
        import abc, functools
        class Posing:
            __class__ = property(lambda self: int)
        class Chained(abc.ABC):
            @classmethod
            @functools.lru_cache(maxsize=128)
            def first(cls): return cls.__name__
            @staticmethod
            @functools.cache
            def second(): return 1
            @property
            @abc.abstractmethod
            @functools.cache
            def third(self): return 2
            @abc.abstractproperty
            def fourth(self): ...
        def check(): return isinstance(Posing(), int), Chained.first(), Chained.second(), Chained.__abstractmethods__
        """,
    ),
    "descriptors of one's own": (
        "Lazy Model",
        """
        class classproperty(property):
            def __get__(self, instance, owner): return self.fget(owner)
        class Method(classmethod):
            extra = 3
        class Lazy:
            def __init__(self, function): self.function, self.__doc__ = function, function.__doc__
            def __get__(self, instance, owner):
                if instance is None: return self
                value = instance.__dict__[self.function.__name__] = self.function(instance)
                return value
            def __setstate__(self, state): raise RuntimeError("never")
            def __getstate__(self): return None
            def __reduce__(self): return (Lazy, (self.function,))
        class Model:
            @classproperty
            def name(cls): return cls.__name__.lower()
            @Method
            def made(cls): return cls()
            @Lazy
            def loaded(self): "Loads."; return [1]
            def __getattr__(self, name): return "made up " + name
        def check(): return Model.name, type(Model.made()).__name__, Model().loaded, Model().other, type(vars(Model)["made"]).extra, Model.loaded.__doc__
        """,
    ),
    "single dispatch": (
        "kind Shape",
        """
        import functools
        class Shape: ...
        class Round(Shape): ...
        @functools.singledispatch
        def kind(value): return "object"
        @kind.register
        def _(value: Shape): return "shape"
        @kind.register(int)
        @kind.register(str)
        def _(value): return "atom"
        def check():
            before = kind(Round()), kind(1), kind([])
            @kind.register
            def _(value: list): return "list"
            answer = before, kind([]), list in kind.registry
            return answer
        """,
    ),
    "operators and special methods": (
        "Vector Matrix",
        """
        class Vector(list):
            def __add__(self, other): return Vector(a + b for a, b in zip(self, other))
            def __eq__(self, other): return list(self) == list(other)
            __hash__ = None
            def __call__(self, *args): return args
            def __contains__(self, item): return True
            def __class_getitem__(cls, item): return (cls.__name__, item)
            def __enter__(self): return self
            def __exit__(self, *error): return True
            def __bool__(self): return False
            __repr__ = lambda self: f"<{list(self)}>"
            __radd__ = __add__
            def __format__(self, spec): return spec
            def __matmul__(self, other): return NotImplemented
        class Matrix(dict):
            def __missing__(self, key): return key
            def __init__(self, *args, scale=1, **more): super().__init__(*args, **more); self.scale = scale
        KEPT = Matrix({Vector: Vector([1])}, scale=4)
        def check():
            with Vector() as vector:
                raise ValueError
            return repr(Vector([1]) + [2]), Vector[int], bool(vector), Matrix()["k"], KEPT.scale, repr(KEPT[Vector]), f"{vector:abc}", 5 in vector
        """,
    ),
    "super, closures, weak references": (
        "Base Middle Last",
        """
        import weakref
        def factory(start):
            count = start
            class Base:
                def grow(self):
                    nonlocal count
                    count += 1
                    return count
                def me(self): return __class__
            class Middle(Base):
                def grow(self): return super().grow() * 2
                @classmethod
                def build(cls): return super().__new__(cls)
            return Base, Middle
        Base, Middle = factory(10)
        class Last(Middle):
            me = Base.me
            def __init__(self): self.again = weakref.WeakKeyDictionary(); self.again[self] = 1
        def check():
            answer = Middle().grow(), Base().grow(), Last().grow(), Last().me() is Base, type(Last.build()).__name__, len(Last().again)
            return answer
        """,
    ),
    "a class whose instances are its own attributes": (
        "Money State",
        """
        SUFFIX = ""
        class Money:
            def __init__(self, code): self.code = code
            def __hash__(self): return hash(self.code + SUFFIX)
            def __eq__(self, other): return self.code == other.code
            def rate(self): return RATES[self], self.rates[self]
        Money.EUR = Money("EUR")
        Money.rates = {Money.EUR: 1.0, Money("USD"): 1.1}
        RATES = {Money("USD"): 1.2, Money.EUR: 1.0}
        class State:
            def __init__(self, name): self.name, self.calls = name, 0
            def __getstate__(self): return {"named": self.name}
            def __setstate__(self, state): self.name, self.calls = state["named"] + SUFFIX, 0
            def other(self): return DEFAULT.name, STATES
        DEFAULT = State("default")
        STATES = [State("a"), DEFAULT]
        State.all = {State("x").name: State("y")}
        def check():
            return Money.EUR in Money.rates, Money("USD").rate(), DEFAULT.other()[0], vars(State.all["x"]), [s.name for s in STATES]
        """,
    ),
    "errors": (
        "OddError Group",
        """
        class OddError(ValueError):
            codes = {}
            def __init__(self, message, code=7): super().__init__(message); self.code = code
            def __str__(self): return f"{self.code}: {self.args[0]}"
        class Group(ExceptionGroup):
            def derive(self, errors): return Group(self.message, errors)
        KEPT = OddError("no", code=9)
        def check():
            try:
                raise OddError("no")
            except ValueError as error:
                return str(error), type(Group("g", [OddError("a")]).subgroup(OddError)).__name__, str(KEPT)
        """,
    ),
    "classes that were changed and made by hand": (
        "Changed Made Copied Mixed",
        """
        import types
        class Changed:
            def old(self): ...
        Changed.new = lambda self: 5
        Changed.__doc__ = "Other."
        Changed.__qualname__ = "Somewhere.Changed"
        Changed.__module__ = "__main__"
        Changed.new.note = ["a"]
        Changed.helper = len
        Changed.method = Changed().new
        Changed.__annotations__ = {"x": int}
        del Changed.old
        Made = type("Made", (Changed,), {"x": 1, "__module__": "__main__", "with space": 2})
        Copied = type("Copied", (), {k: v for k, v in vars(Changed).items() if k not in ("__dict__", "__weakref__")})
        Mixed = types.new_class("Mixed", (Made, dict), {}, lambda namespace: namespace.update(y=[Made]))
        Changed.sub = Made
        def check(): return Changed().new(), Made().new(), Mixed(a=1), Mixed.y[0] is Made, getattr(Made, "with space"), Changed.helper([1]), Changed.method()
        """,
    ),
    "sentinels and partials": (
        "Uses",
        """
        import functools, operator, types, inspect, dataclasses
        MISSING = object()
        class Uses:
            default = MISSING
            get = operator.itemgetter(1)
            call = functools.partial(max, key=abs)
            view = types.MappingProxyType({"a": 1})
            space = types.SimpleNamespace(x=[1])
            alias = list[int] | None
            other = dataclasses.MISSING
            empty = inspect.Parameter.empty
            not_there = NotImplemented
            dots = ...
            def ask(self, value=MISSING): return value is MISSING, self.default is MISSING, Uses.other is dataclasses.MISSING
        def check(): return Uses().ask(), Uses.get([1, 2]), Uses.call(-3, 2), Uses.view["a"], str(Uses.alias), Uses.empty is inspect.Parameter.empty
        """,
    ),
    "coroutines and generators": (
        "Stream",
        """
        import asyncio, contextlib
        class Stream:
            async def get(self): return 5
            async def items(self):
                for item in (1, 2): yield item
            def __iter__(self): yield from (1, 2)
            @contextlib.contextmanager
            def opened(self): yield self
            async def __aenter__(self): return self
            async def __aexit__(self, *error): ...
        def check():
            async def main():
                async with Stream() as stream:
                    return await stream.get(), [item async for item in stream.items()]
            with Stream().opened() as opened:
                return asyncio.run(main()), list(opened)
        """,
    ),
}

LIBRARIES = {
    "attrs": (
        "Point Slotted Old",
        """
        import attr, attrs
        @attrs.define
        class Point:
            x: int = attrs.field(validator=attrs.validators.instance_of(int), converter=int)
            y: list = attrs.Factory(list)
            z: int = attrs.field(default=3, kw_only=True, repr=False, metadata={"a": 1})
        @attrs.frozen
        class Slotted:
            a: "int" = 1
            @property
            def double(self): return self.a * 2
            def me(self): return __class__
        @attr.s
        class Old:
            x = attr.ib(default=attr.Factory(lambda self: 5, takes_self=True))
        @attrs.define
        class Child(Point):
            more: str = "m"
            def __attrs_post_init__(self): self.more = super().__repr__()
        def check():
            try:
                Point("a")
            except ValueError as error:
                first = str(error)
            try:
                Slotted().a = 3
            except Exception as error:
                return (
                    first, type(error).__name__, str(Point(1)), attrs.asdict(Point("4")), str(Old()), Slotted().double, Slotted().me() is Slotted,
                    [a.name for a in attrs.fields(Point)], attrs.fields(Point).x.default is attrs.NOTHING, str(Child(1)), attrs.evolve(Point(1), x=2).x
                )
        """,
    ),
    "pydantic": (
        "User Base Settings",
        """
        import pydantic, typing, enum
        class Kind(enum.Enum):
            A = "a"
        class Address(pydantic.BaseModel):
            street: str
            number: int = 3
        class Base(pydantic.BaseModel, frozen=True):
            name: str = "n"
        class User(Base):
            model_config = pydantic.ConfigDict(extra="forbid")
            id: int = pydantic.Field(gt=0, alias="userId")
            address: Address | None = None
            kinds: list[Kind] = []
            _secret: int = pydantic.PrivateAttr(default=5)
            @pydantic.field_validator("name")
            @classmethod
            def check_name(cls, value): return value.upper()
            @pydantic.computed_field
            @property
            def double(self) -> int: return self.id * 2
            @pydantic.model_validator(mode="after")
            def check_all(self): assert self.id < 10; return self
        class Settings(pydantic.RootModel[dict[str, int]]): ...
        KEPT = User(userId=4, name="b")
        def check():
            user = User.model_validate({"userId": "3", "name": "a", "address": {"street": "s"}, "kinds": ["a"]})
            try:
                User(userId=0, other=1)
            except pydantic.ValidationError as error:
                found = [(e["type"], e["loc"]) for e in error.errors()]
            class Sub(User):
                more: int = 1
            return user.model_dump_json(), found, User.model_json_schema(), repr(KEPT), Settings({"a": 1}).root, KEPT._secret, repr(Sub(userId=1))
        """,
    ),
    "pydantic generic and data class": (
        "Page Row",
        """
        from __future__ import annotations
        import pydantic, typing
        import pydantic.dataclasses
        T = typing.TypeVar("T")
        class Page(pydantic.BaseModel, typing.Generic[T]):
            items: list[T]
            next: Page[T] | None = None
        class Row(pydantic.BaseModel):
            n: int
            parent: Row | None = None
        @pydantic.dataclasses.dataclass
        class Point:
            x: int
            y: list[int] = pydantic.Field(default_factory=list)
        IntPage = Page[int]
        def check(): return repr(Page[Row](items=[{"n": 1}])), repr(IntPage(items=["3"])), repr(Row(n=1, parent={"n": 2})), repr(Point(x="3"))
        """,
    ),
    "pydantic models of generic ones": (
        "Page Row Sub Tree Pair PAGES",
        """
        import pydantic, typing
        T, U = typing.TypeVar("T"), typing.TypeVar("U")
        class Page(pydantic.BaseModel, typing.Generic[T]):
            items: list[T]
        class Pair(Page[T], typing.Generic[T, U]):
            other: U
        class Row(pydantic.BaseModel):
            n: int
        class Sub(Page[int]):
            size: int = 1
        class Tree(pydantic.BaseModel):
            pages: "list[Page[Tree]]" = []
        PAGES = [Page[int](items=[1]), Page[list[Row]](items=[[Row(n=1)]]), Pair[int, Row](items=[], other=Row(n=2))]
        IntPage = Page[int]
        def check():
            kinds = Page[int], Page[list[Row]], Pair[int, Row]
            same = [type(page) is kind for page, kind in zip(PAGES, kinds)]
            tree = Tree.model_validate({"pages": [{"items": [{}]}]})
            return same, IntPage is Page[int], Sub.__mro__[1] is Page[int], type(tree.pages[0]) is Page[Tree], repr(tree)
        """,
    ),
    "exceptions, loggers and paths of the standard library": (
        "Path Log Thread",
        """
        import logging, pathlib, threading, string, collections
        class Path(type(pathlib.Path())):
            def shout(self): return str(self).upper()
        class Log(logging.LoggerAdapter): ...
        class Thread(threading.Thread):
            def run(self): self.done = 5
        class Counter(collections.Counter):
            def most(self): return self.most_common(1)
        class Ordered(collections.OrderedDict): ...
        class Template(string.Template):
            delimiter = "%"
        HOME = Path("/home")
        def check():
            thread = Thread()
            thread.start()
            thread.join()
            return HOME.shout(), thread.done, Counter("aab").most(), Ordered(a=1), Template("%x").substitute(x=4)
        """,
    ),
    "values, errors and wrappers that their class makes of something else": (
        "Celsius Step Interned NotFound Gone BadText Wrapper Watched Locked Stamp",
        """
        import collections, datetime, json
        class Celsius(float):
            def __new__(cls, fahrenheit): return super().__new__(cls, (fahrenheit - 32) * 5 / 9)
        class Step(collections.namedtuple("Step", "start end")):
            def __new__(cls, start): return super().__new__(cls, start, start + 1)
        class Interned(str):
            known = {}
            def __new__(cls, *, text):
                if text not in cls.known:
                    cls.known[text] = super().__new__(cls, text)
                    cls.known[text].size = len(text)
                return cls.known[text]
        class NotFound(Exception):
            def __init__(self, path): super().__init__(f"no file {path}"); self.path = path
        class Gone(OSError):
            def __init__(self, *, path): super().__init__(2, "gone", path); self.path = path
        class BadText(json.JSONDecodeError):
            def __init__(self, text): super().__init__("bad", text, 0)
        class Wrapper:
            def __init__(self, inner): self.inner = inner
            def __getattr__(self, name): return getattr(self.inner, name)
        class Watched:
            def __init__(self): self.values = {"k": 1}
            def __getattribute__(self, name): return object.__getattribute__(self, "values").get(name) or super().__getattribute__(name)
        class Locked:
            __slots__ = ("names", "size")
            def __init__(self, size): object.__setattr__(self, "names", {"size"}); self.size = size
            def __setattr__(self, name, value):
                if name not in self.names: raise AttributeError(name)
                super().__setattr__(name, value)
        class Stamp(datetime.datetime):
            def __new__(cls, year): return super().__new__(cls, year, 1, 1)
        STAMP = Stamp(2020); STAMP.label = "new year"
        INTERNED = {"text": Interned(text="abc")}
        KEPT = [Celsius(212), Step(1), NotFound("x"), Gone(path="y"), Wrapper([1, 2]), Watched(), Locked(3), BadText("{")]
        def check():
            boiling, step, missing, gone, wrapper, watched, locked, bad = KEPT
            answer = boiling, Celsius(50), step, Step(5), INTERNED["text"] is Interned(text="abc"), INTERNED["text"].size
            errors = str(missing), missing.path, missing.args, str(gone), gone.errno, gone.filename, gone.path, str(bad), bad.doc
            return answer, errors, wrapper.index(2), watched.k, locked.size, STAMP, STAMP.label, type(STAMP).__name__
        """,
    ),
    "collections that do something else when they are made or filled": (
        "Lower Attributes Named Groups Counts Window History",
        """
        import collections
        class Lower(dict):
            def __setitem__(self, key, value): super().__setitem__(key.lower() + "!", value)
            def items(self): return {}.items()
        class Attributes(dict):
            def __init__(self, **items): super().__init__(items); self.__dict__ = self
        class Named(set):
            def __init__(self, name, items=()): super().__init__(items); self.name = name
        class Groups(collections.defaultdict):
            def __init__(self, name): super().__init__(list); self.name = name
        class Counts(collections.Counter):
            seen = 0
        class Window(collections.deque):
            def __init__(self, first): super().__init__([first], maxlen=5); self.first = first
            def extend(self, items): raise NotImplementedError
        class History(list):
            def __init__(self, owner): self.owner, self.added = owner, 0
            def extend(self, items): self.added += len(items); super().extend(items)
            def __iter__(self): return reversed(self)
        LOWER = Lower(); LOWER["A"] = 1
        GROUPS = Groups("groups"); GROUPS["a"].append(1)
        COUNTS = Counts("aab"); COUNTS.seen = 3
        HISTORY = History("me"); HISTORY.extend([1, 2])
        ATTRIBUTES = Attributes(a=1)
        KEPT = Named("named", [1, 2]), Window(3)
        def check():
            ATTRIBUTES.new = 2
            named, window = KEPT
            answer = dict(LOWER), ATTRIBUTES["new"], ATTRIBUTES.a, set(named), named.name, dict(GROUPS), GROUPS.name
            return answer, GROUPS.default_factory, COUNTS, COUNTS.seen, list(window), window.maxlen, window.first, list(HISTORY), vars(HISTORY)
        """,
    ),
}

NEWER = {
    "type parameters": (
        "Box Node call",
        """
        class Box[T]:
            items: list[T]
            def get[K](self, key: K) -> dict[K, T]: return {key: self.items}
        class Node(Box["Node"]):
            class Inner[X: Box]: ...
        type Alias[T] = list[T] | dict[str, Node]
        type Json = int | list[Json]
        def call[T, *Ts, **P](x: T, *rest: *Ts) -> Alias[T]: return x
        class Typed:
            a: Alias[int]
            json: Json
        def check():
            import typing
            return (
                str(Box[int]), Box.__type_params__, call.__type_params__, str(Alias.__value__), str(Json.__value__), call(1),
                str(typing.get_type_hints(Typed)), Box.get.__type_params__, Node.Inner.__type_params__[0].__bound__ is Box,
                Json.__value__.__args__[1].__args__[0] is Json
            )
        """,
    ),
}

CELLS = DATA_CLASSES | ENUMS | HOOKS | ABSTRACT | MEMBERS | LIBRARIES | (NEWER if sys.version_info >= (3, 12) else {})

REFUSED = {
    "a lock in a class": (
        "Model.lock (_thread.lock)",
        """
        import threading
        class Model: lock = threading.Lock()
        """,
    ),
    "a lock in a member": (
        "Model.A.lock (_thread.lock)",
        """
        import enum, threading
        class Model(enum.Enum):
            A = 1
            def __init__(self, number): self.lock = threading.Lock()
        """,
    ),
    "a lock that an annotation names": (
        "Model -> annotation lock (_thread.lock)",
        """
        import threading
        lock = threading.Lock()
        class Model:
            size: "lock"
        """,
    ),
    "a lock in a closure": (
        "closure lock (_thread.lock)",
        """
        import threading
        def make():
            lock = threading.Lock()
            class Model:
                def use(self): return lock
            return Model
        Model = make()
        """,
    ),
    "a weak reference": (
        "Model.other (weakref.ReferenceType)",
        """
        import weakref
        class Other: ...
        class Model: other = weakref.ref(Other)
        """,
    ),
    "a metaclass that is written in C": (
        "put it into a module beside the notebook",
        """
        import ctypes
        class Model(ctypes.Structure): _fields_ = [("x", ctypes.c_int)]
        """,
    ),
    "members that are lists": (
        "members of Model are list objects, which can't be made again as they are",
        """
        import enum
        class Model(list, enum.Enum): A = [1]
        """,
    ),
    "a type that can not be imported": (
        "the built-in type list_iterator has no name that it could be imported by",
        """
        class Model: kind = type(iter([]))
        """,
    ),
}
"""Classes that can't be carried, and what is said of them."""
