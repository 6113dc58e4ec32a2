"""Large data goes beside the stream, whichever type holds it, and comes back as it was."""

from __future__ import annotations

import contextlib
import datetime as dt
import io

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from jobcontainer.pickling.large_data import LARGE
from jobcontainer.pickling.pickler import Pickler
from jobcontainer.pickling.unpickler import load

N = 50_000
random = np.random.default_rng(1)
numbers = random.random(N)
words = np.array([f"word number {number}" for number in range(N)], dtype=object)
dates = np.datetime64("2026-11-28", "ns") + np.arange(N).astype("m8[s]")
dated = np.zeros(N, dtype=[("at", "M8[ns]"), ("value", "f8")])
dated["at"] = dates


with contextlib.suppress(ImportError):  # polars keeps what it opens for the first of these calls
    import polars as pl

    pl.Series(["a"] * 3, dtype=pl.Categorical)[:1].append(pl.Series(["b"], dtype=pl.Categorical))
    pl.DataFrame({"at": [dt.datetime(2026, 11, 28, tzinfo=dt.UTC)]}).lazy().collect()


def read_only(array):
    array.setflags(write=False)
    return array


def missing(texts):
    return np.where(np.arange(N) % 3 == 0, None, texts)


ARRAYS = {
    "numbers": numbers,
    "columns first": np.asfortranarray(random.random((500, 100))),
    "every other": random.random(2 * N)[::2],
    "backwards": numbers[::-1],
    "some columns": random.random((500, 200))[:, :100],
    "axes moved": random.random((20, 50, 50)).transpose(1, 2, 0),
    "dates": dates,
    "dates, columns first": np.asfortranarray(dates.reshape(500, 100)),
    "dates, every other": dates[::2],
    "dates of big-endian machines": dates.astype(">M8[s]"),
    "durations": dates - dates[0],
    "records with dates": dated,
    "read-only": read_only(numbers.copy()),
    "read-only dates": read_only(dates.copy()),
    "texts of one length": words.astype("U"),
    "texts": words,
    "texts and none": missing(words),
    "texts in a square": words.reshape(500, 100).T,
    "StringDType": words.astype(np.dtypes.StringDType()) if hasattr(np.dtypes, "StringDType") else words,
    "complex": numbers + 1j,
    "half": numbers.astype("f2").repeat(2),
}

FRAMES = {
    "numbers": {"a": numbers, "b": np.arange(N)},
    "dates": {"at": dates},
    "dates of a zone": {"at": pd.date_range("2026-11-28", periods=N, freq="s", tz="Europe/Berlin")},
    "texts": {"text": pd.array(words, dtype="str")},
    "texts as objects": {"text": pd.Series(missing(words), dtype=object)},
    "texts in Python": {"text": pd.array(missing(words), dtype=pd.StringDtype("python"))},
    "whole numbers and none": {"number": pd.array(missing(np.arange(N)), dtype="Int64")},
    "categories": {"kind": pd.Categorical(np.tile(["a", "b"], N // 2))},
    "periods": {"period": pd.period_range("2000-01", periods=N, freq="h")},
}


def split(obj):
    """The stream of an object, and what goes beside it."""
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(obj)
    return file.getvalue(), [memoryview(bytearray(buffer)) for buffer in pickler.buffers]


def through(obj):
    """An object that went through a stream with nothing large in it."""
    stream, buffers = split(obj)
    assert len(stream) < 2 * LARGE, "it is in the stream"
    return load(stream, buffers)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_every_kind(array):
    """With their type, shape, order and permission to write."""
    copy = through({"array": array})["array"]
    assert type(copy) is np.ndarray
    assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
    assert np.array_equal(copy, array)
    assert copy.flags.writeable or not array.flags.writeable
    if array.flags.forc:
        assert copy.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("columns", FRAMES.values(), ids=FRAMES)
def test_frames_of_pandas(columns):
    """Columns and index."""
    frame = pd.DataFrame(columns, index=pd.Index(dates[::-1], name="when"))
    pd.testing.assert_frame_equal(through(frame), frame)
    series = frame.iloc[:, 0]
    pd.testing.assert_series_equal(through(series), series)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr"])
def test_sparse_matrices(kind):
    """Their arrays go beside the stream."""
    matrix = scipy.sparse.random(1000, 1000, 0.05, format=kind, random_state=1)
    assert (through(matrix) != matrix).nnz == 0


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_an_array_that_is_mapped_from_a_file_travels_by_its_content(tmp_path, mode):
    """As the file may change, or not be where the job runs; it stays of its type, and the file as it is."""
    path = tmp_path / "array"
    numbers.tofile(path)
    array = np.memmap(path, mode=mode)
    copy = through(array)
    path.write_bytes(b"")
    assert type(copy) is np.memmap
    assert copy.tobytes() == numbers.tobytes()


def test_an_array_of_other_objects_keeps_who_is_who():
    """What such an array holds may be held elsewhere too."""
    shared = {"a": 1}
    array = np.array([shared] * N, dtype=object)
    stream, buffers = split((array, shared))
    copy, held = load(stream, buffers)
    assert copy[0] is held
    assert not buffers


def test_records_with_objects_keep_who_is_who():
    """Their fields may hold anything."""
    shared = [1]
    records = np.zeros(N, dtype=[("any", "O"), ("value", "f8")])
    records["any"] = [shared] * N
    copy, held = load(*split((records, shared)))
    assert copy["any"][0] is held


def test_a_subclass_that_pickles_itself_is_asked():
    """Only numpy's own types are reduced here."""
    array = Marked(numbers[::2].copy()).view(Marked)
    array.mark = "seen"
    assert load(*split(array)).mark == "seen"


class Marked(np.ndarray):
    def __new__(cls, array):
        return np.asarray(array).view(cls)

    def __reduce__(self):
        return _marked, (np.asarray(self), self.mark)


def _marked(array, mark):
    made = array.view(Marked)
    made.mark = mark
    return made


def test_small_arrays_stay_in_the_stream():
    """A buffer costs more than they do."""
    assert split([dates[:10], words[:10], numbers[:20:2]])[1] == []


def tensors(torch):
    yield torch.rand(N)
    yield torch.rand(300, 300).T
    yield torch.rand(300, 600)[:, 100:400]
    yield torch.rand(N).bfloat16()
    yield torch.arange(N) % 2 == 0
    yield torch.nn.Parameter(torch.rand(N))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_tensors(number):
    """Those of the CPU, of any layout in memory, and parameters of a model; without gradients."""
    torch = pytest.importorskip("torch")
    tensor = [*tensors(torch)][number]
    copy = through(tensor)
    assert type(copy) is type(tensor)
    assert (copy.dtype, copy.stride(), copy.requires_grad) == (tensor.dtype, tensor.stride(), tensor.requires_grad)
    assert torch.equal(copy, tensor)
    with torch.no_grad():
        copy.zero_()
    assert tensor.any()


@pytest.mark.slow
def test_a_model_of_torch():
    """Its weights are beside the stream, and it computes the same."""
    torch = pytest.importorskip("torch")
    model, rows = torch.nn.Linear(300, 300), torch.rand(4, 300)
    assert torch.equal(through(model)(rows), model(rows))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["requires_grad", "conj", "sparse", "attribute"])
def test_tensors_with_more_than_their_bytes_are_left_to_torch(change):
    """Gradients, views that are computed, attributes: nothing of it is lost."""
    torch = pytest.importorskip("torch")
    tensor = {
        "requires_grad": lambda: torch.rand(N, requires_grad=True),
        "conj": lambda: torch.rand(N, dtype=torch.complex64).conj(),
        "sparse": lambda: torch.rand(300, 300).to_sparse(),
        "attribute": lambda: torch.rand(N),
    }[change]()
    if change == "attribute":
        tensor.name_of_mine = "mine"
    copy = load(*split(tensor))
    assert torch.equal(copy.to_dense(), tensor.to_dense())
    assert (copy.requires_grad, copy.is_conj(), copy.is_sparse) == (
        tensor.requires_grad,
        tensor.is_conj(),
        tensor.is_sparse,
    )
    assert getattr(copy, "name_of_mine", None) == getattr(tensor, "name_of_mine", None)


COLUMNS = {
    "numbers": lambda: numbers.repeat(4),
    "texts": lambda: words.repeat(4).tolist(),
    "short texts": lambda: [f"{number}" for number in range(4 * N)],
    "dates": lambda: dates.repeat(4),
    "zones": lambda: [dt.datetime(2026, 11, 28, tzinfo=dt.UTC)] * (4 * N),
    "truth": lambda: [True, None] * (10 * N * 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS)
def test_frames_of_polars(column):
    """Frames and series, over the memory of Arrow."""
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    frame = polars.DataFrame({column: COLUMNS[column]()})
    copy = through(frame)
    assert copy.schema == frame.schema
    assert copy.equals(frame)
    series = frame[column]
    assert through(series).equals(series)
    assert through(series).name == column


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Categorical", "Enum", "List", "head"])
def test_other_columns_of_polars_are_left_to_it(kind):
    """Also a small slice of a large frame, whose buffers would go as a whole."""
    polars = pytest.importorskip("polars")
    series = {
        "Categorical": lambda: polars.Series(["a", "b"] * N * 4, dtype=polars.Categorical),
        "Enum": lambda: polars.Series(["a", "b"] * N * 4, dtype=polars.Enum(["a", "b"])),
        "List": lambda: polars.Series([[1, 2]] * N * 4),
        "head": lambda: polars.Series(numbers.repeat(20))[:10],
    }[kind]()
    stream, buffers = split(series)
    copy = load(stream, buffers)
    assert copy.dtype == series.dtype
    assert copy.equals(series)
    assert len(stream) < 10_000 or kind != "head"
