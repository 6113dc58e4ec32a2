"""Modules beside the notebook, as parts of a stream: what of them travels, and what code imports by itself.

A module that travels becomes, at loading, a module of the same name that is made anew; functions of it have its
namespace as their globals, whether the module itself is in the stream or only some function of it.
"""

from __future__ import annotations

import dis
import importlib.util
import opcode
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.files.packages import MAIN, travels

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_IMPORT_NAME: Final = opcode.opmap["IMPORT_NAME"]
_NOT_STATE: Final = frozenset({"__builtins__", "__loader__", "__spec__", "__cached__"})
_FACTS: Final = ("__package__", "__path__", "__file__", "__doc__")

# What a module holds to keep its threads apart is made anew by each import, and so it is here.
NEW_WITH_MODULE: Final = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
    threading.local: threading.local,
}

_imports: weakref.WeakKeyDictionary[types.CodeType, tuple[tuple[str, int, tuple[str, ...]], ...]] = (
    weakref.WeakKeyDictionary()
)


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


def imported_by(function: types.FunctionType) -> Iterator[str]:
    """Tell the modules that a function imports when it is called, by full name, packages first.

    Only those are told that are imported in this process already.
    """
    package = function.__globals__.get("__package__")
    for name, level, wanted in _imports_in(function.__code__):
        try:
            full = importlib.util.resolve_name("." * level + name, package) if level else name
        except ImportError:
            continue
        parts = full.split(".")
        candidates = [".".join(parts[: count + 1]) for count in range(len(parts))]
        candidates += [f"{full}.{item}" for item in wanted]
        yield from (candidate for candidate in candidates if candidate in sys.modules)


def _imports_in(code: types.CodeType) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    """Find each ``import`` in a code object and those nested in it: name, level, and what is imported from there."""
    known = _imports.get(code)
    if known is None:
        known = _imports[code] = tuple(_find_imports(code))
    return known


def _find_imports(code: types.CodeType) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    if _IMPORT_NAME in code.co_code[::2]:
        level: Any = 0
        wanted: Any = None
        for step in dis.get_instructions(code):
            if step.opcode == _IMPORT_NAME:
                yield step.argval, level, tuple(wanted or ())
            elif step.opname.startswith("LOAD_"):
                level, wanted = wanted, step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imports_in(constant)


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
