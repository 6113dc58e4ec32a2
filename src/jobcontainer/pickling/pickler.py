"""Objects to pickle streams: code from the notebook, and from modules beside it, by value.

cloudpickle does the work. What differs here:

- Modules that lie beside the notebook travel by value as ``__main__`` does. It is decided for each pickler, never
  through ``cloudpickle.register_pickle_by_value``, which other threads would see.
- What notebooks often hold and cloudpickle can't carry, or carries by a name that is not there in the job, is carried:
  cached functions and properties, weak dictionaries, ``NewType`` and its kin (:mod:`jobcontainer.pickling.reducers`).
- Functions that share a variable of their closure share it after the journey too; cloudpickle gives each its own. And a
  class keeps its ``__slots__``.
- Streams call the functions of :mod:`jobcontainer.pickling.unpickler` to make classes, which leave live ones alone.
"""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from jobcontainer.pickling import MOST_BUFFERS, cloudpickle_internals, reducers, unpickler
from jobcontainer.pickling.code_references import imported_by, named_in_classes, submodules_named
from jobcontainer.pickling.local_modules import (
    NEW_WITH_MODULE,
    LeftOut,
    Namespace,
    facts_of,
    home_of,
    state_of,
)
from jobcontainer.pickling.module_origin import MAIN, travels
from jobcontainer.pickling.reducers import REDUCERS
from jobcontainer.pickling.unpickler import (
    make_class,
    make_enum,
    module_namespace,
    set_class,
    set_function,
    set_module,
    travelled_module,
)

if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Mapping

_OUT_OF_BAND_FROM: Final = 64 * 2**10

_MACHINERY: Final = cloudpickle_internals.MACHINERY | {
    value for module in (reducers, unpickler) for value in vars(module).values() if type(value) is types.FunctionType
}
_MAKERS: Final[dict[Any, Callable[..., type]]] = {
    cloudpickle_internals.MAKE_CLASS: make_class,
    cloudpickle_internals.MAKE_ENUM: make_enum,
}


class Pickler(cloudpickle_internals.BasePickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles one object and keeps account of what the stream needs.

    Args:
        file: anything with ``write()``.
        left_out: for each travelling module, by name, what of it can't travel, and its type.
        hulls: write travelling modules as empty ones.

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
        file: Any,  # noqa: ANN401 -- anything with write()
        left_out: Mapping[str, Mapping[str, str]] | None = None,
        *,
        hulls: bool = False,
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
        self._hulls = hulls
        self._new_with_module: dict[int, object] = {}
        self._cells: dict[int, _Cell] = {}

    def take_over(self, other: Pickler) -> None:
        """Take over the account of a pickler whose stream this one goes on with."""
        self.buffers += other.buffers
        self.by_value = other.by_value
        self.modules |= other.modules
        self.files |= other.files
        self.classes += other.classes
        self.travelling |= other.travelling
        self.globals_ref.update(other.globals_ref)
        self._new_with_module |= other._new_with_module
        self._cells |= other._cells

    def reducer_override(self, obj: Any) -> Any:  # noqa: ANN401, PLR0911 -- pickle's own signature; one answer a line
        """Decide for classes, functions and modules whether they go by name or by value."""
        kind = type(obj)
        if kind is types.FunctionType:
            return self._function(obj)
        if issubclass(kind, type):
            return self._class(obj)
        if issubclass(kind, types.ModuleType):
            return self._module(obj)
        if kind in REDUCERS:
            return REDUCERS[kind](obj)
        if kind is _Cell:
            return cloudpickle_internals.MAKE_EMPTY_CELL, ()
        if kind is Namespace:
            return module_namespace, (obj.module.__name__, facts_of(obj.module))
        if kind in NEW_WITH_MODULE and id(obj) in self._new_with_module:
            return NEW_WITH_MODULE[kind], ()
        if kind is TypeVar and travels(obj.__module__):
            return cloudpickle_internals.type_variable(obj)
        if kind is types.BuiltinFunctionType:
            self.modules.add(obj.__module__)
        return NotImplemented

    def _function(self, function: types.FunctionType) -> Any:  # noqa: ANN401 -- a reduce value
        if function in _MACHINERY:
            return NotImplemented
        if not travels(function.__module__) and cloudpickle_internals.goes_by_name(function):
            self.modules.add(function.__module__)
            return NotImplemented
        self.by_value = True
        self.files[function.__code__.co_filename] = None
        home = home_of(function)
        if home is not None:
            self.globals_ref.setdefault(id(function.__globals__), Namespace(home))
        reduced = self._dynamic_function_reduce(function)
        needed = reduced[2][1]
        needed["__globals__"] |= named_in_classes(function)
        needed["_cloudpickle_submodules"] += submodules_named(function, needed["__globals__"].values())
        if home is not None:
            self._let_be_new(needed["__globals__"])
        for name in imported_by(function):
            if travels(name) and name not in MAIN:
                needed["_cloudpickle_submodules"].append(sys.modules[name])
            else:
                self.modules.add(name)
        return self._with_shared_cells(function, reduced) if function.__closure__ else reduced

    def _with_shared_cells(self, function: types.FunctionType, reduced: Any) -> Any:  # noqa: ANN401 -- reduce values
        """Let a function be made with its cells empty, as what is in them may be the function itself."""
        make, arguments, (own, needed), *_ = reduced
        cells = tuple(self._cells.setdefault(id(cell), _Cell(cell)) for cell in function.__closure__ or ())
        needed["__closure__"] = None
        state = (own, needed), tuple(cell.content() for cell in cells)
        return make, (*arguments[:-1], cells), state, None, None, set_function

    def _class(self, cls: type) -> Any:  # noqa: ANN401 -- a reduce value
        reduced = cloudpickle_internals.class_by_name(cls)
        if reduced is NotImplemented:
            if not travels(cls.__module__):
                self.modules.add(cls.__module__)
                return NotImplemented
            reduced = cloudpickle_internals.class_by_value(cls)
        if reduced[0] in _MAKERS:
            self.by_value = True
            self.classes.append(cls)
            return (_MAKERS[reduced[0]], *_with_slots(cls, reduced[1:5]), set_class)
        return reduced

    def _module(self, module: types.ModuleType) -> Any:  # noqa: ANN401 -- a reduce value
        name = module.__name__
        if name in sys.modules and (name in MAIN or (not travels(name) and cloudpickle_internals.goes_by_name(module))):
            self.modules.add(name)
            return cloudpickle_internals.IMPORT_MODULE, (name,)
        self.by_value = True
        self.travelling[name] = module
        if self._hulls:
            return travelled_module, (name, facts_of(module))
        left_out = self._left_out.get(name, {})
        state = state_of(module, left_out)
        if left_out:
            state["__getattr__"] = LeftOut(name, dict(left_out), state.get("__getattr__"))
        self._let_be_new(state)
        return travelled_module, (name, facts_of(module)), state, None, None, set_module

    def _let_be_new(self, state: Mapping[str, object]) -> None:
        self._new_with_module.update((id(value), value) for value in state.values() if type(value) in NEW_WITH_MODULE)


class _Cell:
    """Stands for a cell of a closure while functions that have it are pickled."""

    def __init__(self, cell: types.CellType) -> None:
        self._cell = cell

    def content(self) -> tuple[Any, ...]:
        """Return what is in the cell, as a tuple of one; an empty one for none."""
        try:
            return (self._cell.cell_contents,)
        except ValueError:
            return ()


def _with_slots(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Let a class be made with its slots: cloudpickle adds the word later, when it has no effect any more."""
    slots = vars(cls).get("__slots__")
    if slots is None or NamedTuple in vars(cls).get("__orig_bases__", ()):  # NamedTuple sets them itself
        return reduced
    (constructor, name, bases, given, *rest), (state, more), *nothing = reduced
    given = given | {"__slots__": slots if isinstance(slots, (str, dict)) else tuple(slots)}
    own = {
        name: value
        for name, value in state.items()
        if name != "__slots__" and not (type(value) is types.MemberDescriptorType and value.__objclass__ is cls)
    }
    return (constructor, name, bases, given, *rest), (own, more), *nothing


def _stays_in_stream(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    try:
        view = buffer.raw()
    except BufferError:  # pickle tells what is wrong with it
        return True
    if len(view) < _OUT_OF_BAND_FROM or len(buffers) >= MOST_BUFFERS:
        return True
    buffers.append(view)
    return False


def unfit_parts(modules: Mapping[str, types.ModuleType]) -> dict[str, dict[str, str]]:
    """Try which parts of travelling modules can't go into a stream.

    Args:
        modules: the modules by name.

    Returns:
        For each module, by name, its parts that can't, and their types.
    """
    unfit: dict[str, dict[str, str]] = {}
    for module_name, module in modules.items():
        for name, value in state_of(module, ()).items():
            if type(value) not in NEW_WITH_MODULE and not _fits(value):
                unfit.setdefault(module_name, {})[name] = type(value).__qualname__
    return unfit


def _fits(value: object) -> bool:
    try:
        Pickler(Nowhere(), hulls=True).dump(value)
    except Exception:  # noqa: BLE001 -- an object's own pickling may raise anything
        return False
    return True


class Nowhere:
    """A file that forgets what is written.

    Attributes:
        size: how many bytes that was.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Take bytes and forget them."""
        size = memoryview(data).nbytes
        self.size += size
        return size
