"""What of a result stands in tables: the small plain values of its fields, made in the job, where its classes are.

A dict, a dataclass, a named tuple and a Series of pandas have fields; of any other result the whole is one value,
``result``. What is no small plain value stands there as a short text. This calls methods of the user's classes; so
whoever calls it bounds its time, see :mod:`jobcontainer.worker.reporting.preview`.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jobcontainer.storage.plain_values import LONGEST_NAME, LONGEST_VALUE, MOST_VALUES, encodable_text, plain
from jobcontainer.worker.reporting.bounded_repr import bounded_repr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobcontainer.storage.plain_values import Plain

_RESULT = "result"


def result_values(result: object, text: str) -> dict[str, Plain]:
    """Return the fields of a result that has some, and not too many; else the result.

    Args:
        result: what ``run()`` returned.
        text: the text of the whole.

    Example:
        >>> result_values({"loss": 0.5, "model": [object()] * 0}, "")
        {'loss': 0.5, 'model': []}
        >>> result_values(3 + 4j, "(3+4j)")
        {'result': '(3+4j)'}
    """
    fields = _fields(result)
    if fields is None:
        return {_RESULT: _value(result, text)}
    return {_name(name): _value(value) for name, value in fields}


def _fields(result: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return the names and values of the fields; None where there are none, or too many for a table."""
    kind = type(result)
    fields: list[tuple[Any, Any]] | None = None
    if issubclass(kind, dict):
        fields = list(dict.items(result)) if 0 < dict.__len__(result) <= MOST_VALUES else None
    elif dataclasses.is_dataclass(kind):
        fields = [(one.name, getattr(result, one.name, None)) for one in dataclasses.fields(kind)]
    elif issubclass(kind, tuple) and isinstance(names := getattr(kind, "_fields", None), tuple):
        fields = list(zip(names, tuple.__iter__(result), strict=False))
    elif (pandas := sys.modules.get("pandas")) is not None and issubclass(kind, pandas.Series):
        fields = list(zip(result.index.tolist(), result.tolist(), strict=True)) if len(result) <= MOST_VALUES else None
    return fields if fields and len(fields) <= MOST_VALUES else None


def _name(name: object) -> str:
    text = name if type(name) is str else bounded_repr(name, LONGEST_NAME)
    return encodable_text(text)[:LONGEST_NAME]


def _value(value: Any, text: str | None = None) -> Plain:
    with suppress(Exception):  # also of what a class makes of itself
        return plain(value)
    if issubclass(type(value), str):
        text = str.__str__(value)
    return _cut(_text_of(value) if text is None else text)


def _text_of(value: object) -> str:
    with suppress(Exception):  # the text of the whole says what it was
        return bounded_repr(value, LONGEST_VALUE // 2)
    return f"<{type(value).__name__} object>"


def _cut(text: str) -> str:
    """Cut a text to the length of a plain value, with a note."""
    cut = encodable_text(text[: LONGEST_VALUE + 1])
    note = f" … ({len(text):,} characters)"
    return cut if len(cut) <= LONGEST_VALUE else cut[: LONGEST_VALUE - len(note)] + note
