"""Imports modules in a job from the sources that came with its process: a finder of its own, in that process only.

A module has its own name, and its own ``__file__`` and ``__path__``, as the notebook's has: what lies beside it on disk
is found there, data files and modules that did not travel. No bytecode is read from disk or written there: the code
that was compiled when the process file was written is in that file, for interpreters of the same kind.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import sys
import threading
import zlib
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from jobcontainer.pickling.job_main import with_causes
from jobcontainer.pickling.module_origin import is_local

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterable, Mapping, Sequence


_CODE_OF: Final = importlib.util.MAGIC_NUMBER + bytes([sys.flags.optimize])
"""Which interpreters can run code that was compiled by this one."""


def packed(code: types.CodeType) -> bytes:
    """Return compiled code as data."""
    return zlib.compress(marshal.dumps(code), 1)


def packed_together(code: Mapping[str, bytes]) -> bytes:
    """Return the compiled code of modules as one piece of data, for :func:`install`.

    Args:
        code: what :func:`packed` returned, by the file of the module.
    """
    return _CODE_OF + marshal.dumps(dict(code)) if code else b""


def _taken_apart(compiled: bytes) -> dict[str, bytes]:
    """Return the code of modules by file; none if another kind of interpreter has compiled it."""
    if not compiled.startswith(_CODE_OF):
        return {}
    return dict(marshal.loads(memoryview(compiled)[len(_CODE_OF) :]))  # noqa: S302 -- the caller has checked it


class LocalModule(NamedTuple):
    """A module beside the notebook.

    Attributes:
        name: its full name.
        file: its ``__file__``; empty for a package without ``__init__.py``.
        path: the ``__path__`` of a package; None for other modules.
    """

    name: str
    file: str
    path: list[str] | None

    @property
    def is_made_by_hand(self) -> bool:
        """Whether it has no file and no folder; some test runners make such packages, for modules that have a file."""
        return not self.file and not self.path


class _Running(threading.local):
    """The module whose code is run by an import of this thread; empty for none."""

    name = ""


_running: Final = _Running()


class SourceLoader(SourceFileLoader):
    """Loads a module from a text instead of its file; any other file is read from disk.

    Args:
        name: the module's full name.
        path: its file.
        text: its source.
        code: what that was compiled to, packed; empty if that is not known.
    """

    def __init__(self, name: str, path: str, text: str, code: bytes) -> None:
        """Keep the text and the code."""
        super().__init__(name, path)
        self._text, self._code = text, code

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the module's code, and remember that it runs."""
        outer, _running.name = _running.name, module.__name__
        try:
            super().exec_module(module)
        finally:
            _running.name = outer

    def get_source(self, _fullname: str) -> str:
        """Return the text."""
        return self._text

    def get_code(self, _fullname: str) -> types.CodeType:
        """Return the code that came with the text, or compile the text."""
        if self._code:
            code: types.CodeType = marshal.loads(zlib.decompress(self._code))  # noqa: S302 -- it is from a file that was checked
            return code
        return compile(self._text, self.path, "exec", dont_inherit=True)

    def get_data(self, path: str) -> bytes:
        """Read a file, as a module does that looks for data beside it."""
        return self._text.encode() if path == self.path else super().get_data(path)


class SourceFinder:
    """Finds the modules whose sources came with the job.

    Args:
        modules: the modules.
        sources: their sources, by file.
        code: what these were compiled to, packed, by file, as far as it is known.
    """

    def __init__(
        self, modules: Iterable[LocalModule], sources: Mapping[str, str], code: Mapping[str, bytes] | None = None
    ) -> None:
        """Keep the modules by name."""
        self._code = code or {}
        self._modules = {module.name: module for module in modules}
        self._sources = {module.file: sources.get(module.file, "") for module in self._modules.values() if module.file}

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module; None for one that did not come with the job."""
        module = self._modules.get(fullname)
        if module is None:
            return None
        if not module.file:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = module.path
            return spec
        loader = SourceLoader(fullname, module.file, self._sources[module.file], self._code.get(module.file, b""))
        return importlib.util.spec_from_file_location(
            fullname, module.file, loader=loader, submodule_search_locations=module.path
        )

    def find(self, name: str) -> tuple[LocalModule, str] | None:
        """Return a module and its source; None for one that did not come with the job."""
        module = self._modules.get(name)
        return None if module is None else (module, self._sources.get(module.file, ""))

    def module_beside(self, path: Path) -> str | None:
        """Return a module that came with the job from the folder that a path is in; None for none."""
        files = ((name, Path(module.file)) for name, module in self._modules.items() if module.file)
        return next((name for name, file in files if path.is_relative_to(file.parent)), None)

    def has_same_as(self, other: SourceFinder) -> bool:
        """Return whether the modules and sources are those of another finder."""
        return self._modules == other._modules and self._sources == other._sources

    def forget_imported(self) -> None:
        """Remove what is imported under the names of the modules, and of others that lie beside them."""
        tops = {name.partition(".")[0] for name in self._modules}
        names = [name for name in sys.modules if name.partition(".")[0] in tops]
        for name in [name for name in names if name in self._modules or is_local(name)]:
            del sys.modules[name]


AddFinder: TypeAlias = "Callable[[SourceFinder, SourceFinder], None]"

_installed = SourceFinder((), {})


def install(modules: Iterable[LocalModule], sources: Mapping[str, str], compiled: bytes, add_finder: AddFinder) -> None:
    """Let ``import`` find modules in their sources, and no longer in those of an earlier job of this process.

    Args:
        modules: the modules.
        sources: their sources, by file; others may be among them.
        compiled: their code, as :func:`packed_together` returned it where the sources were read, or empty.
        add_finder: makes a finder the first that ``import`` asks, in place of an earlier one; only the process of a
            job has that.
    """
    global _installed  # noqa: PLW0603 -- of the process
    finder = SourceFinder(modules, sources, _taken_apart(compiled))
    if finder.has_same_as(_installed):
        return
    _installed.forget_imported()
    finder.forget_imported()
    add_finder(finder, _installed)
    _installed = finder


def carried(name: str) -> tuple[LocalModule, str] | None:
    """Return a module that came with the job of this process, and its source; None for any other."""
    return _installed.find(name)


def missing_data(error: BaseException) -> str | None:
    """Return the sentence for a file that was not found because only the modules of its folder came; else None.

    That is so on a machine, as one of a cluster, that does not see the notebook's folder.
    """
    for cause in with_causes(error):
        if not isinstance(cause, (FileNotFoundError, NotADirectoryError)) or cause.filename is None:
            continue
        path = Path(os.fsdecode(cause.filename)).absolute()
        name = _installed.module_beside(path)
        if name is not None and not path.parent.is_dir():
            return (
                f"{path} is of the folder of the module {name}, which is not on the machine where the job ran: a "
                "process takes the source of modules along, and no other files. Put them there, or pass in what is in "
                "them."
            )
    return None


def module_being_imported() -> str:
    """Return the module that came with the job and that this thread imports at this moment; empty for none."""
    return _running.name
