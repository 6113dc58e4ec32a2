"""Globals of functions, as parts of a stream: those of the process that loads it, not a copy of those here.

A function of the notebook has the globals of the job's own ``__main__``, with the names that travel with it. A function
that a module has made, and that has no name there, has the globals of that module, which the job imports.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling import cloudpickle_internals
from jobcontainer.pickling.module_origin import MAIN, travels
from jobcontainer.pickling.unpickler import module_namespace

if TYPE_CHECKING:
    import types

BOUND_TO_MODULES: Final[frozenset[type]] = frozenset(
    {
        object,
        contextvars.ContextVar,
        type(threading.Lock()),
        type(threading.RLock()),
        threading.local,
        threading.Barrier,
        threading.BoundedSemaphore,
        threading.Condition,
        threading.Event,
        threading.Semaphore,
    }
)
"""Types of objects that are known by their identity, or can't be copied: those of a module are made by its import."""


class Namespace:
    """Stands for the globals of a module while functions that have them are pickled.

    Attributes:
        name: the module's name.
    """

    def __init__(self, name: str) -> None:
        """Keep the name."""
        self.name = name

    @property
    def is_imported(self) -> bool:
        """Whether the job gets it by importing the module."""
        return self.name not in MAIN

    def __reduce__(self) -> tuple[Any, ...]:
        """Become the globals of that module where the stream is loaded."""
        return module_namespace, (self.name,)


class Cell:
    """Stands for a cell of a closure while functions that have it are pickled."""

    def __init__(self, cell: types.CellType) -> None:
        """Keep the cell."""
        self._cell = cell

    def __reduce__(self) -> tuple[Any, ...]:
        """Become an empty cell where the stream is loaded."""
        return cloudpickle_internals.MAKE_EMPTY_CELL, ()

    @property
    def is_filled(self) -> bool:
        """Whether there is something in the cell."""
        try:
            self._cell.cell_contents  # noqa: B018 -- it raises for an empty one
        except ValueError:
            return False
        return True

    @property
    def content(self) -> Any:
        """What is in the cell."""
        return self._cell.cell_contents


def namespace_of(function: types.FunctionType) -> Namespace | None:
    """Return what stands for a function's globals in a stream; None for a namespace that belongs to no module."""
    name = function.__globals__.get("__name__")
    if name == "__main__":
        return Namespace("__main__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or vars(module) is not function.__globals__ or travels(module.__name__):
        return None
    return Namespace(module.__name__)


def global_of(obj: Any) -> dict[str, Any]:
    """Return the global of the notebook by which a class, function or the like is found, with its name; empty for none.

    Example:
        >>> global_of(global_of)
        {}
    """
    if obj.__module__ != "__main__":
        return {}
    top, *rest = getattr(obj, "__qualname__", obj.__name__).split(".")
    found: Any = vars(sys.modules["__main__"]).get(top)
    whole = found
    for name in rest:
        found = getattr(found, "__dict__", {}).get(name)
    if type(found) in {staticmethod, classmethod}:
        found = found.__func__
    return {top: whole} if found is obj else {}


def globals_bound_to_modules() -> dict[int, tuple[str, str]]:
    """Find what modules that can be imported have of these types: module and name, by the ``id()`` of the object.

    Example:
        >>> globals_bound_to_modules()[id(threading._active_limbo_lock)]
        ('threading', '_active_limbo_lock')
    """
    return {
        id(value): (module_name, name)
        for module_name, module in list(sys.modules.items())
        if module_name not in MAIN
        for name, value in list(getattr(module, "__dict__", {}).items())
        if type(value) in BOUND_TO_MODULES and not travels(module_name)
    }
