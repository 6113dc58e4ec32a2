"""What the files of several objects have in common while one list of them is written: their class, or their function.

It is pickled once and begins every stream, where it would else take most of the time of a small one. Nothing is kept
beyond the list: a class that changes between two lists, or what its code refers to, is written as it is then.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from typing import TYPE_CHECKING, Any

from jobcontainer.pickling import source_code
from jobcontainer.pickling.module_origin import travels
from jobcontainer.pickling.pickler import Pickler

if TYPE_CHECKING:
    from collections.abc import Callable


class Head:
    """The beginning that the streams of several objects share.

    Args:
        definition: their class, or the function that they call.

    Raises:
        Exception: whatever the pickling of the definition raises.
    """

    def __init__(self, definition: object) -> None:
        """Pickle the definition."""
        stream = io.BytesIO()
        self._pickler = Pickler(stream)
        self._pickler.dump(definition)
        self._stream = stream.getvalue()[:-1] + pickle.POP  # without the end, and with nothing left on the stack
        self._memo = self._pickler.memo.copy()

    def begin(self, pickler: Pickler, write: Callable[[bytes], object]) -> None:
        """Begin a stream with it.

        Args:
            pickler: what goes on with the stream.
            write: takes bytes of the stream.
        """
        write(self._stream)
        pickler.memo = self._memo
        pickler.take_over(self._pickler)

    def is_all_code_of(self, pickler: Pickler) -> bool:
        """Tell whether a stream that began with it holds no other code."""
        own = self._pickler
        return len(pickler.files) == len(own.files) and len(pickler.classes) == len(own.classes)


class Shared:
    """What is known from the files of a list that are written already.

    Example:
        >>> shared = Shared()  # doctest: +SKIP
        >>> for number, process in enumerate(processes):  # doctest: +SKIP
        ...     write_file(process, f"{number}.job", kind="process", shared=shared)
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._heads: dict[int, tuple[Any, Head | None]] = {}
        self._texts: dict[Head, bytes] = {}
        self._sources: dict[int, tuple[Any, str]] = {}

    def head_of(self, obj: object) -> Head | None:
        """Return how the stream of an object may begin.

        None where its definition goes by name or does not go at all, and where the object has a hand in its pickling,
        which might change the definition.
        """
        definition: Any = source_code.definition_of(obj)
        known = self._heads.get(id(definition))
        if known is None:
            head = None
            if travels(getattr(definition, "__module__", None)) and _pickles_as_usual(type(obj)):
                with contextlib.suppress(Exception):  # which the object's own stream will raise again
                    head = Head(definition)
            known = self._heads[id(definition)] = definition, head
        return known[1]

    def text_of(self, head: Head | None, pickler: Pickler) -> bytes:
        """Return the sources of the code in a stream."""
        if head is None or not head.is_all_code_of(pickler):
            return source_code.carried_sources(pickler.files, pickler.classes)
        if head not in self._texts:
            self._texts[head] = source_code.carried_sources(pickler.files, pickler.classes)
        return self._texts[head]

    def source_of(self, obj: object) -> str:
        """Return the source of an object's class or function.

        See :func:`jobcontainer.pickling.source_code.source_of`.
        """
        definition = source_code.definition_of(obj)
        known = self._sources.get(id(definition))
        if known is None:
            known = self._sources[id(definition)] = definition, source_code.source_of(obj)
        return known[1]


def _pickles_as_usual(cls: type) -> bool:
    return all(
        getattr(cls, name, None) is getattr(object, name, None)
        for name in ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__")
    )
