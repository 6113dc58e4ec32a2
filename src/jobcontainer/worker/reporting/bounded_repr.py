"""The text of a value, at a cost that does not grow with the value.

``repr`` of a dict with six million entries makes a text of a gigabyte to show its first lines. The containers of Python
itself are therefore gone through here, up to a number of characters; anything else has its own ``repr``.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_ITEMS: Final = 100
"""Of one list, dict or set, that are in the text."""

_LARGEST_INT: Final = 10_000  # bits; Python refuses to write those of more than 4300 digits
_LARGEST_OTHER: Final = 10_000  # items of a container that is written by its own repr
_WIDTH: Final = 78
_NOTES: Final = 200  # characters of what is said of that which is left out
_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}


def bounded_repr(value: object, longest: int) -> str:
    """Return what ``repr`` returns, or as much of it as ``longest`` characters hold; long containers item by item.

    Example:
        >>> bounded_repr({"loss": [0.5, 0.25]}, 100)
        "{'loss': [0.5, 0.25]}"
        >>> bounded_repr(list(range(10**6)), 20)
        '[0, 1, 2, 3, 4, 5, 6, … (1,000,000 in all)]'
    """
    text = _Writer(longest).write(value)
    return text if len(text) <= 2 * longest + _NOTES else f"{text[:longest]} … ({len(text):,} characters)"


class _Writer:
    """Writes one value, as long as there is room."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._above: set[int] = set()  # the containers that hold what is being written

    def write(self, value: Any) -> str:
        if type(value) in _BRACKETS:
            return self._container(value)
        text = self._leaf(value)
        self._room -= len(text) + 2
        return text

    def _leaf(self, value: Any) -> str:
        kind = type(value)
        if kind in {str, bytes, bytearray} and len(value) > self._room:
            return f"{value[: max(self._room, 0)]!r}… ({len(value):,} characters)"
        if kind is int and value.bit_length() > _LARGEST_INT:
            return f"<int of {value.bit_length():,} bits>"
        if isinstance(value, dict | list | tuple | set | frozenset | deque) and len(value) > _LARGEST_OTHER:
            return f"<{kind.__qualname__} of {len(value):,} items>"
        return str.__str__(repr(value))

    def _container(self, value: Any) -> str:
        opening, closing = _BRACKETS[type(value)]
        if id(value) in self._above:
            return f"{opening}...{closing}"
        if not value:
            self._room -= len(opening) + len(closing) + 2
            return repr(value)
        self._above.add(id(value))
        parts = []
        for item in islice(value.items() if type(value) is dict else value, MOST_ITEMS):
            if self._room <= 0:
                break
            parts.append(f"{self.write(item[0])}: {self.write(item[1])}" if type(value) is dict else self.write(item))
        self._above.discard(id(value))
        if len(parts) < len(value):
            parts.append(f"… ({len(value):,} in all)")
        elif type(value) is tuple and len(value) == 1:
            closing = f",{closing}"
        return opening + _laid_out(parts, len(opening), filled=type(value) is not dict) + closing


def _laid_out(parts: Iterable[str], indent: int, *, filled: bool) -> str:
    """Join the items of a container in one line, or in several where that is too long.

    Args:
        parts: the items.
        indent: of the second line and those that follow.
        filled: whether a line takes as many items as fit, and not one.
    """
    margin = "\n" + " " * indent
    lines: list[str] = []
    for part in parts:
        if lines and filled and len(lines[-1]) + len(part) < _WIDTH and "\n" not in lines[-1] + part:
            lines[-1] += f", {part}"
        else:
            lines.append(part.replace("\n", margin))
    line = ", ".join(lines)
    return line if len(line) <= _WIDTH and "\n" not in line else f",{margin}".join(lines)
