"""``pool.map``: many calls in chunks, of which each call stands for itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import gc
import itertools
import os
import pickle
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jobcontainer import (
    JobCrashedError,
    JobFailedError,
    JobMemoryError,
    JobPool,
    JobState,
    JobStore,
    JobTimeoutError,
    SerializationError,
)
from jobcontainer.jobfile.format import digest_of
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.store_folder import StoreFolder
from waiting import ended, wait_for

pytestmark = pytest.mark.usefixtures("as_notebook")


def wait_until(path):
    wait_for(Path(path).exists, within=60)


def logged(folder, number):
    """Note that a call was made, and return its number."""
    Path(folder, f"{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return number


def made(folder):
    """Return the number of each call that was made, as often as it was."""
    return sorted(int(path.name.split("-")[0]) for path in Path(folder).iterdir())


def refuse_link(*_args, **_more):
    raise OSError(errno.EPERM, "Operation not permitted")


def open_files():
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(descriptor.readlink())
    return found


def own_file():
    """Return the file into which this job's results go."""
    return next(path for path in open_files() if path.name == "calls")


# --- as the standard library's ----------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_arguments(pool):
    """However many chunks there are, and whichever ends first."""
    assert list(pool.map(divmod, range(500), itertools.repeat(7))) == [divmod(number, 7) for number in range(500)]


def test_the_shortest_iterable_ends_the_calls(pool):
    """As with the built-in ``map``; none at all are fine, too."""
    assert list(pool.map(pow, [2, 3, 4], itertools.count(1))) == [2, 9, 64]
    assert list(pool.map(pow, [], [])) == []
    assert list(pool.map(pow)) == []


@pytest.mark.parametrize(("given", "chunks"), [(1, 7), (3, 3), (7, 1), (100, 1)])
def test_a_chunk_has_as_many_calls_as_were_asked_for(shared, given, chunks):
    """``chunksize`` says how many calls share a process."""
    results = shared.map(lambda _: os.getpid(), range(7), chunksize=given)
    pids = list(results)
    assert len(set(pids)) == len(results.jobs) == chunks
    assert pids == sorted(pids, key=pids.index)


@pytest.mark.parametrize("wrong", [{"chunksize": 0}, {"chunksize": 1.5}, {"buffersize": 0}, {"buffersize": True}])
def test_nonsense_is_refused(shared, wrong):
    """The message names the argument, and what it takes."""
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*a whole number from 1 up"):
        shared.map(abs, [1], **wrong)
    with pytest.raises(TypeError, match="is no function"):
        shared.map(5, [1])


def test_a_map_that_is_to_outlive_its_process_is_refused(shared):
    """It can't: its calls are submitted by this process, bit by bit. The message says what can be done instead."""
    detached = shared.with_options(detach=True)
    with pytest.raises(ValueError, match=r"detach=True.*makes the calls in its run\(\)"):
        detached.map(abs, [1])
    assert list(detached.with_options(detach=False).map(abs, [-1])) == [1]


def test_an_exception_is_the_result_of_its_call(pool):
    """It is raised at its place, with the traceback of the job as its cause; the iteration can go on behind it."""
    results = pool.map(lambda number: 6 // number, [3, 0, 2, "a", 1])
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert "6 // number" in str(caught.value.__cause__)
    assert "call_chunk" not in str(caught.value.__cause__)
    assert ended(results) == [3, TypeError, 6]


class UnusualError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class UnreturnableError(UnusualError):
    def __reduce__(self):
        return UnreturnableError, ("one",)


def test_what_cannot_come_back_costs_its_call(shared):
    """A value that can't be pickled, and an exception that can't be unpickled, are errors of their calls alone."""

    def call(number):
        if number == 1:
            return threading.Lock()
        if number == 2:
            raise UnreturnableError("this", "that")
        if number == 3:
            raise asyncio.CancelledError
        if number == 5:
            raise UnusualError("this", "that")
        return number

    results = shared.map(call, range(6), chunksize=6)
    assert ended(results) == [0, SerializationError, JobFailedError, asyncio.CancelledError, 4, UnusualError]


def test_arguments_that_cannot_be_pickled_cost_their_calls(shared):
    """Those that can't be written, and those that can't be loaded."""

    class Unloadable:
        def __reduce__(self):
            return int, ("no number",)

    arguments = [*range(5), threading.Lock(), 6, Unloadable(), *range(8, 12)]
    found = ended(shared.map(lambda given: given, arguments, chunksize=12))
    assert found == [0, 1, 2, 3, 4, SerializationError, 6, ValueError, 8, 9, 10, 11]


def test_a_function_that_cannot_be_pickled_is_refused_at_once(shared):
    """The error says which part, and nothing was submitted."""
    lock = threading.Lock()
    before = len(JobStore(shared.store).jobs())
    with pytest.raises(SerializationError, match="lock"):
        shared.map(lambda _: lock, range(5))
    assert len(JobStore(shared.store).jobs()) == before


def test_a_function_that_cannot_be_loaded_is_not_tried_for_each_call(shared):
    """Every call gets the error; a few processes find out."""

    class Unloadable:
        def __reduce__(self):
            return int, ("no number",)

    broken = Unloadable()
    results = shared.map(lambda _: broken, range(1000))
    assert ended(results) == [ValueError] * 1000
    assert len(results.jobs) < 60


def test_timeout_counts_from_the_call(shared, gate):
    """As with ``concurrent.futures``: the iteration ends, and what has not begun is cancelled."""
    results = shared.map(wait_until, [gate] * 20, timeout=0.2, chunksize=1)
    with pytest.raises(TimeoutError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    gate.touch()
    assert concurrent.futures.wait(results.jobs, 30).not_done == set()
    assert results.jobs.summary()[JobState.CANCELLED] >= 2


def test_coroutine_functions_are_awaited(shared):
    """As ``async def run`` is."""

    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    assert list(shared.map(double, range(5))) == [0, 2, 4, 6, 8]


# --- a crash costs its call -------------------------------------------------------------------------------------------


def test_a_crash_costs_its_call(shared, tmp_path):
    """What was made before is kept, what comes after goes on in another process, and no call is made twice."""

    def call(number):
        logged(tmp_path, number)
        if number % 10 == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 35:
            os._exit(0)
        if number == 37:
            raise SystemExit(4)
        return number

    found = ended(shared.map(call, range(40), chunksize=40))
    dead = {3, 13, 23, 33, 35, 37}
    assert found == [JobCrashedError if number in dead else number for number in range(40)]
    assert made(tmp_path) == list(range(40))


def test_a_call_that_crashes_may_be_tried_again(shared, tmp_path):
    """``retries`` counts for each call that ended its process, not for those beside it."""

    def call(number):
        logged(tmp_path, number)
        if number in {2, 4} and made(tmp_path).count(number) <= 2:
            os._exit(1)
        return number

    with_retries = shared.with_options(retries=2)
    assert list(with_retries.map(call, range(6), chunksize=6)) == list(range(6))
    assert made(tmp_path) == [0, 1, 2, 2, 2, 3, 4, 4, 4, 5]


def test_the_clock_of_timeout_starts_anew_with_each_call(shared):
    """Many calls may take longer together; the one that does alone is ended, and those behind it are made."""

    def call(number):
        time.sleep(60 if number == 4 else 0.2)
        return number

    limited = shared.with_options(timeout=1, grace=0.1)
    assert ended(limited.map(call, range(10), chunksize=10)) == [0, 1, 2, 3, JobTimeoutError, 5, 6, 7, 8, 9]


@pytest.mark.slow
def test_a_call_that_catches_its_interrupt_does_not_bring_in_the_next(shared, tmp_path):
    """It was to stop: what it returned then is kept, and the calls behind it are made elsewhere."""

    def call(number):
        logged(tmp_path, number)
        if number == 1:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                return "stopped"
        return os.getpid()

    limited = shared.with_options(timeout=1.5, grace=5)
    before, stopped, *after = ended(limited.map(call, range(4), chunksize=4))
    assert stopped == "stopped"
    assert before not in after
    assert made(tmp_path) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_job_cannot_prolong_itself_by_its_own_clock(shared):
    """Whatever is in its file, a chunk ends once each of its calls has had its time."""

    def call(number):
        if number:
            return number
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with own_file().open("r+b") as file:
                file.write(b"\xff" * 8)
                file.seek(0)
                file.write(np.float64(time.monotonic() + 1000).tobytes())
            time.sleep(0.01)
        return None

    begun = time.monotonic()
    limited = shared.with_options(timeout=1, grace=0.1)
    assert ended(limited.map(call, range(2), chunksize=2)) == [JobTimeoutError, 1]
    assert time.monotonic() - begun < 15


def test_memory_is_that_of_the_process(shared):
    """The call that goes beyond it is ended, those beside it are not."""

    def call(number):
        held = bytearray(400_000_000) if number == 2 else b""
        for position in range(0, len(held), 4096):
            held[position] = 1
        time.sleep(0.2 if held else 0)
        return number

    limited = shared.with_options(memory="200MB")
    assert ended(limited.map(call, range(5), chunksize=5)) == [0, 1, JobMemoryError, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "chunksize"), [(0, None), (1, 50)])
def test_every_call_ends_once_in_its_own_way(shared, tmp_path, seed, chunksize):
    """Kills, faults, exits, endless calls, too much memory, exceptions, in any order, in chunks of any size."""
    random = np.random.default_rng(seed)
    numbers = {"value": 80, "raise": 15, "kill": 6, "fault": 4, "abort": 3, "exit": 6, "hang": 2, "memory": 2}
    kinds = [str(kind) for kind in random.permutation([kind for kind, count in numbers.items() for _ in range(count)])]

    def call(number, kind):
        logged(tmp_path, number)
        match kind:
            case "raise":
                raise ValueError(number)
            case "kill" | "fault" | "abort":
                os.kill(os.getpid(), {"kill": signal.SIGKILL, "fault": signal.SIGSEGV, "abort": signal.SIGABRT}[kind])
            case "exit":
                os._exit(number % 3)
            case "hang":
                time.sleep(600)
            case "memory":
                held = bytearray(400_000_000)
                held[::4096] = b"1" * len(held[::4096])
                time.sleep(600)
        return number

    ends = {"raise": ValueError, "hang": JobTimeoutError, "memory": JobMemoryError}
    expected = [number if kind == "value" else ends.get(kind, JobCrashedError) for number, kind in enumerate(kinds)]
    limited = shared.with_options(timeout=4, grace=0.1, memory="300MB")
    results = limited.map(call, itertools.count(), kinds, chunksize=chunksize)
    assert ended(results) == expected
    assert made(tmp_path) == list(range(len(kinds)))
    wait_for(lambda: results.progress.look().is_over)
    counts = results.progress.look()
    assert {state: count for state, count in counts.ended.items() if count} == {
        JobState.SUCCEEDED: 80,
        JobState.FAILED: 15,
        JobState.CRASHED: 19,
        JobState.TIMED_OUT: 2,
        JobState.OUT_OF_MEMORY: 2,
    }


@pytest.mark.slow
def test_chaos(shared, tmp_path):
    """Processes are killed from within and from outside, at any instant: every call has one result, its own."""

    def call(number):
        logged(tmp_path, number)
        if number % 97 == 5:
            os.kill(os.getpid(), (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)[number % 3])
        if number % 50 == 7:
            raise KeyError(number)
        time.sleep(0.001)
        return number

    results = shared.map(call, range(1500))
    over = threading.Event()

    def kill():
        while not over.wait(0.15):
            for path in list(tmp_path.iterdir())[-1:]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(path.name.split("-")[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = ended(results)
    finally:
        over.set()
        killer.join()
    assert len(found) == 1500
    for number, one in enumerate(found):
        if number % 97 == 5:
            assert one is JobCrashedError
        else:
            assert one in {KeyError if number % 50 == 7 else number, JobCrashedError}
    assert sum(one is JobCrashedError for one in found) < 200
    assert max(made(tmp_path).count(number) for number in range(0, 1500, 7)) == 1


# --- as they come, and no more than wanted ----------------------------------------------------------------------------


def test_results_are_there_as_they_come(shared, gate):
    """A call whose chunk still runs has its result already."""

    def call(number):
        if number == 2:
            wait_until(gate)
        return number

    results = shared.map(call, range(4), chunksize=4)
    assert [next(results), next(results)] == [0, 1]
    assert not results.jobs[0].done()
    gate.touch()
    assert list(results) == [2, 3]


def test_endless_iterables_are_taken_from_as_results_are(shared):
    """No more calls are under way than the buffer has room for."""
    taken = []

    def count():
        for number in itertools.count():
            taken.append(number)
            yield number

    with shared.map(abs, count(), buffersize=30) as results:
        for expected in range(300):
            assert next(results) == expected
            assert len(taken) <= expected + 1 + 30
    assert len(taken) < 340


def test_an_error_of_the_iterable_is_raised_where_it_is_taken(shared):
    """At once, or, with a buffer, when the next are taken."""

    def numbers():
        yield from range(40)
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        shared.map(abs, numbers())
    results = shared.map(abs, numbers(), buffersize=10)
    found = []
    with pytest.raises(KeyError, match="no more"):
        found.extend(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("how", ["close", "with", "break", "delete"])
def test_breaking_off_cancels_what_has_not_begun(shared, tmp_path, how):
    """A call that runs goes on to its end; the next of its chunk, and of the chunks behind it, are not made."""
    calls, go = tmp_path / "calls", tmp_path / "go"
    calls.mkdir()

    def call(number):
        logged(calls, number)
        if number:
            wait_until(go)
            time.sleep(0.06)  # no call looks sooner whether there are to be more
        return number

    results = shared.map(call, range(100), chunksize=10)
    if how == "with":
        with results:
            assert next(results) == 0
    else:
        for _ in results:
            break
    jobs = results.jobs if how != "delete" else None
    if how == "close":
        results.close()
        results.close()
    if how not in {"with", "close"}:
        del results
        gc.collect()
    if jobs is not None:
        wait_for(lambda: all(job.state is not JobState.QUEUED for job in jobs))
    wait_for(
        lambda: all(
            (job.folder.path / "no-more-calls").exists() for job in JobStore(shared.store).jobs() if not job.done()
        )
    )
    go.touch()
    wait_for(lambda: all(job.done() for job in JobStore(shared.store).jobs()))
    assert len(made(calls)) <= 4


def test_results_that_nobody_looks_at_are_made_all_the_same(shared, tmp_path):
    """As with ``concurrent.futures``: only an iteration that has begun can be broken off."""
    shared.map(lambda number: logged(tmp_path, number), range(300))
    wait_for(lambda: made(tmp_path) == list(range(300)))


@pytest.mark.slow
def test_calls_are_made_to_the_end_after_a_shutdown(tmp_path):
    """Leaving the ``with`` block of the pool waits for calls that are in no chunk yet, too."""
    with JobPool(1, store=tmp_path / "store") as pool:
        results = pool.map(abs, range(200), chunksize=10)
    assert all(job.done() for job in results.jobs)
    assert list(results) == list(range(200))


@pytest.mark.slow
def test_a_shutdown_can_cancel_the_calls_that_have_not_begun(tmp_path, gate):
    """``cancel_futures=True``: also those that are in no chunk yet."""
    pool = JobPool(1, store=tmp_path / "store")
    results = pool.map(wait_until, [gate] * 20, chunksize=1)
    wait_for(lambda: results.jobs[0].started)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.touch()
    pool.shutdown()
    assert ended(results) == [None] + [concurrent.futures.CancelledError] * 19
    assert len(results.jobs) == 2


def test_jobs_that_are_cancelled_cancel_their_calls(shared, gate):
    """The chunks are jobs as any other: ``results.jobs.cancel()`` ends them, and no other process makes their calls."""
    results = shared.map(wait_until, [gate] * 6, chunksize=3)
    wait_for(lambda: results.jobs[0].started)
    results.jobs.cancel()
    assert ended(results) == [concurrent.futures.CancelledError] * 6


# --- what comes back --------------------------------------------------------------------------------------------------


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

    __hash__ = None


def test_any_value_comes_back(shared):
    """Plain ones, arrays of any size, which may be written to, and objects of the notebook's classes."""
    values = [
        None,
        -(2**70),
        {"a": 1},
        ("text", b"bytes", 1.5, True),
        [[1], {2}],
        np.float64(2.5),
        Point(3),
        range(3),
        "x" * 5_000_000,
        {(1, 2): Point(4)},
    ]
    assert list(shared.map(lambda value: value, values)) == values
    arrays = list(shared.map(np.arange, [3, 1_000_000, 0, 20_000]))
    assert [len(array) for array in arrays] == [3, 1_000_000, 0, 20_000]
    arrays[1][0] = 7
    assert arrays[1].sum() == np.arange(1_000_000).sum() + 7


def test_the_function_and_the_arguments_share_what_they_share_here(shared):
    """A class of the notebook that both refer to is one class in the job, and so is an object that both hold."""

    class Shape:
        pass

    one = Shape()

    def call(given):
        return isinstance(given, Shape), given is one

    assert list(shared.map(call, [one, Shape()])) == [(True, True), (True, False)]


def test_the_function_is_pickled_once(shared):
    """However many chunks there are."""
    pickled = []

    class Counted:
        def __getstate__(self):
            pickled.append(1)
            return {}

    counted = Counted()
    assert list(shared.map(lambda number: counted and number, range(30), chunksize=3)) == list(range(30))
    assert len(pickled) == 1


@pytest.mark.filterwarnings("ignore:The file system of .* has no hard links")
@pytest.mark.parametrize("size", [1000, 10**6], ids=["small", "large"])
@pytest.mark.parametrize("copies", [False, True], ids=["links", "copies"])
def test_what_the_function_holds_is_what_it_was_at_the_call_of_map(tmp_path, monkeypatch, size, copies):
    """Whoever changes an array meanwhile changes no later chunk; and it is hashed and written once."""
    if copies:
        monkeypatch.setattr(os, "link", refuse_link)
    held, hashed = np.zeros(size), []
    monkeypatch.setattr("jobcontainer.storage.data.digest_of", lambda view: hashed.append(len(view)) or digest_of(view))

    def numbers():
        held[:] = 1  # code of the iterable runs before the function is pickled
        yield from range(40)

    with JobPool(1, engine="inline", store=tmp_path) as pool:
        results = pool.map(lambda number: number + int(held.sum()), numbers(), chunksize=4, buffersize=8)
        found = []
        for result in results:
            held[:] = 7
            found.append(result)
        assert found == [number + size for number in range(40)]
        assert len(results.jobs) > 5
    assert copies or len(hashed) <= 1
    assert len(list((tmp_path / "data").glob("*"))) == (0 if copies or size == 1000 else 1)


def test_what_the_function_holds_is_kept_until_the_last_chunk(tmp_path):
    """Also where no folder of a chunk before has it any more; and not longer."""
    held = np.arange(10**6)
    with JobPool(1, engine="inline", store=tmp_path) as pool:
        results = pool.map(lambda number: int(held[number]), range(40), chunksize=4, buffersize=4)
        for number, result in enumerate(results):
            assert result == number
            held[:] = 0
            for blob in tmp_path.glob("*/process.job.*"):
                blob.unlink()
            SharedData(StoreFolder(tmp_path)).remove_unused()
            assert list((tmp_path / "data").glob("*")) == []
    assert not any("process.job" in path.name for path in open_files())


def test_results_are_loaded_only_if_they_are_signed_for_their_place(shared):
    """Records that a job writes by itself, or moves, are no results: nothing of them is unpickled."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, ("evil",)

    evil = pickle.dumps(Evil())

    def call(number):
        if number == 1:
            data = own_file().read_bytes().rstrip(b"\0")
            new = own_file().with_name("calls.new")
            new.write_bytes(data[:-40] + bytes(16) + len(evil).to_bytes(8, "little") + b"\0" + evil)
            new.replace(own_file())
        return number

    found = ended(shared.map(call, range(3), chunksize=3))
    assert len(found) == 3
    assert all(one in {0, 1, 2} or issubclass(one, Exception) for one in found)
    assert not Path("evil").exists()


def test_a_child_that_a_call_forks_speaks_for_nobody(shared):
    """It ends where its call returns; the results are those of the job's own process."""

    def call(number):
        if number == 2 and os.fork() == 0:
            return "child"
        return os.getpid()

    pids = list(shared.map(call, range(5), chunksize=5))
    assert len(set(pids)) == 1


def test_calls_run_on_while_the_folder_stays_a_folder(shared):
    """The chunk's own job can be looked at, loaded and run again as any other."""
    results = shared.map(lambda number: number + 1, range(10), chunksize=10)
    assert list(results) == list(range(1, 11))
    (job,) = results.jobs
    assert job.result().calls == 10
    assert job.process.run() == list(range(1, 11))
    assert job.rerun().result(30).calls == 10


@pytest.mark.slow
def test_chunks_grow_until_they_take_a_while(shared):
    """Tiny calls come in few processes, longer ones in such as take about 0.2 s."""
    tiny = shared.map(abs, range(100_000))
    assert sum(tiny) == sum(range(100_000))
    assert len(tiny.jobs) < 40
    longer = shared.map(lambda _: time.sleep(0.01), range(100))
    assert list(longer) == [None] * 100
    assert len(longer.jobs) <= 14


def test_a_folder_that_is_deleted_while_it_is_read_moves_no_result(shared, gate):
    """Calls whose results were handed out are made again then, and each result still comes once, at its place."""

    def call(number):
        if number == 3:
            wait_until(gate)
        return number

    results = shared.map(call, range(10), chunksize=10)
    found = [next(results) for _ in range(3)]
    shutil.rmtree(results.jobs[0].folder.path)
    gate.touch()
    assert found + list(results) == list(range(10))


def test_a_forked_child_that_drops_the_results_cancels_no_call(shared, gate):
    """It has a copy of them, and the calls are its parent's."""
    results = shared.map(lambda number: number if number == 0 else wait_until(gate), range(4), chunksize=2)
    assert next(results) == 0
    child = os.fork()
    if child == 0:
        results.close()
        files = [job.folder.path / "no-more-calls" for job in results.jobs]
        with contextlib.suppress(BaseException):  # there shall be none
            wait_for(lambda: all(file.exists() for file in files), within=0.5)
        os._exit(0)
    os.waitpid(child, 0)
    gate.touch()
    assert list(results) == [None] * 3
