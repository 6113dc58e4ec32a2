"""Facts as lines of text, for a terminal: a field on a line of its own, whatever a file holds in it.

What a field holds is data that others wrote. So nothing of it acts on the terminal, nothing of it looks like another
field, as its lines are indented where it has several, and of a long text or list the beginning is shown, with a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from jobcontainer.views import units
from jobcontainer.views.escaping import shown, shown_line

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_ITEMS: Final = 100
LONGEST_FIELD: Final = 20_000
_LONGEST_ITEM: Final = 500
_INDENT: Final = "    "


def field_lines(facts: Mapping[str, object]) -> Iterator[str]:
    """Yield the lines of some facts by name.

    Example:
        >>> print(*field_lines({"kind": "process", "size": 10**400, "packages": {"a": ("a", "1.0"), "b": ("b", "2")}}))
        kind: process size: ? packages:     a: a 1.0     b: b 2
    """
    for name, value in facts.items():
        lines = _lines(value)
        if len(lines) > 1 or isinstance(value, Mapping | list | tuple):
            yield f"{name}:"
            yield from (f"{_INDENT}{line}".rstrip() for line in lines)
        else:
            yield f"{name}: {lines[0]}".rstrip()


def _lines(value: object) -> list[str]:
    match value:
        case str():
            return shown(value, LONGEST_FIELD).rstrip("\n").split("\n")
        case Mapping():
            items = [f"{shown_line(key)}: {_item(part)}" for key, part in islice(value.items(), MOST_ITEMS)]
        case list() | tuple():
            items = [_item(part) for part in value[:MOST_ITEMS]]
        case _:
            return [_item(value)]
    return items if len(value) <= MOST_ITEMS else [*items, f"… and {len(value) - MOST_ITEMS:,} more"]


def _item(value: object) -> str:
    """Return one value in one line."""
    if value is None:
        return "none"
    if isinstance(value, int | float) and not isinstance(value, bool) and units.sound(value) is None:
        return units.UNKNOWN
    if isinstance(value, list | tuple) and len(value) <= MOST_ITEMS:
        return shown_line(" ".join(map(_item, value)), _LONGEST_ITEM)
    return shown_line(value, _LONGEST_ITEM)
