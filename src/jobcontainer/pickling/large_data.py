"""Reducers that bring large data out of the stream where a library leaves it in.

Protocol 5 lets a type hand its bytes over as a buffer beside the stream, which can be shared and mapped. numpy does so
for most arrays, pandas and scipy through it, pyarrow for all of its data. Here it is done for the others: numpy arrays
of dates, of strings or with gaps, tensors of torch, frames of polars. What still goes into the stream in one large
piece (``bytes``, subclasses of arrays) is at least written once, see :mod:`jobcontainer.jobfile.writer`.

No library is imported for that which is not loaded already, but for pyarrow, which polars needs to show its memory.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE: Final = 64 * 2**10
"""Bytes from which on a buffer goes beside the stream."""

_LARGE_FRAME: Final = 2**20  # polars': less is not worth the import of pyarrow
_BYTES_OF_VIEW: Final = 16  # of a text, which polars' estimate leaves out
_PLAIN: Final = frozenset({str, bytes, int, float, bool, type(None)})
_SHAREABLE: Final = frozenset(
    {"Boolean", "String", "Binary", "Date", "Datetime", "Duration", "Time", "Float32", "Float64"}
    | {f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
)


def reducer_for(kind: type) -> Callable[[Any], Any] | None:
    """Return what reduces objects of exactly this type; None where pickle does well."""
    library, name = kind.__module__.partition(".")[0], kind.__name__
    reduce = _REDUCERS.get((library, name))
    return reduce if reduce is not None and getattr(sys.modules.get(library), name, None) is kind else None


def array_from_bytes(raw: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    """Make an array over bytes; streams call this."""
    return raw.view(dtype).reshape(shape, order=order)


def array_as(array: Any, kind: type) -> Any:
    """Make an array one of a subclass; streams call this."""
    return array.view(kind)


def tensor_from_bytes(raw: Any, dtype: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """Make a tensor over bytes; streams call this."""
    import torch  # noqa: PLC0415 -- only where there are tensors

    return torch.empty(0, dtype=dtype).set_(torch.from_numpy(raw).untyped_storage(), offset, size, stride)


def frame_from_arrow(data: Any) -> Any:
    """Make a frame of polars over a table; streams call this."""
    import polars as pl  # noqa: PLC0415 -- only where there are frames

    return pl.from_arrow(data)


def series_from_arrow(name: str, data: Any) -> Any:
    """Make a series of polars over an array; streams call this."""
    return frame_from_arrow(data).alias(name)


def _array(array: Any) -> Any:
    if array.nbytes < LARGE:
        return NotImplemented
    if array.dtype.hasobject:
        return _objects(array)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    if array.flags.forc:
        try:
            memoryview(array)
        except (ValueError, BufferError):  # dates, and structures that have some
            pass
        else:
            return NotImplemented  # numpy does it
    whole = array if array.flags.forc else array.copy(order="C")
    raw = whole.reshape(-1, order=order).view("u1")
    return array_from_bytes, (raw, array.dtype, array.shape, order)


def _objects(array: Any) -> Any:
    """Reduce an array of texts and numbers to one piece of bytes; others may share objects with what is outside."""
    plain = _PLAIN | {type(getattr(sys.modules.get("pandas"), "NA", None))}
    if array.dtype.kind == "V" or (array.dtype.kind == "O" and not plain.issuperset(map(type, array.flat))):
        return NotImplemented  # structures may hold any object
    with contextlib.suppress(Exception):  # an array of strings may have any object for missing ones
        return pickle.loads, (pickle.PickleBuffer(pickle.dumps(array, 5)),)
    return NotImplemented


def _mapped_array(array: Any) -> Any:
    """Reduce an array that is mapped from a file to its content: the file may change, or not be where the job runs."""
    return (
        NotImplemented if array.nbytes < LARGE else (array_as, (array.view(sys.modules["numpy"].ndarray), type(array)))
    )


def _tensor(tensor: Any) -> Any:
    import torch  # noqa: PLC0415 -- it is loaded, as this is one of its tensors

    is_plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.requires_grad
    if not is_plain or tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or vars(tensor):
        return NotImplemented
    storage = tensor.untyped_storage()
    if storage.nbytes() < LARGE or "numpy" not in sys.modules:
        return NotImplemented
    raw = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,)).numpy()
    return tensor_from_bytes, (raw, tensor.dtype, tensor.storage_offset(), tuple(tensor.size()), tensor.stride())


def _frame(frame: Any) -> Any:
    table = _as_arrow(frame, frame.dtypes)
    return NotImplemented if table is None else (frame_from_arrow, (table,))


def _series(series: Any) -> Any:
    array = _as_arrow(series, [series.dtype])
    return NotImplemented if array is None else (series_from_arrow, (series.name, array))


def _as_arrow(data: Any, dtypes: list[Any]) -> Any:
    """Return polars' data as pyarrow's, over the same memory; None where that is not worth it, or can't be."""
    import polars as pl  # noqa: PLC0415 -- it is loaded, as this is its data

    if data.estimated_size() < _LARGE_FRAME or any(str(dtype.base_type()) not in _SHAREABLE for dtype in dtypes):
        return None
    try:
        found = data.to_arrow(compat_level=pl.CompatLevel.newest())
    except (ImportError, AttributeError, TypeError):  # without pyarrow; in an old version
        return None
    # The buffers go as a whole, also those of a small slice of a large frame.
    most = 2 * data.estimated_size() + _BYTES_OF_VIEW * len(data) * len(dtypes)
    return found if found.get_total_buffer_size() <= most else None


_REDUCERS: Final[dict[tuple[str, str], Callable[[Any], Any]]] = {
    ("numpy", "ndarray"): _array,
    ("numpy", "memmap"): _mapped_array,
    ("torch", "Tensor"): _tensor,
    ("polars", "DataFrame"): _frame,
    ("polars", "Series"): _series,
}
