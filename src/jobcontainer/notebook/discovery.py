"""Finds what a cell wants to run: its processes.

1. The value of the last expression, if it is a process or an iterable of processes.
2. Else one instance of every class with ``run()`` that the cell defines; of classes that inherit from each other, the
   leaves.
3. Else nothing, said in one sentence.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobcontainer.process import Process

_LOOKED_FOR = (
    "an object with a run() method as the cell's last expression, a list of such objects, or a class with run() that "
    "the cell defines"
)


_ITERABLES = (Sequence, AbstractSet, ValuesView, Iterator)  # a data frame, say, is none of these


class NothingToRunError(ValueError):
    """The cell holds no process, or one that can't be made; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a cell wants to run.

    Attributes:
        processes: the processes; never empty.
        several: whether they are handled as a group; a list of one is.
    """

    processes: tuple[Process[Any], ...]
    several: bool


def in_value(value: object) -> Found | None:
    """Find the processes in the value of a last expression; None where it is no such value.

    Args:
        value: an iterator is used up only if its first item is a process.

    Raises:
        NothingToRunError: some of its items are processes and others are not, or a class can't be instantiated.

    Example:
        >>> class Task:
        ...     def run(self): ...
        >>> len(in_value([Task(), Task]).processes), in_value([1, 2])
        (2, None)
    """
    if _runs(value):
        return Found((_instance(value),), several=False)
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, _ITERABLES):
        return None
    items = iter(value)
    first = next(items, None)
    if not _runs(first):
        return None
    everything = [first, *items]
    for place, item in enumerate(everything):
        if not _runs(item):
            raise NothingToRunError(
                f"Item {place} of the last expression, of type {type(item).__name__}, has no run()."
            )
    return Found(tuple(map(_instance, everything)), several=True)


def in_classes(names: Iterable[str], namespace: Mapping[str, Any]) -> Found:
    """Make one process of every class that a cell defines, those that others of them inherit from left out.

    Args:
        names: the names of the classes that the cell defines.
        namespace: where they are bound.

    Raises:
        NothingToRunError: no class has ``run()``, or one needs arguments.
    """
    classes = dict.fromkeys(namespace.get(name) for name in names)
    able = [cls for cls in classes if isinstance(cls, type) and _runs(cls) and not _is_unfinished(cls)]
    leaves = [cls for cls in able if not any(issubclass(other, cls) for other in able if other is not cls)]
    if not leaves:
        raise NothingToRunError(f"There is nothing to run: looked for {_LOOKED_FOR}.")
    return Found(tuple(map(_instance, leaves)), several=len(leaves) > 1)


def _runs(thing: object) -> bool:
    return not isinstance(thing, ModuleType) and callable(getattr(thing, "run", None))


def _is_unfinished(cls: type) -> bool:
    return inspect.isabstract(cls) or bool(getattr(cls, "_is_protocol", False))


def _instance(thing: Any) -> Any:
    if not isinstance(thing, type):
        return thing
    needed = _needed(thing)
    if needed:
        example = ", ".join(f"{name}=..." for name in needed)
        name = thing.__name__
        raise NothingToRunError(
            f"{name} needs {' and '.join(needed)}: end the cell with an instance, {name}({example})."
        )
    return thing()


def _needed(cls: type) -> list[str]:
    try:
        parameters = inspect.signature(cls).parameters.values()
    except ValueError:  # made in C, and does not tell
        return []
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
