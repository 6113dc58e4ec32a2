"""Workers come, go and die, schedulers and clients too: what becomes of the jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import distributed
import psutil
import pytest

from jobcontainer import JobPool, JobState
from jobcontainer.errors import JobLostError
from waiting import is_running, wait_for

pytestmark = pytest.mark.slow


class Waits:
    """Notes its process and its attempts' processes that are still there, and waits."""

    def __init__(self, folder, number):
        self.folder, self.number = folder, number

    def run(self):
        earlier = [int(path.suffix[1:]) for path in self.folder.glob(f"pid-{self.number}.*")]
        assert not any(is_running(pid) for pid in earlier), "two attempts at once"
        (self.folder / f"pid-{self.number}.{os.getpid()}").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.01)
        return self.number


@pytest.fixture
def engine(dask_cluster):
    """An engine on two workers; the pool closes it."""
    return dask_cluster.engine(slots=2)


@pytest.fixture
def pool(engine, tmp_path):
    """A pool on two workers."""
    with JobPool(engine=engine, store=tmp_path / "store") as pool:
        yield pool


@pytest.fixture
def third(dask_cluster, engine):
    """One more worker, that a test may do away with."""
    worker = dask_cluster.start_worker()
    wait_for(lambda: engine.slots == 3, within=60)
    yield worker
    worker.kill()
    worker.wait()
    wait_for(lambda: engine.slots == 2)


def pids_of(folder):
    return {int(path.suffix[1:]): int(path.stem.partition("-")[2]) for path in folder.glob("pid-*")}


def started_beneath(folder, worker, count):
    """Wait until so many jobs run; return which run beneath a worker, by their processes."""
    wait_for(lambda: len(pids_of(folder)) >= count)
    below = {child.pid for child in psutil.Process(worker.pid).children(recursive=True)}
    return {pid: number for pid, number in pids_of(folder).items() if pid in below}


@pytest.mark.parametrize("retries", [0, 1])
def test_a_killed_worker_costs_its_own_jobs_only(pool, third, tmp_path, retries):
    """They are lost, and run again only if they may; whatever ran beneath the worker is gone; the others go on."""
    jobs = pool.with_options(retries=retries, grace=0.2).submit_all([Waits(tmp_path, number) for number in range(3)])
    lost = started_beneath(tmp_path, third, 3)
    assert len(lost) == 1
    ((pid, number),) = lost.items()
    third.kill()
    wait_for(lambda: not is_running(pid), within=3)
    wait_for(lambda: jobs[number].state in {JobState.LOST, JobState.QUEUED})
    (tmp_path / "go").touch()
    if retries:
        assert jobs.results() == [0, 1, 2]
    else:
        with pytest.raises(JobLostError, match=r"The Dask worker .* is gone"):
            jobs[number].result(30)
    assert [job.result(30) for job in jobs if job is not jobs[number]] == [
        other for other in range(3) if other != number
    ]
    assert [job.attempts for job in jobs] == [1 + (retries and one == number) for one in range(3)]


@pytest.mark.parametrize("retries", [0, 1])
def test_a_worker_that_is_cut_off_costs_its_own_jobs_only(pool, engine, relay, tmp_path, dask_cluster, retries):
    """The network between it and the scheduler fails: its job ends, and runs elsewhere if it may."""
    worker = dask_cluster.start_worker(file=relay.file)
    wait_for(lambda: engine.slots == 3, within=60)
    jobs = pool.with_options(retries=retries, grace=0.2).submit_all([Waits(tmp_path, number) for number in range(3)])
    ((pid, number),) = started_beneath(tmp_path, worker, 3).items()
    relay.cut()
    wait_for(lambda: not is_running(pid))
    wait_for(lambda: jobs[number].state in {JobState.LOST, JobState.QUEUED})
    (tmp_path / "go").touch()
    if retries:
        assert jobs.results() == [0, 1, 2]
    else:
        with pytest.raises(JobLostError, match=r"The Dask worker .* is gone"):
            jobs[number].result(30)
    assert [job.result(30) for job in jobs if job is not jobs[number]] == [n for n in range(3) if n != number]
    worker.wait(60)


def test_a_notebook_that_is_cut_off_gets_an_outcome_and_leaves_no_job_behind(relay, tmp_path):
    """The network between it and the scheduler fails: its jobs are lost, and end on the cluster."""
    with JobPool(engine=relay.address, store=tmp_path / "store", grace=0.2) as pool:
        job = pool.submit(Waits(tmp_path, 1))
        (pid,) = wait_for(lambda: pids_of(tmp_path), within=60)
        relay.cut()
        with pytest.raises(JobLostError):
            job.result(60)
        wait_for(lambda: not is_running(pid))


def test_a_retired_worker_gives_its_jobs_back(pool, third, tmp_path, dask_cluster):
    """A job is ended there before it runs elsewhere: its attempts never overlap."""
    jobs = pool.with_options(retries=1).submit_all([Waits(tmp_path, number) for number in range(3)])
    ((pid, number),) = started_beneath(tmp_path, third, 3).items()
    with distributed.Client(dask_cluster.address) as client:
        address = next(address for address, its in client.run(os.getpid).items() if its == third.pid)
        client.retire_workers([address])
        wait_for(lambda: not is_running(pid))
        (tmp_path / "go").touch()
        assert jobs.results() == [0, 1, 2]
    assert jobs[number].attempts == 2


def test_a_worker_that_joins_takes_jobs_that_wait(pool, tmp_path, request):
    """Nothing else has to end first."""
    jobs = pool.submit_all([Waits(tmp_path, number) for number in range(3)])
    wait_for(lambda: len(pids_of(tmp_path)) == 2)
    assert jobs.summary()[JobState.QUEUED] == 1
    request.getfixturevalue("third")
    wait_for(lambda: len(pids_of(tmp_path)) == 3)
    (tmp_path / "go").touch()
    assert jobs.results() == [0, 1, 2]


def test_without_its_scheduler_every_job_is_lost(dask_class, tmp_path):
    """Those that run and those that come later, and no process of theirs is left."""
    dask = dask_class(tmp_path / "dask")
    try:
        dask.start_worker()
        with JobPool(engine=dask.engine(slots=1), store=tmp_path / "store", grace=0.2) as pool:
            running, waiting = pool.submit(Waits(tmp_path, 0)), pool.submit(Waits(tmp_path, 1))
            wait_for(lambda: pids_of(tmp_path))
            dask.processes[0].kill()
            for job in (running, waiting, pool.submit(abs, 1)):
                with pytest.raises(JobLostError, match="is gone"):
                    job.result(40)
            wait_for(lambda: not any(map(is_running, pids_of(tmp_path))))
    finally:
        dask.stop()


CLIENT = """
import sys
from jobcontainer import JobPool

class Endless:
    def __init__(self, folder):
        self.folder = folder

    def run(self):
        import os, pathlib, time
        pathlib.Path(self.folder, f"pid-0.{os.getpid()}").touch()
        time.sleep(1000)

JobPool(engine=sys.argv[1], store=sys.argv[2] + "/store", grace=0.2).submit(Endless(sys.argv[2])).result()
"""


def test_a_killed_client_leaves_no_job_behind(dask_cluster, tmp_path):
    """As on one machine: nothing outlives the kernel, unless it was asked to."""
    client = subprocess.Popen([sys.executable, "-c", CLIENT, dask_cluster.address, str(tmp_path)])
    try:
        (pid,) = wait_for(lambda: pids_of(tmp_path), within=60)
        client.send_signal(signal.SIGKILL)
        wait_for(lambda: not is_running(pid), within=5)
    finally:
        client.kill()
        client.wait()


class Counts:
    def __init__(self, number):
        self.number = number

    def run(self):
        time.sleep(0.02)
        return self.number


@pytest.mark.timeout(600)
def test_500_jobs_survive_the_death_of_a_worker(dask_class, tmp_path):
    """Half way one of two workers is killed, under its nanny's eyes; with three retries every job is right."""
    dask = dask_class(tmp_path / "dask")
    try:
        nanny = dask.start_worker(nanny=True)
        dask.start_worker()
        with JobPool(engine=dask.engine(slots=2), store=tmp_path / "store", retries=3, grace=0.2) as pool:
            in_the_middle = {250, 251}  # one on each worker when it is killed
            processes = [Waits(tmp_path, one) if one in in_the_middle else Counts(one) for one in range(500)]
            jobs = pool.submit_all(processes)
            wait_for(lambda: len(pids_of(tmp_path)) == 2, within=300)
            worker = max(psutil.Process(nanny.pid).children(), key=lambda child: child.num_threads())
            worker.kill()
            wait_for(lambda: not all(map(is_running, pids_of(tmp_path))))
            (tmp_path / "go").touch()
            assert jobs.results() == list(range(500))
            assert max(job.attempts for job in jobs) == 2
    finally:
        dask.stop()
