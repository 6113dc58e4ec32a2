"""No damaged file is loaded, and nothing in one is unpickled."""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcontainer import CorruptFileError, Serializer, UntrustedFileError
from jobcontainer.jobfile import format as file_format
from jobcontainer.jobfile import info, loading, reader
from jobcontainer.jobfile.serializer import trust_file
from jobcontainer.worker.job_imports import put_first

GUIDED_FILES = 20_000
SHARES = (6, 3, 1)  # large files are damaged more seldom


def _small():
    return {"name": "small", "numbers": list(range(20))}


def _with_code():
    def inner(x):
        return x + 1

    return inner


def _with_buffers():
    return [np.arange(8200), np.arange(10)]


SUBJECTS = {"small": _small, "with code": _with_code, "with buffers": _with_buffers}


@pytest.fixture
def whole(tmp_path):
    """The bytes of whole files of several kinds."""
    contents = []
    for number, make in enumerate(SUBJECTS.values()):
        path = tmp_path / f"{number}.job"
        Serializer.serialize_to_file(make(), path)
        contents.append(path.read_bytes())
    return contents


@pytest.fixture
def try_to_load(monkeypatch):
    """Load bytes as a file; fails the test if anything is unpickled, returns the error."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield _loader(Path(folder) / "damaged.job", monkeypatch)


def _loader(path, monkeypatch):

    def unpickled(*_, **__):
        raise AssertionError("a damaged file was unpickled")

    monkeypatch.setattr(loading, "load", unpickled)
    monkeypatch.setattr("jobcontainer.jobfile.plain_pickle.load_foreign", unpickled)

    def load(data):
        path.write_bytes(data)
        with pytest.raises((CorruptFileError, UntrustedFileError)) as caught:
            Serializer.deserialize_from_file(path)
        with pytest.raises((CorruptFileError, UntrustedFileError)):
            loading.load_file(path, add_finder=put_first)
        return caught.value

    return load


def truncate(data, chance):
    return data[: chance.randrange(len(data))]


def flip_a_bit(data, chance):
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def set_a_byte(data, chance):
    place = chance.randrange(len(data))
    return data[:place] + bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFF))]) + data[place + 1 :]


def insert(data, chance):
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(chance.choice((1, 2, 8, 4096))) + data[place:]


def append(data, chance):
    return data + chance.randbytes(chance.choice((1, 7, 64, 4096)))


def delete(data, chance):
    place = chance.randrange(len(data))
    return data[:place] + data[place + chance.choice((1, 2, 8, 64, 4096)) :]


def swap(data, chance):
    first, second = sorted(chance.randrange(len(data)) for _ in range(2))
    size = chance.choice((1, 4, 32, 512))
    return data[:first] + data[second : second + size] + data[first + size :]


def repeat(data, chance):
    place = chance.randrange(len(data))
    return data[:place] + data[place : place + chance.choice((1, 32, 4096))] + data[place:]


def set_a_number(data, chance):
    """Of the prelude, or wherever one of four or eight bytes may stand."""
    place = chance.choice((8, 12, 16, 24, chance.randrange(len(data))))
    size = chance.choice((4, 8))
    number = chance.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(data), len(data) + 1, 4096)) % 256**size
    return data[:place] + number.to_bytes(size, "little") + data[place + size :]


MUTATIONS = (truncate, flip_a_bit, set_a_byte, insert, append, delete, swap, repeat, set_a_number)


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_no_damaged_file_of_thousands_is_loaded(whole, try_to_load, count):
    """Truncated, flipped, inserted, appended, deleted, swapped, repeated, in one place or several."""
    chance = random.Random(1)  # noqa: S311 -- the same damage in each run
    tried = 0
    errors = set()
    while tried < count:
        [data] = chance.choices(whole, SHARES)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            data = chance.choice(MUTATIONS)(data, chance) or b"?"
        if data not in whole:
            errors.add(type(try_to_load(data)))
            tried += 1
    assert errors == {CorruptFileError, UntrustedFileError}


@pytest.mark.slow
def test_each_byte_of_a_file_counts(whole, try_to_load):
    """There is none whose change goes unnoticed: header, stream, sources, zeros between buffers, buffers."""
    small, with_code, with_buffers = whole
    places = [
        (small, range(len(small))),
        (with_code, range(0, len(with_code), 5)),
        (with_buffers, (*range(0, 4200, 7), *range(4200, len(with_buffers), 997))),
    ]
    for data, chosen in places:
        for place in chosen:
            try_to_load(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])


def test_each_length_of_a_file_counts(whole, try_to_load):
    """Cut off after any byte."""
    data = whole[0]
    for size in range(len(data)):
        try_to_load(data[:size])


@given(data=st.binary(max_size=200), magic=st.booleans())
def test_any_bytes_are_refused(tmp_path_factory, data, magic):
    """Also behind a magic; looking at them is safe too."""
    path = tmp_path_factory.mktemp("bytes") / "any.job"
    path.write_bytes(file_format.MAGIC + data if magic else data)
    for read in (Serializer.deserialize_from_file, Serializer.verify, trust_file):
        with pytest.raises((CorruptFileError, UntrustedFileError)) if not data.startswith(b"\x80") else _anything():
            read(path)


class _anything:  # noqa: N801 -- stands beside pytest.raises
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return True


def lines_run(call):
    """The lines of the reading modules that a call runs."""
    files = {reader.__file__, file_format.__file__, loading.__file__}
    run = set()

    def trace(frame, event, _):
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            run.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return frozenset(run)


@pytest.mark.slow
def test_no_damage_that_is_guided_by_coverage_is_loaded(whole, try_to_load):
    """Each file that makes the reader run another set of lines is kept, and damaged further."""
    chance = random.Random(2)  # noqa: S311 -- the same damage in each run
    corpus = list(whole)
    seen = set()
    for _ in range(GUIDED_FILES):
        data = chance.choice(MUTATIONS)(chance.choice(corpus), chance)
        if data in whole:
            continue
        run = lines_run(lambda data=data: try_to_load(data))
        if run not in seen:
            seen.add(run)
            corpus.append(data)
    assert len(seen) >= 8  # the ways a file can be refused


def test_parts_of_two_own_files_do_not_fit(tmp_path, try_to_load, monkeypatch):
    """A signature holds for its own file, even if another one of the same user has the same sizes."""
    monkeypatch.setattr(info.time, "time", lambda: 1.5)
    files = []
    for value in ("one", "two"):
        path = tmp_path / value
        Serializer.serialize_to_file({"value": value, "array": np.full(9000, ord(value[0]))}, path)
        files.append(path.read_bytes())
    first, second = files
    assert len(first) == len(second)
    cuts = [0, 32, 64, 200, 4096, len(first) - 500, len(first)]
    for start, end in itertools.pairwise(cuts):
        mixed = first[:start] + second[start:end] + first[end:]
        if mixed not in files:
            try_to_load(mixed)
