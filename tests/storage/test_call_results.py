"""The results of a chunk's calls: whatever becomes of the file, a reader has the first of them, each as it was."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobcontainer.jobfile import signing
from jobcontainer.storage.call_results import CallReader, CallWriter
from jobcontainer.storage.store_folder import StoreFolder

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.binary(),
)
VALUES = st.one_of(
    PLAIN,
    st.lists(PLAIN),
    st.tuples(PLAIN, PLAIN),
    st.dictionaries(st.text(), PLAIN),
    st.lists(st.lists(PLAIN, max_size=3), max_size=3),
)


@pytest.fixture(scope="module", name="store")
def _store(tmp_path_factory):
    signing.sign(signing.Purpose.JOB_FILE, b"")
    store = StoreFolder(tmp_path_factory.mktemp("store"))
    store.create()
    return store


def written(store, values):
    """The folder of a job whose calls have returned some values."""
    folder = store.new_job("Calls")
    writer = CallWriter(folder)
    for value in values:
        writer.returned(value)
    writer.close()
    return folder


def read(folder):
    return list(CallReader(folder).read())


def same(one, other):
    return type(one) is type(other) and repr(one) == repr(other)


@given(st.lists(VALUES, max_size=8))
@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
def test_values_come_back_as_they_were(store, values):
    """Of the same types, in the same order; whether they are read at once or as they come."""
    folder = store.new_job("Calls")
    writer, reader, found = CallWriter(folder), CallReader(folder), []
    for value in values:
        writer.returned(value)
        found += reader.read()
    writer.close()
    for results in (found, read(folder)):
        assert all(error is None for _, error in results)
        assert all(same(value, given) for (value, _), given in zip(results, values, strict=True))
    assert reader.count == CallReader(folder).skip() == len(values)


@pytest.mark.parametrize(
    "value", [math.nan, -0.0, 2**5000, "\ud83d", np.float64(2.5), np.arange(100_000), b"x" * 10**7]
)
def test_unusual_values_come_back_too(store, value):
    """Those beside them as well, which lie in another part of the file."""
    results = read(written(store, [1, value, "end"]))
    assert [error for _, error in results] == [None] * 3
    assert same(results[1][0], value)
    assert (results[0][0], results[2][0]) == (1, "end")


@given(st.data())
@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
def test_what_is_damaged_is_not_there(store, data):
    """Whatever bytes are changed, cut off, moved or put in between: results before them are read, none that is not."""
    folder = written(store, range(100, 110))
    content = bytearray(folder.calls_file.read_bytes())
    place, other = (data.draw(st.integers(24, len(content) - 1)) for _ in range(2))
    match data.draw(st.sampled_from(["change", "cut", "insert", "swap", "drop"])):
        case "change":
            content[place] ^= data.draw(st.integers(1, 255))
        case "cut":
            del content[place:]
        case "insert":
            content[place:place] = data.draw(st.binary(min_size=1))
        case "swap":
            size = data.draw(st.integers(1, 40))
            one, two = content[place : place + size], content[other : other + size]
            content[place : place + len(one)], content[other : other + len(two)] = two[: len(one)], one[: len(two)]
        case "drop":
            del content[place : place + data.draw(st.integers(1, 40))]
    folder.calls_file.write_bytes(content)
    results = read(folder)
    assert results == [(100 + number, None) for number in range(len(results))]


def test_a_record_is_that_of_its_place_and_of_its_job(store):
    """A record twice, one left out, or the whole file of another job: nothing from there on is taken for a result."""
    folder = written(store, [1, 2, 3, 4])
    content = folder.calls_file.read_bytes()
    sizes = [len(written(store, values).calls_file.read_bytes()) for values in ([], [1], [1, 2])]
    first, second = (content[start:end] for start, end in itertools.pairwise(sizes))
    before, after = content[: sizes[0]], content[sizes[2] :]
    for wrong, values in (
        (before + first + first + second + after, [1]),
        (before + second + first + after, []),
        (before + first + after, [1]),
    ):
        folder.calls_file.write_bytes(wrong)
        assert read(folder) == [(value, None) for value in values]
    other = store.new_job("Calls")
    shutil.copyfile(written(store, [5]).calls_file, other.calls_file)
    assert read(other) == []
    assert CallReader(other).has_begun()


def test_a_kill_at_any_instant_leaves_the_results_before_it(store):
    """A process that is killed while it writes: what is there are the first results, and no half of one."""
    for seconds in np.random.default_rng(0).uniform(0, 0.02, 25):
        folder = store.new_job("Calls")
        child = os.fork()
        if child == 0:
            try:
                writer = CallWriter(folder)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                for number in itertools.count():
                    writer.returned(number)
                    if number == 0:  # on a busy machine, this may take longer
                        signal.setitimer(signal.ITIMER_REAL, 0.001 + seconds)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGALRM
        results = read(folder)
        assert results == [(number, None) for number in range(len(results))]
        assert results
