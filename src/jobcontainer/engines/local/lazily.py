"""Modules that are there, and run their code on first use.

``import joblib`` takes a tenth of a second, most of it for numpy, and whoever wants ``joblib.externals.loky`` alone
pays for all of it, in each process. Here a package is put into ``sys.modules`` with all that the import system asks of
it, so that some of its submodules can be imported; its own code runs when somebody imports another, or asks for a name
that is not there yet. It then is the very module that a plain import would have made.

Locks: that code runs under the import system's own lock of that module, which knows a deadlock when it sees one, and
``import`` in another thread waits for it as for any module.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.machinery import ModuleSpec

_bootstrap: Any = importlib.import_module("importlib._bootstrap")  # Any: its locks are private to it


class Deferred(ModuleType):
    """A package whose code has not run."""

    def __getattribute__(self, name: str) -> Any:
        """Answer what the import system asks; the documentation of this class is not the package's."""
        if name == "__doc__":
            _run(self)
        return ModuleType.__getattribute__(self, name)  # no super(): this is a plain module by now

    def __getattr__(self, name: str) -> Any:
        """Run the code, for a name that is not there."""
        _run(self)
        return ModuleType.__getattribute__(self, name)

    def __dir__(self) -> list[str]:
        """Run the code, and tell the names."""
        _run(self)
        return sorted(vars(self))


class _Gate:
    """Lets the submodules of a package be imported after its own code has run, as a finder that stands first.

    Args:
        module: the package.
        free: the name of a submodule that need not wait, nor those below it.
    """

    def __init__(self, module: ModuleType, free: str) -> None:
        self._module, self._inside = module, f"{module.__name__}."
        self._free, self._inside_free = free, f"{free}."

    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if not name.startswith(self._inside) or name == self._free or name.startswith(self._inside_free):
            return None
        _run(self._module)
        loaded = sys.modules.get(name)
        if loaded is None:
            return None
        loader: Any = _Loaded(loaded)
        spec = loaded.__spec__ = importlib.util.spec_from_loader(name, loader)
        return spec  # which is asked for once more, at the module


class _Loaded:
    """Loads what the package's code has imported just now, for who had asked before.

    Args:
        module: it.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def defer(name: str, *, free: str = "") -> None:
    """Have a package that is not imported yet run its code on first use; one that is, or is not there, stays as it is.

    Args:
        name: of a package or module at the top.
        free: the name of a submodule that can be imported without it, and those below that.
    """
    with _locked(name):
        if name in sys.modules:
            return
        spec = importlib.util.find_spec(name)
        if spec is None or not hasattr(spec.loader, "exec_module"):
            return
        module = importlib.util.module_from_spec(spec)
        module.__class__ = Deferred
        _specs[name], _gates[name] = spec, _Gate(module, free)
        sys.modules[name] = module
        sys.meta_path.insert(0, _gates[name])


@contextlib.contextmanager
def deferred(name: str, *, free: str) -> Iterator[None]:
    """Defer a package before what is imported inside of this; see :func:`defer`."""
    defer(name, free=free)
    yield


@contextlib.contextmanager
def standing_in(name: str, *callables: str) -> Iterator[None]:
    """Defer a package of which what is imported inside of this takes some functions or classes by name, to call them.

    Args:
        name: of the package.
        *callables: the names.
    """
    defer(name)
    module = sys.modules.get(name)
    taken = callables if type(module) is Deferred else ()
    for each in taken:
        vars(module)[each] = _late(name, each)
    try:
        yield
    finally:
        for each in taken:
            vars(module).pop(each, None) if type(module) is Deferred else None


def _late(name: str, called: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(sys.modules[name], called)(*args, **kwargs)

    return call


_specs: dict[str, Any] = {}
_gates: dict[str, Any] = {}
_runs_in: dict[str, int] = {}


def _run(module: ModuleType) -> None:
    """Run the code of a package, once; whoever asks meanwhile waits, unless that code itself asks."""
    facts: dict[str, Any] = object.__getattribute__(module, "__dict__")
    name: str = facts["__name__"]
    if _runs_in.get(name) == threading.get_ident():
        return
    with contextlib.suppress(_bootstrap._DeadlockError), _locked(name):  # noqa: SLF001 -- told above
        if type(module) is not Deferred:
            return
        spec: Any = facts["__spec__"]
        if spec is not _specs[name]:  # importlib.reload has run it
            _settle(module)
            return
        before = set(facts)
        _runs_in[name] = threading.get_ident()
        spec._initializing = True  # noqa: SLF001 -- as the import system does it
        try:
            spec.loader.exec_module(module)
        except BaseException:
            for new in set(facts) - before:  # so that the next use tries again, as the next import would
                if f"{name}.{new}" not in sys.modules:
                    del facts[new]
            raise
        else:
            _settle(module)
        finally:
            del _runs_in[name]
            spec._initializing = False  # noqa: SLF001 -- as above


def _settle(module: ModuleType) -> None:
    """Make it a module like any other."""
    module.__class__ = ModuleType
    with contextlib.suppress(ValueError):  # somebody else has tidied up
        sys.meta_path.remove(_gates.pop(module.__name__))


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    with _bootstrap._ModuleLockManager(name):  # noqa: SLF001 -- told above
        yield
