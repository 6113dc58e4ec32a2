"""Objects to pickle streams: code from the notebook, and from modules beside it, by value.

cloudpickle does the work. What differs here:

- Modules that lie beside the notebook travel by value as ``__main__`` does. It is decided for each pickler, never
  through ``cloudpickle.register_pickle_by_value``, which other threads would see.
- What notebooks often hold and cloudpickle can't carry, or carries by a name that does not exist in the job, is
  carried: cached functions and properties, weak dictionaries, ``NewType`` and similar
  (:mod:`jobcontainer.pickling.reducers`).
- Functions that share a variable of their closure still share it in the job; cloudpickle gives each its own. And a
  class keeps its ``__slots__``.
- Streams call the functions of :mod:`jobcontainer.pickling.unpickler` to make classes, which never change the classes
  of the process.
"""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling import MOST_BUFFERS, cloudpickle_internals, reducers, unpickler
from jobcontainer.pickling.code_references import imported_by, named_in_classes, submodules_named
from jobcontainer.pickling.local_modules import (
    NEW_WITH_MODULE,
    Namespace,
    Unavailable,
    globals_module,
    module_attributes,
    module_state,
)
from jobcontainer.pickling.module_origin import MAIN, travels
from jobcontainer.pickling.notebook_syntax import refuse_notebook_syntax
from jobcontainer.pickling.reducers import REDUCERS
from jobcontainer.pickling.standard_streams import reduce_stream, standard_streams
from jobcontainer.pickling.unpickler import (
    make_class,
    make_enum,
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

    def reducer_override(self, obj: Any) -> Any:
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
        if kind in NEW_WITH_MODULE and id(obj) in self._new_with_module:
            return NEW_WITH_MODULE[kind], ()
        if kind is types.BuiltinFunctionType:
            self.modules.add(obj.__module__)
        return reduce_stream(obj, self._streams)

    def _function(self, function: types.FunctionType) -> Any:
        if function in _MACHINERY:
            return NotImplemented
        if not travels(function.__module__) and cloudpickle_internals.goes_by_name(function):
            self.modules.add(function.__module__)
            return NotImplemented
        refuse_notebook_syntax(function)
        self.by_value = True
        self.files[function.__code__.co_filename] = None
        home = globals_module(function)
        if home is not None:
            self.replace_namespace(function.__globals__, Namespace(home))
        # It is made with its cells empty, as what is in them may be the function itself.
        cells = tuple(self._cells.setdefault(id(cell), _Cell(cell)) for cell in function.__closure__ or ())
        make, arguments, parts = self.function_by_value(function, cells)
        parts.globals.update(named_in_classes(function))
        parts.submodules.extend(submodules_named(function, parts.globals.values()))
        if home is not None:
            self._let_be_new(parts.globals)
        for name in imported_by(function):
            if travels(name) and name not in MAIN:
                parts.submodules.append(sys.modules[name])
            else:
                self.modules.add(name)
        return make, arguments, ((*parts,), tuple(cell.content() for cell in cells)), None, None, set_function

    def _class(self, cls: type) -> Any:
        reduced = cloudpickle_internals.class_by_name(cls)
        if reduced is NotImplemented:
            if not travels(cls.__module__):
                self.modules.add(cls.__module__)
                return NotImplemented
            reduced = cloudpickle_internals.class_by_value(cls)
        if reduced[0] in _MAKERS:
            self.by_value = True
            self.classes.append(cls)
            return (_MAKERS[reduced[0]], *cloudpickle_internals.with_slots(cls, reduced)[1:5], set_class)
        return reduced

    def _module(self, module: types.ModuleType) -> Any:
        name = module.__name__
        if name in sys.modules and (name in MAIN or (not travels(name) and cloudpickle_internals.goes_by_name(module))):
            self.modules.add(name)
            return cloudpickle_internals.IMPORT_MODULE, (name,)
        self.by_value = True
        self.travelling[name] = module
        if self._empty_modules:
            return travelled_module, (name, module_attributes(module))
        left_out = self._left_out.get(name, {})
        state = module_state(module, left_out)
        if left_out:
            state["__getattr__"] = Unavailable(name, dict(left_out), state.get("__getattr__"))
        self._let_be_new(state)
        return travelled_module, (name, module_attributes(module)), state, None, None, set_module

    def _let_be_new(self, state: Mapping[str, object]) -> None:
        self._new_with_module.update((id(value), value) for value in state.values() if type(value) in NEW_WITH_MODULE)


class _Cell:
    """Stands for a cell of a closure while functions that have it are pickled."""

    def __init__(self, cell: types.CellType) -> None:
        self._cell = cell

    def __reduce__(self) -> tuple[Any, ...]:
        return cloudpickle_internals.MAKE_EMPTY_CELL, ()

    def content(self) -> tuple[Any, ...]:
        """Return what is in the cell, as a tuple of one; an empty one for none."""
        try:
            return (self._cell.cell_contents,)
        except ValueError:
            return ()


def _stays_in_stream(buffers: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    try:
        view = buffer.raw()
    except BufferError:  # pickle raises the error for it
        return True
    if len(view) < _OUT_OF_BAND_FROM or len(buffers) >= MOST_BUFFERS:
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
