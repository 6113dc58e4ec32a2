"""Names in annotations that are texts, as all are after ``from __future__ import annotations``.

``typing.get_type_hints`` looks them up among the globals of the function, or of the class's module, so they are part of
what a function or class refers to, although no code does.
"""

from __future__ import annotations

import ast
import builtins
import functools
import typing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


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
