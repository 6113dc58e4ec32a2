"""How far the calls of a map are, while they run and at their end."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from jobcontainer import JobState
from waiting import wait_for

pytestmark = pytest.mark.usefixtures("as_notebook")


def over(results):
    """The counts of a map at its end."""
    wait_for(lambda: results.progress.look().is_over, within=60)
    return results.progress.look()


def ended(counts):
    return {state.value: count for state, count in counts.ended.items() if count}


def kinds(counts):
    return {row.title: row.facts for row in counts.failures.rows(str, lambda number: f"call {number}")}


def test_each_end_of_a_call_is_counted_once(shared):
    """Values, exceptions by their message, crashes, and the calls behind those, which other processes make."""

    def call(number):
        if number % 10 == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if number % 10 == 5:
            raise ValueError("five")
        if number == 8:
            raise KeyError(number)
        return number

    results = shared.map(call, range(40), chunksize=20)
    counts = over(results)
    assert ended(counts) == {"succeeded": 31, "failed": 5, "crashed": 4}
    found = kinds(counts)
    assert found["ValueError: five"][0] == "4 times"
    assert found["KeyError: 8"] == ("1 time", "last call 8")
    (crash,) = (facts for title, facts in found.items() if "SIGKILL" in title)
    assert crash[0] == "4 times"
    assert crash[1] in {f"last call {number}" for number in (3, 13, 23, 33)}
    assert len(found) == 3
    assert (counts.total, counts.name) == (40, "call")


def test_calls_of_a_chunk_that_runs_are_counted(shared, gate):
    """As they end, with what they raised; nothing is read twice by one who looks again and again."""

    def call(number):
        if number == 4:
            wait_for(gate.exists, within=60)
        return 6 // (number - 2)

    results = shared.map(call, range(8), chunksize=8)
    progress = results.progress
    wait_for(lambda: progress.look().done == 4, within=60)
    counts = progress.look()
    assert ended(counts) == {"succeeded": 3, "failed": 1}
    (row,) = counts.failures.rows(str, str)
    assert row.title.startswith("ZeroDivisionError: ")
    assert not counts.is_over
    assert counts.updated <= time.time()
    gate.touch()
    wait_for(lambda: progress.look().is_over, within=60)
    assert ended(progress.look()) == {"succeeded": 7, "failed": 1}
    assert progress.look().failures.rows(str, str)[0].facts == ("1 time", "last 2")
    assert ended(over(results)) == {"succeeded": 7, "failed": 1}


def test_what_a_job_says_of_its_calls_is_no_more_than_it_has(shared, gate):
    """Whatever it has written at the beginning of its file."""

    def call(number):
        if number == 1:
            for descriptor in Path("/proc/self/fd").iterdir():
                if descriptor.exists() and descriptor.readlink().name == "calls":
                    with descriptor.readlink().open("r+b") as file:
                        file.write(b"\xff" * 24)
                    break
            wait_for(gate.exists, within=60)
        return number

    results = shared.map(call, range(5), chunksize=5)
    progress = results.progress
    wait_for(lambda: progress.look().done == 5, within=60)
    gate.touch()
    assert ended(over(results)) == {"succeeded": 5}


def test_calls_that_are_cancelled_are_counted_so(shared, gate):
    """Those that have begun are ended, those that have not do not begin."""

    def call(number):
        if number:
            wait_for(gate.exists, within=60)
        return number

    results = shared.map(call, range(50), chunksize=5)
    progress = results.progress
    wait_for(lambda: progress.look().done, within=60)
    progress.cancel()
    wait_for(lambda: progress.look().is_over, within=60)
    counts = progress.look()
    assert ended(counts) == {"succeeded": 1, "cancelled": 49}
    assert counts.state is JobState.CANCELLED
    assert kinds(counts) == {}


def test_a_function_that_cannot_be_loaded_is_one_kind_of_failure(shared):
    """However many calls it has, and though only a few processes have tried."""

    class Unloadable:
        def __reduce__(self):
            return int, ("no number",)

    broken = Unloadable()
    results = shared.map(lambda _: broken, range(100))
    counts = over(results)
    assert ended(counts) == {"failed": 100}


def test_an_endless_map_waits_for_whoever_takes_its_results(shared):
    """Its number is not known until the last call is."""
    with shared.map(abs, iter(range(100)), buffersize=10) as results:
        progress = results.progress
        wait_for(lambda: progress.look().is_waiting, within=60)
        counts = progress.look()
        assert (counts.total, counts.done, counts.is_over) == (None, 10, False)
        assert list(results) == list(range(100))
        wait_for(lambda: progress.look().is_over, within=60)
        counts = progress.look()
        assert (counts.total, counts.done, counts.is_waiting) == (100, 100, False)


def test_a_folder_that_is_deleted_ends_no_count(shared):
    """Whoever shows the calls reads what is there."""
    results = shared.map(lambda number: 6 // number, range(5), chunksize=5)
    counts = over(results)
    shutil.rmtree(results.jobs[0].folder.path)
    counts = results.progress.look()
    assert counts.is_over
    assert ended(counts) == {"succeeded": 4, "failed": 1}


def test_a_map_shows_itself(shared):
    """As text and as HTML: the function, how many calls have ended and how, failures by kind; no result is taken."""
    results = shared.map(lambda number: 6 // number, range(5), chunksize=5)
    over(results)
    assert "5 calls 4 succeeded, 1 failed" in repr(results)
    assert "✖ ZeroDivisionError: " in repr(results)
    assert 'data-state="failed"' in results._repr_html_()
    for _ in range(2):
        try:
            next(results)
        except ZeroDivisionError:
            continue
        break
    else:
        pytest.fail("no result was left")
