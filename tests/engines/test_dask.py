"""What the Dask engine promises beyond what every engine does."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import pickle
import platform
import secrets
import sys
import time

import distributed
import numpy as np
import pytest

import jobcontainer
from hostile import TABLE
from jobcontainer import JobPool, JobState
from jobcontainer.engines import engine_named
from jobcontainer.engines.dask import transfer, worker_side
from jobcontainer.engines.dask.cluster import why_unfit
from jobcontainer.engines.dask.engine import DaskEngine
from jobcontainer.errors import JobCrashedError, JobMemoryError
from jobcontainer.jobfile import signing
from jobcontainer.jobfile.serializer import Serializer, packages_of
from jobcontainer.pickling import cloudpickle_internals
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker.keeper_protocol import Order
from waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def pool(dask_cluster, tmp_path):
    """A pool on two workers that see its store."""
    with JobPool(engine=dask_cluster.engine(slots=2), store=tmp_path / "store") as pool:
        yield pool


@pytest.fixture
def remote_pool(dask_cluster, tmp_path, seen_from_here_only):
    """A pool on two workers that can't see its store."""
    store = seen_from_here_only(tmp_path) / "store"
    with JobPool(engine=dask_cluster.engine(slots=2), store=store) as pool:
        yield pool


@pytest.fixture
def client(dask_cluster):
    """A client of the user's."""
    with distributed.Client(dask_cluster.address) as client:
        yield client


# --- doors ----------------------------------------------------------------------------------------------------------


def test_a_running_client_is_all_it_needs(client, tmp_path):
    """``engine="dask"`` takes the client of this process, and leaves it to its owner."""
    with JobPool(engine="dask", store=tmp_path) as pool:
        assert pool.submit(pow, 2, 10).result(60) == 1024
    assert client.submit(pow, 2, 11).result() == 2048


def test_a_client_may_be_given(client, tmp_path):
    """Its owner may close it while jobs run."""
    with JobPool(engine=DaskEngine(client), store=tmp_path) as pool:
        job = pool.submit(time.sleep, 0.3)
        client.close()
        assert job.result(60) is None


def test_an_address_is_all_it_needs(dask_cluster, tmp_path):
    """``engine="tcp://..."`` is the scheduler's; ``max_workers`` bounds what this pool takes of the cluster."""
    with JobPool(1, engine=dask_cluster.address, store=tmp_path) as pool:
        assert "1 slots" in repr(pool)
        assert pool.submit(pow, 2, 10).result(60) == 1024


def test_without_a_client_or_an_address_it_says_what_to_do(tmp_path):
    """No cluster is made up."""
    with pytest.raises(ValueError, match=r"no Dask client.*distributed\.Client\(\).*tcp://host:8786"):
        JobPool(engine="dask", store=tmp_path)


def test_an_address_that_does_not_answer_is_an_error_within_ten_seconds():
    """It names the address."""
    begun = time.monotonic()
    with pytest.raises(ConnectionError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9 "):
        engine_named("tcp://127.0.0.1:9", None)
    assert time.monotonic() - begun < 10


def test_without_distributed_it_says_how_to_install_it(monkeypatch):
    """The extra is named."""
    monkeypatch.delitem(sys.modules, "jobcontainer.engines.dask.engine")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "jobcontainer\[dask\]"'):
        engine_named("dask", None)


# --- fitness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, ""),
        ({"python": "3.9.1"}, "It has python 3.9.1, and this is "),
        ({"jobcontainer": "99.1.0"}, "It has jobcontainer 99.1.0"),
        ({"cloudpickle": "99.1"}, "It has cloudpickle 99.1"),
        ({"signature": b"x" * 32}, "JOBCONTAINER_KEY_FILE"),
        ({"problem": "The key can't be read."}, "The key can't be read."),
    ],
)
def test_a_worker_that_jobs_would_fail_on_is_unfit(said, words):
    """By another Python, release, cloudpickle or key; each has a sentence of its own."""
    fit = {
        "python": platform.python_version(),
        "jobcontainer": importlib.metadata.version("jobcontainer"),
        "cloudpickle": cloudpickle_internals.VERSION,
        "signature": signing.sign(signing.Purpose.DASK_WORKER, b"challenge"),
        "problem": "",
    }
    reason = why_unfit(fit | said, b"challenge")
    assert (words in reason) if words else not reason


def test_a_worker_with_another_key_gets_no_job(dask_cluster, tmp_path):
    """One warning names it and what to do; the jobs run elsewhere."""
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))
    worker = dask_cluster.start_worker(env={"JOBCONTAINER_KEY_FILE": str(key)})
    try:
        with distributed.Client(dask_cluster.address) as client:
            client.wait_for_workers(3)
        with pytest.warns(UserWarning, match=r"No jobs are sent to the Dask worker .*JOBCONTAINER_KEY_FILE"):
            engine = DaskEngine(dask_cluster.address)
        with JobPool(engine=engine, store=tmp_path / "store") as pool:
            assert engine.slots == 2
            assert [pool.submit(abs, -number).result(60) for number in range(4)] == [0, 1, 2, 3]
    finally:
        worker.terminate()
        worker.wait(20)


def test_other_versions_on_a_worker_are_reported_once(dask_cluster, tmp_path):
    """What a process file refers to is compared with what is installed there."""
    Serializer.serialize_to_file(UsesNumpy(), tmp_path / "process.job")
    assert packages_of(tmp_path / "process.job")["numpy"] == ("numpy", np.__version__)
    engine = dask_cluster.engine(slots=2)
    try:
        compare, (worker, other) = engine._cluster.compare, engine._cluster._fit.values()
        engine._in_loop(compare(worker, packages_of(tmp_path / "process.job")))
        with pytest.warns(UserWarning, match=rf"numpy {np.__version__} \(here 0\.1\), absent none \(here 7\)"):
            engine._in_loop(compare(other, {"numpy": ("numpy", "0.1"), "absent": ("absent", "7")}))
        engine._in_loop(compare(other, {"numpy": ("numpy", "0.1")}))
    finally:
        engine.close()


class UsesNumpy:
    def run(self):
        return float(np.ones(3).sum())


def test_more_memory_than_any_worker_has_is_an_error_at_once(pool):
    """Instead of waiting for ever for a worker that has it; a retry would not help."""
    job = pool.with_options(memory="900TB", retries=3).submit(abs, 1)
    with pytest.raises(JobMemoryError, match="the largest worker of the cluster has"):
        job.result(10)
    assert job.attempts == 1


# --- isolation ------------------------------------------------------------------------------------------------------


class Segfaults:
    def __init__(self, notes):
        self.notes = notes

    def run(self):
        with self.notes.open("a") as notes:
            notes.write("ran\n")
        ctypes.string_at(0)


def test_a_segfault_leaves_the_worker_alive_and_runs_no_job_twice(pool, client, tmp_path):
    """The workers' pids are what they were; the job ran once, and once more for each retry."""
    before = client.run(os.getpid)
    beside = pool.submit(time.sleep, 0.5)
    for retries in (0, 2):
        notes = tmp_path / f"notes {retries}"
        with pytest.raises(JobCrashedError, match="SIGSEGV"):
            pool.with_options(retries=retries).submit(Segfaults(notes)).result(60)
        assert notes.read_text() == "ran\n" * (1 + retries)
    assert beside.result(60) is None
    assert beside.attempts == 1
    assert client.run(os.getpid) == before


def test_hostile_jobs_end_as_they_must_and_harm_no_worker(dask_cluster, client, tmp_path):
    """Each row of the table ends in its state, with its words, and the workers' pids stay what they were."""
    store = StoreFolder(tmp_path / "store")
    store.create()
    engine = dask_cluster.engine(slots=2)
    try:
        before = client.run(os.getpid)
        jobs = []
        for row in TABLE:
            folder = store.new_job(row.name)
            Serializer.serialize_to_file(row.process, folder.process_file)
            jobs.append((row, folder, engine.submit(folder, JobOptions(**row.options), Environment.here())))
        for row, folder, future in jobs:
            outcome = future.result(90)
            said = "\n".join([outcome.reason, outcome.error_type, outcome.error_message, *folder.tail(200)])
            assert outcome.state is row.state, (row.name, said)
            assert all(words in said for words in row.words), (row.name, said)
        assert client.run(os.getpid) == before
    finally:
        engine.close()


def test_a_job_that_the_worker_has_not_begun_can_be_cancelled(dask_cluster, client, tmp_path):
    """Where a task of the user's own takes the worker's thread, the job waits; it ends at once, and never runs."""
    go, ran = tmp_path / "go", tmp_path / "ran"

    def wait_for_go(number):
        while not go.exists():
            time.sleep(0.01)
        return number

    tasks = client.map(wait_for_go, range(2), pure=False)
    wait_for(lambda: sum(map(len, client.processing().values())) == 2)
    with JobPool(engine=dask_cluster.engine(slots=2), store=tmp_path / "store") as pool:
        job = pool.submit(ran.touch)
        wait_for(lambda: sum(map(len, client.processing().values())) == 3)
        job.cancel()
        wait_for(job.done)
        go.touch()
        client.gather(tasks)
        assert pool.submit(abs, -1).result(60) == 1
    assert job.state is JobState.CANCELLED
    assert not ran.exists()


# --- without access to the store --------------------------------------------------------------------------------------


class Speaks:
    def __init__(self, go):
        self.go = go

    def run(self):
        for _ in jobcontainer.progress(range(2), desc="steps"):
            pass
        display({"answer": 42})  # noqa: F821 -- a job has it, as a notebook does
        print("half a line", end="")
        while not self.go.exists():
            time.sleep(0.01)
        return "went"


def test_what_a_remote_job_prints_arrives_while_it_runs(remote_pool, tmp_path):
    """Log, progress and displays are in the job's folder before its end, as if it ran beside it."""
    go = tmp_path / "go"
    job = remote_pool.submit(Speaks(go))
    wait_for(lambda: job.tail(1) == ["half a line"] and job.outputs and job.progress)
    assert [(bar.label, bar.done) for bar in job.progress] == [("steps", 2)]
    assert "42" in job.outputs[0].data["text/plain"]
    assert not job.done()
    go.touch()
    assert job.result(60) == "went"
    assert job.tail(1) == ["half a line"]


class Doubles:
    def __init__(self, array):
        self.array = array

    def run(self):
        print("x" * 9_000_000)
        return 2 * self.array


class HandsOn:
    def __init__(self, array):
        self.array = array

    def run(self):
        return self.array


def test_large_files_are_transferred_in_pieces(remote_pool, dask_cluster):
    """Process, log and result are what they were, and nothing of them is left on the worker."""
    array = np.random.default_rng(1).random(1_300_000)
    job = remote_pool.submit(Doubles(array))
    assert np.array_equal(job.result(60), 2 * array)
    assert len(job.log) == 9_000_001
    assert array.nbytes > transfer.PIECE
    assert not list(dask_cluster.folder.rglob("*.job"))


def test_large_data_travels_once_to_each_host(remote_pool, dask_cluster, monkeypatch):
    """Not for each job, worker or sweep; what a job hands on does not come back; it is gone with the client."""
    sent = []
    send = transfer.Transfer._send_pieces

    async def count(self, path, write, kind, *digest):
        sent.extend(digest)
        await send(self, path, write, kind, *digest)

    monkeypatch.setattr(transfer.Transfer, "_send_pieces", count)
    received = []
    receive = transfer.Transfer._receive_pieces

    async def count_received(self, path, kind, digest):
        received.append(digest)
        return await receive(self, path, kind, digest)

    monkeypatch.setattr(transfer.Transfer, "_receive_pieces", count_received)
    array = np.random.default_rng(2).random(1_300_000)
    for _ in range(2):
        jobs = remote_pool.submit_all([HandsOn(array) for _ in range(4)])
        assert all(np.array_equal(result, array) for result in jobs.results())
    assert len(sent) == 1
    assert set(received) == {""}
    [data] = dask_cluster.folder.rglob("jobcontainer-data-*/data")
    assert len(list(data.iterdir())) == 1
    remote_pool.shutdown()
    assert list(data.iterdir()) == []


def test_the_outcome_of_a_remote_job_names_its_files_here(remote_pool):
    """The reason of a crash points at the log in the job's own folder."""
    job = remote_pool.submit(ctypes.string_at, 0)
    with pytest.raises(JobCrashedError):
        job.result(60)
    assert str(job.folder.log_file) in job.outcome.reason


def test_a_remote_job_can_be_cancelled_by_its_cancel_file(remote_pool, tmp_path):
    """As another process does that sees the job folder: it ends like any other job that is cancelled."""
    job = remote_pool.submit(Speaks(tmp_path / "go"))
    wait_for(lambda: job.tail(1) == ["half a line"])
    job.folder.ask_to_cancel()
    wait_for(job.done)
    assert job.state is JobState.CANCELLED


def test_a_task_for_another_process_is_refused():
    """A worker that took over the address of another runs nothing that was meant for that one."""
    order = Order("folder", JobOptions().to_json(), Environment.here())
    task = worker_side.JobTask("key", "another process", "host", 1, (), is_remote=False, order=order)
    assert worker_side.run(pickle.dumps(task)) == worker_side.NOT_THE_SAME
