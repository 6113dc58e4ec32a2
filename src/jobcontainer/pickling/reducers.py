"""Reducers for objects of notebooks that neither pickle nor cloudpickle can carry into another process.

Some fail: a ``cached_property`` holds a lock (Python 3.11), a weak dictionary a weak reference. Others go by a name
that does not exist in the job: a cached function, a ``NewType``, a ``ParamSpec`` of the notebook. Code may lose the
name of its file.
"""

from __future__ import annotations

import functools
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling import cloudpickle_internals
from jobcontainer.pickling.module_origin import travels

if TYPE_CHECKING:
    from collections.abc import Callable


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


def set_cached_function(cached: Any, function: Callable[..., Any]) -> None:
    """Set the function that a cached function calls; streams call this."""
    functools.update_wrapper(cached, function)


def make_cached_property(function: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    """Make a cached property under the name it had; streams call this."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def make_named_type(kind: type, name: str, module: str, options: dict[str, Any]) -> Any:
    """Make a ``NewType``, ``ParamSpec`` or their like; streams call this."""
    made = kind(name, **options)
    made.__module__ = module
    return made


def _cached_function(cached: Any) -> Any:
    if not travels(cached.__module__):
        return NotImplemented
    return make_cached_function, (cached.cache_parameters(),), cached.__wrapped__, None, None, set_cached_function


def _cached_property(cached: functools.cached_property[Any]) -> Any:
    return make_cached_property, (cached.func, cached.attrname)


def _new_type(kind: typing.NewType) -> Any:
    if not travels(kind.__module__):
        return NotImplemented
    return make_named_type, (typing.NewType, kind.__name__, kind.__module__, {"tp": kind.__supertype__})


def _type_variable(variable: typing.TypeVar) -> Any:
    return cloudpickle_internals.type_variable(variable) if travels(variable.__module__) else NotImplemented


def _parameters(spec: Any) -> Any:
    if not travels(spec.__module__):
        return NotImplemented
    return make_named_type, (type(spec), spec.__name__, spec.__module__, {})


def _weak_dictionary(dictionary: Any) -> Any:
    return type(dictionary), (dict(dictionary),)


REDUCERS: Final[dict[type, Callable[[Any], Any]]] = {
    type(functools.lru_cache(len)): _cached_function,
    functools.cached_property: _cached_property,
    typing.NewType: _new_type,
    types.CodeType: cloudpickle_internals.code_by_value,
    typing.TypeVar: _type_variable,
    typing.ParamSpec: _parameters,
    typing.TypeVarTuple: _parameters,
    weakref.WeakKeyDictionary: _weak_dictionary,
    weakref.WeakValueDictionary: _weak_dictionary,
}
