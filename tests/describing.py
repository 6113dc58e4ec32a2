"""What an object is, in plain words that two processes can compare: used by tests, in the notebook and in jobs."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import sys
import types
import typing
import weakref

ATOMS = (int, float, complex, str, bytes, type(None), type(...), type(NotImplemented))
SKIPPED = {"_abc_impl", "__slotnames__", "__weakref__", "__dict__"}
OWN = {"__main__", "helper_of_classes"}
"""The modules whose classes and functions are described, and not named."""

IN_ANY_ORDER = (set, frozenset, weakref.WeakSet)


def describe(*objects):
    """Describe objects and all that they are made of; what is met again is named by its number."""
    return [Description({}).of(obj) for obj in objects]


class Description:
    def __init__(self, seen):
        self.seen = seen
        self.kept = []  # so that no id is used twice

    def of(self, obj):
        if type(obj) in ATOMS or type(obj) is bool:
            return comparable(repr(obj))
        named = by_name(obj)
        if named is not None:
            return named
        if type(obj) is tuple:
            return [self.of(item) for item in obj]
        if id(obj) in self.seen:
            return f"number {self.seen[id(obj)]}"
        self.seen[id(obj)] = len(self.seen)
        self.kept.append(obj)
        return self.parts(obj)

    def parts(self, obj):
        if isinstance(obj, type):
            return self.of_class(obj)
        if isinstance(obj, types.FunctionType):
            return self.of_function(obj)
        return self.of_object(obj)

    def of_class(self, cls):
        signature = signature_of(cls)  # first, as pydantic makes it when it is asked for
        own = {
            name: value
            for name, value in vars(cls).items()
            if name not in SKIPPED and type(value) is not types.MemberDescriptorType
        }
        return {
            "name": (cls.__module__, cls.__qualname__, cls.__name__),
            "metaclass": self.of(type(cls)),
            "bases": [self.of(base) for base in cls.__bases__],
            "mro": [base.__qualname__ for base in cls.__mro__],
            "slots": sorted(name for name, value in vars(cls).items() if type(value) is types.MemberDescriptorType),
            "order": [name for name in own if not name.startswith("__")],
            "own": {name: self.of(own[name]) for name in sorted(own)},
            "layout": (cls.__basicsize__, cls.__itemsize__, cls.__dictoffset__, cls.__weakrefoffset__),
            "flags": cls.__flags__ & ~(1 << 19),  # but whether attributes are cached
            "access": sorted({"__weakref__", "__dict__"} & set(vars(cls))),
            "hints": hints_of(cls),
            "signature": signature,
            "virtual": virtual_subclasses(cls),
            "fields": fields_of(cls),
            "members": members_of(cls),
        }

    def of_function(self, function):
        cells = function.__closure__ or ()
        return {
            "name": (function.__module__, function.__qualname__, function.__name__, function.__doc__),
            "code": (function.__code__.co_filename, function.__code__.co_firstlineno, function.__code__.co_freevars),
            "defaults": [self.of(function.__defaults__), self.of(function.__kwdefaults__)],
            "annotations": self.of(function.__annotations__ or None),
            "own": self.of(vars(function)),
            "closure": [self.of(cell) for cell in cells],
            "hints": hints_of(function) if function.__module__ in OWN else None,
        }

    def of_object(self, obj):
        kind = type(obj)
        found = {"type": self.of(kind)}
        if isinstance(obj, types.CellType):
            return [self.of(obj.cell_contents)] if has_content(obj) else []
        if isinstance(obj, (dict, types.MappingProxyType)):
            found["items"] = [(self.of(key), self.of(value)) for key, value in dict.items(dict(obj))]
        elif isinstance(obj, weakref.WeakKeyDictionary):
            return sorted(map(without_addresses, obj.items()))
        elif isinstance(obj, IN_ANY_ORDER):
            found["items"] = sorted(map(without_addresses, obj))
        elif isinstance(obj, (list, tuple)):
            found["items"] = [self.of(item) for item in list(obj)]
        elif isinstance(obj, property):
            found["functions"] = [self.of(obj.fget), self.of(obj.fset), self.of(obj.fdel), self.of(obj.__doc__)]
        elif isinstance(obj, (staticmethod, classmethod)):
            found["function"] = self.of(obj.__func__)
        elif isinstance(obj, types.MethodType):
            found["method"] = [self.of(obj.__func__), self.of(obj.__self__)]
        elif kind.__module__.startswith("pydantic_core"):  # whose texts differ from process to process
            found["repr"] = kind.__name__
        else:
            found["repr"] = without_addresses(obj)
        found["state"] = self.of_state(obj)
        return found

    def of_state(self, obj):
        try:
            state = object.__getstate__(obj)
        except TypeError as error:
            return str(error)
        if type(obj).__module__ == "typing" and isinstance(state, dict):
            state.pop("__module__", None)  # of a type variable: it has one in any case
        parts = state if isinstance(state, tuple) else (state, None)
        return [{k: self.of(v) for k, v in (part or {}).items() if type(v).__name__ != "RLock"} for part in parts]


def by_name(obj):
    """The name of what is not the notebook's."""
    if isinstance(obj, types.ModuleType):
        return f"module {obj.__name__}"
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    if not isinstance(name, str) or module is None or module.__name__ in OWN:
        return None
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module.__name__}.{name}" if found is obj else None


def comparable(text):
    """A text without what differs from process to process."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r":\d{9,}", ":", text)  # pydantic names classes by their id()
    return text.replace("typing.Annotated", "Annotated")  # the same once somebody has asked for its module


def without_addresses(obj):
    try:
        return comparable(repr(obj))
    except Exception as error:  # noqa: BLE001 -- that is what it is
        return f"{type(error).__name__}: {error}"


def has_content(cell):
    try:
        cell.cell_contents  # noqa: B018 -- it raises for an empty one
    except ValueError:
        return False
    return True


def hints_of(obj):
    try:
        return {name: without_addresses(hint) for name, hint in typing.get_type_hints(obj, include_extras=True).items()}
    except Exception as error:  # noqa: BLE001 -- that is what it is
        return f"{type(error).__name__}: {error}"


def signature_of(cls):
    try:
        return comparable(str(inspect.signature(cls)))
    except (TypeError, ValueError) as error:
        return str(error)


def virtual_subclasses(cls):
    import abc  # noqa: PLC0415 -- only for these

    if not isinstance(cls, abc.ABCMeta):
        return []
    return sorted(reference().__qualname__ for reference in abc._get_dump(cls)[0])


def fields_of(cls):
    if not dataclasses.is_dataclass(cls):
        return None
    return [
        (
            field.name,
            field.kw_only,
            field.default is dataclasses.MISSING,
            field.default_factory is dataclasses.MISSING,
            field._field_type is dataclasses._FIELD,
        )
        for field in vars(cls).get("__dataclass_fields__", {}).values()
    ]


def members_of(cls):
    if not issubclass(cls, enum.Enum):
        return None
    return [(name, member.name, member is cls[name]) for name, member in cls.__members__.items()]


def differences(here, there, path=""):
    """Where two descriptions differ."""
    if type(here) is type(there) and isinstance(here, dict):
        for key in {**here, **there}:
            yield from differences(here.get(key, "<nothing>"), there.get(key, "<nothing>"), f"{path}.{key}")
        if list(here) != list(there):
            yield path, "order", list(here), list(there)
    elif type(here) is type(there) and isinstance(here, (list, tuple)) and len(here) == len(there):
        for place, (one, other) in enumerate(zip(here, there, strict=True)):
            yield from differences(one, other, f"{path}[{place}]")
    elif here != there:
        yield path, here, there
