"""Pickle streams to objects, without changing a class of this process.

cloudpickle would set the attributes of a known class back to what they were when the stream was written, and so revert
what the notebook has changed since. Here a live class is used as it is.

Threads: a load keeps what it makes in a thread-local record. Its classes are entered into cloudpickle's tracker, under
its lock, only when the load is done, and all at once: no other thread sees a half-built class. If another thread has
entered one of them meanwhile, the load is repeated and finds it; each repetition finds at least one class more, so that
it ends.
"""

from __future__ import annotations

import importlib
import io
import pickle
import threading
import types
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling import cloudpickle_internals
from jobcontainer.pickling.module_origin import MAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Loading(threading.local):
    """What the current load of this thread makes.

    Attributes:
        anew: whether classes are made even if this process has them.
        built: tracker id and class, by the id() of the class.
        members: of the enums among them, by the id() of the enum and the keys of the members.
        variables: the type variables, by their tracker id.
        aliases: the values of type aliases, by the id() of the alias.
        main: the globals of the notebook's functions.
        known: where classes are made anew, those made so far, by tracker id: by this load and by loads within it.
    """

    def __init__(self) -> None:
        """Start with none, in each thread."""
        self.anew = False
        self.built: dict[int, tuple[str, type]] = {}
        self.members: dict[int, dict[Any, Any]] = {}
        self.variables: dict[str, Any] = {}
        self.aliases: dict[int, list[Any]] = {}
        self.main: dict[str, Any] = {}
        self.known: dict[str, type] = {}

    def live_class(self, tracker_id: str) -> type | None:
        """Return the class of this process that a stream means; None if the load is to make one."""
        return self.known.get(tracker_id) if self.anew else cloudpickle_internals.live_class(tracker_id)

    def add(self, tracker_id: str, cls: type) -> None:
        """Note a class that this load has made."""
        self.built[id(cls)] = tracker_id, cls
        self.known[tracker_id] = cls


loading: Final = Loading()

FunctionPart = tuple[dict[str, Any], dict[int, Any], dict[str, Any], dict[str, Any], list[types.ModuleType]]
"""Globals, contents of cells by their position, members such as ``__defaults__``, attributes, modules to import."""


def load(
    stream: bytes | bytearray,
    buffers: Sequence[memoryview] = (),
    *,
    anew: bool = False,
    main: dict[str, Any] | None = None,
) -> Any:
    """Load an object; classes of this process are left as they are.

    Args:
        stream: what :class:`jobcontainer.pickling.pickler.Pickler` wrote.
        buffers: what it kept beside the stream.
        anew: make classes as they are in the stream, even if this process has them. That is for a job, whose process is
            its own; earlier classes stay unchanged.
        main: becomes the globals of the notebook's functions; None for some of their own, which no module has.

    Raises:
        Exception: whatever the code in the stream raises.
    """
    return _load(lambda: pickle.loads(stream, buffers=buffers), anew=anew, main=main)  # noqa: S301 -- the caller has checked it


def load_foreign(stream: bytes | bytearray) -> Any:
    """Load what plain pickle or cloudpickle wrote; classes of this process are left as they are here too.

    Raises:
        Exception: whatever the code in the stream raises.
    """
    return _load(lambda: _ForeignUnpickler(io.BytesIO(stream)).load(), anew=False, main=None)


def _load(unpickle: Callable[[], Any], *, anew: bool, main: dict[str, Any] | None) -> Any:
    """Load an object; within a load that makes classes anew, such as the input of a job, it shares these."""
    outer = vars(loading).copy()
    anew = anew or outer["anew"]
    try:
        while True:
            own = {"__name__": "__main__"} if main is None else main
            known = outer["known"] if outer["anew"] else {}
            vars(loading).update(vars(Loading()), anew=anew, main=own, known=known)
            obj = unpickle()
            if not loading.built or cloudpickle_internals.track(loading.built.values(), anew=anew):
                return obj
    finally:
        vars(loading).update(outer)


def make_class(*arguments: Any) -> type:
    """Find the live class, or make one that :func:`set_class` fills; cloudpickle's streams call this."""
    return _live_or_made(cloudpickle_internals.MAKE_CLASS, *arguments)


def make_enum(*arguments: Any) -> type:
    """Find the live enum, or make one that :func:`set_class` fills; cloudpickle's streams call this."""
    return _live_or_made(cloudpickle_internals.MAKE_ENUM, *arguments)


def _live_or_made(make: Callable[..., type], *arguments: Any) -> type:
    *parts, tracker_id, extra = arguments
    cls = loading.live_class(tracker_id)
    if cls is None:
        cls = make(*parts, None, extra)  # without its id, cloudpickle does not track it
        loading.add(tracker_id, cls)
    return cls


def set_class(cls: type, state: Any) -> None:
    """Fill a class that this load has made, and no other; cloudpickle's streams call this."""
    if id(cls) in loading.built:
        cloudpickle_internals.SET_CLASS(cls, state)


def set_function(function: types.FunctionType, part: FunctionPart) -> None:
    """Put a part into a function, and into the cells of its closure, which it may share; streams call this."""
    names, contents, members, attributes, _ = part
    add_globals(function.__globals__, names)
    cells = function.__closure__ or ()
    for position, content in contents.items():
        cells[position].cell_contents = content
    for name, value in members.items():
        setattr(function, name, value)
    vars(function).update(attributes)


def add_globals(namespace: dict[str, Any], names: dict[str, Any]) -> None:
    """Define what is not defined yet: an earlier load may have defined it, and code may have changed it since."""
    for name, value in names.items():
        namespace.setdefault(name, value)


def define_global(name: str, value: object) -> None:
    """Define a global of the notebook's functions; streams call this."""
    add_globals(loading.main, {name: value})


def module_namespace(name: str) -> dict[str, Any]:
    """Find the globals that functions of a module share; streams call this."""
    return loading.main if name in MAIN else vars(importlib.import_module(name))


def module_global(module_name: str, name: str) -> Any:
    """Find a global of a module; streams call this."""
    return getattr(importlib.import_module(module_name), name)


_OURS: Final[dict[tuple[str, str], Callable[..., Any]]] = {
    (cloudpickle_internals.MODULE_NAME, cloudpickle_internals.MAKE_CLASS.__name__): make_class,
    (cloudpickle_internals.MODULE_NAME, cloudpickle_internals.MAKE_ENUM.__name__): make_enum,
    (cloudpickle_internals.MODULE_NAME, cloudpickle_internals.SET_CLASS.__name__): set_class,
}


class _ForeignUnpickler(pickle.Unpickler):
    """Reads what cloudpickle wrote, and leaves classes of this process as they are."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Find what a stream refers to."""
        return _OURS.get((module_name, global_name)) or super().find_class(module_name, global_name)
