"""Warn of jobs that each write much, and name what it is: often a global that was captured by accident.

What the jobs of a store share is written once, and no reason to warn.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import warn
from jobcontainer.pickling.diagnosis import Probe
from jobcontainer.pickling.object_graph import parts_of
from jobcontainer.pickling.pickler import NullFile, Pickler
from jobcontainer.pickling.source_code import definition_of
from jobcontainer.process import memory_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobcontainer.pickling.names_in_texts import Global

_LARGE: Final = 10_000_000
_NAMED: Final = 3
_LEAST_SHARE: Final = 0.02  # of the whole; less is not worth naming
_MOST_PARTS: Final = 200  # of one object: the million items of a list are not measured one by one
_MOST_STEPS: Final = 20

_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})

_wrote: weakref.WeakSet[Any] = weakref.WeakSet()  # of which the last process has written much
_warned: weakref.WeakSet[Any] = weakref.WeakSet()


def warn_if_large(obj: object, size: int, shared: tuple[int, int] | None = None) -> None:
    """Warn, once for each class, of a process that makes a job write over 10 MB, and name its largest parts.

    Args:
        obj: the process.
        size: of its file, in bytes.
        shared: from which size on its data goes into the store, which has each content once, and how many bytes of it
            were not there yet; None where all of it is in the file.
    """
    definition = definition_of(obj)
    if definition in _warned:
        return
    least_shared, new = shared or (sys.maxsize, 0)
    if new <= _LARGE:
        _wrote.discard(definition)
    elif definition not in _wrote:  # what this one writes, the following ones may share
        _wrote.add(definition)
        new = 0
    if size + new <= _LARGE:
        return
    _warned.add(definition)
    found = largest_parts(obj, "process", sys.maxsize if new > _LARGE else least_shared)
    parts = ", ".join(f"{words} {memory_text(part)}" for words, part in found)
    begin = f"Each job of {definition.__qualname__} writes and reads {memory_text(size + new)} of its own"
    if shared is None:
        begin = f"The file of {definition.__qualname__} has {memory_text(size)}, and each job reads all of it"
    warn(f"{begin}: {parts}. What run() can load or make itself need not travel.")


def largest_parts(obj: object, name: str, least_shared: int = sys.maxsize) -> list[tuple[str, int]]:
    """Find the three largest parts of an object: words and bytes, the largest first.

    An object that is large only because of a few of its parts is replaced by them, so that ``process.data['train']`` is
    named and not ``process``. What is in one piece of ``least_shared`` bytes or more is not counted.
    """
    total, in_texts = _size_of(obj, least_shared)
    names = {found.name for found in in_texts}
    open_parts: list[tuple[int, str, object]] = [(_size_of(obj, least_shared, names)[0], name, obj)]
    open_parts += [
        (_size_of(found.value, least_shared, names)[0], f"global {found.name}, which a text names", found.value)
        for found in in_texts
    ]
    largest: list[tuple[str, int]] = []
    seen = {id(part) for _, _, part in open_parts}
    for _ in range(_MOST_STEPS):
        open_parts.sort(key=lambda part: part[0])
        if not open_parts or len(largest) == _NAMED or open_parts[-1][0] < total * _LEAST_SHARE:
            break
        size, words, whole = open_parts.pop()
        parts = [
            (_size_of(part, least_shared, names)[0], part_words, part)
            for part_words, part in _named_parts(whole, words, is_root=whole is obj)
        ]
        parts = [part for part in parts if part[0] >= total * _LEAST_SHARE]
        if sum(part[0] for part in parts) < size / 2:
            largest.append((words, size))
        else:
            open_parts += [part for part in parts if id(part[2]) not in seen]
            seen.update(id(part[2]) for part in parts)
    return largest


def _named_parts(whole: object, words: str, *, is_root: bool) -> list[tuple[str, object]]:
    """Return the parts of an object that have a name in the code, each once; none of an object with very many."""
    probe = Probe()
    if type(whole) not in _CONTAINERS:
        probe.reducer_override(whole)
    parts = list(itertools.islice(parts_of(whole, words, probe.reduce_value(whole), is_root=is_root), _MOST_PARTS + 1))
    if len(parts) > _MOST_PARTS:
        return []
    named = {id(part): (part_words, part) for part_words, part in reversed(parts) if "__()" not in part_words}
    return list(named.values())


def _size_of(obj: object, least_shared: int, but: Iterable[str] = ()) -> tuple[int, list[Global]]:
    """Return how many bytes an object takes in a file, and the globals in it that only texts name.

    Large buffers are neither copied nor read for that.

    Args:
        obj: the object.
        least_shared: how large what is in one piece must be, not to count.
        but: names of such globals that do not count.
    """
    file = NullFile(least_shared)
    pickler = Pickler(file)
    pickler.names.given.update(but)
    with contextlib.suppress(Exception):  # what travels only within its module, as a lock, counts as nothing
        pickler.dump(obj)
        in_buffers = sum(len(buffer) for buffer in pickler.buffers if len(buffer) < least_shared)
        return file.size + in_buffers, pickler.in_texts
    return 0, []
