"""Classes as streams hold them: what each of them has itself, attribute by attribute.

Loading puts that into an empty class (:mod:`jobcontainer.pickling.class_builder`), so that nothing which ran when the
notebook made the class runs again: neither its body nor decorators, metaclass, ``__init_subclass__`` or
``__set_name__``. What those have left on the class, and on others, is what travels.
"""

from __future__ import annotations

import enum
import operator
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling import cloudpickle_internals, cpython_internals
from jobcontainer.pickling.annotation_names import named_in_annotations
from jobcontainer.pickling.class_builder import (
    all_parts,
    compute_mro,
    define_names,
    enum_member,
    make_class,
    make_parametrized,
    register_virtual_subclasses,
    remove_attributes,
    restore_registrations,
    set_class,
    set_enum_members,
    set_slots,
    type_method,
)
from jobcontainer.pickling.class_registries import origin_and_arguments, registrations_of
from jobcontainer.pickling.definitions import Definition, code_and_data
from jobcontainer.pickling.module_origin import MAIN, travels
from jobcontainer.pickling.namespaces import global_of

if TYPE_CHECKING:
    from jobcontainer.pickling.definitions import Fill

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: it was made while the interpreter ran
_CACHES: Final = frozenset({"_abc_impl", "__slotnames__"})

# Attributes of these names can't be set later: what is set then is the class itself.
_MADE_WITH: Final = {"__module__", "__doc__"} | {
    name
    for name, value in {**vars(object), **vars(type)}.items()
    if isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType))
    and name not in {"__annotations__", "__abstractmethods__", "__type_params__"}
}

Attributes = dict[str, Any]


def class_attributes(cls: type) -> Attributes:
    """Return the attributes of a class's own that travel, in their order."""
    return {name: value for name, value in vars(cls).items() if name not in _CACHES and not _is_made_with(cls, value)}


def class_travels(cls: type) -> bool:
    """Return whether a class goes into the stream instead of its name."""
    return travels(cls.__module__) or not cloudpickle_internals.goes_by_name(cls)


def parametrized_by_name(cls: type) -> tuple[Any, ...] | None:
    """Reduce a class that is made of a generic one and its arguments to these; None where one of all these travels."""
    made_of = origin_and_arguments(cls)
    if made_of is None or travels(cls.__module__):
        return None
    if any(isinstance(part, type) and class_travels(part) for part in all_parts(made_of)):
        return None
    return operator.getitem, made_of


def class_by_value(cls: type) -> Definition:
    """Describe a class.

    Raises:
        pickle.PicklingError: it can't be made again as it is; the message says why.
    """
    _check(cls)
    attributes = class_attributes(cls)
    slots = {
        name: value.__name__
        for name, value in attributes.items()
        if type(value) is types.MemberDescriptorType and value.__objclass__ is cls
    }
    namespace, later = _namespace(cls, attributes, slots)
    own = {n: value for n, value in attributes.items() if n not in slots and namespace.get(n, cls) is not value}
    code, data = code_and_data(own)
    members = _members(cls)
    made_of = (
        cloudpickle_internals.tracker_id(cls),
        type(cls) if type(cls) is not type else None,
        cls.__name__,
        cls.__bases__ if cls.__bases__ != (object,) else (),
        (namespace, later),
        {key: _new_arguments(member) for key, member in members.items()},
    )
    code_fills: list[Fill] = [(set_class, code)]
    if namespace.get("__slots__"):
        code_fills.insert(0, (set_slots, slots))
    absent = [name for name in ("__module__", "__hash__") if name not in attributes]
    if absent and ("__module__" in absent or "__eq__" in attributes):  # type.__new__ adds them then
        code_fills.append((remove_attributes, absent))
    states = list(map(object.__getstate__, members.values()))
    data_fills: list[Fill] = [(set_enum_members, states)] if states else []
    if type(cls).mro is not type.mro:
        data_fills.append((compute_mro, None))
    if data:
        data_fills.append((set_class, data))
    fills = _with_environment(cls, code_fills, data_fills)
    parametrized = origin_and_arguments(cls)
    if parametrized is not None:
        return Definition(make_parametrized, (*parametrized, *made_of), *fills)
    return Definition(make_class, made_of, *fills)


def _with_environment(cls: type, code: list[Fill], data: list[Fill]) -> tuple[list[Fill], list[Fill]]:
    """Add what a class has left elsewhere: virtual subclasses, entries in registries, globals."""
    if virtual := cpython_internals.virtual_subclasses(cls):
        data.append((register_virtual_subclasses, virtual))
    if registrations := registrations_of(cls):
        data.append((restore_registrations, registrations))
    for fills, names in zip((code, data), code_and_data(_names(cls)), strict=True):
        if names:
            fills.append((define_names, names))
    return code, data


def member_by_value(member: enum.Enum) -> tuple[Any, ...]:
    """Reduce a member of an enum to the enum and what finds the member there."""
    return enum_member, (type(member), _key(member))


def _is_made_with(cls: type, value: object) -> bool:
    """Return whether an attribute gives access to ``__dict__`` or ``__weakref__`` of the instances of a class."""
    return type(value) is types.GetSetDescriptorType and value.__objclass__ is cls


def _check(cls: type) -> None:
    if not cls.__flags__ & _HEAP_TYPE:
        raise pickle.PicklingError(f"the built-in type {cls.__qualname__} has no name that it could be imported by")
    metaclass = type(cls)
    if metaclass is not type and any(
        type_method(metaclass, name) is not getattr(type, name) for name in ("__new__", "__init__")
    ):
        raise pickle.PicklingError(
            f"{metaclass.__module__}.{metaclass.__qualname__} makes classes by code in C, so {cls.__name__} can't be "
            "made again from its parts: put it into a module beside the notebook"
        )


def _namespace(cls: type, attributes: Attributes, slots: dict[str, str]) -> tuple[Attributes, list[str]]:
    """Return what a class is made with, as it can't be added later, and other names that it has, in their order."""
    namespace: Attributes = {"__qualname__": cls.__qualname__}
    namespace |= {name: value for name, value in attributes.items() if name in _MADE_WITH}
    slot_names = _slot_names(cls, attributes, slots)
    if slot_names is not None:
        namespace["__slots__"] = slot_names
    taken = {*slots, *(_mangled(cls, name) for name in slot_names or ())}
    later = [name for name in attributes if name not in taken and not name.startswith("__") and name != "mro"]
    return namespace, later


def _slot_names(cls: type, attributes: Attributes, slots: dict[str, str]) -> tuple[str, ...] | None:
    """Return the slots that a class was made with; None if it was made without."""
    declared = attributes.get("__slots__")
    if declared is None:
        return None
    names = (declared,) if isinstance(declared, str) else tuple(declared)
    layout = {name for name in ("__dict__", "__weakref__") if _is_made_with(cls, vars(cls).get(name))}
    if not layout <= set(names):  # it was set when the class was there already, and has no effect
        return None
    return names or tuple(slots.values())


def _mangled(cls: type, name: str) -> str:
    """Return what a name in the body of a class becomes."""
    private = name.startswith("__") and not name.endswith("__")
    return f"_{cls.__name__.lstrip('_')}{name}" if private else name


def _members(cls: type) -> dict[Any, enum.Enum]:
    """Return the members of an enum that its class keeps, those of combined flags included, by their keys."""
    if not issubclass(cls, enum.Enum):
        return {}
    return {_key(member): member for member in cpython_internals.enum_members(cls) if type(member) is cls}


def _key(member: enum.Enum) -> str | tuple[Any]:
    """Return what finds a member: its name, or else its value as a tuple of one."""
    found = type(member).__members__.get(member._name_)
    return member._name_ if found is member else (member._value_,)


def _new_arguments(member: enum.Enum) -> tuple[Any, ...]:
    """Return what a member is made from by the built-in type that it extends."""
    base = next(cls for cls in type(member).__mro__ if type(vars(cls).get("__new__")) is types.BuiltinFunctionType)
    if base is object:
        return ()
    own = vars(base)
    if "__getnewargs__" in own:
        return tuple(own["__getnewargs__"](member))
    if "__reduce__" in own:
        reduced = own["__reduce__"](member)
        if reduced[0] is type(member) and not any(reduced[3:]):
            return tuple(reduced[1])
    raise pickle.PicklingError(
        f"members of {type(member).__qualname__} are {base.__qualname__} objects, which can't be made again as they are"
    )


def _names(cls: type) -> Attributes:
    """Return the globals that belong to a class: what its annotations name, and the class itself if it is one."""
    module = sys.modules.get(cls.__module__)
    if module is None or cls.__module__ not in MAIN:
        return {}
    found = vars(module)
    annotated = named_in_annotations(vars(cls).get("__annotations__"))
    return {name: found[name] for name in annotated if name in found} | global_of(cls)
