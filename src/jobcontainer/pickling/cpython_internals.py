"""The undocumented parts of CPython's standard library that this package's pickling uses; no other module knows one.

``linecache.cache`` is where IPython puts the text of cells, and :mod:`inspect` looks for source nowhere else. The file
of a class is taken from its module, which has no hook: ``inspect.getfile`` must be replaced, which happens in a job's
own process only.

An abstract class keeps its virtual subclasses in an object that only :mod:`_abc` can make and read; an enum keeps its
members in ``_member_map_`` and, those of combined flags, in ``_value2member_map_``; :mod:`dataclasses` marks what was
not given with objects that are recognised by their identity. Where a code object has its docstring is not documented.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
import linecache
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import enum
    import types
    from collections.abc import Callable, Iterable

_HAS_DOCSTRING: Final = 0x4000000  # CO_HAS_DOCSTRING: the first constant is one, from Python 3.13 on

_abc: Any = abc  # whose C functions have no types

SENTINELS: Final[dict[type, str]] = {
    type(value): name
    for name, value in vars(dataclasses).items()
    if name in {"MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY"}
}
"""The types of the single objects by which :mod:`dataclasses` marks things, and the names of the objects there."""


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


def made_function(code: types.CodeType, module: object) -> dict[str, Any]:
    """Return the attributes that a function has when it is made of its code, in a module."""
    has_docstring = sys.version_info < (3, 13) or code.co_flags & _HAS_DOCSTRING
    first = code.co_consts[0] if code.co_consts and has_docstring else None
    return {
        "__module__": module,
        "__name__": code.co_name,
        "__qualname__": code.co_qualname,
        "__doc__": first if isinstance(first, str) else None,
        "__annotations__": {},
        "__defaults__": None,
        "__kwdefaults__": None,
    }


def prepare_abstract(cls: Any) -> None:
    """Let an abstract class that ``ABCMeta.__new__`` has not made keep virtual subclasses; others stay as they are."""
    if abc.ABCMeta in type(cls).__mro__:
        _abc._abc_init(cls)


def virtual_subclasses(cls: Any) -> list[type]:
    """Return the classes that were registered with an abstract class."""
    if abc.ABCMeta not in type(cls).__mro__:
        return []
    registered = _abc._get_dump(cls)[0]
    return [found for reference in registered if (found := reference()) is not None]


def register_virtual(cls: abc.ABCMeta, virtual: Iterable[type]) -> None:
    """Register virtual subclasses, whatever the metaclass does when it is asked to."""
    for subclass in virtual:
        abc.ABCMeta.register(cls, subclass)


def enum_members(cls: Any) -> list[enum.Enum]:
    """Return the members of an enum, each once, and what it has made of combined flags."""
    members = (*cls._member_map_.values(), *cls._value2member_map_.values())
    return list({id(member): member for member in members}.values())
