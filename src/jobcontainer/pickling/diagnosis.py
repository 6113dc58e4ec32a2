"""Why an object can't go into a file: the path of each part that can't.

One pass finds them all. A pickler asks each object what it is made of, as pickle would; where that fails, the object is
noted and a stand-in takes its place, so that the pass goes on. The answers are kept, and the parts are then searched
for in them by identity, the shortest path first (:mod:`jobcontainer.pickling.object_graph`); so parts that an object
makes only while it is asked are found too. Large arrays are neither copied nor read.
"""

from __future__ import annotations

import contextlib
import pickle
import types
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import Culprit, SerializationError
from jobcontainer.pickling.definitions import Scope, without_needed
from jobcontainer.pickling.hints import guess_for, hint_for, type_name
from jobcontainer.pickling.notebook_syntax import NotebookSyntaxError
from jobcontainer.pickling.object_graph import find_paths
from jobcontainer.pickling.pickler import NullFile, Pickler

if TYPE_CHECKING:
    from jobcontainer.pickling.definitions import Definition
    from jobcontainer.pickling.object_graph import Part

_LEAVE_OUT: Final = {
    "result": "Leave it out of what run() returns, or return what it is made of.",
    "checkpoint": "Leave it out of what is saved, or save what it is made of.",
}
_TOO_DEEP: Final = "It is nested too deeply for pickle: make it flatter, for example a list instead of a chain."
_MOST_ROUNDS: Final = 20
_MOST_SHOWN: Final = 10
_LONGEST_PATH: Final = 200
_REDUCED_LENGTHS: Final = range(2, 7)


def diagnose(obj: object) -> list[Culprit]:
    """Find every part of an object that can't go into a file.

    Args:
        obj: a process, or anything else.

    Returns:
        The parts with their paths, types and hints; empty if all of it can.

    Example:
        >>> import threading
        >>> [(culprit.path, culprit.type_name) for culprit in diagnose({"a": [threading.Lock()]})]
        [("obj['a'][0]", '_thread.lock')]
    """
    return _culprits(obj, _name_of(obj))


def _culprits(obj: object, name: str, error: Exception | None = None) -> list[Culprit]:
    """Find the culprits; where the search itself fails, at odd objects of user code, name what pickle said.

    Args:
        obj: the object.
        name: what it is called.
        error: what pickling it raised; None to find out.
    """
    with contextlib.suppress(Exception):  # the error that the user waits for is that of pickle
        return _search(obj, name)
    error = error or _error_of(obj)
    return [] if error is None else [Culprit(name, type_name(type(obj)), _hint_of(error))]


def _error_of(obj: object) -> Exception | None:
    try:
        Pickler(NullFile()).dump(obj)
    except Exception as error:  # noqa: BLE001 -- user code
        return error
    return None


def _search(obj: object, name: str) -> list[Culprit]:
    probe, failures = _probed(obj)
    if not failures:
        return []
    paths = find_paths(obj, name, [part for part, _ in failures], probe.reduce_value)
    culprits: dict[str, Culprit] = {}
    for part, error in failures:
        culprit = _culprit(paths.get(id(part)) or [(f"somewhere in {name}", part)], error)
        culprits.setdefault(culprit.path, culprit)
    return list(culprits.values())


def _name_of(obj: object) -> str:
    return "process" if callable(getattr(type(obj), "run", None)) else "obj"


def explained(obj: object, error: Exception, made_as: str = "") -> SerializationError:
    """Return the error that says why an object can't go into a file.

    Args:
        obj: the object.
        error: what pickling it raised.
        made_as: what a job has made it as, ``result`` or ``checkpoint``; empty for a process and any other object.
    """
    culprits = _culprits(obj, made_as or _name_of(obj), error)
    if made_as:
        deep = _TOO_DEEP.replace("make it", f"{'return' if made_as == 'result' else 'save'} something")
        culprits = [replace(one, hint=deep if one.hint == _TOO_DEEP else _LEAVE_OUT[made_as]) for one in culprits]
    name = type_name(type(obj))
    if not culprits:
        return SerializationError(f"{name} can't go into a file: {type(error).__name__}: {_text_of(error)}")
    lines = [f"{name} can't go into a file, because of:", *(f"  {culprit}" for culprit in culprits[:_MOST_SHOWN])]
    if len(culprits) > _MOST_SHOWN:
        lines.append(f"  and {len(culprits) - _MOST_SHOWN} more: see the error's culprits")
    return SerializationError("\n".join(lines), culprits)


class Probe(Pickler):
    """A pickler that goes on where an object can't be pickled, and writes nothing.

    Args:
        skipped: the ids of objects that are not asked.

    Attributes:
        failures: the objects that could not be reduced, and what that raised.
        last: the object that was asked last.
    """

    def __init__(self, skipped: frozenset[int] = frozenset()) -> None:
        super().__init__(NullFile())
        self.failures: list[tuple[object, Exception]] = []
        self.last: object = None
        self._skipped = skipped
        self._reduced: dict[int, tuple[object, Any]] = {}

    def reduce_value(self, obj: object) -> Any:
        """Return the reduce value of an object, items in it as lists, or its definition; None if it goes by name."""
        return self._reduced.get(id(obj), (None, None))[1]

    def reducer_override(self, obj: Any) -> Any:
        """Ask an object what it is made of; whatever it raises is noted."""
        if id(obj) in self._skipped:
            return _stand_in, ()
        if type(obj) is Scope:  # what it yields depends on what has been asked before
            return super().reducer_override(obj)
        self.last = obj
        try:
            value = self._asked(obj)
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001 -- user code
            self.failures.append((obj, error))
            return _stand_in, ()
        if not isinstance(value, tuple):
            return value
        self._reduced.setdefault(id(obj), (obj, without_needed(value)))
        return (*value[:3], *(None if items is None else iter(items) for items in value[3:5]), *value[5:])

    def define(self, obj: object, definition: Definition) -> tuple[Any, ...]:
        """Reduce a definition, and keep what it is made of."""
        self._reduced[id(obj)] = obj, definition
        return super().define(obj, definition)

    def _asked(self, obj: Any) -> Any:
        value = super().reducer_override(obj)
        if value is NotImplemented and not isinstance(obj, (type, types.FunctionType)):  # those go by name
            special = self.dispatch_table.get(type(obj))
            value = special(obj) if special is not None else obj.__reduce_ex__(5)
        # pickle itself checks the name that a string is.
        return value if value is NotImplemented or isinstance(value, str) else _with_lists(value)


def _probed(obj: object) -> tuple[Probe, list[tuple[object, Exception]]]:
    """Probe an object until all of it could be asked; what pickle itself refuses is found one by one."""
    found: list[tuple[object, Exception]] = []
    for _ in range(_MOST_ROUNDS):
        probe = Probe(frozenset(id(part) for part, _ in found))
        try:
            probe.dump(obj)
        except Exception as error:  # noqa: BLE001 -- user code
            if isinstance(error.__cause__ or error, RecursionError):
                found.append((obj, error))
                break
            found.append((probe.last, error))
        else:
            break
    return probe, found + probe.failures


def _with_lists(value: Any) -> tuple[Any, ...]:
    """Check a reduce value as pickle does, and turn the iterators of items in it into lists."""
    if (
        not isinstance(value, tuple)
        or len(value) not in _REDUCED_LENGTHS
        or not callable(value[0])
        or not isinstance(value[1], tuple)
    ):
        raise pickle.PicklingError(f"its __reduce__() returned {value!r:.80}, and not a function and its arguments")
    return (*value[:3], *(None if items is None else list(items) for items in value[3:5]), *value[5:])


def _stand_in() -> None:
    """Replace something that can't be pickled; streams that call this are discarded."""


def _culprit(path: list[Part], error: Exception) -> Culprit:
    """Name the first well-known object of the path, or else its end."""
    known = ((words, part, hint) for words, part in path if (hint := hint_for(type(part))) is not None)
    words, part, hint = next(known, (*path[-1], None))
    hint = hint or guess_for(type(part)) or _hint_of(error)
    return Culprit(_shortened(words), type_name(type(part)), hint)


def _hint_of(error: Exception) -> str:
    if isinstance(error.__cause__ or error, RecursionError):
        return _TOO_DEEP
    if isinstance(error, NotebookSyntaxError):
        return str(error)
    if isinstance(error, (TypeError, pickle.PicklingError)):
        return f"Pickle says: {_text_of(error)}. Make it inside run(), or leave it out in __getstate__()."
    return f"Pickling it raised {type(error).__name__}: {_text_of(error)}. Make it inside run(), or put that right."


def _text_of(error: Exception) -> str:
    with contextlib.suppress(Exception):  # user code
        return str(error)
    return "an error that can't be shown"


def _shortened(words: str) -> str:
    half = _LONGEST_PATH // 2
    return words if len(words) <= _LONGEST_PATH else f"{words[:half]} ... {words[-half:]}"
