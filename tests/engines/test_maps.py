"""``pool.map`` over every engine: the same results, ends and order, wherever the calls are made."""

from __future__ import annotations

import os
import signal
import time

import pytest

from jobcontainer import JobCrashedError, JobPool, JobTimeoutError
from waiting import ended, wait_for

pytestmark = pytest.mark.usefixtures("as_notebook")


DASK = pytest.param("dask", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["inline", "loky", DASK])
def pool(request, tmp_path_factory):
    """A pool of each kind."""
    engine = request.param
    if engine == "dask":
        pytest.importorskip("distributed")
        engine = request.getfixturevalue("dask_cluster").address
    with JobPool(engine=engine, store=tmp_path_factory.mktemp("store")) as pool:
        yield pool


def test_results_come_in_order_with_what_was_raised_at_its_place(pool):
    """Values of any size, arguments that differ, in several chunks, and a buffer."""

    def call(number, text):
        if number == 7:
            raise KeyError(text)
        return "x" * 2_000_000 if number == 5 else (number, text)

    expected = [(number, str(number)) for number in range(40)]
    expected[5], expected[7] = "x" * 2_000_000, KeyError
    assert ended(pool.map(call, range(40), map(str, range(40)))) == expected
    assert ended(pool.map(call, range(40), map(str, range(40)), chunksize=7, buffersize=20)) == expected


def test_progress_says_how_each_call_ended(pool):
    """Whoever shows the calls reads the files of the jobs, wherever those run."""
    results = pool.map(lambda number: 6 // number, [1, 0, 2, 0, 3], chunksize=2)
    progress = results.progress
    wait_for(lambda: progress.look().is_over, within=60)
    counts = progress.look()
    assert {state.value: count for state, count in counts.ended.items() if count} == {"succeeded": 3, "failed": 2}
    (row,) = counts.failures.rows(str, str)
    assert row.facts[0] == "2 times"


@pytest.mark.parametrize("pool", ["loky", DASK], indirect=True)
def test_calls_behind_one_that_died_are_made_elsewhere(pool):
    """A crash and a timeout cost their calls, on each engine."""

    def call(number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 5:
            time.sleep(600)
        return number

    found = ended(pool.with_options(timeout=3, grace=0.1).map(call, range(8), chunksize=8))
    assert found == [0, 1, JobCrashedError, 3, 4, JobTimeoutError, 6, 7]


def test_closing_cancels_what_has_not_begun(pool):
    """The call that runs goes on to its end."""
    with pool.map(abs, range(1000), chunksize=1, buffersize=10) as results:
        assert next(results) == 0
    wait_for(lambda: results.progress.look().is_over, within=60)
    assert results.progress.look().done <= 20
