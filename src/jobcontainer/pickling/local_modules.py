"""Modules beside the notebook, as parts of a stream: what of them travels.

Loading makes a travelling module anew under the same name. Functions of it have its namespace as their globals, whether
the stream holds the module itself or only some function of it.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.module_origin import MAIN, travels
from jobcontainer.pickling.unpickler import imported_namespace, main_namespace, module_namespace

if TYPE_CHECKING:
    import types
    from collections.abc import Collection

_NOT_STATE: Final = frozenset({"__builtins__", "__loader__", "__spec__", "__cached__"})
_ATTRIBUTES: Final = ("__package__", "__path__", "__file__", "__doc__")

# A module's locks and thread-local data are made anew by each import, and so they are here.
NEW_WITH_MODULE: Final = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
    threading.local: threading.local,
}


class Namespace:
    """Stands for the globals of a travelling module while functions of it are pickled."""

    __slots__ = ("module",)

    def __init__(self, module: types.ModuleType) -> None:
        """Keep the module."""
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        """Become the namespace of the module that loading makes."""
        return module_namespace, (self.module.__name__, module_attributes(self.module))


class MainNamespace:
    """Stands for the globals of the notebook's ``__main__``, which become those of the job's own."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Become the namespace of the process that loads."""
        return main_namespace, ()


class ImportedNamespace:
    """Stands for the globals of an installed module while functions that it has made are pickled.

    Attributes:
        name: the module's name.
    """

    def __init__(self, name: str) -> None:
        """Keep the name."""
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        """Become the namespace of the module that is imported."""
        return imported_namespace, (self.name,)


def namespace_of(function: types.FunctionType) -> Namespace | MainNamespace | ImportedNamespace | None:
    """Return what stands for a function's globals in a stream; None for a namespace that belongs to no module."""
    name = function.__globals__.get("__name__")
    if name == "__main__":
        return MainNamespace()
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or vars(module) is not function.__globals__ or module.__name__ in MAIN:
        return None
    return Namespace(module) if travels(module.__name__) else ImportedNamespace(module.__name__)


def module_attributes(module: types.ModuleType) -> dict[str, Any]:
    """Return the attributes of a module that the import system sets before its code runs."""
    return {name: vars(module)[name] for name in _ATTRIBUTES if name in vars(module)}


def module_state(module: types.ModuleType, left_out: Collection[str]) -> dict[str, Any]:
    """Return the content of a module, without what the import system sets and what can't travel."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _NOT_STATE and name not in left_out and type(value) is not Unavailable
    }


class Unavailable:
    """A module's ``__getattr__`` that says why a name could not travel.

    Args:
        module: the module's name.
        names: what could not travel, and its type.
        own: the ``__getattr__`` that the module has itself.
    """

    def __init__(self, module: str, names: dict[str, str], own: Any = None) -> None:
        """Keep what the message is made of."""
        self._module, self._names, self._own = module, names, own

    def __call__(self, name: str) -> Any:
        """Raise for a name that the module does not have, or ask the module's own ``__getattr__``."""
        if name in self._names:
            raise AttributeError(
                f"{self._module}.{name} ({self._names[name]}) could not travel into the job. Make it inside run()."
            )
        if self._own is not None:
            return self._own(name)
        raise AttributeError(f"module {self._module!r} has no attribute {name!r}")
