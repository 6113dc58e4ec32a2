"""Reducers for objects of notebooks that neither pickle nor cloudpickle can carry into another process.

Some fail: a ``cached_property`` holds a lock (Python 3.11), a weak dictionary a weak reference. Others go by a name
that does not exist in the job: a cached function, a ``NewType``, a ``ParamSpec`` of the notebook. Code may lose the
name of its file.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling import cloudpickle_internals
from jobcontainer.pickling.cpython_internals import SENTINELS
from jobcontainer.pickling.definitions import Definition, code_and_data
from jobcontainer.pickling.module_origin import travels

if TYPE_CHECKING:
    from collections.abc import Callable


_DESCRIPTORS: Final = (property, classmethod, staticmethod)


def make_cached_function(parameters: dict[str, Any]) -> Any:
    """Make a cached function that calls what :func:`set_cached_function` sets; streams call this.

    It is made before its function, as the function may call it by its global name.

    Args:
        parameters: as ``cache_parameters()`` returns them.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return cached.__wrapped__(*args, **kwargs)

    cached = functools.lru_cache(**parameters)(call)
    return cached


def make_descriptor(kind: type, base: Any, arguments: tuple[Any, ...]) -> Any:
    """Make a property, class method or static method; streams call this."""
    made = base.__new__(kind)
    base.__init__(made, *arguments)
    return made


def set_state(obj: Any, state: dict[str, Any] | tuple[dict[str, Any] | None, dict[str, Any]]) -> None:
    """Set attributes of an object, whatever its class does about that; streams call this.

    Args:
        obj: the object.
        state: as ``object.__getstate__`` returns it.
    """
    attributes, slots = state if isinstance(state, tuple) else (state, {})
    if attributes:
        vars(obj).update(attributes)
    for name, value in slots.items():
        object.__setattr__(obj, name, value)


def replace_state(obj: Any, state: dict[str, Any]) -> None:
    """Set attributes of an object, and remove all others; streams call this."""
    vars(obj).clear()
    vars(obj).update(state)


def make_cached_property(function: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    """Make a cached property under the name it had; streams call this."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def make_type_variable(module: str, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Make a ``TypeVar``, or find the live one; streams call this."""
    made = make(*arguments)
    made.__module__ = module
    return made


def make_named_type(kind: type, name: str, module: str, options: dict[str, Any]) -> Any:
    """Make a ``NewType``, ``ParamSpec`` or their like; streams call this."""
    made = kind(name, **options)
    made.__module__ = module
    return made


def _cached_function(cached: Any) -> Definition | Any:
    if not travels(cached.__module__):
        return NotImplemented
    attributes = {name: value for name, value in vars(cached).items() if name != "cache_parameters"}
    code, data = code_and_data(attributes)
    return Definition(
        make_cached_function,
        (cached.cache_parameters(),),
        [(set_state, code)],
        [(set_state, data)] if data else [],
    )


def descriptor_by_value(descriptor: Any) -> Definition | Any:
    """Describe a property, class method or static method, or reduce one that can be found by its name."""
    kind: Any = type(descriptor)
    if kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not object.__reduce__:
        return NotImplemented
    function = getattr(descriptor, "__func__", None)
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", None)
    if module in sys.modules and vars(sys.modules[module]).get(name) is descriptor and not travels(module):
        return name
    base: Any = next(base for base in _DESCRIPTORS if issubclass(kind, base))
    if base is property:
        arguments: tuple[Any, ...] = descriptor.fget, descriptor.fset, descriptor.fdel, descriptor.__doc__
    else:
        arguments = (descriptor.__func__,)
    state: Any = object.__getstate__(descriptor)
    put = set_state
    if base is not property and isinstance(state, dict | None):
        put, state = replace_state, state or {}
        if state == _taken_over(descriptor.__func__):
            return Definition(make_descriptor, (kind, base, arguments), [], [])
    return Definition(make_descriptor, (kind, base, arguments), [], [(put, state)] if state is not None else [])


def _taken_over(function: Any) -> dict[str, Any] | None:
    """Return what a method takes over from its function when it is made, where that is not filled yet."""
    if type(function) is not types.FunctionType:
        return None
    code = function.__code__
    return {
        "__module__": function.__globals__.get("__name__"),
        "__name__": code.co_name,
        "__qualname__": code.co_qualname,
        "__doc__": code.co_consts[0] if code.co_consts and isinstance(code.co_consts[0], str) else None,
        "__annotations__": {},
    }


def _cached_property(cached: functools.cached_property[Any]) -> Any:
    return make_cached_property, (cached.func, cached.attrname)


def _new_type(kind: typing.NewType) -> Any:
    if not travels(kind.__module__):
        return NotImplemented
    return make_named_type, (typing.NewType, kind.__name__, kind.__module__, {"tp": kind.__supertype__})


def _type_variable(variable: typing.TypeVar) -> Any:
    if not travels(variable.__module__):
        return NotImplemented
    make, arguments = cloudpickle_internals.type_variable(variable)
    return make_type_variable, (variable.__module__, make, arguments)


def _parameters(spec: Any) -> Any:
    if not travels(spec.__module__):
        return NotImplemented
    return make_named_type, (type(spec), spec.__name__, spec.__module__, {})


def _weak_dictionary(dictionary: Any) -> Any:
    return type(dictionary), (dict(dictionary),)


def _sentinel(value: object) -> str:
    return SENTINELS[type(value)]


def _read_only_view(view: Any) -> Any:
    """Reduce a read-only view of a mapping to the mapping, which others may have too; that of a class is copied."""
    [mapping] = gc.get_referents(view)
    is_of_class = "__dict__" in mapping or "__module__" in mapping
    return type(view), (dict(view) if is_of_class else mapping,)


def _generic_alias(alias: Any) -> Any:
    """Reduce an alias to what is in it, as ``Box[int]`` would need a class that is filled already."""
    origin = alias.__origin__
    if not isinstance(origin, type) or not travels(origin.__module__):
        return NotImplemented
    return object.__new__, (type(alias),), vars(alias), None, None, set_state


REDUCERS: Final[dict[type, Callable[[Any], Any]]] = {
    functools.cached_property: _cached_property,
    typing.NewType: _new_type,
    types.CodeType: cloudpickle_internals.code_by_value,
    typing.TypeVar: _type_variable,
    types.MappingProxyType: _read_only_view,
    typing.ParamSpec: _parameters,
    typing.TypeVarTuple: _parameters,
    weakref.WeakKeyDictionary: _weak_dictionary,
    weakref.WeakValueDictionary: _weak_dictionary,
    type(typing.List[int]): _generic_alias,  # noqa: UP006 -- list[int] is of another type
    **dict.fromkeys(SENTINELS, _sentinel),
}

DEFINITIONS: Final[dict[type, Callable[[Any], Definition | Any]]] = {
    type(functools.lru_cache(len)): _cached_function,
    **dict.fromkeys(_DESCRIPTORS, descriptor_by_value),
}
