"""Instances of the user's classes, made without the code of these classes.

pickle makes such an object by calling ``__new__``, or the class itself, with what the built-in type that it extends
consists of. It fills it by ``extend`` and ``__setitem__``, and asks it for ``__setstate__`` before it has attributes. A
class that has methods of its own in these places expects something else: an exception then has another message, a
``float`` another value, a ``set`` no members, and ``__getattr__`` calls itself for ever.

All of that has run when the notebook made the object. So here the methods of the built-in type make and fill it, and
its attributes are set. Classes that say themselves how they are pickled are left to pickle.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.class_reducer import class_travels
from jobcontainer.pickling.module_origin import is_local
from jobcontainer.pickling.unpickler import loading

if TYPE_CHECKING:
    from collections.abc import Callable

_ATTRIBUTES: Final = frozenset({"__getattr__", "__getattribute__"})
_REDUCTIONS: Final = ("__reduce_ex__", "__reduce__")
_CONTENT: Final = frozenset({"__init__", "__iter__", "__setitem__", "append", "extend", "items"})
_METHODS: Final = {
    "__new__",
    "__setattr__",
    *_ATTRIBUTES,
    "__getnewargs__",
    "__getnewargs_ex__",
    *_REDUCTIONS,
    *_CONTENT,
}

_IN_C: Final = (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType)


def make_instance(cls: type, *arguments: Any) -> object:
    """Make an instance of a class whose ``__new__`` is the user's own; streams call this.

    It has run when the notebook made the instance, and what it left on a class that this load has made arrives with it.
    A class that lives here may know the instance, so its ``__new__`` is asked, as pickle does, if it takes that.
    """
    if id(cls) not in loading.built:
        with contextlib.suppress(TypeError):
            return cls.__new__(cls, *arguments)
    return object.__new__(cls)


def make_value(cls: Any, base: Any, *arguments: Any) -> object:
    """Make an instance of a class that extends a built-in type, and has a ``__new__`` of its own; streams call this.

    A class that lives here may have that very instance, as one that keeps its texts does.
    """
    made: object = base.__new__(cls, *arguments)
    if id(cls) not in loading.built:
        with contextlib.suppress(Exception):  # user code
            known: object = cls.__new__(cls, *arguments)
            if type(known) is cls and base.__eq__(known, made) is True:
                return known
    return made


def make_by_bases(cls: type, maker: Any, initialiser: Any, arguments: tuple[Any, ...]) -> object:
    """Make an instance as two bases of its class would; streams call this.

    Args:
        cls: the class.
        maker: whose ``__new__`` makes it.
        initialiser: whose ``__init__`` initialises it.
        arguments: for both.
    """
    made: object = maker.__new__(cls, *arguments)
    if initialiser is not object:
        initialiser.__init__(made, *arguments)
    return made


def set_content(obj: Any, content: tuple[Any, list[Any] | None, list[tuple[Any, Any]] | None]) -> None:
    """Set attributes, items, and items by key of an object, whatever its class does about that; streams call this.

    Args:
        obj: the object.
        content: attributes as ``object.__getstate__`` returns them, and what is in a list or dict.
    """
    state, items, pairs = content
    attributes, slots = state if isinstance(state, tuple) else (state, {})
    if attributes is obj:  # a dict whose attributes are its items
        object.__setattr__(obj, "__dict__", obj)
    elif attributes:
        object.__getattribute__(obj, "__dict__").update(attributes)
    for name, value in slots.items():
        object.__setattr__(obj, name, value)
    if items:
        _base_in_c(type(obj), "extend").extend(obj, items)
    if pairs:
        put = _base_in_c(type(obj), "__setitem__").__setitem__
        for key, value in pairs:
            put(obj, key, value)


def reducer_of(kind: type) -> Callable[[Any], Any] | None:
    """Return what reduces instances of a class of the user's; None where pickle is right about them."""
    if not _is_own(kind):
        return None
    owners = {name: _owner(kind, name) for name in _METHODS}
    own = {name for name, owner in owners.items() if owner is not None and _is_own(owner)}
    if not own.isdisjoint(_REDUCTIONS):
        return None
    reduction: Any = next((owners[name] for name in _REDUCTIONS if owners[name] is not object), object)
    if reduction is not object:
        return functools.partial(_called, kind, _makers(kind, reduction)) if _is_of_library(reduction) else None
    says_arguments = "__getnewargs__" in own and _base_in_c(kind, "__new__") is not object
    has_own_new = "__new__" in own and owners["__getnewargs_ex__"] is None and not says_arguments
    if has_own_new or _is_set_by_own_code(kind, own):
        return functools.partial(_made, has_own_new=has_own_new)
    return None


def _is_set_by_own_code(kind: type, own: set[str]) -> bool:
    """Return whether methods of the user would fill an instance, or answer before it is filled."""
    if _owner(kind, "__setstate__") is not None:
        return False
    has_slots = "__setattr__" in own and any(vars(base).get("__slots__") for base in kind.__mro__ if _is_own(base))
    return has_slots or not own.isdisjoint(_ATTRIBUTES | (_CONTENT if issubclass(kind, (list, dict)) else set()))


def _made(obj: Any, *, has_own_new: bool) -> tuple[Any, ...]:
    """Reduce an instance whose class leaves that to ``object``."""
    kind = type(obj)
    reduced: Any = object.__reduce_ex__(obj, 5)
    make, arguments, *rest = reduced
    base = _base_in_c(kind, "__new__")
    if has_own_new and base is object:
        make = make_instance
    elif has_own_new:
        given = getattr(base, "__getnewargs__", None)
        make, arguments = make_value, (kind, base, *(given(obj) if given else ()))
    return _with_content(obj, make, arguments, *rest)


def _called(kind: Any, makers: tuple[type, type], obj: Any) -> tuple[Any, ...]:
    """Reduce an instance of which a class of the standard library says that its class is to be called."""
    reduced: Any = kind.__reduce_ex__(obj, 5)
    if not isinstance(reduced, tuple) or reduced[0] is not kind:
        return reduced  # type: ignore[no-any-return]
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    if state is None:  # many forget that there may be attributes
        with contextlib.suppress(AttributeError):
            state = object.__getattribute__(obj, "__dict__") or None
    return _with_content(obj, make_by_bases, (kind, *makers, arguments), state, items, pairs)


def _with_content(
    obj: Any, make: Any, arguments: tuple[Any, ...], state: Any, items: Any, pairs: Any
) -> tuple[Any, ...]:
    kind = type(obj)
    if _owner(kind, "__setstate__") is not None:
        return make, arguments, state, items, pairs
    if items is not None:
        items = list(_base_in_c(kind, "__iter__").__iter__(obj))
    if pairs is not None:
        pairs = list(_base_in_c(kind, "items").items(obj))
    if state is None and not items and not pairs:
        return make, arguments
    return make, arguments, (state, items, pairs), None, None, set_content


def _makers(kind: type, reduction: type) -> tuple[type, type]:
    """Return the bases whose ``__new__`` and ``__init__`` make a class: of C, or of the standard library.

    Args:
        kind: the class.
        reduction: its base that says what these are given.
    """
    base = _base_in_c(kind, "__new__")
    is_written_in_python = issubclass(kind, BaseException) and not isinstance(vars(reduction).get("__reduce__"), _IN_C)
    if base is not object and not is_written_in_python:
        return base, _base_in_c(kind, "__init__")
    of_library = [cls for cls in kind.__mro__ if _is_of_library(cls)]
    maker, initialiser = (next(cls for cls in of_library if name in vars(cls)) for name in ("__new__", "__init__"))
    return maker, initialiser


def _is_of_library(cls: type) -> bool:
    return str(cls.__module__).partition(".")[0] in sys.stdlib_module_names


def _owner(kind: type, name: str) -> type | None:
    """Return the class that gives another an attribute; None if it has none of that name."""
    return next((base for base in kind.__mro__ if name in vars(base)), None)


def _base_in_c(kind: type, name: str) -> Any:
    """Return the nearest built-in type among the bases of a class that has a method."""
    return next(base for base in kind.__mro__ if isinstance(vars(base).get(name), _IN_C))


def _is_own(cls: type) -> bool:
    """Return whether a class is the user's; a named tuple is as the standard library has made it."""
    if cls.__bases__ == (tuple,) and "_field_defaults" in vars(cls):
        return False
    return class_travels(cls) or is_local(cls.__module__)
