"""Which installed distributions a stream refers to, and in which versions."""

from __future__ import annotations

import contextlib
import re
import sys
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from jobcontainer.errors import warn
from jobcontainer.pickling.module_origin import MAIN, is_local, origin_of, travels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NEVER_NAMED: Final = sys.stdlib_module_names | {__name__.partition(".")[0]}

_found: dict[str, Distribution] = {}  # by top-level package
_compared: set[Distribution] = set()

_SEARCHED_SINGLY: Final = 20  # distributions; for more, all that are installed are listed once
_NAMED: Final = 10  # in a warning


class Distribution(NamedTuple):
    """A distribution: its name as package indexes write it (``scikit-learn``), and its version, empty if not known."""

    name: str
    version: str


def installed_modules(modules: Iterable[str]) -> list[str]:
    """Return the modules that are installed: not of the standard library, the notebook's folder or this package."""
    return sorted(
        name
        for name in modules
        if name
        and name.partition(".")[0] not in _NEVER_NAMED
        and name not in MAIN
        and not travels(name)
        and not is_local(name)
    )


def distributions_of(modules: Iterable[str]) -> dict[str, Distribution]:
    """Return the distributions of imported modules by their top-level packages; one of none has the package's name.

    Example:
        >>> [distribution.name for distribution in distributions_of(["cloudpickle.cloudpickle"]).values()]
        ['cloudpickle']
    """
    tops = dict.fromkeys(name.partition(".")[0] for name in modules)
    _found.update({top: _search(top) for top in tops if top not in _found})
    return {top: _found[top] for top in tops}


def other_versions(packages: Mapping[str, Distribution]) -> dict[str, tuple[str, str | None]]:
    """Return the distributions of which this environment has another version: then, and here (None for none)."""
    changed: dict[str, tuple[str, str | None]] = {}
    unlike = [given for top, given in packages.items() if given.version and _version_in_memory(top) != given.version]
    version_here = _version_of if len(unlike) <= _SEARCHED_SINGLY else _versions_of_all().get
    for name, version in unlike:
        if (here := version_here(_canonical_name(name))) != version:
            changed[name] = version, here
    return changed


def compare(path: str, packages: Mapping[str, Distribution]) -> None:
    """Warn, once for each distribution and version, that a file was written with another one.

    A distribution of the same version is remembered: what this process writes next need not search for it.
    """
    new = {top: distribution for top, distribution in packages.items() if distribution not in _compared}
    if new:
        _compared.update(new.values())
        changed = other_versions(new)
        _found.update({top: distribution for top, distribution in new.items() if distribution.name not in changed})
        if changed:
            first = islice(changed.items(), _NAMED)
            listed = ", ".join(f"{name} {then} (here {here or 'none'})" for name, (then, here) in first)
            more = f" and {len(changed) - _NAMED:,} more" if len(changed) > _NAMED else ""
            warn(f"{path} was written with {listed}{more}: what it holds may not work as it did.")


def _version_in_memory(top: str) -> str | None:
    """Return the ``__version__`` of an imported package, without running code of it."""
    version = getattr(sys.modules.get(top), "__dict__", {}).get("__version__")
    return version if isinstance(version, str) else None


def _version_of(name: str) -> str | None:
    found = _named(name)
    return None if found is None else found.version


def _versions_of_all() -> dict[str, str]:
    """Return the version of every installed distribution: a search for each of many names would take minutes."""
    return {found.name: found.version for one in reversed(list(_distributions())) if (found := _canonical(one))}


def _named(name: str) -> Distribution | None:
    """Return the distribution of a name; None where there is none."""
    first = next(iter(_distributions(name=name)), None) if name else None
    return None if first is None else _canonical(first)


def _distributions(name: str | None = None) -> Iterable[metadata.Distribution]:
    """Return what is installed; not in entries of the path that are no texts, which Python passes over as well."""
    return metadata.distributions(name=name, path=[entry for entry in sys.path if isinstance(entry, str)])


def _search(top: str) -> Distribution:
    """Find the distribution of a package: the one of the same name, or else the first that has it among its files.

    ``packages_distributions()`` would parse the files of all distributions first, which takes five times as long.
    """
    if found := _named(top):
        return found
    module = sys.modules.get(top)
    file = Path((origin_of(module) if module is not None else None) or "").name
    for distribution in _distributions():
        record = "\n" + (distribution.read_text("RECORD") or "")
        named = f"\n{top}/" in record or (file and f"\n{file}," in record)
        if named and (found := _canonical(distribution)):
            return found
    return Distribution(top, _version_in_memory(top) or "")


def _canonical(distribution: metadata.Distribution) -> Distribution | None:
    """Return the name and version of a distribution; None for an empty folder that pip has left."""
    with contextlib.suppress(Exception):  # the finder of a backport raises an error of its own
        facts = distribution.metadata
        if "Name" in facts and "Version" in facts:
            return Distribution(_canonical_name(facts["Name"]), facts["Version"])
    return None


def _canonical_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
