"""RepeatedPickler: many streams that begin with the same object, which is pickled once.

A pickle stream is a program for a stack. Its first part leaves the shared object on the stack, and each stream's own
part follows, written with the memo as it was after the first. So an object, or a class of the notebook, that both hold
is one object in the job, as it is here.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.pickler import Pickler

if TYPE_CHECKING:
    from collections.abc import Callable

# Opcodes, as :mod:`pickletools` describes them.
_PROTO_5: Final = b"\x80\x05"
_GLOBAL: Final = b"c%s\n%s\n"
_CALL_WITH_BOTH: Final = b"\x86R."  # TUPLE2, REDUCE, STOP
_STOP_SIZE: Final = 1


class RepeatedPickler(Pickler):
    """Pickles ``make(shared, own)`` for one shared object and many others.

    Args:
        make: a class or function of an installed module that makes the object of the two parts, when it is loaded.
        shared: the object that all streams begin with.

    Attributes:
        beginning: the part of the stream that is the same in all.
        shared_buffers: those of the buffers that are.

    Example:
        >>> import pickle
        >>> pickler = RepeatedPickler(complex, 1)
        >>> [pickle.loads(pickler.beginning + pickler.own_part(number)) for number in (2, 3)]
        [(1+2j), (1+3j)]
    """

    def __init__(self, make: Callable[[Any, Any], Any], shared: object) -> None:
        """Pickle the shared object."""
        self._file = io.BytesIO()
        super().__init__(self._file)
        self.dump(shared)
        callee = _GLOBAL % (make.__module__.encode(), make.__qualname__.encode())
        self.beginning = _PROTO_5 + callee + self._file.getvalue()[:-_STOP_SIZE]
        self._known = self.memo.copy()  # type: ignore[has-type]  # cloudpickle has no types
        self.shared_buffers = list(self.buffers)
        self._found = self.by_value, self.modules, self.unimported, self.files, self.classes, self.names

    def own_part(self, own: object) -> bytes:
        """Return the rest of a stream; what the pickler has recorded is then of the whole stream."""
        self._file.seek(0)
        self._file.truncate()
        self.memo = self._known
        self.buffers[:] = self.shared_buffers
        by_value, modules, unimported, files, classes, names = self._found
        self.by_value, self.modules, self.unimported = by_value, set(modules), set(unimported)
        self.files, self.classes, self.names = dict(files), list(classes), names.copy()
        self.dump(own)
        return self._file.getvalue()[:-_STOP_SIZE] + _CALL_WITH_BOTH

    def close(self) -> None:
        """Let go of all objects; there will be no other part."""
        self.clear_memo()
        self._known.clear()
        self.buffers.clear()
        self.shared_buffers.clear()
