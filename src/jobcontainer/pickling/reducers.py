"""What notebooks often hold and neither pickle nor cloudpickle can carry into another process.

Some fail: a ``cached_property`` holds a lock (Python 3.11), a weak dictionary a weak reference. Others go by name, and
the name is not there in the job: a cached function, a ``NewType``, a ``ParamSpec`` of the notebook. Code may lose the
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


def made_cached_function(maxsize: int | None, typed: bool) -> Any:  # noqa: ANN401, FBT001 -- functools' own words
    """Make a cached function that calls what :func:`set_cached_function` gives it; streams call this.

    It is made before its function is there, as the function may well call it by its global name.
    """

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return cached.__wrapped__(*args, **kwargs)

    cached = functools.lru_cache(maxsize, typed)(call)
    return cached


def set_cached_function(cached: Any, function: Callable[..., Any]) -> None:  # noqa: ANN401
    """Give a cached function what it caches; streams call this."""
    functools.update_wrapper(cached, function)


def made_cached_property(function: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    """Make a cached property under the name it had; streams call this."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def made_type_variables(kind: type, name: str, module: str, options: dict[str, Any]) -> Any:  # noqa: ANN401
    """Make a ``NewType``, ``ParamSpec`` or their like; streams call this."""
    made = kind(name, **options)
    made.__module__ = module
    return made


def _cached_function(cached: Any) -> Any:  # noqa: ANN401 -- a reduce value
    if not travels(cached.__module__):
        return NotImplemented
    options = cached.cache_parameters()
    made = made_cached_function, (options["maxsize"], options["typed"])
    return *made, cached.__wrapped__, None, None, set_cached_function


def _cached_property(cached: functools.cached_property[Any]) -> Any:  # noqa: ANN401 -- a reduce value
    return made_cached_property, (cached.func, cached.attrname)


def _new_type(kind: typing.NewType) -> Any:  # noqa: ANN401 -- a reduce value
    if not travels(kind.__module__):
        return NotImplemented
    return made_type_variables, (typing.NewType, kind.__name__, kind.__module__, {"tp": kind.__supertype__})


def _parameters(spec: Any) -> Any:  # noqa: ANN401 -- a reduce value
    if not travels(spec.__module__):
        return NotImplemented
    return made_type_variables, (type(spec), spec.__name__, spec.__module__, {})


def _weak_dictionary(dictionary: Any) -> Any:  # noqa: ANN401 -- a reduce value
    return type(dictionary), (dict(dictionary),)


REDUCERS: Final[dict[type, Callable[[Any], Any]]] = {
    type(functools.lru_cache(len)): _cached_function,
    functools.cached_property: _cached_property,
    typing.NewType: _new_type,
    types.CodeType: cloudpickle_internals.code_by_value,
    typing.ParamSpec: _parameters,
    typing.TypeVarTuple: _parameters,
    weakref.WeakKeyDictionary: _weak_dictionary,
    weakref.WeakValueDictionary: _weak_dictionary,
}
