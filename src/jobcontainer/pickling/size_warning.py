"""What makes a process file large: usually a global of the notebook that was captured by accident."""

from __future__ import annotations

import heapq
import itertools
import weakref
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.diagnosis import Probe
from jobcontainer.pickling.object_graph import parts_of
from jobcontainer.pickling.pickler import Nowhere, Pickler
from jobcontainer.pickling.source_code import definition_of
from jobcontainer.pickling.warning import warn
from jobcontainer.process import memory_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGE: Final = 10_000_000
_TOLD: Final = 3
_LEAST_SHARE: Final = 0.02  # of the whole; less is not worth a word
_MOST_PARTS: Final = 200  # of one object: the million items of a list are not weighed one by one
_MOST_STEPS: Final = 20

_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})

_warned: weakref.WeakSet[Any] = weakref.WeakSet()


def warn_if_large(obj: object, size: int, left_out: Mapping[str, Mapping[str, str]]) -> None:
    """Warn, once for each class, of a process file over 10 MB, and name its largest parts.

    Args:
        obj: the process.
        size: of its file in bytes.
        left_out: as for :class:`~jobcontainer.pickling.pickler.Pickler`.
    """
    definition = definition_of(obj)
    if size <= _LARGE or definition in _warned:
        return
    _warned.add(definition)
    parts = ", ".join(f"{words} {memory_text(weight)}" for words, weight in largest_parts(obj, "process", left_out))
    warn(
        f"The file of {definition.__qualname__} has {memory_text(size)}: {parts}. Each job writes and reads all of it; "
        "what run() can load or make itself need not travel."
    )


def largest_parts(obj: object, name: str, left_out: Mapping[str, Mapping[str, str]]) -> list[tuple[str, int]]:
    """Find the three largest parts of an object: words and bytes, the largest first.

    An object that is large only through a few of its parts gives way to them, so that ``process.data['train']`` is told
    and not ``process``.

    Args:
        obj: the object.
        name: what it is called.
        left_out: as for :class:`~jobcontainer.pickling.pickler.Pickler`.
    """
    told: list[tuple[str, int]] = []
    number = itertools.count()  # decides between equal weights, as objects can't be compared
    total = _weight(obj, left_out)
    heaviest = [(-total, next(number), name, obj)]
    seen = {id(obj)}
    for _ in range(_MOST_STEPS):
        if not heaviest or len(told) == _TOLD:
            break
        weight, _, words, whole = heapq.heappop(heaviest)
        parts = [
            (-_weight(part, left_out), next(number), part_words, part)
            for part_words, part in _named_parts(whole, words, left_out, is_root=whole is obj)
        ]
        parts = [part for part in parts if -part[0] >= total * _LEAST_SHARE]
        if sum(part[0] for part in parts) > weight / 2:  # both are below zero
            told.append((words, -weight))
        else:
            for entry in parts:
                if id(entry[-1]) not in seen:
                    seen.add(id(entry[-1]))
                    heapq.heappush(heaviest, entry)
    return told


def _named_parts(
    whole: object, words: str, left_out: Mapping[str, Mapping[str, str]], *, is_root: bool
) -> list[tuple[str, object]]:
    """Return the parts of an object that a person knows by name, each once; none of an object with very many."""
    probe = Probe(left_out)
    if type(whole) not in _CONTAINERS:
        probe.reducer_override(whole)
    parts = list(itertools.islice(parts_of(whole, words, probe.reduce_value(whole), is_root=is_root), _MOST_PARTS + 1))
    if len(parts) > _MOST_PARTS:
        return []
    named = {id(part): (part_words, part) for part_words, part in reversed(parts) if "__()" not in part_words}
    return list(named.values())


def _weight(obj: object, left_out: Mapping[str, Mapping[str, str]]) -> int:
    """Tell how many bytes an object takes in a file; large buffers are neither copied nor read for that."""
    nowhere = Nowhere()
    scales = Pickler(nowhere, left_out)
    try:
        scales.dump(obj)
    except Exception:  # noqa: BLE001 -- what goes only within its module, as a lock, weighs nothing
        return 0
    return nowhere.size + sum(map(len, scales.buffers))
