"""The parts of an object, as pickle sees them, each with the words a person would find it by.

A part is reached by an attribute, an item, a global that a method uses, and so on; its words extend those of the whole:
``process`` → ``process.cfg`` → ``process.cfg['db']``, or ``run()`` → ``run() -> global conn``.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.class_builder import define_names, set_enum_members
from jobcontainer.pickling.class_reducer import class_attributes
from jobcontainer.pickling.definitions import Definition
from jobcontainer.pickling.instances import set_content
from jobcontainer.process import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_ATOMS: Final = frozenset({int, float, complex, bool, str, bytes, bytearray, type(None)})
_LONGEST_KEY: Final = 40
_DICT_AND_SLOTS: Final = 2
_FUNCTIONS: Final = (
    types.FunctionType,
    type(functools.lru_cache(len)),
    staticmethod,
    classmethod,
    property,
    functools.cached_property,
)

Part = tuple[str, object]


def find_paths(
    root: object, name: str, wanted: Iterable[object], reduced: Callable[[object], Any]
) -> dict[int, list[Part]]:
    """Find the shortest path to some parts of an object.

    Args:
        root: the object.
        name: what it is called.
        wanted: the parts, found by identity.
        reduced: returns the reduce value of an object, the items in it as lists; None for one that goes by name or is
            of a built-in type.

    Returns:
        For each part that was found, by its ``id()``, the path: the words and the object of each step, from the root to
        the part itself.
    """
    missing = {id(part) for part in wanted}
    came_from: dict[int, tuple[str, object, int]] = {id(root): (name, root, 0)}
    queue = deque([(name, root)])
    missing.discard(id(root))
    while queue and missing:
        words, whole = queue.popleft()
        for part_words, part in parts_of(whole, words, reduced(whole), is_root=whole is root):
            if type(part) not in _ATOMS and id(part) not in came_from:
                came_from[id(part)] = part_words, part, id(whole)
                queue.append((part_words, part))
                missing.discard(id(part))
    return {id(part): _path(came_from, id(part)) for part in wanted if id(part) in came_from}


def _path(came_from: Mapping[int, tuple[str, object, int]], part: int) -> list[Part]:
    path = []
    while part:
        words, obj, part = came_from[part]
        path.append((words, obj))
    return path[::-1]


def parts_of(whole: Any, words: str, reduced: Any, *, is_root: bool = False) -> Iterator[Part]:
    """Yield the parts of an object; those of the root are called ``run()`` and not ``Train.run()``."""
    if isinstance(whole, dict) and reduced is None:
        yield from _items(whole.items(), words)
    elif isinstance(whole, (set, frozenset)) and reduced is None:
        yield from ((f"{words} member {_shown(part)}", part) for part in whole)
    elif isinstance(whole, (list, tuple)) and reduced is None:
        yield from ((f"{words}[{place}]", part) for place, part in enumerate(whole))
    elif isinstance(whole, Call):
        yield f"{getattr(whole.function, '__name__', 'function')}()", whole.function
        yield from ((f"args[{place}]", part) for place, part in enumerate(whole.args))
        yield from _items(whole.kwargs.items(), "kwargs")
    elif not isinstance(reduced, tuple):
        return
    elif isinstance(reduced, Definition):
        yield from _parts_of_definition(whole, words, reduced)
    elif isinstance(whole, functools.partial):
        yield from ((f"{words}.{name}", getattr(whole, name)) for name in ("func", "args", "keywords"))
    elif isinstance(whole, types.MethodType):
        yield f"{words}.__self__", whole.__self__
        yield f"{whole.__func__.__qualname__}()", whole.__func__
    else:
        yield from _parts_of_other(whole, words, reduced, is_root=is_root)


def _parts_of_function(function: types.FunctionType, words: str, definition: Definition) -> Iterator[Part]:
    named: dict[str, object] = {}
    for _, (names, *_, modules) in definition.code + definition.data:
        named |= names | {module.__name__: module for module in modules}
    for name, value in named.items():
        kind = "" if _call_of(value) or isinstance(value, (type, types.ModuleType)) else "global "
        yield f"{words} -> {kind}{name}{_call_of(value)}", value
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # it is empty
            yield f"{words} -> closure {name}", cell.cell_contents
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    by_name = dict(zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True))
    for name, value in (by_name | (function.__kwdefaults__ or {})).items():
        yield f"{words} -> default {name}", value
    for name, value in function.__annotations__.items():
        yield f"{words} -> annotation {name}", value
    for name, value in vars(function).items():
        yield f"{words}.{name}", value


def _parts_of_class(cls: type, words: str, definition: Definition) -> Iterator[Part]:
    for name, value in class_attributes(cls).items():
        if _call_of(value):
            yield (f"{cls.__qualname__}.{name}()" if words else f"{name}()"), value
        else:
            yield f"{cls.__qualname__}.{name}", value
    for base in (*cls.__bases__, type(cls)):
        yield base.__qualname__, base
    for fill, part in definition.code + definition.data:
        if fill is define_names:
            yield from ((f"{cls.__qualname__} -> annotation {name}", value) for name, value in part.items())
        elif fill is set_enum_members:
            for key, state in zip(definition.arguments[-1], part, strict=True):
                yield from _parts_of_state(state, f"{cls.__qualname__}.{key}")


def _parts_of_definition(whole: object, words: str, definition: Definition) -> Iterator[Part]:
    if isinstance(whole, types.FunctionType):
        yield from _parts_of_function(whole, words, definition)
        return
    if isinstance(whole, type):
        yield from _parts_of_class(whole, words, definition)
        return
    yield from ((words, argument) for argument in definition.arguments[-1])
    for _, part in definition.code + definition.data:
        for name, value in part.items():
            yield (words if _call_of(whole) and _call_of(value) else f"{words}.{name}"), value


def _parts_of_state(state: object, words: str) -> Iterator[Part]:
    for part in state if isinstance(state, tuple) and len(state) == _DICT_AND_SLOTS else (state,):
        if isinstance(part, dict):
            yield from ((f"{words}.{name}", value) for name, value in part.items())
        elif isinstance(part, types.FunctionType):
            yield words, part
        elif part is not None:
            yield f"{words}.__getstate__()", part


def _parts_of_other(whole: object, words: str, reduced: tuple[Any, ...], *, is_root: bool) -> Iterator[Part]:
    make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    if isinstance(state, tuple) and (type(whole).__module__, type(whole).__name__) == ("numpy", "ndarray"):
        yield from ((f"{words}.flat[{place}]", item) for place, item in enumerate(whole.flat))  # type: ignore[attr-defined]
        return
    if reduced[5:] == (set_content,):
        state, items, pairs = state
    yield from _parts_of_state(state, words)
    yield from ((f"{words}[{place}]", item) for place, item in enumerate(items or ()))
    yield from _items(pairs or (), words)
    yield (type(whole).__qualname__ if not is_root else ""), type(whole)
    if _call_of(whole):
        yield from ((words, argument) for argument in arguments)
    else:
        for place, argument in enumerate(arguments):
            yield f"{words}.__reduce__()[1][{place}]", argument
        yield f"{words}.__reduce__()[0]", make


def _items(items: Iterable[tuple[object, object]], words: str) -> Iterator[Part]:
    for key, value in items:
        shown = _shown(key)
        yield f"{words}[{shown}]", value
        yield f"{words} key {shown}", key


def _shown(key: object) -> str:
    text = f"<{type(key).__qualname__}>"
    with contextlib.suppress(Exception):  # user code
        text = repr(key)
    return text if len(text) <= _LONGEST_KEY else text[: _LONGEST_KEY - 3] + "..."


def _call_of(value: object) -> str:
    return "()" if isinstance(value, _FUNCTIONS) else ""
