"""The modules beside the notebook that a stream needs, and their sources, read from disk when it is written.

Needed is what the stream names, and what those modules import: at their top or in their functions, imported here
already or not, as far as it lies beside the notebook. A module that is imported by a name which code makes up is found
if it belongs to the same package and is imported here, or if the name stands in the code as a text.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jobcontainer.errors import SerializationError
from jobcontainer.pickling import source_importer
from jobcontainer.pickling.code_references import imported_in, imports_by_text, without_warnings
from jobcontainer.pickling.module_origin import MAIN, folders_of, is_local, lies_beside, travels
from jobcontainer.pickling.source_code import is_special

if TYPE_CHECKING:
    import types
    from collections.abc import Iterable, Iterator

    from jobcontainer.pickling.source_importer import LocalModule


def local_modules(names: Iterable[str]) -> list[LocalModule]:
    """Return the modules among some names that lie beside the notebook, and the packages that they are in."""
    found: dict[str, LocalModule | None] = {}
    chosen: dict[str, LocalModule] = {}
    for name in sorted(names):
        packages = []
        for whole in _with_packages(name):
            if whole not in found:
                found[whole] = _find(whole)
            module = found[whole]
            if module is None:
                break
            packages.append(module)
        while packages and packages[-1].is_made_by_hand:
            packages.pop()
        chosen.update((module.name, module) for module in packages)
    return list(chosen.values())


class Sources(NamedTuple):
    """Modules beside the notebook that go with a process.

    Attributes:
        modules: by name.
        texts: the source of each by its file.
        code: the compiled code of each, packed, by its file.
        imports: the names of other modules that they import, as far as those are imported here.
    """

    modules: list[LocalModule]
    texts: dict[str, str]
    code: dict[str, bytes]
    imports: set[str]


def with_imports(modules: Iterable[LocalModule]) -> Sources:
    """Add to modules those that they import, and read the sources of all.

    Raises:
        SerializationError: the source of one that is imported here can't be read.
    """
    found: dict[str, LocalModule] = {}
    texts: dict[str, str] = {}
    code: dict[str, bytes] = {}
    imports: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module.name in found:
            continue
        text = _source_of(module)
        if text is None:
            continue
        found[module.name] = module
        if module.file:
            texts[module.file] = text
            compiled = _compiled(module, text)
            code[module.file] = compiled.code
            names = set(compiled.imported())
            imports |= names & sys.modules.keys()
            waiting += local_modules(names)
    return Sources([found[name] for name in sorted(found)], texts, code, imports - found.keys())


def _with_packages(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _find(name: str) -> LocalModule | None:
    """Find a module beside the notebook, or one that was made by hand, without importing it."""
    carried = source_importer.carried(name)
    if carried is not None:
        return carried[0]
    module = sys.modules.get(name)
    if module is None:
        return _find_on_path(name)
    if is_local(name):
        return source_importer.LocalModule(name, getattr(module, "__file__", None) or "", folders_of(module))
    return source_importer.LocalModule(name, "", []) if travels(name) and name not in MAIN else None


def _find_on_path(name: str) -> LocalModule | None:
    """Find a module beside the notebook that is not imported."""
    parent = name.rpartition(".")[0]
    package = _find(parent) if parent else None
    if parent and (package is None or package.path is None):
        return None
    try:
        spec = PathFinder.find_spec(name, None if package is None else package.path)
    except KeyError:  # a package without __init__.py in one that is not imported: its path is asked for in sys.modules
        return _folder_in(package, name) if package is not None else None
    except (ImportError, ValueError, TypeError):  # a finder of the user's own, an entry of sys.path that is no text
        return None
    if spec is None:
        return None
    path = spec.submodule_search_locations
    origin = spec.origin if spec.has_location else next(iter(path or ()), None)
    if origin is None or not lies_beside(name, origin):
        return None
    return source_importer.LocalModule(name, origin if spec.has_location else "", None if path is None else list(path))


def _folder_in(package: LocalModule, name: str) -> LocalModule | None:
    """Find a package without ``__init__.py`` in another."""
    places = [Path(folder) / name.rpartition(".")[2] for folder in package.path or ()]
    found = [str(place) for place in places if place.is_dir() and lies_beside(name, str(place))]
    return source_importer.LocalModule(name, "", found) if found else None


def _source_of(module: LocalModule) -> str | None:
    """Read the source of a module; None where there is none, and none is needed."""
    carried = source_importer.carried(module.name)
    if carried is not None or not module.file:
        return carried[1] if carried else ""
    try:
        if is_special(module.file):
            raise _unreadable(module, "it is no regular file")
        return importlib.util.decode_source(Path(module.file).read_bytes())
    except OSError as error:
        text = _source_of_loader(module)
        if text is None and module.name in sys.modules:
            raise _unreadable(module, error) from error
        return text
    except (SyntaxError, UnicodeDecodeError):  # import will say so
        return None


def _unreadable(module: LocalModule, why: object) -> SerializationError:
    return SerializationError(
        f"The module {module.name} was imported from {module.file}, and a job imports it from the source that is "
        f"there, which can't be read: {why}. Put the file back."
    )


def _source_of_loader(module: LocalModule) -> str | None:
    """Ask the loader of an imported module for its source, which may lie in an archive."""
    loader: Any = getattr(sys.modules.get(module.name), "__loader__", None)
    try:
        text = loader.get_source(module.name)
    except (AttributeError, ImportError, OSError):
        return None
    return text if isinstance(text, str) else None


class _Compiled(NamedTuple):
    """What the source of a module is compiled to.

    Attributes:
        code: packed; empty if it can't be compiled: the import will say so.
        names: what it imports.
        package: all modules of which it may import by names that it makes up; empty for none.
    """

    code: bytes = b""
    names: tuple[str, ...] = ()
    package: str = ""

    def imported(self) -> Iterator[str]:
        """Yield the names of what it imports."""
        yield from self.names
        if self.package:
            yield from (name for name in list(sys.modules) if name.startswith(f"{self.package}."))


def _compiled(module: LocalModule, text: str) -> _Compiled:
    package = module.name if module.path is not None else module.name.rpartition(".")[0]
    return _compile(module.file, text, package)


@functools.lru_cache(maxsize=1024)
def _compile(file: str, text: str, package: str) -> _Compiled:
    try:
        with without_warnings():  # its import has warned, or will
            code: types.CodeType = compile(text, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return _Compiled()
    names = tuple(dict.fromkeys(imported_in(code, package)))
    return _Compiled(source_importer.packed(code), names, package if imports_by_text(code) else "")
