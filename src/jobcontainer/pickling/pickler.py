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

import contextlib
import copyreg
import enum
import functools
import itertools
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any, ClassVar, Final

from jobcontainer.pickling import (
    MOST_BUFFERS,
    class_builder,
    cloudpickle_internals,
    definitions,
    instances,
    reducers,
    unpickler,
)
from jobcontainer.pickling.annotation_names import named_in_annotations
from jobcontainer.pickling.class_builder import method_function
from jobcontainer.pickling.class_reducer import class_by_value, class_travels, member_by_value, parametrized_by_name
from jobcontainer.pickling.code_references import imported_by, mentions, named_in_classes, submodules_named
from jobcontainer.pickling.definitions import Definition, Definitions, Scope, Step, call_after, code_and_data
from jobcontainer.pickling.large_data import LARGE, reducer_for
from jobcontainer.pickling.module_origin import MAIN, is_local, travels
from jobcontainer.pickling.names_in_texts import Global, NamesInTexts
from jobcontainer.pickling.namespaces import BOUND_TO_MODULES, Cell, global_of, globals_bound_to_modules, namespace_of
from jobcontainer.pickling.notebook_syntax import refuse_notebook_syntax
from jobcontainer.pickling.reducers import DEFINITIONS, DESCRIPTORS, NAMED, REDUCERS, descriptor_by_value
from jobcontainer.pickling.standard_streams import is_stream_type, reduce_stream, standard_streams
from jobcontainer.pickling.unpickler import define_global, module_global, set_function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobcontainer.pickling.cloudpickle_internals import FunctionParts
    from jobcontainer.pickling.definitions import Fill
    from jobcontainer.pickling.namespaces import Namespace
    from jobcontainer.pickling.unpickler import FunctionPart

_MACHINERY: Final = cloudpickle_internals.MACHINERY | {
    value
    for module in (class_builder, definitions, instances, reducers, unpickler)
    for value in vars(module).values()
    if type(value) is types.FunctionType
}

_HOOKS: Final = frozenset(
    {
        "__getstate__",
        "__reduce__",
        "__reduce_ex__",
        "__getnewargs__",
        "__getnewargs_ex__",
        "__getattribute__",
        "__iter__",
    }
    | {"items"}
)
"""Methods that pickle calls."""


def _without_pickler(reduce: Callable[[Any], Any]) -> Callable[[Pickler, Any], Any]:
    return lambda _, obj: reduce(obj)


def _named(reduce: Callable[[Any], Any]) -> Callable[[Pickler, Any], Any]:
    def named(pickler: Pickler, obj: Any) -> Any:
        pickler.note_module(obj)
        return reduce(obj)

    return named


class Pickler(cloudpickle_internals.BasePickler):
    """Pickles one object and records what the stream needs.

    Args:
        file: anything with ``write()``.
        before_own_code: called before code of the notebook, or of a module beside it, says what an object consists of.

    Attributes:
        buffers: what goes beside the stream, as flat bytes.
        by_value: whether there is code in the stream.
        modules: names of the modules that the stream, or code in it, imports.
        unimported: names that code in it imports, and this process has not: modules, or what a module has.
        files: names of the files that code in the stream is from, in order.
        classes: whose definition is in the stream.
        names: that code in it looks up by a text.
        in_texts: the globals in it that no code mentions but by a text.
    """

    def __init__(self, file: Any, before_own_code: Callable[[], object] = lambda: None) -> None:
        """Make a pickler that writes into a file."""
        self._before_own_code = before_own_code
        self.buffers: list[memoryview] = []
        super().__init__(file, protocol=5, buffer_callback=functools.partial(_stays_in_stream, self.buffers))
        self.by_value = False
        self.modules: set[str] = set()
        self.unimported: set[str] = set()
        self.files: dict[str, None] = {}
        self.classes: list[type] = []
        self._cells: dict[int, Cell] = {}
        self._streams = standard_streams()
        self._definitions = Definitions(self._further)
        self._subclasses_are_asked_for = False
        self.names = NamesInTexts()
        self.in_texts: list[Global] = []
        self._can_go: dict[str, bool] = {}
        self._reducers = dict(self._of_types)

    def dump(self, obj: Any) -> None:
        """Write an object; texts that it has as attributes may name globals that its code looks up."""
        with contextlib.suppress(Exception):  # user code
            state = object.__getstate__(obj)
            for attributes in state if isinstance(state, tuple) else (state,):
                self.names.add_values((attributes or {}).values())
        super().dump(obj)

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

    def note_module(self, obj: Any) -> None:
        """Note the module by which pickle may find an object: its own, and not only that of its class."""
        name = getattr(obj, "__module__", None)
        if isinstance(name, str):
            self.modules.add(name)

    def _instance(self, obj: Any) -> Any:
        """Leave an object to pickle, but for one whose class is not filled yet."""
        return self._after_needed(obj, NotImplemented) if self._definitions.waiting else NotImplemented

    def _instance_without_own_code(self, obj: Any, reduce: Callable[[Any], Any]) -> Any:
        return self._after_needed(obj, reduce(obj))

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
        cells = tuple(self._cells.setdefault(id(cell), Cell(cell)) for cell in function.__closure__ or ())
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
            self.names.given |= names.keys()
            self.names.add_function(function, names.values())
        parts.submodules.extend(submodules_named(function, names.values()))
        for name in imported_by(function):
            (self.modules if name in sys.modules else self.unimported).add(name)

    def _class(self, cls: type) -> Any:
        reduced = cloudpickle_internals.class_by_name(cls)
        if reduced is not None:
            return reduced
        reduced = parametrized_by_name(cls)
        if reduced is not None:
            return reduced
        if not class_travels(cls):
            self.modules.add(cls.__module__)
            return NotImplemented
        definition = class_by_value(cls)
        self.by_value = True
        self.classes.append(cls)
        self.names.given |= global_of(cls).keys()
        self.names.add_values(vars(cls).values())
        return self.define(cls, definition)

    def _described(self, obj: Any) -> Any:
        """Reduce a descriptor or a cached function."""
        self.note_module(obj)
        reduced = DEFINITIONS.get(type(obj), descriptor_by_value)(obj)
        return self.define(obj, reduced) if isinstance(reduced, Definition) else reduced

    def _builtin(self, function: types.BuiltinFunctionType) -> Any:
        self.note_module(function)
        return NotImplemented

    def _bound(self, obj: Any) -> Any:
        """Reduce a sentinel, a lock or the like, if a module has it, to its name there; pickle decides for others."""
        place = self._bound_globals.get(id(obj))
        if place is None:
            return self._instance(obj)
        self.modules.add(place[0])
        return module_global, place

    @functools.cached_property
    def _bound_globals(self) -> dict[int, tuple[str, str]]:
        return globals_bound_to_modules()

    def _further(self) -> list[object]:
        """Return what code in the stream asks for, and no code mentions."""
        return [*self._subclasses(), *self._globals_in_texts()]

    def _globals_in_texts(self) -> list[Global]:
        """Return the globals of the notebook that code looks up by a text, as far as they can be pickled."""
        main = vars(sys.modules["__main__"])
        missing = self.names.missing(main)
        self.names.given.update(missing)
        self.in_texts += (found := [Global(name, main[name]) for name in missing if self._can_go_in(name, main[name])])
        return found

    def _can_go_in(self, name: str, value: object) -> bool:
        """Try to pickle a global; other globals that its code looks up do not matter."""
        if name not in self._can_go:
            self._can_go[name] = False  # while it is tried
            probe = Pickler(NullFile(), self._before_own_code)
            probe._can_go = self._can_go
            with contextlib.suppress(Exception):  # user code
                probe.dump(value)
                self._can_go[name] = True
        return self._can_go[name]

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
        if name not in sys.modules or (travels(name) and name not in MAIN):
            raise pickle.PicklingError(f"the module {name} can't be imported in a job")
        self.modules.add(name)
        return cloudpickle_internals.IMPORT_MODULE, (name,)

    def _reducer_for(self, kind: type) -> Callable[[Pickler, Any], Any]:
        """Return what reduces the objects of a type."""
        if _has_own_code(kind):
            self._before_own_code()
        for base, reduce in self._of_subclasses.items():
            if issubclass(kind, base):
                return reduce
        if issubclass(kind, enum.Enum) and class_travels(kind):
            return self._of_members
        bring_out = reducer_for(kind)
        if bring_out is not None:
            return functools.partial(Pickler._large_data, bring_out=bring_out)
        if kind not in self.dispatch_table and (reduce_instance := instances.reducer_of(kind)) is not None:
            return functools.partial(Pickler._instance_without_own_code, reduce=reduce_instance)
        return self._of_streams if is_stream_type(kind) else self._of_instances

    _of_types: ClassVar[dict[type, Callable[[Pickler, Any], Any]]] = {
        **{kind: _without_pickler(reduce) for kind, reduce in REDUCERS.items()},
        **{kind: _named(REDUCERS[kind]) for kind in NAMED},
        **dict.fromkeys(DEFINITIONS, _described),
        **dict.fromkeys(BOUND_TO_MODULES, _bound),
        types.FunctionType: _function,
        types.BuiltinFunctionType: _builtin,
        Step: lambda _, step: (definitions.fill, (step.take(),)),
        Scope: lambda _, scope: (list, (), None, scope.steps()),
        Global: lambda _, found: (define_global, tuple(found)),
    }
    _of_members, _of_streams, _of_instances = staticmethod(_member), staticmethod(_stream), staticmethod(_instance)
    _of_subclasses: ClassVar[dict[type, Callable[[Pickler, Any], Any]]] = {
        type: _class,
        types.ModuleType: _module,
        **dict.fromkeys(DESCRIPTORS, _described),
    }


def _has_own_code(kind: type) -> bool:
    """Return whether code of the notebook, or of a module beside it, is asked what an object of a type consists of."""
    reduce = copyreg.dispatch_table.get(kind)
    found = [reduce.__module__] if reduce is not None else []
    found += [base.__module__ for base in kind.__mro__ if not _HOOKS.isdisjoint(vars(base))]
    return any(travels(name) or is_local(name) for name in found)


def _owner_of(function: types.FunctionType) -> type | None:
    """Return the installed class that has a function as its class method or static method; None if there is none."""
    if travels(function.__module__) or "." not in function.__qualname__:
        return None
    owner: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split(".")[:-1]:
        owner = getattr(owner, name, None)
    method = vars(owner).get(function.__name__) if isinstance(owner, type) else None
    return owner if getattr(method, "__func__", None) is function else None


def _stays_in_stream(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    try:
        view = buffer.raw()
    except BufferError:  # pickle raises the error for it
        return True
    if len(view) < LARGE or len(buffers) >= MOST_BUFFERS:
        return True
    buffers.append(view)
    return False


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
