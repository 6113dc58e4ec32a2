"""The undocumented parts of CPython's standard library that this package's pickling uses; no other module knows one.

``linecache.cache`` is where IPython puts the text of cells, and :mod:`inspect` looks for source nowhere else. The file
of a class is taken from its module, which has no hook: ``inspect.getfile`` must be replaced, which happens in a job's
own process only.
"""

from __future__ import annotations

import functools
import inspect
import linecache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def add_source(name: str, text: str) -> None:
    """Make a text the source of the code whose file name is ``name``."""
    # Without a time, linecache does not look for the file on disk.
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)


def has_source(name: str) -> bool:
    """Return whether the text of a file name is known already."""
    return name in linecache.cache


def cells() -> list[str]:
    """Return the file names of texts that are no files on disk, such as a notebook's cells, the latest first."""
    return [name for name, entry in reversed(linecache.cache.items()) if len(entry) > 1 and entry[1] is None]


def extend_getfile(find: Callable[[type], str | None]) -> None:
    """Let :mod:`inspect` ask a function for the file of a class first; once in a process.

    Args:
        find: returns the file's name, or None for a class that it does not know.
    """
    original = inspect.getfile
    if getattr(original, "of_jobcontainer", False):
        return

    @functools.wraps(original)
    def getfile(obj: Any) -> str:
        return (find(obj) if isinstance(obj, type) else None) or original(obj)

    getfile.of_jobcontainer = True  # type: ignore[attr-defined]  # a mark on our own function
    inspect.getfile = getfile  # type: ignore[assignment]  # takes what the original takes
