"""The source of code: found in the notebook, carried in the file, and registered where the file is loaded.

A notebook's cells are in :mod:`linecache`, where IPython puts them, under the file names that their code objects have.
With those texts in the file, tracebacks in a job show the failing line and ``inspect.getsource`` works there.

:mod:`inspect` takes the file of a class from its module, which for ``__main__`` is wrong in a notebook and in a job.
The code of its methods has the file's name; a class without methods is searched for by its name.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import functools
import inspect
import json
import linecache
import stat
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobcontainer.pickling import cpython_internals
from jobcontainer.process import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_DEFINED: Final = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    type(functools.lru_cache(len)),
)

_COMPILED: Final = ""  # no file has this name

_carried: set[str] = set()


class _Place(NamedTuple):
    file: str
    first: int  # both as people count lines
    last: int


def source_of(obj: object) -> str:
    """Return the source of what defines an object, with its decorators, as it was in its cell; empty if not known.

    Example:
        >>> source_of(source_of).splitlines()[0]
        'def source_of(obj: object) -> str:'
    """
    definition = definition_of(obj)
    with contextlib.suppress(Exception):  # the file may hold anything by now, and what is wrapped may be anything
        if not isinstance(definition, type):
            function = inspect.unwrap(definition)
            return "" if is_special(function.__code__.co_filename) else inspect.getsource(function)
        place = _place_of(definition)
        if place is not None:
            return "".join(_lines_of(place.file)[place.first - 1 : place.last])
    return ""


def is_special(file: str) -> bool:
    """Return whether a file is there and no regular one: of a FIFO nobody may write into, a read never ends."""
    try:
        return not stat.S_ISREG(Path(file).stat().st_mode)
    except (OSError, ValueError):
        return False


def _lines_of(file: str) -> list[str]:
    return [] if is_special(file) else linecache.getlines(file)


def definition_of(obj: object) -> type | Callable[..., Any]:
    """Return what defines an object: its class, or the function that a partial or a Call calls."""
    found: Any = obj
    while issubclass(type(found), (functools.partial, Call)):
        found = found.func if issubclass(type(found), functools.partial) else found.function
    return found if issubclass(type(found), _DEFINED) else type(found)


def definition_in(sources: bytes | bytearray, qualified_name: str, file: str = "") -> str:
    """Return the definition of a class or function from what :func:`carried_sources` returned; empty for none.

    Args:
        sources: the sources.
        qualified_name: its ``__qualname__``.
        file: where it is, if that is known.
    """
    texts, _ = sources_in(sources)
    for text in [texts[file]] if file in texts else texts.values():
        for name, first, last in reversed(_definitions(text)):
            if name == qualified_name:
                return "".join(text.splitlines(keepends=True)[first - 1 : last])
    return ""


def sources_in(sources: bytes | bytearray) -> tuple[dict[str, str], bytes]:
    """Return the sources of a file, by the names of the files that they are from, and the code of modules among them.

    Args:
        sources: what :func:`carried_sources` returned.
    """
    texts: dict[str, str] = dict(json.loads(sources)) if sources else {}
    return texts, base64.b64decode(texts.pop(_COMPILED, ""))


def carried_sources(
    files: Iterable[str], classes: Iterable[type], modules: Mapping[str, str], compiled: bytes = b""
) -> bytes:
    """Return the part of a job file that holds the sources of the code in it.

    Args:
        files: the files that functions in the stream are from.
        classes: the classes in the stream; those without any function of their own are searched for.
        modules: the sources of modules that go with it, by file.
        compiled: the code of these modules.
    """
    texts: dict[str, str] = {}
    for name in files:
        linecache.checkcache(name)
        texts[name] = "".join(_lines_of(name))
    for cls in classes:
        if not any(texts.get(code.co_filename) and not _is_generated(code, cls) for code in _own_code(cls)):
            place = _place_of(cls)
            if place is not None:
                texts[place.file] = "".join(_lines_of(place.file))
    known = {name: text for name, text in {**texts, **modules}.items() if text}
    if compiled:
        known[_COMPILED] = base64.b64encode(compiled).decode()
    return json.dumps(known, separators=(",", ":")).encode() if known else b""


def _is_generated(code: types.CodeType, cls: type) -> bool:
    """Return whether code is a decorator's: attrs, and ``-c`` from Python 3.13 on, have lines of such files as well."""
    name = code.co_filename
    return name.startswith("<") and _definition(name, cls.__qualname__, code.co_firstlineno) is None


def remember(texts: Mapping[str, str], *, own_process: bool) -> None:
    """Register sources for tracebacks and for :mod:`inspect`.

    Args:
        texts: the sources, by the names of their files.
        own_process: whether this process is a job's. There they replace files on disk, which may have been edited
            since; elsewhere only what is not known yet is added.
    """
    for name, text in texts.items():
        if own_process or not (cpython_internals.has_source(name) or Path(name).exists()):
            cpython_internals.add_source(name, text)
            _carried.add(name)
    if texts and own_process:
        let_inspect_find_classes()


def let_inspect_find_classes() -> None:
    """Let :mod:`inspect` find the source of classes whose text came with a file."""
    cpython_internals.extend_getfile(_carried_file)


def _carried_file(cls: type) -> str | None:
    place = _place_of(cls)
    return place.file if place is not None and place.file in _carried else None


def _place_of(cls: type) -> _Place | None:
    """Find where a class is defined; None where no known text has it."""
    for code in _own_code(cls):
        place = _definition(code.co_filename, cls.__qualname__, code.co_firstlineno)
        if place is not None:
            return place
    line = vars(cls).get("__firstlineno__")  # Python 3.13
    word = f"class {cls.__name__}"
    for name in _files_for(cls.__module__):
        if any(word in text for text in _lines_of(name)):
            place = _definition(name, cls.__qualname__, line)
            if place is not None:
                return place
    return None


def _files_for(module_name: str) -> Iterator[str]:
    """Yield the files that may define a class of a module, the likeliest first."""
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if isinstance(file, str) and file.endswith(".py"):
        yield file
    yield from cpython_internals.cells()


def _own_code(cls: type) -> Iterator[types.CodeType]:
    """Yield the code of the functions that a class's body defines."""
    for value in vars(cls).values():
        function = value
        if isinstance(value, property):
            function = value.fget
        elif isinstance(value, (staticmethod, classmethod)):
            function = value.__func__
        elif isinstance(value, functools.cached_property):
            function = value.func
        function = inspect.unwrap(function) if callable(function) else None
        if (
            isinstance(function, types.FunctionType)
            and function.__qualname__ == f"{cls.__qualname__}.{function.__name__}"
        ):
            yield function.__code__


@functools.lru_cache(maxsize=64)
def _definitions(text: str) -> tuple[tuple[str, int, int], ...]:
    """Find all classes and functions in a text: qualified name, first line with decorators, last line."""
    found = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                found.append((prefix + child.name, first, child.end_lineno or first))
                inner = "." if isinstance(child, ast.ClassDef) else ".<locals>."
                visit(child, f"{prefix}{child.name}{inner}")
            else:
                visit(child, prefix)

    try:
        visit(ast.parse(text), "")
    except (SyntaxError, ValueError, RecursionError):
        return ()
    return tuple(found)


def _definition(file: str, qualified_name: str, line: int | None) -> _Place | None:
    """Find the definition of a class in a file: the one around a line, or else the last one."""
    found = None
    for name, first, last in _definitions("".join(_lines_of(file))):
        if name == qualified_name and (line is None or first <= line <= last):
            found = _Place(file, first, last)
    return found
