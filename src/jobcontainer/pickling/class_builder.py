"""Classes from streams: made empty, without any of the hooks that Python runs for a new class, and then filled.

``type.__new__`` is called directly, whatever the metaclass's own does. When the class is there, it calls first
``__set_name__`` of what is in the namespace, and then ``__init_subclass__`` of the base, in this documented order. So
the namespace has one object whose ``__set_name__`` keeps the class and raises. Attributes are set by
``type.__setattr__``, which calls no ``__set_name__``.
"""

from __future__ import annotations

import contextlib
import functools
import types
from typing import TYPE_CHECKING, Any, Final, NoReturn

from jobcontainer.pickling import class_registries, cpython_internals
from jobcontainer.pickling.reducers import set_state
from jobcontainer.pickling.unpickler import add_globals, loading

if TYPE_CHECKING:
    import abc
    import enum
    from collections.abc import Callable, Iterator

_STOP: Final = "stop here"


class _StoppedError(Exception):
    """The class is made."""


class _Stop:
    """Ends ``type.__new__`` when the class is made."""

    cls: type

    def __set_name__(self, cls: type, name: str) -> None:
        """Keep the class, and raise."""
        self.cls = cls
        raise _StoppedError


class _NotLoaded:
    """Stands for an attribute until it is set."""

    def __get__(self, _: object, cls: type) -> NoReturn:
        """Raise."""
        raise AttributeError(
            f"an attribute of {cls.__qualname__} is not loaded yet, and what is in it can't be made without it: "
            "fill it inside run()"
        )


_not_loaded: Final = _NotLoaded()


def make_class(
    tracker_id: str,
    metaclass: type | None,
    name: str,
    bases: tuple[type, ...],
    body: tuple[dict[str, Any], list[str]],
    members: dict[Any, tuple[Any, ...]],
) -> type:
    """Find the live class, or make an empty one that the other functions here fill; streams call this.

    Args:
        tracker_id: its id in cloudpickle's tracker.
        metaclass: its type; None for ``type``.
        name: its name.
        bases: its bases; none for ``object``.
        body: what it must have from the beginning, and names of attributes that follow, in their order.
        members: for an enum, what each member is made from.
    """
    live = loading.live_class(tracker_id)
    if live is not None:
        return live
    given, later = body
    cls = _empty_class(metaclass or type, name, bases, given | dict.fromkeys(later, _not_loaded))
    cpython_internals.prepare_abstract(cls)
    loading.add(tracker_id, cls)
    if members:
        loading.members[id(cls)] = {key: _empty_member(cls, key, arguments) for key, arguments in members.items()}
    return cls


def make_parametrized(origin: Any, arguments: tuple[Any, ...], *made_of: Any) -> type:
    """Find the class that is made of a generic one and its arguments, or make an empty one; streams call this.

    Args:
        origin: the generic class.
        arguments: what it is given.
        made_of: what :func:`make_class` takes, for a job, or if a class among these is not filled yet.
    """
    live = loading.live_class(made_of[0])
    if live is not None:
        return live
    if not loading.anew and not any(id(part) in loading.built for part in all_parts((origin, arguments))):
        with contextlib.suppress(Exception):  # code of a library
            return origin[arguments]  # type: ignore[no-any-return]
    return make_class(*made_of)


def all_parts(arguments: tuple[Any, ...]) -> Iterator[Any]:
    """Yield the arguments of a generic class, and those of generic ones among them, as of ``list[int]``."""
    for argument in arguments:
        yield argument
        inner = argument if isinstance(argument, tuple) else getattr(argument, "__args__", ())
        if isinstance(inner, tuple):
            yield from all_parts(inner)


def _empty_class(metaclass: type, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
    stop = _Stop()
    # Python 3.11 raises a RuntimeError from what __set_name__ has raised
    with contextlib.suppress(_StoppedError, RuntimeError):
        type.__new__(metaclass, name, bases, {**namespace, _STOP: stop})
    cls = stop.cls
    type.__delattr__(cls, _STOP)
    return cls


def _empty_member(cls: type, key: Any, arguments: tuple[Any, ...]) -> enum.Enum:
    member: enum.Enum = type_method(cls, "__new__")(cls, *arguments)
    if isinstance(key, str):
        object.__setattr__(member, "_name_", key)  # its hash
    return member


def type_method(cls: type, name: str) -> Any:
    """Return the method that the nearest built-in type among the bases of a class defines."""
    methods = (vars(base).get(name) for base in cls.__mro__)
    return next(
        method for method in methods if type(method) in {types.BuiltinFunctionType, types.WrapperDescriptorType}
    )


def enum_member(cls: Any, key: Any) -> Any:
    """Find a member of an enum; streams call this.

    Args:
        cls: the enum.
        key: its name, or its value as a tuple of one.
    """
    made = loading.members.get(id(cls), {})
    if key in made:
        return made[key]
    return cls.__members__[key] if isinstance(key, str) else cls(*key)


def method_function(owner: type, name: str) -> Any:
    """Return the function of a class method or static method of an installed class; streams call this."""
    return vars(owner)[name].__func__


def _for_built(put: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Let a function change only classes that this load has made."""

    @functools.wraps(put)
    def put_if_built(cls: Any, part: Any) -> None:
        if id(cls) in loading.built:
            put(cls, part)

    return put_if_built


@_for_built
def set_class(cls: type, attributes: dict[str, Any]) -> None:
    """Set attributes of a class; streams call this."""
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
        if isinstance(value, property):
            property.__set_name__(value, cls, name)  # type: ignore[attr-defined]  # by which its errors call it


@_for_built
def set_slots(cls: type, slots: dict[str, str]) -> None:
    """Keep the slots of a class under the names that they have; streams call this.

    Args:
        cls: the class.
        slots: what each slot was when the class was made, by the name that it has now.
    """
    made = {
        name: value
        for name, value in vars(cls).items()
        if type(value) is types.MemberDescriptorType and value.__objclass__ is cls
    }
    for name in made.keys() - slots.keys():
        if vars(cls).get(name) is made[name]:
            type.__delattr__(cls, name)
    for name, original in slots.items():
        if name != original:
            type.__setattr__(cls, name, made[original])


@_for_built
def remove_attributes(cls: type, names: list[str]) -> None:
    """Remove attributes that a class does not have, and that it was given when it was made; streams call this."""
    for name in names:
        if name in vars(cls):
            type.__delattr__(cls, name)


@_for_built
def compute_mro(cls: type, _: None) -> None:
    """Let a metaclass that decides about the order of bases do so, now that it is filled; streams call this."""
    cls.__bases__ = cls.__bases__


@_for_built
def set_enum_members(cls: type, states: list[Any]) -> None:
    """Give the members of an enum their attributes; streams call this."""
    for member, state in zip(loading.members[id(cls)].values(), states, strict=True):
        vars(member).clear()  # for the order of what it has
        set_state(member, state)


@_for_built
def register_virtual_subclasses(cls: abc.ABCMeta, virtual: list[type]) -> None:
    """Register the virtual subclasses of an abstract class; streams call this."""
    cpython_internals.register_virtual(cls, virtual)


@_for_built
def restore_registrations(cls: type, registrations: list[class_registries.Registration]) -> None:
    """Enter a class into the registries of installed code; streams call this."""
    for registration in registrations:
        class_registries.restore(cls, registration)


@_for_built
def define_names(_cls: type, names: dict[str, Any]) -> None:
    """Define globals of the notebook; streams call this."""
    add_globals(loading.main, names)
