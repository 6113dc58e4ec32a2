"""Names in annotations that are texts, as all are after ``from __future__ import annotations``.

``typing.get_type_hints`` looks them up among the globals of the function, or of the class's module, so they are part of
what a function or class refers to, although no code does.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import types
import typing
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_GIVES_ANNOTATIONS: Final = frozenset({"MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE"})  # the second from Python 3.13 on
_ANNOTATIONS: Final = 0x04


def named_in_annotations(annotations: Any) -> set[str]:
    """Return the names that the texts in annotations use, those of built-in types left out.

    Args:
        annotations: ``__annotations__`` of a class or function; anything else names nothing.

    Example:
        >>> sorted(named_in_annotations({"path": "Path | None", "sizes": list["Size"], "n": "int", "m": int}))
        ['Path', 'Size']
    """
    if not isinstance(annotations, dict):
        return set()
    return {name for annotation in annotations.values() for text in _texts(annotation) for name in _names_in(text)}


def named_in_annotations_of(code: types.CodeType) -> set[str]:
    """Return the names in annotations that are texts, of the functions and the class that a code object makes."""
    return {name for text in _texts_in_code(code) for name in _names_in(text)}


def _texts_in_code(code: types.CodeType) -> Iterator[str]:
    if "__annotations__" not in code.co_names and not any(map(_is_code, code.co_consts)):
        return
    steps = list(dis.get_instructions(code))
    texts: tuple[Any, ...] = ()  # of the next function: its names and their annotations, in turn
    for place, step in enumerate(steps):
        if step.opname == "LOAD_CONST" and isinstance(step.argval, tuple):
            texts = step.argval[1::2]
        elif step.opname in _GIVES_ANNOTATIONS and (step.arg or 0) & _ANNOTATIONS:
            yield from (text for text in texts if isinstance(text, str))
        elif step.opname == "STORE_SUBSCR" and steps[place - 2].argval == "__annotations__":
            text = steps[place - 3].argval
            if isinstance(text, str):
                yield text


def _is_code(constant: object) -> bool:
    return isinstance(constant, types.CodeType)


def _texts(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, str):
        yield annotation
    elif isinstance(annotation, typing.ForwardRef):
        yield annotation.__forward_arg__
    elif not isinstance(annotation, type) or hasattr(annotation, "__origin__"):
        arguments = getattr(annotation, "__args__", ())
        for argument in arguments if isinstance(arguments, tuple) else ():
            yield from _texts(argument)


@functools.lru_cache(maxsize=1024)
def _names_in(text: str) -> frozenset[str]:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return frozenset()
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not hasattr(builtins, node.id)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != text:
            names |= _names_in(node.value)
    return frozenset(names)
