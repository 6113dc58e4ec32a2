"""Where installed code has entered a class when the notebook made it, by ``__init_subclass__`` or a metaclass.

A base class of the notebook carries its own registry. That of an installed one stays where it is, in the base or its
module, and in a job it would lack the notebook's class, as no hook runs there again. So the entry is found here, and
made again by loading. The same holds for abstract classes of the standard library that a class is registered with, and
for what a library makes once of a generic class and its arguments, as pydantic makes ``Page[int]``.
"""

from __future__ import annotations

import abc
import collections.abc
import contextlib
import functools
import numbers
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobcontainer.pickling import cpython_internals
from jobcontainer.pickling.definitions import is_code
from jobcontainer.pickling.module_origin import travels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_SEQUENCES: Final = (list, set, weakref.WeakSet)
_MAPPINGS: Final = (dict, weakref.WeakValueDictionary, weakref.WeakKeyDictionary)


_VIRTUAL: Final = "register"
_ABSTRACT: Final = tuple(
    {
        value
        for module in (collections.abc, numbers, contextlib, os)
        for value in vars(module).values()
        if isinstance(value, abc.ABCMeta)
    }
)


class Registration(NamedTuple):
    """A class as an entry of a registry.

    Attributes:
        owner: the installed class or module that has the registry.
        attribute: the name of the registry there, or of the method that enters a class.
        pairs: keys and values, for a mapping; the class is one of both.
    """

    owner: type | ModuleType
    attribute: str
    pairs: list[tuple[Any, Any]]


def registrations_of(cls: type) -> list[Registration]:
    """Find the registries of installed code that a class is in."""
    return [Registration(abstract, _VIRTUAL, []) for abstract in _registered_with(cls)] + [
        registration
        for owner in _owners(cls)
        for name, registry in list(vars(owner).items())
        if (registration := _registration(cls, owner, name, registry)) is not None
    ]


def origin_and_arguments(cls: type) -> tuple[Any, tuple[Any, ...]] | None:
    """Return the generic class and the arguments that a class was made of; None for one that was not made so.

    Pydantic says it of its models. A class of :mod:`typing`'s kind, as ``Box[int]``, is no class but an alias.
    """
    made_of = vars(cls).get("__pydantic_generic_metadata__")
    if not isinstance(made_of, dict) or not isinstance(made_of.get("origin"), type):
        return None
    arguments = made_of.get("args")
    return (made_of["origin"], arguments) if isinstance(arguments, tuple) and arguments else None


def _registered_with(cls: type) -> list[abc.ABCMeta]:
    """Return the abstract classes of the standard library that a class was registered with."""
    if id(cls) not in _registered(abc.get_cache_token()):
        return []
    return [base for base in _ABSTRACT if any(found is cls for found in cpython_internals.virtual_subclasses(base))]


@functools.lru_cache(maxsize=1)
def _registered(_token: object) -> frozenset[int]:
    """Return the ``id()`` of each class that is registered; what the token is changes with each that is."""
    return frozenset(id(cls) for base in _ABSTRACT for cls in cpython_internals.virtual_subclasses(base))


def restore(cls: type, registration: Registration) -> None:
    """Enter a class into a registry, if it is not in it."""
    if registration.attribute == _VIRTUAL:
        cpython_internals.register_virtual(registration.owner, [cls])  # type: ignore[arg-type]  # it is one
        return
    registry: Any = vars(registration.owner).get(registration.attribute)
    if isinstance(registry, _MAPPINGS):
        for key, value in registration.pairs:
            registry.setdefault(key, value)
    elif isinstance(registry, list) and not any(entry is cls for entry in registry):
        registry.append(cls)
    elif isinstance(registry, (set, weakref.WeakSet)):
        registry.add(cls)


def _owners(cls: type) -> Iterator[type | ModuleType]:
    """Yield the installed classes that have a hook for new classes, and the modules that define them.

    What is made of a generic class and its arguments may be kept by any module of the package.
    """
    hooked = [base for base in cls.__mro__[1:-1] if "__init_subclass__" in vars(base)]
    if type(cls) is not type:
        hooked += [base for base in type.mro(type(cls)) if not vars(base).keys().isdisjoint(("__new__", "__init__"))]
    modules = {}
    for base in hooked:
        name = base.__module__
        if name.partition(".")[0] not in sys.stdlib_module_names and not travels(name) and name in sys.modules:
            yield base
            modules[name] = sys.modules[name]
    if origin_and_arguments(cls) is not None:
        packages = tuple(name.partition(".")[0] + "." for name in modules)
        modules |= {name: found for name, found in list(sys.modules.items()) if name.startswith(packages)}
    yield from modules.values()


def _registration(cls: type, owner: type | ModuleType, name: str, registry: Any) -> Registration | None:
    if isinstance(registry, _MAPPINGS):
        found = [(key, value) for key, value in list(registry.items()) if key is cls or value is cls]
        if origin_and_arguments(cls) is None:
            found = [pair for pair in found if all(map(_is_plain, pair))]  # others are rather caches
        else:
            found = [(key, value) for key, value in found if value is cls]
        return Registration(owner, name, found) if found else None
    if isinstance(registry, _SEQUENCES) and any(entry is cls for entry in list(registry)):
        return Registration(owner, name, [])
    return None


def _is_plain(value: object) -> bool:
    return all(map(is_code, value)) if isinstance(value, tuple) else is_code(value)
