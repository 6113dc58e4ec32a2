"""What a process is made of, in a form that can be compared with that of an earlier one.

Each attribute of a process, or argument of a function's call, becomes a digest of what it says: numbers, texts, lists
and dicts of them; arrays and tables by their content; functions and classes by their names, those of the notebook by
their source too; other objects by what their class gives ``copy`` and ``pickle`` to make them again. Two digests are
equal where these are, in another kernel too. Nothing is guessed from the bytes of pickles, which differ for equal
objects. ``1``, ``1.0`` and ``True`` differ, and so do a list and a tuple. A job counts by its id; one that ran another
again, which had no result, by the id of that.

What has no such form (a lock, an open file, a function without source) can't be compared, and has no digest.
"""

from __future__ import annotations

import contextlib
import copyreg
import hashlib
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import CorruptFileError
from jobcontainer.jobfile.format import digest_of
from jobcontainer.jobfile.inputs import InputReference, Inputs, input_value, noted_in
from jobcontainer.pickling.source_code import source_of
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.plain_values import arguments_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_ARGUMENTS: Final = 1000
"""Attributes of one process that are compared."""

_DEEPEST: Final = 50
_SIMPLE: Final = {bool, int, float, complex, str, bytes, bytearray, range, slice}


class NotComparableError(ValueError):
    """A value has no form that can be compared."""


def argument_digests(process: object) -> dict[str, str]:
    """Return the digest of each attribute or argument of a process, by name; empty for one that can't be compared.

    Example:
        >>> from jobcontainer.process import Call
        >>> one, two = (argument_digests(Call(pow, (2, exponent), {})) for exponent in (3, 4))
        >>> [name for name in one if one[name] != two[name]]
        ['exp']
    """
    found: dict[str, str] = {}
    for name, value in list(arguments_of(process).items())[:MOST_ARGUMENTS]:
        found[f"{name}"] = ""
        with contextlib.suppress(Exception):  # its class may raise anything; it can't be compared then
            found[f"{name}"] = digest_of_value(value)
    return found


def digest_of_value(value: object) -> str:
    """Return the digest of a value.

    Raises:
        NotComparableError: it can't be compared.
        Exception: what its class raises.
    """
    with noted_in(Inputs()):
        return _digest(value, _DEEPEST).hex()


def _digest(value: Any, depth: int) -> bytes:
    if depth == 0:
        raise NotComparableError("nested too deeply")

    def parts(values: Iterable[Any]) -> list[bytes]:
        return [_digest(one, depth - 1) for one in values]

    kind = type(value)
    name: str | bytes = kind.__name__
    if value is None or kind in _SIMPLE:
        content = [repr(value).encode("utf-8", "backslashreplace")]
    elif kind in {list, tuple}:
        content = parts(value)
    elif kind in {set, frozenset}:
        content = sorted(parts(value))
    elif kind is dict:  # its order is part of it
        content = parts(part for pair in value.items() for part in pair)
    elif issubclass(kind, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        content = [_code(value), *parts([value.__defaults__, value.__kwdefaults__, cells])]
    elif issubclass(kind, type):
        name, content = "class", [_code(value)]
    else:
        name, content = _name(kind), _array(value) or _table(value) or _reduced(value, parts)
    return _joined(name, content)


def _array(value: Any) -> list[bytes]:
    """Return the content of an array or a number of numpy; empty for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or value.dtype.hasobject:
        return []
    packed = numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8)
    return [repr(value.dtype.descr).encode(), repr(value.shape).encode(), digest_of(memoryview(packed)).encode()]


def _table(value: Any) -> list[bytes]:
    """Return the content of a table or a column of pandas; empty for anything else.

    Two tables that are equal may lie in memory in different ways.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or type(value) not in {pandas.DataFrame, pandas.Series}:
        return []
    table = value if type(value) is pandas.DataFrame else value.to_frame()
    hashes = pandas.util.hash_pandas_object(table, index=True).to_numpy()
    named = [list(table.columns), list(table.index.names), [str(one) for one in table.dtypes]]
    return [*(repr(one).encode() for one in named), digest_of(memoryview(hashes).cast("B")).encode()]


def _reduced(value: Any, parts: Callable[[Iterable[Any]], list[bytes]]) -> list[bytes]:
    """Return what makes an object again, as its class says it to ``pickle`` and ``copy``."""
    kind = type(value)
    if issubclass(kind, (set, frozenset)):
        raise NotComparableError("a set of a class of its own, which has no order")
    reducer = copyreg.dispatch_table.get(kind)
    reduced = reducer(value) if reducer is not None else value.__reduce_ex__(2)
    if isinstance(reduced, str):
        return [_name(value, reduced)]
    make, args, state, items, pairs = (*reduced, None, None, None)[:5]
    if make is input_value:
        return [_original_of(JobFolder(InputReference(*args).folder)).encode()]
    given = [args, state, list(items or ()), [list(pair) for pair in pairs or ()]]
    return [_name(make), *parts(given)]


def _original_of(job: JobFolder) -> str:
    """Return the id of the job that this one stands for, or its own."""
    with contextlib.suppress(OSError, CorruptFileError):  # it was deleted, or written over
        return job.read_record().stands_for or job.id
    return job.id


def _code(value: Any) -> bytes:
    """Return the name of a function or class, and its source where it is the notebook's own.

    Raises:
        NotComparableError: there is no source of it.
    """
    module = sys.modules.get(value.__module__)
    if value.__module__ != "__main__" and getattr(module, value.__qualname__.partition(".")[0], None) is not None:
        return _name(value)
    if not (source := source_of(value)):
        raise NotComparableError("its source is not known")
    return _name(value) + source.encode("utf-8", "backslashreplace")


def _name(value: Any, qualified_name: str = "") -> bytes:
    return f"{value.__module__}.{qualified_name or value.__qualname__}".encode()


def _joined(kind: str | bytes, parts: Iterable[bytes]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for part in (kind if isinstance(kind, bytes) else kind.encode(), *parts):
        found.update(len(part).to_bytes(8))
        found.update(part)
    return found.digest()
