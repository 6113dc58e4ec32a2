"""Jobs that need other jobs: a job inside a process becomes its result, and what becomes of a job whose input fails."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from echo_engine import EchoEngine
from jobcontainer import (
    JobContainer,
    JobPool,
    JobState,
    JobStore,
    JobUpstreamError,
    SerializationError,
    Serializer,
)
from jobcontainer.errors import CorruptFileError
from jobcontainer.jobs.control import StoreControl
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.views.card import job_card
from jobcontainer.views.group_card import GroupSummary
from jobcontainer.views.render import Listing, card_text
from jobcontainer.views.snapshot import snapshot_of
from jobcontainer.worker import process_tree
from waiting import is_running, wait_for

pytestmark = pytest.mark.usefixtures("as_notebook")


class Gives:
    def __init__(self, value, *needed):
        self.value, self.needed = value, needed

    def run(self):
        return self.value


class Table:
    def __init__(self, rows):
        self.rows = rows


class Sees:
    """Says what it was given."""

    def __init__(self, *needed):
        self.needed = needed

    def run(self):
        return self.needed


class Fails:
    def __init__(self, *needed):
        self.needed = needed

    def run(self):
        raise KeyError("bad row")


def add(*numbers, plus=0):
    return sum(numbers) + plus


@pytest.fixture
def echo(tmp_path):
    """A pool over an engine without processes, whose jobs end when the test says so."""
    engine = EchoEngine()
    with JobPool(engine=engine, store=tmp_path / "echo") as pool:
        yield pool
        engine.hold.set()


# --- values ---------------------------------------------------------------------------------------------------------


def test_a_job_inside_a_process_is_its_result(pool):
    """Anywhere: an attribute, in a list, an argument of a function, a group as a list; the same job, one object."""
    data = pool.submit(Gives([1, 2]))
    fits = pool.submit_all([Gives(number) for number in range(3)])
    whole = pool.submit(Sees(data, {"deep": [data]}, fits, JobStore(pool.store).open(data.id)))
    first, deep, listed, again = whole.result(60)
    assert (first, listed) == ([1, 2], [0, 1, 2])
    assert first is deep["deep"][0] is again
    assert pool.submit(add, fits[1], fits[2], plus=fits[2]).result(60) == 5
    assert [one.id for one in whole.inputs] == [data.id, *(fit.id for fit in fits)]


def test_a_class_of_the_notebook_is_one_class_in_process_and_input(pool):
    """An input of it is an instance of the very class that the process's code names."""

    class Checks:
        def __init__(self, table):
            self.table = table

        def run(self):
            return type(self.table) is Table, isinstance(self.table, Table), self.table.rows

    table = pool.submit(Gives(Table(3)))
    assert pool.submit(Checks(table)).result(60) == (True, True, 3)


def test_a_process_shows_handles_in_the_notebook(pool):
    """``job.process`` has the jobs in their places, and can be submitted again; so can what a file gives."""
    data = pool.submit(Gives(7))
    whole = pool.submit(Sees(data))
    (handle,) = whole.process.needed
    assert handle.id == data.id
    assert pool.submit(whole.process).result(60) == (7,)
    loaded = Serializer.deserialize_from_file(whole.folder.process_file)
    assert loaded.needed[0].job == data.id
    assert pool.submit(loaded).result(60) == (7,)


def test_elsewhere_a_job_stays_a_handle(pool):
    """In a plain pickle and in a file that is no process; only a process has results in their place."""
    data = pool.submit(Gives(7))
    data._wait(60)
    assert pickle.loads(pickle.dumps(data)).result() == 7
    assert [job.id for job in pickle.loads(pickle.dumps(JobStore(pool.store).jobs()[-1:]))] == [data.id]


def test_a_process_that_holds_jobs_can_be_saved_and_run_later(pool, tmp_path, monkeypatch):
    """Its file names the jobs, with their digests; one that is gone by then is a sentence at submit."""
    monkeypatch.setattr("jobcontainer.jobs.container.shared_pool", lambda: pool)
    data = pool.submit(Gives(7))
    Serializer.serialize_to_file(Sees(data), tmp_path / "saved.job")
    assert [one.job for one in Serializer.inspect(tmp_path / "saved.job").inputs] == [data.id]
    assert JobContainer(tmp_path / "saved.job").execute() == (7,)
    data.folder.delete()
    with pytest.raises(JobUpstreamError, match=f"{data.id}.*was deleted"):
        JobContainer(tmp_path / "saved.job").submit()


def test_a_folder_that_is_another_job_is_no_input(pool):
    """The process file in it has another signature: the job says that its input is gone, and loads nothing."""
    data, other = pool.submit_all([Gives(7), Gives(8)])
    whole = pool.with_options(retries=0).submit(Sees(data))
    whole.result(60)
    shutil.copyfile(other.folder.process_file, data.folder.process_file)
    again = whole.rerun()
    again._wait(60)
    assert isinstance(again.exception(), JobUpstreamError)


def test_a_store_that_was_moved_finds_its_inputs(tmp_path):
    """They lie beside the job that needs them."""
    with JobPool(engine="inline", store=tmp_path / "here") as pool:
        whole = pool.submit(Sees(pool.submit(Gives(7))))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = JobStore(tmp_path / "there").open(whole.id)
    assert [job.result() for job in moved.inputs] == [7]
    with JobPool(engine="inline", store=tmp_path / "there") as pool:
        assert pool.rerun(moved).result() == (7,)


# --- order, and ends ------------------------------------------------------------------------------------------------


def test_after_is_order_without_a_value(pool):
    """``after=`` takes a job, a group, or a list of these, at every way in; of a function with_options()."""
    first = pool.submit(Gives(1))
    group = pool.submit_all([Gives(2)], after=first)
    last = pool.submit(Gives(3), after=[first, group])
    called = pool.with_options(after=last).submit(add, 4)
    assert (last.result(60), called.result(60)) == (3, 4)
    assert [[job.id for job in one.inputs] for one in (group[0], last, called)] == [
        [first.id],
        [first.id, group[0].id],
        [last.id],
    ]


@pytest.mark.parametrize("after", ["20261122", 7, [None, "x"]])
def test_what_is_no_job_can_not_come_before(pool, after):
    """A sentence says what ``after=`` takes."""
    with pytest.raises(ValueError, match="a job, a group of jobs"):
        pool.submit(Gives(1), after=after)


def test_a_waiting_job_holds_no_slot_and_says_what_it_waits_for(echo):
    """Its card, its row in a listing, and another process say so; it starts when its input has ended."""
    echo._control.scheduler.engine.hold.clear()
    data = echo.submit(Gives(1))
    near = [echo.submit(Gives(2), after=data), echo.submit(Gives(3))]
    whole = echo.submit(Sees(near))
    foreign = StoreControl(StoreFolder(echo.store))
    foreign._live_jobs = dict
    seen = foreign.open(whole.folder)
    assert (whole.state, seen.state, echo.position(whole)) == (JobState.WAITING, JobState.WAITING, None)
    assert "It needs: Gives (running) → 2 Gives (1 waiting, 1 queued)" in card_text(job_card(snapshot_of(whole), 0.0))
    card = GroupSummary([near[0], whole]).card(0.0, snapshot_of)
    assert "The first that waits needs: Gives (running)" in card_text(card)
    assert "◌ waiting for 2 Gives" in repr(Listing([whole], how_to_see_all=""))
    echo._control.scheduler.engine.hold.set()
    assert whole.result(60) == 1
    wait_for(seen.done)
    assert seen.state is JobState.SUCCEEDED


def test_the_first_input_that_fails_ends_all_that_need_it(pool):
    """At once, with the job at fault and its exception, however long the chain; retries come before."""
    bad = pool.with_options(retries=1).submit(Fails())
    chain = [bad]
    for _ in range(5):
        chain.append(pool.submit(Sees(chain[-1])))
    with pytest.raises(JobUpstreamError, match=f"{bad.id}, which ended as failed: KeyError: 'bad row'") as raised:
        chain[-1].result(60)
    assert (raised.value.upstream, raised.value.job) == (bad.id, chain[-1].id)
    assert isinstance(raised.value.__cause__, KeyError)
    assert bad.attempts == 2
    assert {job.state for job in chain[1:]} == {JobState.UPSTREAM_FAILED}
    found = JobStore(pool.store).open(chain[-1].id)
    assert isinstance(found.exception().__cause__, KeyError)
    with pytest.raises(JobUpstreamError):
        pool.submit(Sees(bad)).result(60)  # which has failed long before


def test_one_of_several_inputs_is_enough_to_end_a_job(echo):
    """It does not wait for the others."""
    engine = echo._control.scheduler.engine
    engine.hold.clear()
    slow, queued = echo.submit_all([Gives(1), Gives(2)])
    whole = echo.submit(Sees(slow, queued))
    assert queued.cancel()
    assert whole.state is JobState.UPSTREAM_FAILED
    assert isinstance(whole.exception().__cause__, CancelledError)
    assert slow.state is JobState.RUNNING


def test_cancelling_a_waiting_job_is_immediate(echo):
    """It never starts, and neither does what needs it."""
    engine = echo._control.scheduler.engine
    engine.hold.clear()
    data = echo.submit(Gives(1))
    waiting = echo.submit(Sees(data))
    last = echo.submit(Sees(waiting))
    assert waiting.cancel()
    assert (waiting.state, last.state) == (JobState.CANCELLED, JobState.UPSTREAM_FAILED)
    engine.hold.set()
    data.result(60)
    assert waiting.attempts == last.attempts == 0


def test_cancel_with_dependents_cancels_all_that_need_it(echo):
    """Those that need it through others too, and no other job."""
    echo._control.scheduler.engine.hold.clear()
    data, other = echo.submit_all([Gives(1), Gives(2)])
    near = echo.submit(Sees(data))
    far = echo.submit(Gives(3), after=near)
    besides = echo.submit(Sees(other))
    data.cancel(dependents=True)
    assert (near.state, far.state, besides.state) == (JobState.CANCELLED, JobState.CANCELLED, JobState.WAITING)


def test_rerun_runs_first_what_failed_above(pool, gate):
    """Each once, in order; what succeeded is kept, and what could not begin runs with the new results."""
    good, marker = pool.submit(Gives(1)), gate

    class FailsOnce:
        def run(self):
            if not marker.exists():
                raise KeyError("not yet")
            return 2

    bad = pool.submit(FailsOnce())
    left, right = pool.submit(add, bad, 10), pool.submit(add, bad, good)
    last = pool.submit(add, left, right)
    last._wait(60)
    before = len(JobStore(pool.store).jobs())
    gate.touch()
    again = last.rerun()
    assert again.result(60) == 12 + 3
    assert len(JobStore(pool.store).jobs()) == before + 4
    assert [job.state for job in (bad, left, right, last)] == [JobState.FAILED, *[JobState.UPSTREAM_FAILED] * 3]
    assert again.rerun().result(60) == 15  # whose inputs are the new ones
    assert [job.state for job in JobStore(pool.store).jobs()[-5:]] == [JobState.SUCCEEDED] * 5


# --- bad input ------------------------------------------------------------------------------------------------------


def test_an_input_that_was_deleted_is_a_sentence_at_submit(pool):
    """The whole folder, or the result alone; nothing is submitted."""
    gone, empty = pool.submit_all([Gives(1), Gives(2)])
    gone._wait(60), empty._wait(60)
    gone.folder.delete()
    empty.folder.remove_result()
    before = len(JobStore(pool.store).jobs())
    for job in (gone, empty):
        with pytest.raises(JobUpstreamError, match=f"{job.id} can be no input: .* was deleted"):
            pool.submit(Sees(job))
    with pytest.raises(JobUpstreamError, match="can be no input"):
        pool.submit(Gives(1), after=gone)
    assert len(JobStore(pool.store).jobs()) == before


def test_a_job_of_a_store_that_is_gone_can_not_be_loaded(pool):
    """Its unpickled handle is a KeyError that says where it was."""
    data = pool.submit(Gives(1))
    data._wait(60)
    pickled = pickle.dumps(data).replace(data.id.encode(), data.id[:-1].encode() + b"z")
    with pytest.raises(KeyError, match="There is no job"):
        pickle.loads(pickled)


def test_map_takes_no_jobs(pool):
    """A sentence says what does; nothing is left behind."""
    data = pool.submit(Gives(1))
    with pytest.raises(SerializationError, match="submit_all"):
        list(pool.map(add, [1, data]))
    with pytest.raises(ValueError, match="submit_all"):
        pool.with_options(after=data).map(add, [1])


def test_a_job_can_not_need_itself(pool):
    """A process that is given its own job needs the earlier one; a record that says otherwise is refused."""
    process = Sees()
    job = pool.submit(process)
    process.needed = (job,)
    second = pool.submit(process)
    assert second.result(60) == ((),)
    record = second.folder.record_file
    record.write_text(record.read_text().replace(job.id, second.id))
    events = second.folder.events_file
    events.write_text(events.read_text().replace("succeeded", "upstream_failed"))
    with pytest.raises(CorruptFileError, match="needs itself"):
        JobStore(pool.store).open(second.id).rerun()


def test_prune_keeps_what_an_unfinished_job_needs(echo):
    """Until that has ended."""
    data = echo.submit(Gives(1))
    data.result(60)
    echo._control.scheduler.engine.hold.clear()
    whole = echo.submit(Sees(data))
    store = JobStore(echo.store)
    assert store.prune(keep=0) == []
    echo._control.scheduler.engine.hold.set()
    whole.result(60)
    wait_for(lambda: set(store.prune(keep=0)) == {data.id, whole.id} or not len(store.jobs()))


# --- many -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_a_chain_of_five_hundred(echo, fails):
    """It runs, or ends at once where its first job is cancelled, at no depth of the stack."""
    engine = echo._control.scheduler.engine
    engine.hold.clear()
    echo.submit(Gives(0))
    chain = [echo.submit(Gives(0))]
    for _ in range(499 if fails else 50):
        chain.append(echo.submit(Gives(1, chain[-1])))
    if fails:
        chain[0].cancel()
    engine.hold.set()
    chain[-1]._wait(60)
    state = JobState.UPSTREAM_FAILED if fails else JobState.SUCCEEDED
    assert {job.state for job in chain[1:]} == {state}
    assert chain[-1].outcome.upstream == (str(chain[0].folder.path) if fails else "")


@pytest.mark.slow
def test_a_fan_of_two_hundred(pool):
    """One job for all of them, and all of them for one; the results come in order."""
    data = pool.submit(Gives(100))
    fan = pool.submit_all([Gives(number, data) for number in range(200)])
    assert pool.submit(Sees(data, fan)).result(110) == (100, list(range(200)))


def test_jobs_of_two_pools_and_an_inline_one_wait_for_each_other(echo, tmp_path):
    """Across schedulers and stores; a pool without processes returns when its job has ended."""
    engine = echo._control.scheduler.engine
    engine.hold.clear()
    data = echo.submit(Gives(1))
    threading.Timer(0.2, engine.hold.set).start()
    with JobPool(engine="inline", store=tmp_path / "other") as other:
        whole = other.submit(Sees(data))
        assert whole.state is JobState.SUCCEEDED
        assert whole.result() == (1,)
        assert [job.id for job in whole.inputs] == [data.id]


def test_a_job_of_an_inline_pool_runs_however_late_its_slot_is_given_to_it(echo, tmp_path, monkeypatch):
    """Between the end of its input, in another thread, and its start it is queued; its pool waits for it then too."""
    engine = echo._control.scheduler.engine
    engine.hold.clear()
    data = echo.submit(Gives(1))
    late = []
    with JobPool(engine="inline", store=tmp_path / "other") as other:
        scheduler = other._control.scheduler
        run_submitted = scheduler.engine.run_submitted

        def run_and_end_the_input():
            run_submitted()
            if waiting := [job for job in scheduler.waiting() if job.state is JobState.WAITING]:
                engine.hold.set()
                wait_for(lambda: waiting[0].state is JobState.QUEUED)

        monkeypatch.setattr("jobcontainer.jobs.scheduler.afterwards", late.append)  # what frees slots, and writes ends
        monkeypatch.setattr(scheduler.engine, "run_submitted", run_and_end_the_input)
        assert other.submit(Sees(data)).state is JobState.SUCCEEDED
        monkeypatch.undo()
        for call in late:
            call()


def test_a_pool_that_is_left_waits_for_inputs_elsewhere(echo, tmp_path):
    """A waiting job counts as one that has not ended; where waiting ones are to be cancelled, it is."""
    engine = echo._control.scheduler.engine
    engine.hold.clear()
    data = echo.submit(Gives(1))
    second = EchoEngine()
    with JobPool(engine=second, store=tmp_path / "second") as other:
        whole = other.submit(Sees(data))
        threading.Timer(0.1, engine.hold.set).start()
    assert whole.state is JobState.SUCCEEDED
    engine.hold.clear()
    other = JobPool(engine=EchoEngine(), store=tmp_path / "second")
    whole = other.submit(Sees(echo.submit(Gives(1))))
    other.shutdown(cancel_futures=True)
    assert whole.state is JobState.CANCELLED


GRAPH = """
import time
from jobcontainer import JobPool

class Step:
    def __init__(self, *needed): self.needed = needed
    def run(self):
        time.sleep(0.05)
        return 1 + sum(self.needed)

pool = JobPool(2, store="store", detach=True)
load = pool.submit(Step())
fits = [pool.submit(Step(pool.submit(Step(load)))) for _ in range(5)]
last = pool.submit(Step(*fits))
print(last.id, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_detached_graph_ends_whatever_is_killed_in_the_middle_of_it(tmp_path):
    """Its kernel, its host, or a process of that: every job has an end, and what has finished is not done again."""
    seed = int.from_bytes(os.urandom(3), "big")
    print(f"random.Random({seed})")
    dice = random.Random(seed)  # noqa: S311 -- a seed gives the same kills
    for victim in ("kernel", "process", "host", "process"):
        store = tmp_path / victim / str(dice.random())
        store.mkdir(parents=True)
        kernel = subprocess.Popen([sys.executable, "-c", GRAPH], cwd=store, stdout=subprocess.PIPE, text=True)
        with kernel:
            last = JobStore(store / "store").open(kernel.stdout.readline().strip())
            host = last.record.owner["pid"]
            moment = dice.randrange(0, 11)
            jobs = JobStore(store / "store").jobs()
            wait_for(lambda: sum(job.done() for job in jobs) >= moment)  # noqa: B023 -- called at once
            below = process_tree.descendants_of(host)
            pid = {"kernel": kernel.pid, "host": host}.get(victim) or dice.choice(below or [kernel.pid])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            assert jobs.wait(60), (victim, jobs.summary())
            kernel.kill()
        finished = [job.id for job in jobs if job.state is JobState.SUCCEEDED]
        if victim == "kernel":
            assert len(finished) == len(jobs)
        for job in jobs:
            if job.state is JobState.UPSTREAM_FAILED:
                assert job.exception().upstream
        with JobPool(2, store=store / "store") as pool:
            again = last if last.state is JobState.SUCCEEDED else pool.rerun(last)
            assert again.result(60) == 16
        rerun = len(JobStore(store / "store").jobs()) - len(jobs)
        assert rerun <= len(jobs) - len(finished)
        with contextlib.suppress(ProcessLookupError):
            os.kill(host, signal.SIGTERM)
        wait_for(lambda: not is_running(host))  # noqa: B023 -- called at once
