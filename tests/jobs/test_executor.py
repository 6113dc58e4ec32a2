"""What the standard library promises of executors and futures, asked of a pool and its jobs.

Modelled on CPython's own ``test_concurrent_futures``. Where a job differs on purpose (a running one can be cancelled)
the test says so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import pytest

from jobcontainer import Job, JobCrashedError, JobPool, JobState, JobStore, SerializationError


class Returns:
    def __init__(self, value):
        self.value = value

    def run(self):
        return self.value


class Raises:
    def run(self):
        raise ZeroDivisionError("on purpose")


class WaitsFor:
    """Runs until a file is there: the test decides how long."""

    def __init__(self, path, value=None):
        self.path, self.value = str(path), value

    def run(self):
        deadline = time.monotonic() + 60
        while not Path(self.path).exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return self.value


def test_submit_returns_what_the_function_returned(pool):
    """A function with arguments is submitted as to any executor."""
    assert pool.submit(pow, 2, 8).result() == 256


def test_submit_passes_keyword_arguments_named_like_its_own(pool):
    """``self`` and ``fn`` are fine names for a function's arguments."""
    job = pool.submit(lambda **given: given, self=1, fn=2, work=3)
    assert job.result() == {"self": 1, "fn": 2, "work": 3}


def test_submit_takes_an_object_with_run(pool):
    """An object with ``run()`` needs no arguments and no base class."""
    assert pool.submit(Returns(42)).result() == 42


def test_an_exception_is_the_very_one_with_the_remote_traceback(pool):
    """Same type, same text, and the job's own frames as its cause."""
    job = pool.submit(Raises())
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        job.result()
    assert "raise ZeroDivisionError" in str(caught.value.__cause__)
    assert isinstance(job.exception(), ZeroDivisionError)


def test_map_keeps_the_order(pool):
    """``map`` returns results in the order of its arguments."""
    assert list(pool.map(pow, range(6), range(6))) == [pow(number, number) for number in range(6)]


def test_map_raises_at_the_place_of_the_failure(pool):
    """``map`` returns what came before a failure, and raises at its place."""
    results = pool.map(divmod, [1, 1, 1], [2, 1, 0])
    assert next(results) == (0, 1)
    assert next(results) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_times_out(shared, gate):
    """``timeout`` counts from the call of ``map``."""
    results = shared.map(_wait_for, [gate], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)


def _wait_for(path):
    return WaitsFor(path).run()


def test_result_times_out_and_the_job_goes_on(shared, gate):
    """A timeout of ``result()`` ends the waiting, not the job."""
    job = shared.submit(WaitsFor(gate, 5))
    with pytest.raises(TimeoutError):
        job.result(timeout=0.02)
    assert not job.done()
    gate.touch()
    assert job.result(timeout=30) == 5


def test_wait_returns_on_the_first_completed(shared, gate):
    """``concurrent.futures.wait`` returns when the first job has ended."""
    quick, slow = shared.submit(Returns(1)), shared.submit(WaitsFor(gate))
    done, pending = concurrent.futures.wait([quick, slow], 30, concurrent.futures.FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {slow})


def test_wait_returns_on_the_first_exception(shared, gate):
    """``concurrent.futures.wait`` returns when the first job has failed."""
    failing, slow = shared.submit(Raises()), shared.submit(WaitsFor(gate))
    done, pending = concurrent.futures.wait([failing, slow], 30, concurrent.futures.FIRST_EXCEPTION)
    assert (done, pending) == ({failing}, {slow})


def test_as_completed_gives_the_jobs_as_they_end(shared, gate):
    """``concurrent.futures.as_completed`` yields jobs in the order of their ends."""
    slow, quick = shared.submit(WaitsFor(gate)), shared.submit(Returns(1))
    ended = concurrent.futures.as_completed([slow, quick], 30)
    assert next(ended) is quick
    gate.touch()
    assert next(ended) is slow


def test_callbacks_are_called_once_with_the_job(pool):
    """A callback is called once with the job, at its end or, where it has ended, at once."""
    called = []
    ended = threading.Event()
    job = pool.submit(Returns(1))
    job.add_done_callback(lambda future: (called.append(future), ended.set()))
    assert ended.wait(30)
    job.add_done_callback(called.append)
    assert called == [job, job]


def test_a_raising_callback_harms_nobody(shared, caplog):
    """The standard library logs it; the next job runs."""
    job = shared.submit(Returns(1))
    job.add_done_callback(lambda _: 1 / 0)
    assert shared.submit(Returns(2)).result(30) == 2
    concurrent.futures.wait([job])
    caplog.clear()


def test_a_running_job_can_be_cancelled(shared, gate):
    """The difference from other futures: ``cancel()`` of a running job succeeds and ends it."""
    job = shared.submit(WaitsFor(gate))
    _until(lambda: job.started is not None)
    assert job.cancel()
    assert concurrent.futures.wait([job], 30).done == {job}
    assert job.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        job.result()


def test_await_gives_the_result(shared):
    """A job can be awaited, and wrapped by asyncio as any other future."""

    async def run():
        return await shared.submit(Returns(3)), await asyncio.wrap_future(shared.submit(Returns(4)))

    assert asyncio.run(run()) == (3, 4)


def test_cancelling_a_coroutine_that_awaits_leaves_the_job_running(shared, gate):
    """An interrupted cell must not end a background job."""
    job = shared.submit(WaitsFor(gate, 6))

    async def give_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_awaited(job), 0.05)

    asyncio.run(give_up())
    gate.touch()
    assert job.result(30) == 6


async def _awaited(job):
    return await job


def test_nothing_is_taken_after_shutdown(tmp_path):
    """A pool that was shut down refuses jobs, as any executor does."""
    pool = JobPool(1, store=tmp_path)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(pow, 2, 5)


def test_the_context_manager_waits_for_its_jobs(tmp_path):
    """Leaving the ``with`` block waits for all jobs, queued ones too."""
    with JobPool(2, store=tmp_path) as pool:
        jobs = [pool.submit(Returns(number)) for number in range(5)]
    assert all(job.done() for job in jobs)
    assert [job.result() for job in jobs] == list(range(5))


@pytest.mark.slow
def test_shutdown_can_cancel_what_has_not_started(tmp_path, gate):
    """``cancel_futures=True`` cancels queued jobs and lets the running one end."""
    with JobPool(1, store=tmp_path / "store") as pool:
        running = pool.submit(WaitsFor(gate, 1))
        queued = [pool.submit(Returns(2)) for _ in range(5)]
        pool.shutdown(wait=False, cancel_futures=True)
        assert all(job.cancelled() for job in queued)
        gate.touch()
    assert running.result() == 1


@pytest.mark.slow
def test_a_dropped_pool_finishes_its_jobs_and_ends_its_workers(tmp_path):
    """As the standard library's: no reference to the pool is needed for its jobs to end."""
    pool = JobPool(1, store=tmp_path)
    gone = weakref.ref(pool)
    jobs = [pool.submit(Returns(number)) for number in range(3)]
    del pool
    gc.collect()
    assert gone() is None
    assert [job.result(30) for job in jobs] == [0, 1, 2]


def test_a_pool_is_gone_with_its_last_reference(tmp_path):
    """Not only when the collector runs: a stop between ``with`` and its end may be what drops it. A view keeps it."""
    pool = JobPool(engine="inline", store=tmp_path)
    gone, view = weakref.ref(pool), pool.with_options(retries=1)
    gc.disable()
    try:
        del pool
        assert gone() is not None
        del view
        assert gone() is None
    finally:
        gc.enable()


def test_results_are_not_kept_by_the_pool(pool):
    """Once the job is dropped, so is its result."""
    job = pool.submit(Returns({1, 2}))
    result = weakref.ref(job.result())
    del job
    _until(lambda: gc.collect() is not None and result() is None)


def test_a_script_that_ends_waits_for_its_jobs(tmp_path):
    """As the standard library's executors; without a guard, and without shutdown."""
    done = _script(
        """
        from jobcontainer import JobPool

        class Slow:
            def run(self):
                import time
                time.sleep(0.3)
                print("the job has run")

        job = JobPool(2).submit(Slow())
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (job,) = JobStore(tmp_path / ".jobcontainer").jobs()
    assert (job.state, job.log) == (JobState.SUCCEEDED, "the job has run\n")


@pytest.mark.slow
def test_an_unguarded_script_neither_hangs_nor_forks_without_end(tmp_path):
    """No ``if __name__ == "__main__"`` is needed: a job never imports the script."""
    done = _script(
        """
        from jobcontainer import JobPool
        print("the script runs")

        class Answer:
            def run(self):
                return 42

        with JobPool(2) as pool:
            print(pool.submit(Answer()).result(), pool.submit_all([Answer()] * 3).results())
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr) == ("the script runs\n42 [42, 42, 42]\n", "")


def test_a_crash_costs_only_its_own_job(shared):
    """Other executors lose every pending future with one worker."""
    jobs = [shared.submit(Returns(number)) for number in range(4)]
    crash = shared.submit(os._exit, 3)
    jobs += [shared.submit(Returns(number)) for number in range(4, 8)]
    assert [job.result(30) for job in jobs] == list(range(8))
    with pytest.raises(JobCrashedError):
        crash.result(30)


def test_a_pickled_job_is_a_handle(shared):
    """It finds its way back to the folder."""
    job = shared.submit(Returns("kept"))
    job.result(30)
    again = pickle.loads(pickle.dumps(job))
    assert isinstance(again, Job)
    assert (again.id, again.result()) == (job.id, "kept")


def test_rerun_runs_the_same_process_again(shared):
    """``rerun()`` is a new, later job with the same process and name."""
    job = shared.submit(Returns([1]))
    again = job.rerun()
    assert (again.result(30), again.name) == ([1], "Returns")
    assert again.id > job.id


def test_views_share_slots_and_differ_in_options(shared):
    """``with_options`` changes the options of its own jobs alone."""
    view = shared.with_options(env={"VIEW": "1"}, name="named")
    job = view.submit(os.getenv, "VIEW")
    assert (job.result(30), job.name) == ("1", "named")
    assert shared.submit(os.getenv, "VIEW").result(30) is None


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"max_workers": 0}, ValueError, "max_workers=0"),
        ({"max_workers": 1.5}, ValueError, "max_workers=1.5"),
        ({"engine": "spark"}, ValueError, "engine='spark'"),
        ({"timeout": -1}, ValueError, "timeout=-1"),
        ({"memory": "2 XB"}, ValueError, "memory='2 XB'"),
        ({"retries": -1}, ValueError, "retries=-1"),
        ({"isolation": "none"}, ValueError, "isolation='none'"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, given, error, words):
    """An argument that can't be meant is refused by a message with its name and value."""
    with pytest.raises(error, match=words):
        JobPool(store=tmp_path, **given)


def test_a_detached_job_of_another_engine_is_refused(tmp_path):
    """The host runs jobs on this machine; one that was meant for elsewhere must not end up there unnoticed."""
    with JobPool(engine="inline", store=tmp_path) as pool, pytest.raises(ValueError, match="detach"):
        pool.with_options(detach=True).submit(Returns(1))
    assert list(JobStore(tmp_path).jobs()) == []


def test_a_store_on_a_file_is_told_before_anything_runs(tmp_path):
    """A store whose path is a file is refused when the pool is made."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        JobPool(store=tmp_path / "file")


@pytest.mark.parametrize(
    ("work", "arguments", "words"),
    [(Returns, (), "submit an instance"), (Returns(1), (2,), "constructor"), (42, (), "nothing to run")],
)
def test_what_can_not_run_is_refused(shared, work, arguments, words):
    """What has no ``run()`` is refused at submit, with what to do instead."""
    with pytest.raises(TypeError, match=words):
        shared.submit(work, *arguments)


class HidesItsClass:
    @property
    def __class__(self):
        raise ValueError("on purpose")

    def run(self):
        return 1


class RaisesForRun:
    @property
    def run(self):
        raise ValueError("on purpose")


class RaisesForAll:
    def __getattribute__(self, name):
        raise ValueError("on purpose")


def make_one_that_hides_its_class():
    return HidesItsClass()


@pytest.mark.parametrize("kind", [RaisesForRun, RaisesForAll])
def test_a_run_that_can_not_be_read_is_refused(shared, kind):
    """With its name and what it raised, and not with that error itself."""
    with pytest.raises(TypeError, match=f"run of {kind.__name__} can't be read, as that raised ValueError"):
        shared.submit(kind())


@pytest.mark.parametrize(
    ("hold", "path"),
    [
        (lambda part: part, "process"),
        (Returns, r"process\.value"),
        (lambda part: Returns([part]), r"process\.value\[0\]"),
    ],
    ids=["the process", "a part", "a part of a list"],
)
def test_an_object_that_hides_its_class_is_named(shared, hold, path):
    """Pickle asks for it, so it can't go into a file; the error names the part."""
    with pytest.raises(SerializationError, match=rf"{path} \(.*HidesItsClass\): Pickling it raised ValueError"):
        shared.submit(hold(HidesItsClass()))


def test_a_result_that_hides_its_class_is_named(shared):
    """The end says which part it is."""
    with pytest.raises(SerializationError, match=r"result \(.*HidesItsClass\)"):
        shared.submit(make_one_that_hides_its_class).result(60)


def test_many_are_submitted_all_or_none(shared):
    """One that can't be pickled leaves no folder of the others."""
    before = set(shared.store.iterdir())
    with pytest.raises(SerializationError, match=r"process\.value \(_thread\.lock\)"):
        shared.submit_all([Returns(1), Returns(threading.Lock())])
    assert set(shared.store.iterdir()) == before


def _script(code, folder):
    path = Path(folder) / "script.py"
    path.write_text(textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, str(path)], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def _until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
