"""Objects to pickle streams: code from the notebook, and from modules beside it, by value.

What differs from cloudpickle, on whose pickler this one is built:

- Modules that lie beside the notebook travel by value as ``__main__`` does. It is decided for each pickler, never
  through ``cloudpickle.register_pickle_by_value``, which other threads would see.
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
import itertools
import sys
import types
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jobcontainer.pickling import MOST_BUFFERS, class_builder, cloudpickle_internals, definitions, reducers, unpickler
from jobcontainer.pickling.annotation_names import named_in_annotations
from jobcontainer.pickling.class_builder import method_function
from jobcontainer.pickling.class_reducer import class_by_value, member_by_value
from jobcontainer.pickling.code_references import imported_by, mentions, named_in_classes, submodules_named
from jobcontainer.pickling.definitions import Definition, Definitions, Scope, Step, call_after, code_and_data
from jobcontainer.pickling.large_data import LARGE, reducer_for
from jobcontainer.pickling.local_modules import (
    NEW_WITH_MODULE,
    ImportedNamespace,
    Namespace,
    Unavailable,
    module_attributes,
    module_state,
    namespace_of,
)
from jobcontainer.pickling.module_origin import MAIN, travels
from jobcontainer.pickling.notebook_syntax import refuse_notebook_syntax
from jobcontainer.pickling.reducers import DEFINITIONS, DESCRIPTORS, REDUCERS, descriptor_by_value
from jobcontainer.pickling.standard_streams import is_stream_type, reduce_stream, standard_streams
from jobcontainer.pickling.unpickler import set_function, set_module, travelled_module

if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Iterator, Mapping

    from jobcontainer.pickling.cloudpickle_internals import FunctionParts
    from jobcontainer.pickling.definitions import Fill
    from jobcontainer.pickling.unpickler import FunctionPart

_MACHINERY: Final = cloudpickle_internals.MACHINERY | {
    value
    for module in (class_builder, definitions, reducers, unpickler)
    for value in vars(module).values()
    if type(value) is types.FunctionType
}


def _without_pickler(reduce: Callable[[Any], Any]) -> Callable[[Pickler, Any], Any]:
    return lambda _, obj: reduce(obj)


class Pickler(cloudpickle_internals.BasePickler):
    """Pickles one object and records what the stream needs.

    Args:
        file: anything with ``write()``.
        left_out: for each travelling module, by name, what of it can't travel, and its type.
        empty_modules: write travelling modules without their content.

    Attributes:
        buffers: what goes beside the stream, as flat bytes.
        by_value: whether there is code in the stream.
        modules: names of the modules that the stream, or code in it, imports.
        files: names of the files that code in the stream is from, in order.
        classes: whose definition is in the stream.
        travelling: the modules that are in the stream as a whole, by name.
    """

    def __init__(
        self,
        file: Any,
        left_out: Mapping[str, Mapping[str, str]] | None = None,
        *,
        empty_modules: bool = False,
    ) -> None:
        """Make a pickler that writes into a file."""
        self.buffers: list[memoryview] = []
        super().__init__(file, protocol=5, buffer_callback=functools.partial(_stays_in_stream, self.buffers))
        self.by_value = False
        self.modules: set[str] = set()
        self.files: dict[str, None] = {}
        self.classes: list[type] = []
        self.travelling: dict[str, types.ModuleType] = {}
        self._left_out = left_out or {}
        self._empty_modules = empty_modules
        self._new_with_module: dict[int, object] = {}
        self._cells: dict[int, _Cell] = {}
        self._streams = standard_streams()
        self._definitions = Definitions(self._subclasses)
        self._subclasses_are_asked_for = False
        self._reducers = dict(self._of_types)

    def reducer_override(self, obj: Any) -> Any:
        """Decide for classes, functions and modules whether they go by name or by value."""
        kind = type(obj)
        reduce = self._reducers.get(kind)
        if reduce is None:
            reduce = self._reducers[kind] = self._reducer_for(kind)
        return reduce(self, obj)

    def define(self, obj: object, definition: Definition) -> tuple[Any, ...]:
        """Reduce a definition to what makes it; what fills it follows when all are made that belong to it."""
        return self._definitions.reduced(obj, definition)

    def _instance(self, obj: Any) -> Any:
        """Leave an object to pickle, but for one whose class is not filled yet."""
        return self._after_needed(obj, NotImplemented) if self._definitions.waiting else NotImplemented

    def _large_data(self, obj: Any, bring_out: Callable[[Any], Any]) -> Any:
        reduced = bring_out(obj)
        return self._instance(obj) if reduced is NotImplemented else reduced

    def _stream(self, obj: Any) -> Any:
        return self._after_needed(obj, reduce_stream(obj, self._streams))

    def _member(self, member: enum.Enum) -> Any:
        return self._after_needed(member, member_by_value(member))

    def _after_needed(self, obj: Any, reduced: Any) -> Any:
        needed = self._definitions.needed_by(obj)
        if not needed:
            return reduced
        if reduced is NotImplemented:
            special = self.dispatch_table.get(type(obj))
            reduced = special(obj) if special is not None else obj.__reduce_ex__(self.proto)
        return reduced if isinstance(reduced, str) else (call_after, (needed, *reduced[:2]), *reduced[2:])

    def _function(self, function: types.FunctionType) -> Any:
        if function in _MACHINERY:
            return NotImplemented
        if not travels(function.__module__) and cloudpickle_internals.goes_by_name(function):
            self.modules.add(function.__module__)
            return NotImplemented
        owner = _owner_of(function)
        if owner is not None:
            return method_function, (owner, function.__name__)
        refuse_notebook_syntax(function)
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
        filled, others = code_and_data(contents)
        members, other_members = code_and_data(parts.given_members(function))
        code: FunctionPart = names, filled, members, {}, parts.submodules
        data: FunctionPart = other_names, others, other_members, parts.attributes, []
        fills: list[list[Fill]] = [[(set_function, part)] if any(part) else [] for part in (code, data)]
        return self.define(function, Definition(make, arguments, *fills))

    def _add_references(self, function: types.FunctionType, parts: FunctionParts, home: object) -> None:
        """Add what a function refers to, and cloudpickle does not see."""
        names = parts.globals
        if isinstance(home, ImportedNamespace):
            names.clear()
            self.modules.add(home.name)
        else:
            names.update(named_in_classes(function))
            annotated = named_in_annotations(function.__annotations__)
            names.update((name, function.__globals__[name]) for name in annotated if name in function.__globals__)
            if function.__globals__.get(function.__name__) is function:
                names[function.__name__] = function  # code in the job may look for it
            self._subclasses_are_asked_for |= mentions(function, "__subclasses__")
        parts.submodules.extend(submodules_named(function, names.values()))
        if isinstance(home, Namespace):
            self._let_be_new(names)
        for name in imported_by(function):
            if travels(name) and name not in MAIN:
                parts.submodules.append(sys.modules[name])
            else:
                self.modules.add(name)

    def _class(self, cls: type) -> Any:
        reduced = cloudpickle_internals.class_by_name(cls)
        if reduced is not None:
            return reduced
        if not _class_travels(cls):
            self.modules.add(cls.__module__)
            return NotImplemented
        definition = class_by_value(cls)
        self.by_value = True
        self.classes.append(cls)
        return self.define(cls, definition)

    def _described(self, obj: Any) -> Any:
        """Reduce a descriptor or a cached function."""
        reduced = DEFINITIONS.get(type(obj), descriptor_by_value)(obj)
        return self.define(obj, reduced) if isinstance(reduced, Definition) else reduced

    def _builtin(self, function: types.BuiltinFunctionType) -> Any:
        self.modules.add(function.__module__)
        return NotImplemented

    def _lock(self, lock: Any) -> Any:
        """Let what keeps the threads of a module apart be new in it; others are refused by pickle."""
        return (NEW_WITH_MODULE[type(lock)], ()) if id(lock) in self._new_with_module else NotImplemented

    def _subclasses(self) -> list[type]:
        """Return subclasses of what is in the stream that are not, if code in it asks for ``__subclasses__()``.

        These are the ones that the notebook has under their name; others may be left from an earlier run of a cell.
        """
        if not self._subclasses_are_asked_for:
            return []
        known, main = set(map(id, self.classes)), vars(sys.modules["__main__"])
        subclasses: Iterator[type] = itertools.chain.from_iterable(map(type.__subclasses__, self.classes))
        return [cls for cls in subclasses if id(cls) not in known and main.get(cls.__name__) is cls]

    def _module(self, module: types.ModuleType) -> Any:
        name = module.__name__
        if name in sys.modules and (name in MAIN or (not travels(name) and cloudpickle_internals.goes_by_name(module))):
            self.modules.add(name)
            return cloudpickle_internals.IMPORT_MODULE, (name,)
        self.by_value = True
        self.travelling[name] = module
        make = travelled_module, (name, module_attributes(module))
        if self._empty_modules:
            return make
        left_out = self._left_out.get(name, {})
        state = module_state(module, left_out)
        if left_out:
            state["__getattr__"] = Unavailable(name, dict(left_out), state.get("__getattr__"))
        self._let_be_new(state)
        code, data = code_and_data(state)
        return self.define(module, Definition(*make, [(set_module, code)], [(set_module, data)] if data else []))

    def _let_be_new(self, state: Mapping[str, object]) -> None:
        self._new_with_module.update((id(value), value) for value in state.values() if type(value) in NEW_WITH_MODULE)

    def _reducer_for(self, kind: type) -> Callable[[Pickler, Any], Any]:
        """Return what reduces the objects of a type."""
        for base, reduce in self._of_subclasses.items():
            if issubclass(kind, base):
                return reduce
        if issubclass(kind, enum.Enum) and _class_travels(kind):
            return self._of_members
        bring_out = reducer_for(kind)
        if bring_out is not None:
            return functools.partial(Pickler._large_data, bring_out=bring_out)
        return self._of_streams if is_stream_type(kind) else self._of_instances

    _of_types: ClassVar[dict[type, Callable[[Pickler, Any], Any]]] = {
        **{kind: _without_pickler(reduce) for kind, reduce in REDUCERS.items()},
        **dict.fromkeys(DEFINITIONS, _described),
        **dict.fromkeys(NEW_WITH_MODULE, _lock),
        types.FunctionType: _function,
        types.BuiltinFunctionType: _builtin,
        Step: lambda _, step: (definitions.fill, (step.take(),)),
        Scope: lambda _, scope: (list, (), None, scope.steps()),
    }
    _of_members, _of_streams, _of_instances = staticmethod(_member), staticmethod(_stream), staticmethod(_instance)
    _of_subclasses: ClassVar[dict[type, Callable[[Pickler, Any], Any]]] = {
        type: _class,
        types.ModuleType: _module,
        **dict.fromkeys(DESCRIPTORS, _described),
    }


def _class_travels(cls: type) -> bool:
    return travels(cls.__module__) or not cloudpickle_internals.goes_by_name(cls)


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
    if len(view) < LARGE or len(buffers) >= MOST_BUFFERS:
        return True
    buffers.append(view)
    return False


def unfit_parts(modules: Mapping[str, types.ModuleType]) -> dict[str, dict[str, str]]:
    """Find the parts of travelling modules that can't go into a stream.

    Args:
        modules: the modules by name.

    Returns:
        For each module, by name, its parts that can't, and their types.
    """
    unfit: dict[str, dict[str, str]] = {}
    for module_name, module in modules.items():
        for name, value in module_state(module, ()).items():
            if type(value) not in NEW_WITH_MODULE and not _fits(value):
                unfit.setdefault(module_name, {})[name] = type(value).__qualname__
    return unfit


def _fits(value: object) -> bool:
    try:
        Pickler(NullFile(), empty_modules=True).dump(value)
    except Exception:  # noqa: BLE001 -- an object's own pickling may raise anything
        return False
    return True


class NullFile:
    """A file that discards what is written.

    Args:
        most: data in one piece of that many bytes or more does not count.

    Attributes:
        size: how many bytes that was.
    """

    def __init__(self, most: int = sys.maxsize) -> None:
        """Start with a size of zero."""
        self.size = 0
        self._most = most

    def write(self, data: bytes | memoryview) -> int:
        """Count bytes and discard them."""
        size = memoryview(data).nbytes
        self.size += size if size < self._most else 0
        return size
