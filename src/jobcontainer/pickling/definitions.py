"""The order in which the definitions of a stream are loaded: they are made first, then get their code, then their data.

Classes, functions and modules refer to one another in circles, and loading data may need them whole: a dict whose keys
are instances of a class calls ``__hash__`` of the class, an object with ``__setstate__`` runs that method. cloudpickle
fills a definition with whatever stands in it, in that order, so a key may be hashed by a class that has no methods yet.

Here a definition that is met while others are being filled is only made. What goes into it waits in a :class:`Scope`:
first code (functions, classes, modules, plain constants), which needs nothing but that all of it exists, then data, one
definition after the other. A definition that is first met in data is completed there, before what needs it.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Fill = tuple["Callable[[Any, Any], object]", Any]
"""A function that puts something into a definition, and what it puts there."""

Part = tuple["Callable[[Any, Any], object]", Any, Any]
"""Such a function, the definition, and what it puts there."""

Key = TypeVar("Key", str, int)

_WRAPPERS: Final = (staticmethod, classmethod)
_CACHED_FUNCTION: Final = type(functools.lru_cache(len))
_CODE: Final = frozenset(
    {
        types.FunctionType,
        types.BuiltinFunctionType,
        types.WrapperDescriptorType,
        types.MethodDescriptorType,
        types.MemberDescriptorType,
        types.GetSetDescriptorType,
        types.ModuleType,
        type,
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        _CACHED_FUNCTION,
    }
)


class Definition(NamedTuple):
    """A class, a function, or something like them, as a stream holds it.

    Attributes:
        make: makes it empty.
        arguments: for that; they must not refer to the definition, nor need one that is filled.
        code: puts its code into it.
        data: puts the rest into it.
    """

    make: Callable[..., Any]
    arguments: tuple[Any, ...]
    code: list[Fill]
    data: list[Fill]


def is_code(value: object) -> bool:
    """Return whether a part of a definition can be loaded while no definition is filled yet.

    The type alone is asked: what an object says of its ``__class__`` may be another one, or raise.

    Example:
        >>> is_code(len), is_code(5), is_code([])
        (True, True, False)
    """
    kind = type(value)
    if kind in _CODE:
        return True
    if issubclass(kind, _WRAPPERS):
        return is_code(value.__func__)  # type: ignore[attr-defined]  # it is one
    if issubclass(kind, property):
        return all(is_code(getattr(value, name)) for name in ("fget", "fset", "fdel"))
    if kind is functools.cached_property:
        return is_code(value.func)  # type: ignore[attr-defined]  # it is one
    return issubclass(kind, (type, types.ModuleType))


def code_and_data(parts: Mapping[Key, Any]) -> tuple[dict[Key, Any], dict[Key, Any]]:
    """Split parts, by name, into those that are code and the others."""
    code: dict[Key, Any] = {}
    data: dict[Key, Any] = {}
    for name, value in parts.items():
        (code if is_code(value) else data)[name] = value
    return code, data


class Definitions:
    """The definitions of one stream that are not filled yet.

    Attributes:
        waiting: the data that waits for them, by their ``id()``.
    """

    def __init__(self, more: Callable[[], Sequence[object]]) -> None:
        """Start with none.

        Args:
            more: asked, when all are filled, for further definitions that must go with them.
        """
        self.more = more
        self._scope: Scope | None = None
        self.waiting: dict[int, Step] = {}
        self._met: set[int] = set()
        self._ready: set[type] = set()

    def reduced(self, obj: object, definition: Definition) -> tuple[Any, ...]:
        """Return the reduce value of a definition, and keep what goes into it for later.

        Args:
            obj: the class, function or other object itself.
            definition: what it is made of.
        """
        self._met.add(id(obj))
        outermost = self._scope is None
        scope = self._scope = self._scope or Scope(self)
        scope.code.extend((fill, obj, part) for fill, part in definition.code)
        if definition.data:
            step = self.waiting[id(obj)] = Step(tuple((fill, obj, part) for fill, part in definition.data), self)
            self._ready.clear()
            scope.data.append(step)
        if outermost:
            return definition.make, definition.arguments, scope, None, None, complete
        return definition.make, definition.arguments

    def enter(self, scope: Scope | None) -> None:
        """Let definitions that are met from now on wait in a scope; None for one of their own."""
        self._scope = scope

    def needed_by(self, obj: object) -> tuple[Step, ...]:
        """Return the data that waits for the classes of an object, and for their methods, special ones first."""
        kind = type(obj)
        if not self.waiting or kind in self._ready:
            return ()
        classes = [cls for cls in kind.__mro__ if id(cls) in self._met]
        parts = [item for cls in classes for item in vars(cls).items()]
        special = sorted(parts, key=lambda item: not item[0].startswith("__"))
        keys = [*map(id, classes), *(id(part) for _, part in special)]
        needed = tuple(self.waiting[key] for key in keys if key in self.waiting)
        if not needed:
            self._ready.add(kind)
        return needed


class Scope:
    """Definitions that are filled together, once the first of them is made.

    Attributes:
        code: what goes into them first.
        data: what goes into them then.
    """

    def __init__(self, definitions: Definitions) -> None:
        """Start with none."""
        self.code: list[Part] = []
        self.data: list[Step] = []
        self._definitions = definitions

    def steps(self) -> Iterator[Step | None]:
        """Yield what fills the definitions, while pickling that brings in more of them.

        Every second item is empty: pickle takes two items from an iterator before it writes the first of them.
        """
        position = 0
        while True:
            yield None
            if self.code:
                step = Step(tuple(self.code))
                self.code.clear()
                yield step
            elif position < len(self.data):
                self._definitions.enter(None)
                yield self.data[position]
                self._definitions.enter(self)
                position += 1
            elif further := self._definitions.more():
                yield Step(((complete, None, further),))
            else:
                break
        self._definitions.enter(None)


class Step:
    """Puts parts into definitions when it is loaded.

    Args:
        parts: for each the function that puts it, where to, and what.
        waiting_in: the definitions that the parts wait for.
    """

    __slots__ = ("_parts", "_waiting_in")

    def __init__(self, parts: tuple[Part, ...], waiting_in: Definitions | None = None) -> None:
        """Keep the parts."""
        self._parts, self._waiting_in = parts, waiting_in

    def take(self) -> tuple[Part, ...]:
        """Return the parts; they wait no longer."""
        if self._waiting_in is not None:
            self._waiting_in.waiting.pop(id(self._parts[0][1]), None)
        return self._parts


def fill(parts: tuple[Part, ...]) -> None:
    """Put parts into definitions; streams call this."""
    for put, definition, part in parts:
        put(definition, part)


def complete(definition: Any, loaded: Any) -> None:
    """Do nothing with what has been loaded by now; streams call this."""


def call_after(_steps: tuple[None, ...], make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Make an object after the steps before it have been loaded; streams call this."""
    return make(*arguments)


def without_needed(reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the reduce value of an object as the object gave it."""
    return (*reduced[1][1:], *reduced[2:]) if reduced[0] is call_after else reduced
