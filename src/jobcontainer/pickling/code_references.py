"""What functions refer to by name, where cloudpickle does not look.

cloudpickle finds the globals that a function and those nested in it use, and of the submodules those that the function
itself names. It misses what is named in the body of a class that is made in a function (``@functools.cached_property``
there), the submodules that only nested code names (``os.path`` in a comprehension), and what a function imports.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import importlib.util
import itertools
import opcode
import sys
import threading
import types
import warnings
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.annotation_names import named_in_annotations_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_compiling: Final = threading.Lock()
_IMPORT_NAME: Final = opcode.opmap["IMPORT_NAME"]
_IMPORTERS: Final = frozenset({"import_module", "__import__", "iter_modules", "walk_packages"})
_OF_IMPORTS: Final = frozenset(
    {"RESUME", "NOP", "COPY_FREE_VARS", "MAKE_CELL", "LOAD_CONST", "LOAD_SMALL_INT", "IMPORT_NAME", "IMPORT_FROM"}
) | {"SWAP", "POP_TOP", "STORE_FAST", "STORE_DEREF", "STORE_GLOBAL"}
"""The names of what import statements consist of."""
_IN_CLASS_BODIES: Final = frozenset({"LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Compile code of the user without what the compiler warns of: its author sees that elsewhere.

    One thread at a time does, as the filters of warnings are the process's.
    """
    with _compiling, warnings.catch_warnings(action="ignore"):
        yield


def named_in_classes(function: types.FunctionType) -> dict[str, Any]:
    """Find the globals that are used by the bodies of classes, and by annotations, of what a function makes."""
    names = _names_in_class_bodies(function.__code__)
    return {name: function.__globals__[name] for name in names if name in function.__globals__}


@functools.lru_cache(maxsize=1024)
def _names_in_class_bodies(code: types.CodeType) -> tuple[str, ...]:
    nested = tuple(_nested_in(code))
    used = (step for inner in nested for step in dis.get_instructions(inner))
    names = {s.argval: None for s in used if s.opname in _IN_CLASS_BODIES and s.argval != "__name__"}
    for definer in (code, *nested):
        names |= dict.fromkeys(named_in_annotations_of(definer))
    return tuple(names)


def mentions(function: types.FunctionType, name: str) -> bool:
    """Return whether a function, or code nested in it, uses a name or an attribute."""
    return any(name in code.co_names for code in (function.__code__, *_nested_in(function.__code__)))


def submodules_named(function: types.FunctionType, used: Iterable[object]) -> Iterator[types.ModuleType]:
    """Find the submodules that code nested in a function reaches through its package, as in ``package.submodule.name``.

    Modules that this process has not imported are left out.

    Args:
        function: the function.
        used: the globals that it uses.
    """
    nested = tuple(_nested_in(function.__code__))
    values = itertools.chain(used, _in_closure(function))
    packages = [value.__name__ + "." for value in values if isinstance(value, types.ModuleType) and value.__package__]
    if not nested or not packages:
        return
    names = {*function.__code__.co_names, *(name for code in nested for name in code.co_names)}
    for name, module in list(sys.modules.items()):  # which another thread may change
        if any(name.startswith(package) and names.issuperset(name[len(package) :].split(".")) for package in packages):
            yield module


def _in_closure(function: types.FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # it is empty yet
            yield cell.cell_contents


def _nested_in(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _nested_in(constant)


def imported_by(function: types.FunctionType) -> Iterator[str]:
    """Yield what a function imports when it is called, as :func:`imported_in` does."""
    return imported_in(function.__code__, function.__globals__.get("__package__"))


def imported_in(code: types.CodeType, package: str | None) -> Iterator[str]:
    """Yield what code and those nested in it import, by full name, packages first.

    Args:
        code: of a function or a module.
        package: that relative imports start from.

    Yields:
        Names of modules, and of what may be one: what is imported from a module, and the texts in code that calls
        ``importlib.import_module`` or the like.
    """
    for name, level, wanted in _imports_in(code):
        try:
            full = importlib.util.resolve_name("." * level + name, package) if level else name
        except ImportError:
            continue
        parts = full.split(".")
        yield from (".".join(parts[: count + 1]) for count in range(len(parts)))
        yield from (f"{full}.{item}" for item in wanted if item != "*")
    for text in _texts_for_imports(code):
        yield f"{package}{text}" if text.startswith(".") and package else text


def imports_by_text(code: types.CodeType) -> bool:
    """Return whether code, or code nested in it, may import modules whose names it makes up."""
    return any(not _IMPORTERS.isdisjoint(part.co_names) for part in (code, *_nested_in(code)))


@functools.lru_cache(maxsize=1024)
def _texts_for_imports(code: types.CodeType) -> tuple[str, ...]:
    """Find the texts in code that may be names of modules, if it may import by such names."""
    if not imports_by_text(code):
        return ()
    constants = (constant for part in (code, *_nested_in(code)) for constant in part.co_consts)
    texts = dict.fromkeys(constant for constant in constants if isinstance(constant, str))
    return tuple(text for text in texts if all(part.isidentifier() for part in text.lstrip(".").split(".")))


@functools.lru_cache(maxsize=1024)
def _imports_in(code: types.CodeType) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    """Find each ``import`` in a code object and those nested in it: name, level, and what is imported from there."""
    return tuple(_find_imports(code))


def _find_imports(code: types.CodeType) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    if _IMPORT_NAME in code.co_code[::2]:
        yield from _import_statements(dis.get_instructions(code))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imports_in(constant)


def _import_statements(steps: Iterable[dis.Instruction]) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    level: Any = 0
    wanted: Any = None
    for step in steps:
        if step.opcode == _IMPORT_NAME:
            yield step.argval, level, tuple(wanted or ())
        elif step.opname.startswith("LOAD_"):
            level, wanted = wanted, step.argval


def imported_first(function: object) -> tuple[str, ...]:
    """Return what a function imports before it does anything else, by full name: so every call of it does.

    Args:
        function: the function, or anything else, which imports nothing.

    Example:
        >>> def load():
        ...     import json.decoder
        >>> imported_first(load)
        ('json.decoder',)
    """
    return _imported_first(function.__code__) if type(function) is types.FunctionType else ()


@functools.lru_cache(maxsize=1024)
def _imported_first(code: types.CodeType) -> tuple[str, ...]:
    if _IMPORT_NAME not in code.co_code[::2]:
        return ()
    first = itertools.takewhile(lambda step: step.opname in _OF_IMPORTS, dis.get_instructions(code))
    return tuple(name for name, level, _ in _import_statements(first) if not level)
