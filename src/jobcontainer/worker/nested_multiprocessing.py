"""multiprocessing inside a job: what was defined in the notebook goes to the job's own workers by value.

Plain pickle names functions and classes, and a worker looks the names up. In a notebook it finds them in ``__main__``,
which it inherited; in a job ``__main__`` is empty. So multiprocessing's pickler is taught to send what can't be found
by name as job files do.
"""

from __future__ import annotations

import io
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any

from jobcontainer.pickling.cloudpickle_internals import goes_by_name
from jobcontainer.pickling.pickler import Pickler
from jobcontainer.pickling.unpickler import load


def teach_multiprocessing() -> None:
    """Let ``Pool``, ``Process``, ``Queue`` and ``ProcessPoolExecutor`` of this process take notebook code."""
    pickler: Any = ForkingPickler
    pickler.reducer_override = _reduce


def _reduce(_pickler: ForkingPickler, obj: Any) -> Any:
    if not isinstance(obj, FunctionType | type) or goes_by_name(obj):
        return NotImplemented
    stream = io.BytesIO()
    by_value = Pickler(stream)
    by_value.dump(obj)
    return _load, (stream.getvalue(), [bytearray(buffer) for buffer in by_value.buffers])


def _load(stream: bytes, buffers: list[bytearray]) -> Any:
    """Load what came by value; streams call this."""
    return load(stream, [memoryview(buffer) for buffer in buffers])
