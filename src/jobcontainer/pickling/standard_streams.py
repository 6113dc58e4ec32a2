"""The notebook's standard streams, wherever an object holds them: in the job they are the job's own.

So is the stream of a :class:`logging.StreamHandler`. Any other open file is refused: its descriptor, and what is still
in its buffer, belong to this process.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import Any, Final

_NAMES: Final = ("stdin", "stdout", "stderr")
_KERNEL_STREAM: Final = ("ipykernel.iostream", "OutStream")
_ORDINARY: Final = object.__reduce_ex__


def standard_streams() -> dict[int, str]:
    """Return the names of the standard streams as they are now, each by its ``id()``."""
    found = {id(getattr(sys, f"__{name}__")): name for name in _NAMES}
    found.update((id(getattr(sys, name)), name) for name in _NAMES)
    found.pop(id(None), None)  # a stream that is closed
    return found


def is_stream_type(kind: type) -> bool:
    """Return whether :func:`reduce_stream` is to be asked for the objects of a type."""
    standard = {type(getattr(sys, form.format(name))) for name in _NAMES for form in ("{}", "__{}__")}
    return kind in standard or _is_kernel_stream(kind) or issubclass(kind, (logging.StreamHandler, io.TextIOWrapper))


def reduce_stream(obj: Any, streams: dict[int, str]) -> Any:
    """Reduce a standard stream, or a handler of :mod:`logging` that writes to one; ``NotImplemented`` for all else.

    Args:
        obj: any object.
        streams: the standard streams.

    Raises:
        TypeError: it is another open text file, of which cloudpickle would make a copy in memory.
    """
    name = stream_name(obj, streams)
    if name is not None:
        return standard_stream, (name,)
    kind = type(obj)
    if issubclass(kind, logging.StreamHandler):
        if stream_name(obj.stream, streams) is not None and kind.__reduce_ex__ is _ORDINARY:
            state = {name: value for name, value in vars(obj).items() if name != "lock"}
            return make_handler, (kind,), state, None, None, set_handler
    elif kind is io.TextIOWrapper:
        raise TypeError(f"cannot pickle an open file: {obj.name!r}")
    return NotImplemented


def standard_stream(name: str) -> Any:
    """Return a standard stream of this process; streams call this."""
    return getattr(sys, name)


def make_handler(kind: type[logging.Handler]) -> logging.Handler:
    """Make a handler of logging that :func:`set_handler` fills; streams call this."""
    return kind.__new__(kind)


def set_handler(handler: logging.Handler, state: dict[str, Any]) -> None:
    """Fill a handler, and make it a lock of its own; streams call this."""
    vars(handler).update(state)
    handler.createLock()


def stream_name(obj: Any, streams: dict[int, str]) -> str | None:
    """Return the name of a standard stream; None for anything else.

    Args:
        obj: any object.
        streams: what :func:`standard_streams` returned.
    """
    name = streams.get(id(obj))
    if name is None and _is_kernel_stream(type(obj)):
        name = obj.name  # one of a kernel's that is redirected just now
    return name if name in _NAMES else None


def _is_kernel_stream(kind: type) -> bool:
    return (kind.__module__, kind.__name__) == _KERNEL_STREAM
