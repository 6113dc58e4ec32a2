"""Modules beside the notebook, as parts of a stream: what of them travels.

A module that travels becomes, at loading, a module of the same name that is made anew; functions of it have its
namespace as their globals, whether the module itself is in the stream or only some function of it.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.module_origin import MAIN, travels

if TYPE_CHECKING:
    import types
    from collections.abc import Collection

_NOT_STATE: Final = frozenset({"__builtins__", "__loader__", "__spec__", "__cached__"})
_FACTS: Final = ("__package__", "__path__", "__file__", "__doc__")

# What a module holds to keep its threads apart is made anew by each import, and so it is here.
NEW_WITH_MODULE: Final = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
    threading.local: threading.local,
}


class Namespace:
    """Stands for the globals of a travelling module while functions of it are pickled."""

    __slots__ = ("module",)

    def __init__(self, module: types.ModuleType) -> None:
        """Name the module."""
        self.module = module


def home_of(function: types.FunctionType) -> types.ModuleType | None:
    """Find the travelling module whose namespace a function has as its globals; None for ``__main__`` and others."""
    name = function.__globals__.get("__name__")
    if not isinstance(name, str) or name in MAIN:
        return None
    module = sys.modules.get(name)
    if module is None or vars(module) is not function.__globals__ or not travels(name):
        return None
    return module


def facts_of(module: types.ModuleType) -> dict[str, Any]:
    """Return what a module needs to be before it has anything in it."""
    return {name: vars(module)[name] for name in _FACTS if name in vars(module)}


def state_of(module: types.ModuleType, left_out: Collection[str]) -> dict[str, Any]:
    """Return what a module has in it, without what the import machinery puts there and what can't travel."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _NOT_STATE and name not in left_out and type(value) is not LeftOut
    }


class LeftOut:
    """A module's ``__getattr__`` that tells why something is not there.

    Args:
        module: the module's name.
        names: what could not travel, and its type.
        own: the ``__getattr__`` that the module has itself.
    """

    def __init__(self, module: str, names: dict[str, str], own: Any = None) -> None:  # noqa: ANN401 -- any callable
        """Keep what the answer is made of."""
        self._module, self._names, self._own = module, names, own

    def __call__(self, name: str) -> Any:  # noqa: ANN401 -- PEP 562
        """Answer for a name that the module does not have."""
        if name in self._names:
            raise AttributeError(
                f"{self._module}.{name} ({self._names[name]}) could not travel into the job. Make it inside run()."
            )
        if self._own is not None:
            return self._own(name)
        raise AttributeError(f"module {self._module!r} has no attribute {name!r}")
