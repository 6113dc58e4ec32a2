"""Hooks: what is changed in other people's modules while a job runs, and put back after it.

Nothing is imported for a hook. A module that is loaded already is patched at once; one that user code imports later is
patched right after its code ran, by a finder that stands first in ``sys.meta_path`` of the job's process and lets the
finders behind it do the work.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from jobcontainer.worker.reporting.log import note_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_MISSING = object()


class Hooks:
    """The changes that one part of the worker makes."""

    def __init__(self) -> None:
        self._patches: dict[str, tuple[Callable[[Any], None], Callable[[Any], None] | None]] = {}
        self._undo = ExitStack()

    def when_imported(
        self, name: str, patch: Callable[[Any], None], *, before: Callable[[Any], None] | None = None
    ) -> None:
        """Call ``patch`` with a module as soon as it is loaded, and ``before`` with one whose code has yet to run.

        If ``patch`` raises, the traceback goes to stderr and the import goes on.
        """
        self._patches[name] = patch, before
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        if name in sys.modules:
            _run(patch, sys.modules[name])

    def replace(self, owner: Any, attribute: str, value: object) -> None:
        """Set an attribute of a module or class until :meth:`undo`."""
        self._undo.callback(_put_back, owner, attribute, vars(owner).get(attribute, _MISSING))
        setattr(owner, attribute, value)

    def set_environment(self, name: str, value: str) -> None:
        """Set an environment variable until :meth:`undo`."""
        before = os.environ.get(name)
        self._undo.callback(lambda: os.environ.pop(name, None) if before is None else os.environ.update({name: before}))
        os.environ[name] = value

    def at_undo(self, restore: Callable[..., object], *args: Any) -> None:
        """Call something at :meth:`undo`."""
        self._undo.callback(restore, *args)

    def undo(self) -> None:
        """Put everything back, newest first."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self._patches.clear()
        self._undo.close()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that has a hook by the finders behind this one; called by the import system."""
        if fullname not in self._patches:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    self._watch(spec.loader, fullname)
                return spec
        return None

    def _watch(self, loader: Any, name: str) -> None:
        """Patch a module right after its loader ran its code; the loader may be one that serves others as well."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if module.__name__ != name:
                execute(module)
                return
            vars(loader).pop("exec_module", None)
            patch, before = self._patches.get(name, (None, None))  # none where the job has ended in between
            if before is not None:
                before(module)
            execute(module)
            if patch is not None:
                _run(patch, module)

        loader.exec_module = exec_module


def _run(patch: Callable[[Any], None], module: ModuleType) -> None:
    """Change the module; one of a version that does not fit stays as it is, and usable."""
    try:
        patch(module)
    except Exception:  # noqa: BLE001 -- the user's import must not fail for our hook
        note_exception()


def _put_back(owner: Any, attribute: str, value: object) -> None:
    if value is not _MISSING:
        setattr(owner, attribute, value)
    elif attribute in vars(owner):  # user code may have deleted it
        delattr(owner, attribute)
