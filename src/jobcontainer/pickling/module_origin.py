"""Where a module comes from: the standard library, an installed distribution, or beside the notebook.

What is installed is the same in the job and is named in the file. What lies beside the notebook is named there as well,
and its source travels, as it may be another one by the time of the job, or may not exist where that runs.

"Installed" is what stands under ``site-packages`` or in a folder that ``pip install --target`` has filled, and what an
editable install adds to the path: folders named in ``.pth`` files there, and the packages that the finders of editable
installs know.
"""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

MAIN: Final = frozenset({"__main__", "__mp_main__"})

_OWN_NAME: Final = __name__.partition(".")[0]


def travels(module_name: str | None) -> bool:
    """Return whether the code of a module goes into the stream instead of its name.

    That is so for ``__main__``, and for a module that was made by hand, which can't be imported anywhere.

    Args:
        module_name: a module's full name, as ``__module__`` has it.

    Example:
        >>> travels("__main__"), travels("json.decoder")
        (True, False)
    """
    if module_name in MAIN:
        return True
    if not isinstance(module_name, str) or module_name.partition(".")[0] in sys.stdlib_module_names:
        return False
    return module_name in sys.modules and _origin(module_name) is None


def is_local(module_name: str) -> bool:
    """Return whether a module lies beside the notebook.

    Args:
        module_name: the full name of a module that this process has imported.

    Example:
        >>> is_local("__main__"), is_local("json.decoder"), is_local("cloudpickle")
        (False, False, False)
    """
    if module_name in MAIN:
        return False
    origin = _origin(module_name)
    return origin is not None and lies_beside(*origin)


def may_be_edited(module_name: str) -> bool:
    """Return whether a module lies where somebody works on it: beside the notebook, or in an editable install.

    Args:
        module_name: the full name of a module that this process has imported.

    Example:
        >>> may_be_edited("cloudpickle")
        False
    """
    if is_local(module_name):
        return True
    origin = _origin(module_name)
    return origin is not None and not module_name.startswith(_OWN_NAME) and _is_editable(*origin)


def origin_of(module: ModuleType) -> str | None:
    """Return the file of a module, or its folder if it is a package without ``__init__.py``.

    Returns:
        The path; None for a module that was made by hand.
    """
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return file
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return None
    return next(iter(folders_of(module) or ()), spec.origin or "")


def folders_of(module: ModuleType) -> list[str] | None:
    """Return the ``__path__`` of a package; None for a module that is none."""
    try:
        path = getattr(module, "__path__", None)
        return None if path is None else list(path)
    except KeyError:  # a package without __init__.py looks its own package up in sys.modules, where it may be missing
        return []


@functools.lru_cache(maxsize=4096)
def lies_beside(module_name: str, origin: str) -> bool:
    """Return whether a file is that of a module beside the notebook, and neither installed nor compiled.

    Args:
        module_name: the module's full name.
        origin: its file, or its folder if it is a package without ``__init__.py``.
    """
    top = module_name.partition(".")[0]
    path = Path(origin).absolute()
    if top == _OWN_NAME or (path.suffix != ".py" and not path.is_dir()):
        return False  # compiled code can only go by name
    if {"site-packages", "dist-packages"} & set(path.parts) or any(map(path.is_relative_to, _library_folders())):
        return False
    return not _is_target_of_installs(_root_of(module_name, path)) and not _is_editable(module_name, origin)


def _root_of(module_name: str, path: Path) -> Path:
    """Return the folder from which a module is imported by its full name."""
    depth = module_name.count(".") + (path.stem == "__init__")
    return path.parents[min(depth, len(path.parents) - 1)]


def _is_editable(module_name: str, origin: str) -> bool:
    path = Path(origin).absolute()
    packages = _editable_packages(module_name.partition(".")[0])
    return _root_of(module_name, path) in _editable_roots() or any(map(path.is_relative_to, packages))


@functools.cache
def _is_target_of_installs(folder: Path) -> bool:
    """Return whether distributions are installed in a folder, as by ``pip install --target``."""
    return next(folder.glob("*.dist-info"), None) is not None


def _origin(module_name: str) -> tuple[str, str] | None:
    """Find the origin of a module, or else of its topmost package, and which of both it is."""
    for name in (module_name, module_name.partition(".")[0]):
        module = sys.modules.get(name)
        origin = None if module is None else origin_of(module)
        if origin is not None:
            return name, origin
    return None


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@functools.cache
def _editable_roots() -> frozenset[Path]:
    """Return the folders that ``.pth`` files of editable installs put on the path."""
    roots = set()
    for folder in map(Path, {*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("purelib")}):
        for link in folder.glob("*.pth"):
            for line in link.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.strip() and not line.startswith(("#", "import ", "import\t")):
                    roots.add((folder / line.strip()).absolute())
    return frozenset(roots)


def _editable_packages(top: str) -> list[Path]:
    """Return where the finders of editable installs, as setuptools writes them, find a package."""
    places = []
    for finder in sys.meta_path:
        module = sys.modules.get(getattr(finder, "__module__", ""))
        mapping = vars(module).get("MAPPING") if module is not None else None
        if isinstance(mapping, dict) and top in mapping:
            places.append(Path(mapping[top]).absolute())
    return places
