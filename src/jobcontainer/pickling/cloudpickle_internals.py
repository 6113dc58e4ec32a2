"""Everything that is used of cloudpickle's private parts, under names of our own; no other module knows one of them.

Its reducers, the layout of what they return, and its class tracker have no public way, so a new version may change
them: ``pyproject.toml`` has a ceiling, and ``tests/pickling/test_cloudpickle_internals.py`` runs each of them.
"""

# ruff: noqa: SLF001 -- this module exists for that
from __future__ import annotations

from types import FunctionType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cloudpickle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import CellType, CodeType, ModuleType

VERSION: Final[str] = cloudpickle.__version__

_inside: Final = cloudpickle.cloudpickle

IMPORT_MODULE: Final[Callable[[str], ModuleType]] = _inside.subimport
MAKE_CLASS: Final[Callable[..., type]] = _inside._make_skeleton_class
MAKE_ENUM: Final[Callable[..., type]] = _inside._make_skeleton_enum
MAKE_EMPTY_CELL: Final[Callable[[], CellType]] = _inside._make_empty_cell
SET_FUNCTION: Final[Callable[[FunctionType, Any], None]] = _inside._function_setstate
SET_CLASS: Final[Callable[[type, Any], Any]] = _inside._class_setstate
MODULE_NAME: Final[str] = _inside.__name__

MACHINERY: Final = frozenset(value for value in vars(_inside).values() if type(value) is FunctionType)
"""The functions of cloudpickle that streams call to make functions and classes; loading always has them."""

_NAME_AND_ARGUMENTS: Final = 2  # how much there is of a class that goes by name
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
        members["__closure__"] = None
        return make, (*arguments[:-1], cells or None), FunctionParts(attributes, members)

    def replace_namespace(self, namespace: dict[str, Any], replacement: object) -> None:
        """Pickle something else wherever a namespace is the globals of a function."""
        self.globals_ref.setdefault(id(namespace), replacement)


def goes_by_name(obj: FunctionType | type | ModuleType) -> bool:
    """Return whether cloudpickle would write a function, class or module as a name to be imported."""
    return bool(_inside._should_pickle_by_reference(obj))


def class_by_name(cls: type) -> Any:
    """Reduce a class as cloudpickle does; ``NotImplemented`` for one that goes by name."""
    return _inside._class_reduce(cls)


def class_by_value(cls: type) -> Any:
    """Reduce a class to what it is made of."""
    return _inside._dynamic_class_reduce(cls)


def with_slots(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a reduce value of a class that is made with its slots.

    cloudpickle sets ``__slots__`` on the class when it exists already, where it has no effect any more.
    """
    slots = vars(cls).get("__slots__")
    if slots is None or NamedTuple in vars(cls).get("__orig_bases__", ()):  # NamedTuple sets them itself
        return reduced
    make, (constructor, name, bases, given, *rest), (state, more), *setters = reduced
    given = given | {"__slots__": slots if isinstance(slots, (str, dict)) else tuple(slots)}
    own = {
        name: value
        for name, value in state.items()
        if name != "__slots__" and not (type(value) is MemberDescriptorType and value.__objclass__ is cls)
    }
    return make, (constructor, name, bases, given, *rest), (own, more), *setters


def class_attributes(reduced: tuple[Any, ...]) -> dict[str, Any]:
    """Return the attributes in the reduce value of a class."""
    return reduced[2][0] if len(reduced) > _NAME_AND_ARGUMENTS else {}


def code_by_value(code: CodeType) -> Any:
    """Reduce a code object to what it is made of.

    cloudpickle leaves its file out from 3.1.3 on. It is kept here: tracebacks and warnings of the job name it, and the
    source lines on a card are found by it.
    """
    make, arguments = _inside._code_reduce(code)
    return make, (*arguments[:_FILE], code.co_filename, *arguments[_FILE + 1 :])


def type_variable(variable: Any) -> Any:
    """Reduce a ``TypeVar`` to what it is made of."""
    return _inside._make_typevar, _inside._decompose_typevar(variable)


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
