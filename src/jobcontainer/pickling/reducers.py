"""Reducers for objects of notebooks that neither pickle nor cloudpickle can carry into another process.

Some fail: a ``cached_property`` holds a lock (Python 3.11), a weak dictionary a weak reference. Others go by a name
that does not exist in the job: a cached function, a ``NewType``, a ``ParamSpec`` of the notebook. Code may lose the
name of its file.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import sys
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling import cloudpickle_internals
from jobcontainer.pickling.cpython_internals import SENTINELS, made_function
from jobcontainer.pickling.definitions import Definition, code_and_data
from jobcontainer.pickling.module_origin import travels
from jobcontainer.pickling.unpickler import loading, module_global

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.pickling.definitions import Fill


_TypeAliasType: Any = getattr(typing, "TypeAliasType", None)  # Python 3.12
_OPTIONS_OF_VARIABLES: Final = ("bound", "covariant", "contravariant", "infer_variance")
DESCRIPTORS: Final = (property, classmethod, staticmethod)


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


def make_type_variable(
    tracker_id: str, kind: Any, name: str, module: str, constraints: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Make a ``TypeVar`` or its like, or find the live one; streams call this.

    Its bound may refer to it, so that this is called twice in a load.
    """
    made: Any = loading.variables.get(tracker_id) or loading.live_class(tracker_id)
    if made is None:
        made = kind(name, *constraints, **options)
        made.__module__ = module
        loading.variables[tracker_id] = made
        loading.add(tracker_id, made)
    return made


def make_named_type(kind: type, name: str, module: str | None, options: dict[str, Any]) -> Any:
    """Make a ``NewType``, ``ParamSpec`` or their like; streams call this."""
    made = kind(name, **options)
    if module is not None:
        made.__module__ = module
    return made


def make_type_alias(name: str, module: str) -> Any:
    """Make what the statement ``type`` makes, which may be part of its own value; streams call this."""
    value: list[Any] = []
    namespace = {"__name__": module, "value": value}
    exec(f"type {name} = value[0]", namespace)  # noqa: S102 -- no call makes one whose value is not known yet
    made = namespace[name]
    loading.aliases[id(made)] = value
    return made


def set_type_alias(alias: Any, value: Any) -> None:
    """Set the value of a type alias; streams call this."""
    loading.aliases[id(alias)].append(value)


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
    if _is_global(descriptor):
        return descriptor.__func__.__name__
    base: Any = next(base for base in DESCRIPTORS if issubclass(kind, base))
    if base is property:
        arguments: tuple[Any, ...] = descriptor.fget, descriptor.fset, descriptor.fdel, descriptor.__doc__
    else:
        arguments = (descriptor.__func__,)
    state: Any = object.__getstate__(descriptor)
    fills: list[Fill] = []
    if base is property or isinstance(state, tuple):
        fills = [(set_state, state)] if state else []
    elif (state or {}) != _taken_over(descriptor.__func__):
        fills = [(replace_state, state or {})]
    return Definition(make_descriptor, (kind, base, arguments), [], fills)


def _is_global(method: Any) -> bool:
    """Return whether a class method or static method is an attribute of an installed module, as in :mod:`typing`."""
    function = getattr(method, "__func__", None)
    module, name = getattr(function, "__module__", None) or "", getattr(function, "__name__", None) or ""
    return module in sys.modules and vars(sys.modules[module]).get(name) is method and not travels(module)


def _taken_over(function: Any) -> dict[str, Any] | None:
    """Return what a method takes over from its function when it is made, where that is not filled yet."""
    if type(function) is not types.FunctionType:
        return None
    made = made_function(function.__code__, function.__globals__.get("__name__"))
    return {name: made[name] for name in made if name not in {"__defaults__", "__kwdefaults__"}}


def _cached_property(cached: functools.cached_property[Any]) -> Any:
    return make_cached_property, (cached.func, cached.attrname)


def _goes_by_name(obj: Any) -> bool:
    """Return whether an installed module has an object under its name."""
    module = sys.modules.get(obj.__module__ or "")
    return module is not None and not travels(module.__name__) and vars(module).get(obj.__name__) is obj


def _new_type(kind: typing.NewType) -> Any:
    if _goes_by_name(kind):
        return NotImplemented
    return make_named_type, (typing.NewType, kind.__name__, kind.__module__, {"tp": kind.__supertype__})


def _type_variable(variable: Any) -> Any:
    if _goes_by_name(variable):
        return NotImplemented
    options = {name: getattr(variable, f"__{name}__", None) for name in _OPTIONS_OF_VARIABLES}
    options = {name: value for name, value in options.items() if value}
    if getattr(variable, "has_default", bool)():  # Python 3.13
        options["default"] = variable.__default__
    tracker_id = cloudpickle_internals.tracker_id(variable)
    constraints = getattr(variable, "__constraints__", ())
    arguments = tracker_id, type(variable), variable.__name__, variable.__module__, constraints, options
    return make_type_variable, arguments


def _type_alias(alias: Any) -> Definition | Any:
    if _goes_by_name(alias):
        return NotImplemented
    if alias.__type_params__:
        options = {"value": alias.__value__, "type_params": alias.__type_params__}
        return make_named_type, (type(alias), alias.__name__, None, options)
    return Definition(make_type_alias, (alias.__name__, alias.__module__), [], [(set_type_alias, alias.__value__)])


def _weak_dictionary(dictionary: Any) -> Any:
    return type(dictionary), (dict(dictionary),)


def _sentinel(value: object) -> tuple[Any, ...]:
    """Reduce a mark to that of its module; in classes that cloudpickle, and so joblib, has loaded there are copies."""
    return module_global, (dataclasses.__name__, SENTINELS[type(value)])


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


NAMED: Final = (typing.NewType, typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple)
"""The types of objects that an import may find by their own ``__module__`` and ``__name__``."""

REDUCERS: Final[dict[type, Callable[[Any], Any]]] = {
    functools.cached_property: _cached_property,
    typing.NewType: _new_type,
    types.CodeType: cloudpickle_internals.code_by_value,
    typing.TypeVar: _type_variable,
    types.MappingProxyType: _read_only_view,
    typing.ParamSpec: _type_variable,
    typing.TypeVarTuple: _type_variable,
    weakref.WeakKeyDictionary: _weak_dictionary,
    weakref.WeakValueDictionary: _weak_dictionary,
    type(typing.List[int]): _generic_alias,  # noqa: UP006 -- list[int] is of another type
    **dict.fromkeys(SENTINELS, _sentinel),
}

DEFINITIONS: Final[dict[type, Callable[[Any], Definition | Any]]] = {
    type(functools.lru_cache(len)): _cached_function,
    **dict.fromkeys(DESCRIPTORS, descriptor_by_value),
    **({_TypeAliasType: _type_alias} if _TypeAliasType is not None else {}),
}
