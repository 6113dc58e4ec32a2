"""Where a module comes from: the standard library, an installed distribution, or beside the notebook.

What is installed is the same in the job and is named in the file; what lies beside the notebook may change or may not
exist there, and so travels in the file, as it is in memory.

"Installed" is what stands under ``site-packages``, and what an editable install adds to the path: folders named in
``.pth`` files there, and the packages that the finders of editable installs know.
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
    """Return whether the code of a module goes into the file instead of its name.

    Args:
        module_name: a module's full name, as ``__module__`` has it.

    Example:
        >>> travels("__main__"), travels("json.decoder")
        (True, False)
    """
    if module_name in MAIN:
        return True
    if not isinstance(module_name, str):
        return False
    top = module_name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return False
    module = sys.modules.get(top)
    return module is not None and _is_local(top, origin_of(module))


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
    return next(iter(spec.submodule_search_locations or ()), spec.origin or "")


@functools.lru_cache(maxsize=4096)
def _is_local(top: str, origin: str | None) -> bool:
    if top == _OWN_NAME or top in sys.builtin_module_names:
        return False
    if origin is None:
        return True
    path = Path(origin).absolute()
    if path.suffix not in {".py", ".pyc"} and not path.is_dir():
        return False  # compiled code can only go by name
    if {"site-packages", "dist-packages"} & set(path.parts) or any(map(path.is_relative_to, _library_folders())):
        return False
    root = path.parent.parent if path.stem == "__init__" else path.parent
    return root not in _editable_roots() and not any(map(path.is_relative_to, _editable_packages(top)))


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
