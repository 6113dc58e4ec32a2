"""Finds the processes of a cell.

1. The value of the last expression, if it is a process, or an iterable or a dict of processes.
2. Else one instance of every class with ``run()`` that the cell defines; of classes that inherit from each other, only
   those that no other one inherits from.
3. Else there is none, and an error says what was looked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jobcontainer.process import has_run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobcontainer.process import Process

_LOOKED_FOR = (
    "an object with a run() method as the cell's last expression, a list or dict of such objects, or a class with "
    "run() that the cell defines"
)
_ITERABLES = (Sequence, AbstractSet, ValuesView, Iterator)  # a data frame, for example, is none of these


class NothingToRunError(ValueError):
    """The cell has no process, or one that can't be instantiated; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class FoundProcesses:
    """The processes of a cell.

    Attributes:
        processes: the processes; never empty.
        as_group: whether they become a group of jobs; a list of one does.
        keys: by which they were in a dict, and which name their jobs; None where they were in none.
    """

    processes: tuple[Process[Any], ...]
    as_group: bool
    keys: tuple[Any, ...] | None = None

    @property
    def named(self) -> Mapping[Any, Process[Any]] | tuple[Process[Any], ...]:
        """The processes as :meth:`jobcontainer.JobPool.submit_all` takes them."""
        return self.processes if self.keys is None else dict(zip(self.keys, self.processes, strict=True))


def find_in_value(value: Any) -> FoundProcesses | None:
    """Find the processes in the value of a last expression; return None where it has none.

    Args:
        value: of an iterator whose first item is no process, only that item is consumed.

    Raises:
        NothingToRunError: only some of its items are processes, or a class needs arguments.

    Example:
        >>> class Task:
        ...     def run(self): ...
        >>> len(find_in_value([Task(), Task]).processes), find_in_value([1, 2])
        (2, None)
    """
    if _has_run(value):
        return FoundProcesses((_instance(value),), as_group=False)
    if issubclass(type(value), Mapping):
        found = find_in_value(list(value.values()))
        return found and replace(found, keys=tuple(value))
    if issubclass(type(value), (str, bytes, bytearray)) or not issubclass(type(value), _ITERABLES):
        return None
    items = iter(value)
    first = next(items, None)
    if not _has_run(first):
        return None
    processes = [first, *items]
    for index, item in enumerate(processes):
        if not _has_run(item):
            raise NothingToRunError(
                f"Item {index} of the last expression, of type {type(item).__name__}, has no run()."
            )
    return FoundProcesses(tuple(map(_instance, processes)), as_group=True)


def find_in_classes(names: Iterable[str], namespace: Mapping[str, Any]) -> FoundProcesses:
    """Instantiate every class that a cell defines, except those that others of them inherit from.

    Raises:
        NothingToRunError: no class has ``run()``, or one needs arguments.
    """
    bound: list[Any] = list(dict.fromkeys(namespace.get(name) for name in names))
    classes = [cls for cls in bound if issubclass(type(cls), type) and _has_run(cls) and not _is_abstract(cls)]
    leaves = [cls for cls in classes if not any(issubclass(other, cls) for other in classes if other is not cls)]
    if not leaves:
        raise NothingToRunError(f"There is nothing to run: looked for {_LOOKED_FOR}.")
    return FoundProcesses(tuple(map(_instance, leaves)), as_group=len(leaves) > 1)


def _has_run(thing: object) -> bool:
    return not issubclass(type(thing), ModuleType) and has_run(thing)


def _is_abstract(cls: type) -> bool:
    return inspect.isabstract(cls) or bool(getattr(cls, "_is_protocol", False))


def _instance(thing: Any) -> Any:
    """Return a process as it is, and an instance of a class."""
    if not issubclass(type(thing), type):
        return thing
    required = _required_arguments(thing)
    if required:
        example = ", ".join(f"{name}=..." for name in required)
        name = thing.__name__
        raise NothingToRunError(
            f"{name} needs {' and '.join(required)}: end the cell with an instance, {name}({example})."
        )
    return thing()


def _required_arguments(cls: type) -> list[str]:
    try:
        parameters = inspect.signature(cls).parameters.values()
    except ValueError:  # a class made in C may have no signature
        return []
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
