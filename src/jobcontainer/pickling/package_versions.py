"""Which installed distributions a stream refers to, and in which versions.

``importlib.metadata.packages_distributions()`` would answer that in 350 ms (170 distributions), and its import takes 45
ms: too long for a job. Nearly every distribution is called as its package is, and tells its version in ``__version__``:
then one look for its ``*.dist-info`` folder is enough. Else the folders are listed (3 ms), and for a distribution of
another name their ``RECORD`` files are searched, those with similar names first. A job seldom does even that: the
header of its process file has told it already.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from jobcontainer.pickling.module_origin import MAIN, origin_of, travels
from jobcontainer.pickling.warning import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_FOLDER: Final = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-[^/]*)?\.(dist|egg)-info")

_NEVER_NAMED: Final = sys.stdlib_module_names | {__name__.partition(".")[0]}

_learnt: dict[str, Distribution] = {}
_here: dict[str, Distribution | None] = {}
_compared: set[Distribution] = set()


class Distribution(NamedTuple):
    """A distribution of packages.

    Attributes:
        name: as package indexes write it, for example ``scikit-learn``.
        version: its version; empty where it is not known.
    """

    name: str
    version: str


def installed_modules(modules: Iterable[str]) -> list[str]:
    """Pick the modules that are installed: not of the standard library, nor beside the notebook, nor of this package.

    Example:
        >>> installed_modules({"cloudpickle.cloudpickle", "json.decoder", "__main__"})
        ['cloudpickle.cloudpickle']
    """
    return sorted(
        name
        for name in modules
        if name and name.partition(".")[0] not in _NEVER_NAMED and name not in MAIN and not travels(name)
    )


def distributions_of(modules: Iterable[str]) -> dict[str, Distribution]:
    """Find the distributions of installed packages.

    Args:
        modules: names of modules that are imported.

    Returns:
        The distribution by the name of the top-level package; packages of no distribution stand under their own name.

    Example:
        >>> [distribution.name for distribution in distributions_of(["cloudpickle.cloudpickle"]).values()]
        ['cloudpickle']
    """
    tops = dict.fromkeys(name.partition(".")[0] for name in modules)
    return {top: _distribution_here(top) or Distribution(top, "") for top in tops}


def learn(packages: Mapping[str, Distribution]) -> None:
    """Take over out of a header which distribution a package is from, so that it need not be searched for."""
    _learnt.update(packages)


def other_versions(packages: Mapping[str, Distribution]) -> dict[str, tuple[str, str | None]]:
    """Compare the versions that a file was written with to those here.

    Returns:
        The distributions that differ: version then, version here (None if it is not installed).
    """
    changed: dict[str, tuple[str, str | None]] = {}
    for top, (name, version) in packages.items():
        if _version_in_memory(top) != version:
            here = _distribution_here(top)
            if here is None or here.version != version:
                changed[name] = version, here.version if here is not None else None
    return changed


def warn_of_other_versions(path: str, packages: Mapping[str, Distribution]) -> None:
    """Warn, once for each distribution and version, that a file was written with another one."""
    new = {top: distribution for top, distribution in packages.items() if distribution not in _compared}
    if new:
        _compared.update(new.values())
        changed = other_versions(new)
        if changed:
            listed = ", ".join(f"{name} {then} (here {here or 'none'})" for name, (then, here) in changed.items())
            warn(f"{path} was written with {listed}: what it holds may not work as it did.")


def _version_in_memory(top: str) -> str | None:
    """Ask an imported package for its version; a look at its namespace runs no code of it."""
    version = getattr(sys.modules.get(top), "__dict__", {}).get("__version__")
    return version if isinstance(version, str) else None


def _distribution_here(top: str) -> Distribution | None:
    if top not in _here:
        _here[top] = _find(top)
    return _here[top]


def _find(top: str) -> Distribution | None:
    version = _version_in_memory(top)
    learnt = _learnt.get(top)
    if version is not None:
        if learnt is not None and learnt.version == version:
            return learnt
        file = origin_of(sys.modules[top])
        if file and (Path(file).parent.parent / f"{top}-{version}.dist-info").exists():
            return Distribution(_canonical(top), version)
    return _search(top, learnt.name if learnt is not None else _canonical(top)) or (
        Distribution(top, version) if version is not None else None
    )


def _search(top: str, likely_name: str) -> Distribution | None:
    """Find the distribution of a package by its name, or else through the ``RECORD`` files."""
    folders = list(_metadata_folders())
    for name, version, _ in folders:
        if name == likely_name:
            return Distribution(name, version)
    pairs = _pairs(top)
    for name, version, folder in sorted(folders, key=lambda item: -len(_pairs(item[0]) & pairs)):
        if _holds(folder, top):
            return Distribution(name, version)
    return None


def _metadata_folders() -> Iterator[tuple[str, str, Path]]:
    """Go through what is installed, as ``import`` would find it: name, version, folder of metadata."""
    for place in map(Path, sys.path):
        if place.is_dir():
            for folder in place.iterdir():
                match = _FOLDER.fullmatch(folder.name)
                if match:
                    yield _canonical(match["name"]), match["version"], folder


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pairs(name: str) -> set[str]:
    lower = name.lower()
    return {lower[place : place + 2] for place in range(len(lower) - 1)}


def _holds(folder: Path, top: str) -> bool:
    """Tell whether the distribution of a metadata folder brings a package."""
    try:
        record = b"\n" + (folder / "RECORD").read_bytes()
    except OSError:
        return False
    module = sys.modules.get(top)
    file = Path((origin_of(module) if module is not None else None) or "").name
    return f"\n{top}/".encode() in record or (bool(file) and f"\n{file},".encode() in record)
