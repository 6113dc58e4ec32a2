"""WantedModules: the modules that the keepers of an engine import before they make processes.

They come from four sources: what ``preload`` names; the installed modules that the files of processes refer to, as far
as the submitting process had them loaded; those that a process imports before anything else, at the top of its
``run()``; and what jobs of this engine say they have imported. Modules beside the notebook are never among them. What
one keeper had to refuse no keeper of this process tries again, as long as the distribution has the same version.

No thread of its own. The slots call it under their lock, but for :meth:`WantedModules.named_in`, which reads a file.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from jobcontainer.errors import JobFileError
from jobcontainer.jobfile.info import installed_modules_named_in
from jobcontainer.pickling.package_versions import distributions_of
from jobcontainer.worker.keeper_protocol import WantModules

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_MOST: Final = 3000  # names; scikit-learn with all it needs has 1,600, and keepers are sent all of them

_refused: dict[tuple[str, str], str] = {}  # module and version to the reason


class WantedModules:
    """What the keepers of one engine are to import.

    Args:
        preload: names of modules beside those that are found; None to import none ahead.
        learns: whether to find any: where no process can be forked, each imports what ``preload`` names.
    """

    def __init__(self, preload: Sequence[str] | None, *, learns: bool) -> None:
        self.learns = learns and preload is not None
        self._names = _with_packages(preload or ())
        self._loaded: set[str] = set()  # by processes that submit
        self.message = WantModules(tuple(self._names))

    def named_in(self, process_file: Path) -> tuple[list[str], list[str]]:
        """Read what a process refers to, for :meth:`add_named`. A file that can't be read names nothing."""
        if self.learns:
            with contextlib.suppress(OSError, JobFileError):  # its job will fail for it, and say why
                return installed_modules_named_in(process_file)
        return [], []

    def add_named(self, loaded: Sequence[str], imported: Sequence[str]) -> None:
        """Add what a process refers to: what its notebook had loaded, and what it imports first."""
        if not self._loaded.issuperset(loaded):
            self._loaded.update(loaded)
            self._renew()
        self.add([*loaded, *imported])

    def add(self, names: Iterable[str]) -> bool:
        """Add modules; return whether any of them is new."""
        new = [name for name in _with_packages(names) if name not in self._names]
        if not new or not self.learns:
            return False
        self._names |= dict.fromkeys(new[: max(0, _MOST - len(self._names))])
        self._renew()
        return True

    def refuse(self, name: str, reason: str) -> None:
        """Take a module out that jobs must import themselves."""
        _refused[name, _version_of(name)] = reason
        self._renew()

    def _renew(self) -> None:
        refused = {name for name, version in _refused if version == _version_of(name)}
        names = (name for name in self._names if not any(f"{name}.".startswith(f"{one}.") for one in refused))
        self.message = self.message._replace(names=tuple(names), loaded=frozenset(self._loaded))


def _with_packages(names: Iterable[str]) -> dict[str, None]:
    """Put before each name those of its packages, as they are imported; so a package that is refused is tried once."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        found |= dict.fromkeys(".".join(parts[: count + 1]) for count in range(len(parts)))
    return found


def _version_of(name: str) -> str:
    return "".join(one.version for one in distributions_of([name]).values())
