"""Everything that is used of cloudpickle's private parts, under names of our own; no other module knows one of them.

Its reducers, the layout of what they return, and its class tracker have no public way, so a new version may change
them: ``pyproject.toml`` has a ceiling, and ``tests/pickling/test_cloudpickle_internals.py`` runs each of them.
"""

# ruff: noqa: SLF001 -- this module exists for that
from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cloudpickle

from jobcontainer.pickling.cpython_internals import made_function

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import CellType, CodeType, ModuleType

VERSION: Final[str] = cloudpickle.__version__

_inside: Final = cloudpickle.cloudpickle

IMPORT_MODULE: Final[Callable[[str], ModuleType]] = _inside.subimport
MAKE_CLASS: Final[Callable[..., type]] = _inside._make_skeleton_class
MAKE_ENUM: Final[Callable[..., type]] = _inside._make_skeleton_enum
MAKE_EMPTY_CELL: Final[Callable[[], CellType]] = _inside._make_empty_cell
SET_CLASS: Final[Callable[[type, Any], Any]] = _inside._class_setstate
MODULE_NAME: Final[str] = _inside.__name__

MACHINERY: Final = frozenset(value for value in vars(_inside).values() if type(value) is FunctionType)
"""The functions of cloudpickle that streams call to make functions and classes; loading always has them."""

_FILE: Final = 10  # the index of co_filename among the arguments of ``types.CodeType``, from Python 3.11 on


class FunctionParts(NamedTuple):
    """What a function is made of; what is changed here is changed in the stream.

    Attributes:
        attributes: what a person has set on it.
        members: ``__name__``, ``__defaults__`` and so on.
    """

    attributes: dict[str, Any]
    members: dict[str, Any]

    @property
    def globals(self) -> dict[str, Any]:
        """The globals that travel with the function."""
        found: dict[str, Any] = self.members["__globals__"]
        return found

    def given_members(self, function: FunctionType) -> dict[str, Any]:
        """Return the members that a function of the same code and globals does not have by itself."""
        made = made_function(function.__code__, function.__globals__.get("__name__"))
        given = {name: self.members[name] for name, value in made.items() if self.members[name] != value}
        parameters = getattr(function, "__type_params__", ())  # Python 3.12
        return given | ({"__type_params__": parameters} if parameters else {})

    @property
    def submodules(self) -> list[ModuleType]:
        """The modules that are imported when the function is loaded."""
        found: list[ModuleType] = self.members["_cloudpickle_submodules"]
        return found


class BasePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's pickler, with public names for what a subclass needs."""

    def function_by_value(
        self, function: FunctionType, cells: tuple[Any, ...]
    ) -> tuple[Callable[..., FunctionType], tuple[Any, ...], FunctionParts]:
        """Reduce a function to what it is made of.

        Args:
            function: the function.
            cells: what stands for the cells of its closure.

        Returns:
            What makes the function without its parts, the arguments for that, and the parts.
        """
        make, arguments, (attributes, members), *_ = self._dynamic_function_reduce(function)
        return make, (*arguments[:-1], cells or None), FunctionParts(attributes, members)

    def replace_namespace(self, namespace: dict[str, Any], replacement: object) -> None:
        """Pickle something else wherever a namespace is the globals of a function."""
        self.globals_ref.setdefault(id(namespace), replacement)


def goes_by_name(obj: FunctionType | type | ModuleType) -> bool:
    """Return whether cloudpickle would write a function, class or module as a name to be imported."""
    return bool(_inside._should_pickle_by_reference(obj))


def class_by_name(cls: type) -> Any:
    """Reduce a built-in type that goes by a name in :mod:`types`, or by an object of it; None for any other class."""
    return _inside._class_reduce(cls) if cls in _inside._BUILTIN_TYPE_NAMES else None


def code_by_value(code: CodeType) -> Any:
    """Reduce a code object to what it is made of.

    cloudpickle leaves its file out from 3.1.3 on. It is kept here: tracebacks and warnings of the job name it, and the
    source lines on a card are found by it.
    """
    make, arguments = _inside._code_reduce(code)
    return make, (*arguments[:_FILE], code.co_filename, *arguments[_FILE + 1 :])


def tracker_id(cls: object) -> str:
    """Return the id of a class or a type variable in cloudpickle's tracker, where it is entered if need be."""
    found: str = _inside._get_or_create_tracker_id(cls)
    return found


def live_class(tracker_id: str) -> type | None:
    """Find the class of this process that has an id in cloudpickle's tracker."""
    found: type | None = _inside._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)
    return found


def track(built: Collection[tuple[str, type]], *, anew: bool) -> bool:
    """Enter classes into cloudpickle's tracker.

    Args:
        built: id and class.
        anew: replace classes that are tracked under these ids.

    Returns:
        Whether it was done: all of them, or none where one of the ids is taken.
    """
    with _inside._DYNAMIC_CLASS_TRACKER_LOCK:
        if not anew and any(tracker_id in _inside._DYNAMIC_CLASS_TRACKER_BY_ID for tracker_id, _ in built):
            return False
        for tracker_id, cls in built:
            _inside._DYNAMIC_CLASS_TRACKER_BY_ID[tracker_id] = cls
            _inside._DYNAMIC_CLASS_TRACKER_BY_CLASS[cls] = tracker_id
    return True
