"""multiprocessing inside a job: what was defined in the notebook reaches the job's own workers, and comes back.

Plain pickle names functions and classes, and a worker looks the names up in its ``__main__``. One that was forked has
the job's. One that was started anew (``spawn``, ``forkserver``) has an empty one; that of a script would run the script
to fill it. So multiprocessing's pickler is taught to send code with each name: a worker that lacks the name takes it
from there, and is taught itself, so that what it returns comes back the same way. Modules beside the notebook are
imported there from the sources in the job's process file.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from multiprocessing.reduction import ForkingPickler
from types import FunctionType, ModuleType
from typing import Any, Final

from jobcontainer import checkpoint
from jobcontainer.errors import JobFileError
from jobcontainer.pickling.cloudpickle_internals import goes_by_name
from jobcontainer.pickling.job_main import prepare
from jobcontainer.pickling.module_origin import travels
from jobcontainer.pickling.namespaces import global_of
from jobcontainer.pickling.pickler import Pickler
from jobcontainer.pickling.reducers import DEFINITIONS, DESCRIPTORS, NAMED
from jobcontainer.pickling.source_importer import carried
from jobcontainer.pickling.unpickler import load
from jobcontainer.worker.job_imports import import_sources

_NAMED: Final = (FunctionType, type, *NAMED, *(kind for kind in DEFINITIONS if kind not in DESCRIPTORS))
"""The types of what plain pickle writes as a name."""

_is_taught = False
_process_file = ""


def teach_multiprocessing() -> None:
    """Let ``Pool``, ``Process``, ``Queue`` and ``ProcessPoolExecutor`` of this process take notebook code."""
    global _is_taught  # noqa: PLW0603 -- of the process
    _is_taught = True
    pickler: Any = ForkingPickler
    pickler.reducer_override = _reduce


def send_sources_of(process_file: str) -> None:
    """Let workers that are started from here import the sources in a process file."""
    global _process_file  # noqa: PLW0603 -- of the process
    _process_file = process_file


def _reduce(_pickler: ForkingPickler, obj: Any) -> Any:
    if not issubclass(type(obj), _NAMED):
        return NotImplemented
    name: str = getattr(obj, "__qualname__", "") or obj.__name__
    if goes_by_name(obj) if isinstance(obj, FunctionType | type) else not travels(obj.__module__):
        if carried(obj.__module__) is None:
            return NotImplemented
        return _imported, (_process_file, obj.__module__, name)
    stream = io.BytesIO()
    by_value = Pickler(stream)
    by_value.dump(obj)
    name = name if global_of(obj) else ""
    return _loaded, (_process_file, name, stream.getvalue(), [bytearray(buffer) for buffer in by_value.buffers])


def _imported(process_file: str, module_name: str, qualified_name: str) -> Any:
    """Find what a module beside the notebook defines; streams call this."""
    _begin(process_file)
    return _found(importlib.import_module(module_name), qualified_name)


def _loaded(process_file: str, name: str, stream: bytes, buffers: list[bytearray]) -> Any:
    """Find what the notebook defines, or else load it; streams call this."""
    _begin(process_file)
    main = sys.modules["__main__"]
    if name:
        with contextlib.suppress(AttributeError):
            return _found(main, name)
    loaded = load(stream, [memoryview(buffer) for buffer in buffers], main=vars(main))
    if name and "." not in name:
        vars(main).setdefault(name, loaded)
    return loaded


def _found(module: ModuleType, qualified_name: str) -> Any:
    found: Any = module
    for name in qualified_name.split("."):
        found = getattr(found, name)
    return found


def _begin(process_file: str) -> None:
    """Prepare a worker that was started anew, once."""
    if _is_taught:
        return
    teach_multiprocessing()
    checkpoint.leave_to_the_job()
    send_sources_of(process_file)
    sys.modules["__main__"] = ModuleType("__main__")  # it has the names that multiprocessing uses to start a process
    prepare({})
    with contextlib.suppress(OSError, JobFileError):  # import finds on disk what is there
        import_sources(process_file)
