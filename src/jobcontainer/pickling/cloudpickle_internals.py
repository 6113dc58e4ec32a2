"""The door to cloudpickle: what is used of its inside, under names of our own.

Its reducers and its class tracker have no public door, so a new version may move them. The tests would tell, and
nothing but this module would have to follow.
"""

# ruff: noqa: SLF001 -- that is what this module is for
from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from cloudpickle import __version__ as VERSION  # noqa: N812 -- a constant
from cloudpickle import cloudpickle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import CellType, CodeType, ModuleType

__all__ = [
    "IMPORT_MODULE",
    "MACHINERY",
    "MAKE_CLASS",
    "MAKE_EMPTY_CELL",
    "MAKE_ENUM",
    "MODULE_NAME",
    "SET_CLASS",
    "SET_FUNCTION",
    "VERSION",
    "BasePickler",
    "class_by_name",
    "class_by_value",
    "code_by_value",
    "goes_by_name",
    "live_class",
    "make_known",
    "type_variable",
]

BasePickler: Final = cloudpickle.Pickler

IMPORT_MODULE: Final[Callable[[str], ModuleType]] = cloudpickle.subimport
MAKE_CLASS: Final[Callable[..., type]] = cloudpickle._make_skeleton_class
MAKE_ENUM: Final[Callable[..., type]] = cloudpickle._make_skeleton_enum
MAKE_EMPTY_CELL: Final[Callable[[], CellType]] = cloudpickle._make_empty_cell
SET_FUNCTION: Final[Callable[[FunctionType, Any], None]] = cloudpickle._function_setstate
SET_CLASS: Final[Callable[[type, Any], Any]] = cloudpickle._class_setstate

_FILE: Final = 10  # which argument of ``types.CodeType`` it is, from Python 3.11 on

MODULE_NAME: Final[str] = cloudpickle.__name__

# What streams call to make functions and classes: asked for in every one, and always there.
MACHINERY: Final = frozenset(value for value in vars(cloudpickle).values() if type(value) is FunctionType)


def goes_by_name(obj: FunctionType | type | ModuleType) -> bool:
    """Tell whether cloudpickle would write a function, class or module as a name to be imported."""
    return bool(cloudpickle._should_pickle_by_reference(obj))


def class_by_name(cls: type) -> Any:  # noqa: ANN401 -- a reduce value
    """Reduce a class as cloudpickle does; ``NotImplemented`` for one that goes by name."""
    return cloudpickle._class_reduce(cls)


def class_by_value(cls: type) -> Any:  # noqa: ANN401 -- a reduce value
    """Reduce a class to all that it is made of."""
    return cloudpickle._dynamic_class_reduce(cls)


def code_by_value(code: CodeType) -> Any:  # noqa: ANN401 -- a reduce value
    """Reduce a code object to all that it is made of.

    cloudpickle leaves its file out from 3.1.3 on. It stays in here: tracebacks and warnings of the job name it, and the
    source lines on a card are found by it.
    """
    make, arguments = cloudpickle._code_reduce(code)
    return make, (*arguments[:_FILE], code.co_filename, *arguments[_FILE + 1 :])


def type_variable(variable: Any) -> Any:  # noqa: ANN401 -- a reduce value
    """Reduce a ``TypeVar`` to all that it is made of."""
    return cloudpickle._make_typevar, cloudpickle._decompose_typevar(variable)


def live_class(tracker_id: str) -> type | None:
    """Find the class of this process that has an id in cloudpickle's tracker."""
    found: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)
    return found


def make_known(built: Collection[tuple[str, type]], *, anew: bool) -> bool:
    """Enter classes into cloudpickle's tracker.

    Args:
        built: id and class.
        anew: take the place of classes that are known under these ids.

    Returns:
        Whether it was done: all of them, or none where one of the ids is taken.
    """
    with cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK:
        if not anew and any(tracker_id in cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID for tracker_id, _ in built):
            return False
        for tracker_id, cls in built:
            cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID[tracker_id] = cls
            cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS[cls] = tracker_id
    return True
