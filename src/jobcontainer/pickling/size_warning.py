"""Warn of a large process file and name what makes it large: often a global that was captured by accident."""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Final

from jobcontainer.errors import warn
from jobcontainer.pickling.diagnosis import Probe
from jobcontainer.pickling.object_graph import parts_of
from jobcontainer.pickling.pickler import NullFile, Pickler
from jobcontainer.pickling.source_code import definition_of
from jobcontainer.process import memory_text

_LARGE: Final = 10_000_000
_NAMED: Final = 3
_LEAST_SHARE: Final = 0.02  # of the whole; less is not worth naming
_MOST_PARTS: Final = 200  # of one object: the million items of a list are not measured one by one
_MOST_STEPS: Final = 20

_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})

_warned: weakref.WeakSet[Any] = weakref.WeakSet()


def warn_if_large(obj: object, size: int) -> None:
    """Warn, once for each class, of a process whose file has over 10 MB, and name its largest parts."""
    definition = definition_of(obj)
    if size <= _LARGE or definition in _warned:
        return
    _warned.add(definition)
    parts = ", ".join(f"{words} {memory_text(part)}" for words, part in largest_parts(obj, "process"))
    warn(
        f"The file of {definition.__qualname__} has {memory_text(size)}: {parts}. Each job writes and reads all of it; "
        "what run() can load or make itself need not travel."
    )


def largest_parts(obj: object, name: str) -> list[tuple[str, int]]:
    """Find the three largest parts of an object: words and bytes, the largest first.

    An object that is large only because of a few of its parts is replaced by them, so that ``process.data['train']`` is
    named and not ``process``.
    """
    total = _size_of(obj)
    open_parts = [(total, name, obj)]
    largest: list[tuple[str, int]] = []
    seen = {id(obj)}
    for _ in range(_MOST_STEPS):
        if not open_parts or len(largest) == _NAMED:
            break
        open_parts.sort(key=lambda part: part[0])
        size, words, whole = open_parts.pop()
        parts = [
            (_size_of(part), part_words, part) for part_words, part in _named_parts(whole, words, is_root=whole is obj)
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


def _size_of(obj: object) -> int:
    """Return how many bytes an object takes in a file; large buffers are neither copied nor read for that."""
    file = NullFile()
    pickler = Pickler(file)
    try:
        pickler.dump(obj)
    except Exception:  # noqa: BLE001 -- what can not be pickled counts as nothing
        return 0
    return file.size + sum(map(len, pickler.buffers))
