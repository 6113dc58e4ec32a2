"""Objects to pickle streams: the notebook's code by value, that of modules by name.

What differs from cloudpickle, on whose pickler this one is built:

- What the notebook defines arrives in the ``__main__`` of the job, under its name.
- Classes are described attribute by attribute, and no hook runs when they are loaded
  (:mod:`jobcontainer.pickling.class_reducer`). Loading never changes a class of the process.
- All classes and functions that belong together are made before any of them is filled
  (:mod:`jobcontainer.pickling.definitions`).
- Functions that share a variable of their closure, or their globals, still share them in the job.
- What notebooks often hold and cloudpickle can't carry, or carries by a name that does not exist in the job, is
  carried: cached functions and properties, weak dictionaries, ``NewType`` and similar
  (:mod:`jobcontainer.pickling.reducers`).
"""

from __future__ import annotations

import enum
import functools
import pickle
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling import MOST_BUFFERS, class_builder, cloudpickle_internals, definitions, reducers, unpickler
from jobcontainer.pickling.annotation_names import named_in_annotations
from jobcontainer.pickling.class_builder import method_function
from jobcontainer.pickling.class_reducer import class_by_value, member_by_value
from jobcontainer.pickling.code_references import imported_by, mentions, named_in_classes, submodules_named
from jobcontainer.pickling.definitions import Definition, Definitions, Scope, Step, call_after, code_and_data
from jobcontainer.pickling.module_origin import MAIN, travels
from jobcontainer.pickling.namespaces import BOUND_TO_MODULES, global_of, globals_bound_to_modules, namespace_of
from jobcontainer.pickling.reducers import DEFINITIONS, REDUCERS, descriptor_by_value
from jobcontainer.pickling.unpickler import module_global, set_function

if TYPE_CHECKING:
    from jobcontainer.pickling.cloudpickle_internals import FunctionParts
    from jobcontainer.pickling.namespaces import Namespace
    from jobcontainer.pickling.unpickler import FunctionPart

_OUT_OF_BAND_FROM: Final = 64 * 2**10

_NAMED: Final = (
    types.BuiltinFunctionType,
    type(functools.lru_cache(len)),
    typing.NewType,
    typing.TypeVar,
    typing.ParamSpec,
    typing.TypeVarTuple,
)
"""The types of objects that pickle finds by their own ``__module__``, and not only by that of their class."""

_MACHINERY: Final = cloudpickle_internals.MACHINERY | {
    value
    for module in (class_builder, definitions, reducers, unpickler)
    for value in vars(module).values()
    if type(value) is types.FunctionType
}


class Pickler(cloudpickle_internals.BasePickler):
    """Pickles one object and records what the stream needs.

    Args:
        file: anything with ``write()``.

    Attributes:
        buffers: what goes beside the stream, as flat bytes.
        by_value: whether there is code in the stream.
        modules: names of the modules that the stream, or code in it, imports.
        unimported: names that code in it imports, and this process has not: modules, or what a module has.
        files: names of the files that code in the stream is from, in order.
        classes: whose definition is in the stream.
    """

    def __init__(self, file: Any) -> None:
        self.buffers: list[memoryview] = []
        super().__init__(file, protocol=5, buffer_callback=functools.partial(_stays_in_stream, self.buffers))
        self.by_value = False
        self.modules: set[str] = set()
        self.unimported: set[str] = set()
        self.files: dict[str, None] = {}
        self.classes: list[type] = []
        self._cells: dict[int, _Cell] = {}
        self._definitions = Definitions(self._subclasses)
        self._subclasses_are_asked_for = False

    def reducer_override(self, obj: Any) -> Any:
        """Decide for classes, functions and modules whether they go by name or by value."""
        kind = type(obj)
        if kind is types.FunctionType:
            return self._function(obj)
        if issubclass(kind, type):
            return self._class(obj)
        if kind is Step:
            return definitions.fill, (obj.parts,)
        if kind is Scope:
            return list, (), None, obj.steps()
        if issubclass(kind, types.ModuleType):
            return self._module(obj)
        if kind in _NAMED and isinstance(obj.__module__, str):
            self.modules.add(obj.__module__)
        if kind in BOUND_TO_MODULES and (place := self._bound_globals.get(id(obj))) is not None:
            self.modules.add(place[0])
            return module_global, place
        if kind in DEFINITIONS:
            return self._defined(obj, DEFINITIONS[kind](obj))
        if kind in REDUCERS:
            return REDUCERS[kind](obj)
        return self._instance(obj, kind)

    @functools.cached_property
    def _bound_globals(self) -> dict[int, tuple[str, str]]:
        return globals_bound_to_modules()

    def define(self, obj: object, definition: Definition) -> tuple[Any, ...]:
        """Reduce a definition to what makes it; what fills it follows when all are made that belong to it."""
        return self._definitions.reduced(obj, definition)

    def _defined(self, obj: object, reduced: Any) -> Any:
        return self.define(obj, reduced) if isinstance(reduced, Definition) else reduced

    def _instance(self, obj: Any, kind: type) -> Any:
        if issubclass(kind, (property, classmethod, staticmethod)):
            return self._defined(obj, descriptor_by_value(obj))
        reduced: Any = NotImplemented
        if issubclass(kind, enum.Enum) and self._class_travels(kind):
            reduced = member_by_value(obj)
        needed = self._definitions.needed_by(obj)
        if not needed:
            return reduced
        if reduced is NotImplemented:
            special = self.dispatch_table.get(kind)
            reduced = special(obj) if special is not None else obj.__reduce_ex__(self.proto)
        if isinstance(reduced, str):
            return reduced
        return call_after, (needed, *reduced[:2]), *reduced[2:]

    def _function(self, function: types.FunctionType) -> Any:
        if function in _MACHINERY:
            return NotImplemented
        if not travels(function.__module__) and cloudpickle_internals.goes_by_name(function):
            self.modules.add(function.__module__)
            return NotImplemented
        owner = _owner_of(function)
        if owner is not None:
            return method_function, (owner, function.__name__)
        self.by_value = True
        self.files[function.__code__.co_filename] = None
        home = namespace_of(function)
        if home is not None:
            self.replace_namespace(function.__globals__, home)
        # It is made with its cells empty, as what is in them may be the function itself.
        cells = tuple(self._cells.setdefault(id(cell), _Cell(cell)) for cell in function.__closure__ or ())
        make, arguments, parts = self.function_by_value(function, cells)
        self._add_references(function, parts, home)
        contents = {position: cell.content for position, cell in enumerate(cells) if cell.is_filled}
        names, other_names = code_and_data(parts.globals)
        own, other = code_and_data(contents)
        members, other_members = code_and_data(parts.given_members(function))
        data: FunctionPart = other_names, other, other_members, parts.attributes, []
        return self.define(
            function,
            Definition(
                make,
                arguments,
                [(set_function, (names, own, members, {}, parts.submodules))],
                [(set_function, data)] if any(data) else [],
            ),
        )

    def _add_references(self, function: types.FunctionType, parts: FunctionParts, home: Namespace | None) -> None:
        """Add what a function refers to, and cloudpickle does not see."""
        names = parts.globals
        if home is not None and home.is_imported:
            names.clear()
            self.modules.add(home.name)
        else:
            names.update(named_in_classes(function))
            annotated = named_in_annotations(function.__annotations__)
            names.update((name, function.__globals__[name]) for name in annotated if name in function.__globals__)
            if "." not in function.__qualname__:  # a method goes with its class
                names.update(global_of(function))
            self._subclasses_are_asked_for |= mentions(function, "__subclasses__")
        parts.submodules.extend(submodules_named(function, names.values()))
        for name in imported_by(function):
            (self.modules if name in sys.modules else self.unimported).add(name)

    def _class(self, cls: type) -> Any:
        reduced = cloudpickle_internals.class_by_name(cls)
        if reduced is not None:
            return reduced
        if not self._class_travels(cls):
            self.modules.add(cls.__module__)
            return NotImplemented
        definition = class_by_value(cls)
        self.by_value = True
        self.classes.append(cls)
        return self.define(cls, definition)

    def _class_travels(self, cls: type) -> bool:
        return travels(cls.__module__) or not cloudpickle_internals.goes_by_name(cls)

    def _subclasses(self) -> list[type]:
        """Return subclasses of what is in the stream that are not, if code in it asks for ``__subclasses__()``.

        These are the ones that the notebook has under their name; others may be left from an earlier run of a cell.
        """
        if not self._subclasses_are_asked_for:
            return []
        known, main = set(map(id, self.classes)), vars(sys.modules["__main__"])
        subclasses = [subclass for cls in self.classes for subclass in type.__subclasses__(cls)]
        return [cls for cls in subclasses if id(cls) not in known and main.get(cls.__name__) is cls]

    def _module(self, module: types.ModuleType) -> Any:
        name = module.__name__
        if name not in sys.modules or (travels(name) and name not in MAIN):
            raise pickle.PicklingError(f"the module {name} can't be imported in a job")
        self.modules.add(name)
        return cloudpickle_internals.IMPORT_MODULE, (name,)


def _owner_of(function: types.FunctionType) -> type | None:
    """Return the installed class that has a function as its class method or static method; None if there is none."""
    if travels(function.__module__) or "." not in function.__qualname__:
        return None
    owner: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split(".")[:-1]:
        owner = getattr(owner, name, None)
    method = vars(owner).get(function.__name__) if isinstance(owner, type) else None
    return owner if getattr(method, "__func__", None) is function else None


class _Cell:
    """Stands for a cell of a closure while functions that have it are pickled."""

    def __init__(self, cell: types.CellType) -> None:
        self._cell = cell

    def __reduce__(self) -> tuple[Any, ...]:
        return cloudpickle_internals.MAKE_EMPTY_CELL, ()

    @property
    def is_filled(self) -> bool:
        """Whether there is something in the cell."""
        try:
            self._cell.cell_contents  # noqa: B018 -- it raises for an empty one
        except ValueError:
            return False
        return True

    @property
    def content(self) -> Any:
        """What is in the cell."""
        return self._cell.cell_contents


def _stays_in_stream(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    try:
        view = buffer.raw()
    except BufferError:  # pickle raises the error for it
        return True
    if len(view) < _OUT_OF_BAND_FROM or len(buffers) >= MOST_BUFFERS:
        return True
    buffers.append(view)
    return False


class NullFile:
    """A file that discards what is written.

    Attributes:
        size: how many bytes that was.
    """

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Count bytes and discard them."""
        size = memoryview(data).nbytes
        self.size += size
        return size
