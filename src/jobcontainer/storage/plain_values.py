"""Small plain values: what of a process and of a result stands in ``job.json``, in the preview and in tables.

They are what JSON can hold, and of bounded size: numbers, short texts, and lists and dicts of a few of them. To find
out whether a value is one calls no method of a user's class, so that it can be done at submit and in a job. What is
read from a file, which a job may have written, goes through the same functions.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from jobcontainer.process import Call

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

LONGEST_VALUE: Final = 500
"""Characters of one text."""

LONGEST_NAME: Final = 100
"""Characters of the name of one value."""

MOST_VALUES: Final = 100
"""Values of one process, or of one result."""

_MOST_PARTS: Final = 32  # of one list or dict
_LONGEST_NESTED: Final = 2000  # characters of JSON
_DEPTH: Final = 2
_BITS: Final = 256  # of a whole number
_MODULES_OF_TEXTS: Final = {"datetime", "decimal", "fractions", "uuid", "pathlib", "pathlib._local"}
_LIBRARIES_OF_NUMBERS: Final = {"numpy", "torch", "jax", "jaxlib", "tensorflow"}
_SECRET: Final = re.compile(r"(?:^|_)(?:password|passwd|secret|token|api_?key|credential)s?$", re.IGNORECASE)


def plain(value: object) -> Plain:
    """Return a small plain value as Python's own types hold it.

    Numbers of numpy and other libraries, and tensors without dimensions, become Python's; dates, paths and members of
    enums become texts.

    Raises:
        ValueError: it is something else, or too large.

    Example:
        >>> plain((1, 2.5, "a")), plain({"rate": 0.1})
        ([1, 2.5, 'a'], {'rate': 0.1})
    """
    found = _plain(value, _DEPTH)
    if isinstance(found, list | dict) and len(json.dumps(found)) > _LONGEST_NESTED:
        raise ValueError("too large")
    return found


def plain_values(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Plain]:
    """Return those of named values that are small and plain, up to a number; names that are no texts are left out.

    Example:
        >>> plain_values([("rate", 0.1), ("data", object())])
        {'rate': 0.1}
    """
    found: dict[str, Plain] = {}
    for name, value in islice(pairs, MOST_VALUES):
        with suppress(Exception):  # also of what a class makes of itself
            found[_text(name, LONGEST_NAME)] = plain(value)
    return found


def parameters_of(process: object) -> dict[str, Plain]:
    """Return the attributes of a process that are small plain values, or the arguments of a function's call.

    Those whose names begin with an underscore are left out, and texts that their names call secrets. Properties are
    not asked.

    Example:
        >>> parameters_of(Call(pow, (2,), {"exp": 10}))
        {'base': 2, 'exp': 10, 'mod': None}
    """
    named = arguments_of(process)
    found = plain_values((name, value) for name, value in named.items() if not f"{name}".startswith("_"))
    return {name: value for name, value in found.items() if not (isinstance(value, str) and _SECRET.search(name))}


def sound_values(data: object) -> dict[str, Plain]:
    """Return what there is of small plain values in data that anybody may have written."""
    return plain_values(data.items()) if isinstance(data, dict) else {}


def arguments_of(process: object) -> Mapping[Any, Any]:
    """Return what a process is made of, by name: the arguments of a function's call, or else :func:`attributes_of`."""
    return _arguments(process) if type(process) is Call else attributes_of(process)


def _plain(value: Any, depth: int) -> Plain:
    kind = type(value)  # not isinstance, which asks the value for its class
    if value is None or kind is bool:
        found: Plain = value
    elif issubclass(kind, enum.Enum):
        found = _text(object.__getattribute__(value, "_name_"))
    elif issubclass(kind, int):
        found = _whole(int.__int__(value))
    elif issubclass(kind, float):
        found = float.__float__(value)
    elif issubclass(kind, str):
        found = _text(str.__str__(value))
    elif kind in {list, tuple, dict}:
        found = _nested(value, depth)
    else:
        found = _converted(value)
    return found


def _whole(value: int) -> int:
    if value.bit_length() > _BITS:
        raise ValueError("too large")
    return value


def _text(value: object, longest: int = LONGEST_VALUE) -> str:
    if type(value) is not str or len(value) > longest or len(text := encodable_text(value)) > longest:
        raise ValueError("no short text")
    return text


def encodable_text(text: str) -> str:
    r"""Return a text whose halves of characters, which many a table can't hold, are shown as Python writes them.

    Example:
        >>> print(encodable_text("half: \ud83d"))
        half: \ud83d
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _nested(value: Any, depth: int) -> Plain:
    if depth == 0 or len(value) > _MOST_PARTS:
        raise ValueError("too large")
    if type(value) is dict:
        return {_text(name, LONGEST_NAME): _plain(part, depth - 1) for name, part in value.items()}
    return [_plain(part, depth - 1) for part in value]


def _converted(value: Any) -> Plain:
    """Return the number that an array without dimensions holds, or the text of a date or a path."""
    module = f"{type(value).__module__}"
    if module in _MODULES_OF_TEXTS:
        return _text(str(value))
    if module.partition(".")[0] in _LIBRARIES_OF_NUMBERS and value.shape == ():
        number = value.item()
        if type(number) in {bool, int, float, str}:
            return _plain(number, 0)
    raise ValueError("no plain value")


def attributes_of(process: object) -> dict[Any, Any]:
    """Return what is in the dict and the slots of an object, without asking its class."""
    found: dict[Any, Any] = {}
    for base in reversed(type(process).__mro__):
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType):
                with suppress(AttributeError):
                    found[name] = member.__get__(process)
    with suppress(Exception):  # a class may have made something else of it
        own = object.__getattribute__(process, "__dict__")
        found |= own if type(own) is dict else {}
    return found


def _arguments(call: Call) -> Mapping[str, Any]:
    with suppress(Exception):  # what C code takes can't be seen, and a class may say anything
        signature = inspect.signature(call.function)
        bound = signature.bind(*call.args, **call.kwargs)
        bound.apply_defaults()
        found = dict(bound.arguments)
        for one in signature.parameters.values():
            if one.kind is inspect.Parameter.VAR_KEYWORD:
                found |= found.pop(one.name)
        return found
    return call.kwargs
