"""Names of the notebook that code looks up by a text, as ``globals()["rate"]`` or ``df.query("a > @rate")`` does.

A text counts if code of the stream may look names up, and the text could be what it looks for: one that is in the code
of any function, among the globals and defaults that a function uses, or an attribute of the process. What a text only
seems to mean costs little, as it travels only if it can. A name that code makes up while it runs is not found.
"""

from __future__ import annotations

import ast
import functools
import re
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobcontainer.pickling.code_references import without_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAIN_NAME: Final = "__main__"
_LONGEST: Final = 10_000
_MOST_IN_COLLECTION: Final = 1_000
_COLLECTIONS: Final = (list, tuple, set, frozenset)
_OF_IPYTHON: Final = re.compile(r"In|Out|exit|quit|get_ipython|_+|_i*\d*|_[ido]h|__\w+__")

_PLACEHOLDER: Final = re.compile(r"(?:\{|\$\{?|%\()([^\W\d]\w*)")  # of str.format, string.Template and the operator %
_OF_PANDAS: Final = re.compile(r"@([^\W\d]\w*)")
_OF_SQL: Final = re.compile(r"\b(?:from|join|describe|summarize)\s+([^\W\d]\w*)", re.IGNORECASE)


class Global(NamedTuple):
    """A global of the notebook that no code in a stream mentions."""

    name: str
    value: object


class NamesInTexts:
    """The texts of the code in a stream, and how that code looks names up.

    Attributes:
        given: the names of the notebook that the stream has; whoever writes it adds to them.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.given: set[str] = set()
        self._texts: set[str] = set()
        self._lookups: set[str] = set()

    def copy(self) -> NamesInTexts:
        """Return one that can go on by itself."""
        copied = NamesInTexts()
        copied.given, copied._texts, copied._lookups = set(self.given), set(self._texts), set(self._lookups)
        return copied

    def add_function(self, function: types.FunctionType, used: Iterable[object]) -> None:
        """Add the texts of a function, and its ways to look names up.

        Args:
            function: the function.
            used: the globals that it uses.
        """
        texts, names = _texts_and_names(function.__code__)
        values = [*used, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        self._texts |= texts
        self._lookups |= _LOOKUPS.keys() & names
        if MAIN_NAME in texts or MAIN_NAME in names or any(map(_is_main, values)):
            self._lookups.add(MAIN_NAME)
            self._texts |= names  # import __main__; __main__.rate
        self.add_values(values)

    def add_values(self, values: Iterable[Any]) -> None:
        """Add those of some values that are texts, and the texts in those that are collections."""
        for value in values:
            if type(value) is str:
                self._texts.add(value)
            elif issubclass(type(value), dict) and len(value) <= _MOST_IN_COLLECTION:
                self._texts.update(item for pair in value.items() for item in pair if type(item) is str)
            elif issubclass(type(value), _COLLECTIONS) and len(value) <= _MOST_IN_COLLECTION:
                self._texts.update(item for item in value if type(item) is str)

    def missing(self, namespace: dict[str, Any]) -> list[str]:
        """Return the names in a namespace that the texts may mean, and that are not given."""
        if not self._lookups:
            return []
        find = {_LOOKUPS[name] for name in self._lookups}
        texts = [text for text in self._texts if len(text) <= _LONGEST]
        found = {name for text in texts for names_in in find for name in names_in(text)}
        return sorted(name for name in found & namespace.keys() - self.given if not _OF_IPYTHON.fullmatch(name))


def _is_main(value: object) -> bool:
    return type(value) is types.ModuleType and value.__name__ == MAIN_NAME


@functools.lru_cache(maxsize=1024)
def _texts_and_names(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Return the texts in code and in those nested in it, and the names that they use."""
    texts: set[str] = set()
    names = set(code.co_names)
    for constant in _constants(code.co_consts):
        if isinstance(constant, types.CodeType):
            inner = _texts_and_names(constant)
            texts |= inner[0]
            names |= inner[1]
        elif isinstance(constant, str):
            texts.add(constant)
    return frozenset(texts), frozenset(names)


def _constants(constants: Iterable[object]) -> Iterator[object]:
    for constant in constants:
        if isinstance(constant, (tuple, frozenset)):
            yield from _constants(constant)
        else:
            yield constant


def _whole_or_placeholders(text: str) -> list[str]:
    return [text, *_PLACEHOLDER.findall(text)]


@functools.lru_cache(maxsize=1024)
def _in_code(text: str) -> frozenset[str]:
    """Return the names in a text that is an expression or statements, of Python or pandas."""
    try:
        with without_warnings():
            tree = ast.parse(text.replace("@", " ").strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


_LOOKUPS: Final[dict[str, Callable[[str], Iterable[str]]]] = {
    **dict.fromkeys(("globals", MAIN_NAME), _whole_or_placeholders),
    **dict.fromkeys(("eval", "exec"), _in_code),
    "query": _OF_PANDAS.findall,
    **dict.fromkeys(("sql", "duckdb", "SQLContext"), _OF_SQL.findall),
}
"""What finds names in a text, by the name of what looks them up."""
