"""Jobs are found again: by another process, after a kill, with a journal that is torn or gone."""

from __future__ import annotations

import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jobcontainer import JobLostError, JobPool, JobState, JobStore
from jobcontainer.events import Outcome, Started
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.process import JobOptions
from jobcontainer.storage.store_folder import StoreFolder
from waiting import is_running, wait_for


class Returns:
    def __init__(self, value):
        self.value = value

    def run(self):
        print("returning", self.value)
        return self.value


class Sleeps:
    def run(self):
        time.sleep(600)


@pytest.fixture
def filled(tmp_path):
    """A store with four ended jobs: three that returned 0, 1, 2 and one that failed."""
    with JobPool(engine="inline", store=tmp_path / "store") as pool:
        for number in range(3):
            pool.submit(Returns(number))
        pool.submit(divmod, 1, 0)
    return JobStore(tmp_path / "store")


def kernel(code, folder):
    """Start a Python that plays a kernel: it runs ``code`` and prints a line when it is where the test wants it."""
    path = folder / "kernel.py"
    path.write_text(textwrap.dedent(code))
    return subprocess.Popen([sys.executable, str(path)], cwd=folder, stdout=subprocess.PIPE, text=True)


def test_a_new_store_finds_every_job_with_result_and_log(filled):
    """Oldest first, with what each returned, raised and printed."""
    jobs = filled.jobs()
    assert [job.result() for job in jobs[:3]] == [0, 1, 2]
    assert isinstance(jobs[3].exception(), ZeroDivisionError)
    assert [job.log for job in jobs[:3]] == [f"returning {number}\n" for number in range(3)]
    assert jobs.summary() == {JobState.SUCCEEDED: 3, JobState.FAILED: 1}
    assert jobs[0].usage.wall > 0


def test_a_found_job_can_be_rerun_without_its_class(filled):
    """The process file has all that is needed."""
    again = filled.jobs()[2].rerun()
    assert again.result(60) == 2
    assert filled.open(again.id).name == "Returns"


def test_a_unique_beginning_of_an_id_suffices(filled):
    """A job is found by the beginning of its id, where no other begins so."""
    job = filled.jobs()[0]
    assert filled.open(job.id[:-2]).id == job.id


@pytest.mark.parametrize("job_id", ["nope", "../store", "", "2"])
def test_an_unknown_or_ambiguous_id_says_which_exist(filled, job_id):
    """An id that fits no job, or several, raises KeyError with ids that exist."""
    with pytest.raises(KeyError) as caught:
        filled.open(job_id)
    assert filled.jobs()[-1].id in str(caught.value)


def test_a_torn_journal_line_loses_no_job(filled):
    """A kernel that was killed in mid-write leaves half a line; the folders still tell."""
    journal = filled.path / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    assert filled.jobs().summary() == {JobState.SUCCEEDED: 3, JobState.FAILED: 1}
    journal.unlink()
    assert filled.jobs().summary() == {JobState.SUCCEEDED: 3, JobState.FAILED: 1}


def test_a_strange_file_or_a_deleted_folder_is_passed_over(filled):
    """What is no job in the store's folder does not keep the jobs from being listed."""
    (filled.path / "notes.txt").write_text("mine")
    (filled.path / "folder").mkdir()
    shutil.rmtree(filled.jobs()[1].folder.path)
    assert [job.name for job in filled.jobs()] == ["Returns", "Returns", "divmod"]


def test_a_store_that_is_not_there_is_empty(tmp_path):
    """Listing the jobs of a store that does not exist makes none."""
    assert list(JobStore(tmp_path / "none").jobs()) == []
    assert not (tmp_path / "none").exists()


def test_prune_asks_for_a_condition(filled):
    """Nothing is deleted unasked."""
    with pytest.raises(ValueError, match="older_than"):
        filled.prune()


@pytest.mark.parametrize("wrong", [{"older_than": -1}, {"older_than": math.nan}, {"keep": -1}])
def test_prune_refuses_numbers_below_zero(filled, wrong):
    """They would be met by every job."""
    with pytest.raises(ValueError, match="from 0 up"):
        filled.prune(**wrong)
    assert len(list(filled.jobs())) == 4


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        ({"keep": 1}, ["divmod"]),
        ({"states": {"failed"}}, ["Returns"] * 3),
        ({"older_than": 3600}, ["Returns"] * 3 + ["divmod"]),
        ({"older_than": 0.0, "states": {"succeeded"}}, ["divmod"]),
        ({"larger_than": 10**9}, ["Returns"] * 3 + ["divmod"]),
    ],
)
def test_prune_deletes_what_meets_every_condition(filled, conditions, left):
    """``prune`` deletes jobs that meet all conditions given, and no other."""
    gone = filled.prune(**conditions)
    assert len(gone) == 4 - len(left)
    assert [job.name for job in filled.jobs()] == left


def test_prune_never_touches_a_running_job(tmp_path):
    """A job that runs is not deleted, whatever the conditions."""
    with JobPool(1, store=tmp_path) as pool:
        job = pool.submit(time.sleep, 60)
        assert JobStore(tmp_path).prune(keep=0) == []
        job.cancel()


def test_a_large_store_tells_its_size_and_how_to_prune_it(filled, monkeypatch):
    """Nothing is deleted unasked, but nobody is left to find a full disk."""
    assert filled.advice() == ""
    monkeypatch.setattr("jobcontainer.jobs.store.LARGE", 1)
    assert "prune" in filled.advice()


@pytest.mark.slow
def test_two_kernels_share_a_store(tmp_path):
    """Both write into one journal; each sees the jobs of the other, live."""
    code = """
        from jobcontainer import JobPool

        class Returns:
            def __init__(self, value): self.value = value
            def run(self): return self.value

        with JobPool(1, store="store") as pool:
            print(pool.submit_all([Returns(number) for number in range(20)]).results() == list(range(20)))
    """
    code = (
        "class Returns:\n    def __init__(self, value): self.value = value\n    def run(self): return self.value\n"
        + (textwrap.dedent(code))
    )
    kernels = [kernel(code, tmp_path) for _ in range(2)]
    assert [one.communicate(timeout=100)[0] for one in kernels] == ["True\n", "True\n"]
    jobs = JobStore(tmp_path / "store").jobs()
    assert jobs.wait(10)
    assert jobs.summary() == {JobState.SUCCEEDED: 40}


def test_a_kernel_that_is_killed_leaves_results_and_lost_jobs_that_can_be_rerun(tmp_path):
    """20 finished, 2 running, 50 queued: 20 results, 52 lost, none of them pending, each of them rerunnable."""
    with kernel(KERNEL.format(options=""), tmp_path) as process:
        assert process.stdout.readline() == "2 running\n"
        store = JobStore(tmp_path / "store")
        foreign = store.jobs()
        assert foreign.summary() == {JobState.QUEUED: 50, JobState.RUNNING: 2, JobState.SUCCEEDED: 20}
        process.send_signal(signal.SIGKILL)
    assert foreign.wait(10)
    assert foreign.summary() == {JobState.SUCCEEDED: 20, JobState.LOST: 52}
    assert foreign[:20].results() == list(range(20))
    with pytest.raises(JobLostError, match="rerun"):
        foreign[-1].result()
    assert store.jobs().summary() == {JobState.SUCCEEDED: 20, JobState.LOST: 52}
    (tmp_path / "gate").touch()
    assert foreign[-1].rerun().result(60) == 71


KERNEL = """
import concurrent.futures, pathlib, time
from jobcontainer import JobPool, JobState

class Job:
    def __init__(self, number): self.number = number
    def run(self):
        deadline = time.monotonic() + 60
        while self.number >= 20 and not pathlib.Path("gate").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self.number

pool = JobPool(2, store="store", {options})
group = pool.submit_all([Job(number) for number in range(72)])
group[:20].wait()
deadline = time.monotonic() + 60
while sum(job.started is not None for job in group[20:]) < 2:
    assert time.monotonic() < deadline
    time.sleep(0.01)
print(2, "running", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_detached_job_outlives_its_kernel(tmp_path):
    """The same 72 jobs, detached: all finish though the kernel is killed, watched from this process."""
    with kernel(KERNEL.format(options="detach=True"), tmp_path) as process:
        assert process.stdout.readline() == "2 running\n"
        jobs = JobStore(tmp_path / "store").jobs()
        process.send_signal(signal.SIGKILL)
    (tmp_path / "gate").touch()
    assert jobs.results() == list(range(72))
    _end_host(jobs[0])


@pytest.mark.slow
def test_a_detached_job_is_cancelled_from_elsewhere(tmp_path):
    """By its host, while it runs; the others go on."""
    pool = JobPool(store=tmp_path, detach=True)
    job = pool.submit(time.sleep, 600)
    wait_for(lambda: job.state is JobState.RUNNING)
    assert JobStore(tmp_path).open(job.id).cancel()
    wait_for(job.cancelled)
    _end_host(job)


@pytest.mark.slow
def test_a_detached_job_that_waits_is_cancelled_from_elsewhere(tmp_path):
    """Though every slot of its host is busy."""
    pool = JobPool(store=tmp_path, detach=True)
    busy = pool.submit_all([Sleeps() for _ in range(os.cpu_count() + 1)])
    wait_for(lambda: sum(job.state is JobState.RUNNING for job in busy) > 0)
    queued = pool.submit(Sleeps())
    assert JobStore(tmp_path).open(queued.id).cancel()
    wait_for(queued.cancelled, within=5)
    assert queued.attempts == 0
    busy.cancel()
    assert busy.wait(20)
    _end_host(queued)


@pytest.mark.slow
def test_a_host_that_is_killed_loses_its_running_jobs_and_says_so(tmp_path):
    """Detached jobs whose host is killed end as lost; nobody waits for them for ever."""
    job = JobPool(store=tmp_path, detach=True).submit(time.sleep, 600)
    wait_for(lambda: job.state is JobState.RUNNING)
    os.kill(job.record.owner["pid"], signal.SIGKILL)
    with pytest.raises(JobLostError):
        job.result(10)


@pytest.mark.slow
def test_one_host_serves_a_store(tmp_path):
    """Started once, by a lock; its socket is for its owner alone."""
    jobs = [JobPool(store=tmp_path, detach=True).submit(pow, 2, number) for number in range(3)]
    assert [job.result(60) for job in jobs] == [1, 2, 4]
    assert len({job.record.owner["pid"] for job in jobs}) == 1
    assert (tmp_path / "host.sock").stat().st_mode & 0o777 == 0o600
    _end_host(jobs[0])


def test_an_end_that_only_the_folder_tells_is_believed(tmp_path):
    """A kernel that died between its job's last event and the journal's line."""
    store = StoreFolder(tmp_path / "store")
    store.create()
    gone = {"host": os.uname().nodename, "pid": 2**22 + 1, "started": 0.0}
    submission = Submitter(store, owner=gone).of_process(Returns(1), JobOptions())
    write_records([submission])
    folder = submission.folder
    folder.append_event(Started(at=1.0, pid=1))
    folder.append_event(Outcome(state=JobState.CRASHED, at=2.0, reason="signal 11"))
    (job,) = JobStore(store.path).jobs()
    assert (job.state, job.attempts) == (JobState.CRASHED, 1)


@pytest.mark.slow
def test_a_host_ends_with_its_store(tmp_path):
    """When somebody deletes the folder, nobody can ask for a job or its result any more."""
    store = tmp_path / "store"
    job = JobPool(store=store, detach=True).submit(time.sleep, 600)
    wait_for(job.running)
    host = job.record.owner["pid"]
    shutil.rmtree(store, ignore_errors=True)
    wait_for(lambda: not is_running(host))


def _end_host(job):
    pid = job.record.owner["pid"]
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


class OutgrowsTheDisk:
    """Its files may not grow beyond 100 kB from here on, as on a disk that is full."""

    def run(self):
        print("so far so good")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        return os.urandom(10_000_000)


def test_a_result_that_finds_no_room_fails_the_job_with_that_reason_and_keeps_the_log(tmp_path):
    """The job is told as failed, by the system's own word; nothing half written is taken for a result."""
    with JobPool(1, store=tmp_path) as pool:
        job = pool.submit(OutgrowsTheDisk())
        with pytest.raises(OSError, match="too large"):
            job.result(60)
    assert job.state is JobState.FAILED
    assert "so far so good" in job.log
    assert "too large" in job.outcome.error_message
    assert {path.name for path in job.folder.path.iterdir()} >= {"log.txt", "process.job", "job.json"}


def test_a_session_has_one_store_wherever_it_goes(tmp_path, monkeypatch):
    """Its first use settles it: a later ``cd`` or variable moves neither the jobs nor what lists them."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    monkeypatch.delenv("JOBCONTAINER_HOME", raising=False)
    monkeypatch.chdir(first)
    with JobPool(engine="inline") as pool:
        job = pool.submit(pow, 2, 3)
    monkeypatch.chdir(second)
    monkeypatch.setenv("JOBCONTAINER_HOME", str(tmp_path / "elsewhere"))
    assert JobStore().path == first / ".jobcontainer"
    with JobPool(engine="inline") as pool:
        pool.submit(pow, 2, 4)
    assert [one.result() for one in JobStore().jobs()] == [8, 16]
    assert JobStore().open(job.id).result() == 8
    assert list(second.iterdir()) == []


def test_the_first_look_settles_the_store_too(tmp_path, monkeypatch):
    """Who lists jobs before there are any sees those that come; a store that is given is no session's."""
    monkeypatch.setenv("JOBCONTAINER_HOME", "relative")
    monkeypatch.chdir(tmp_path)
    JobStore(tmp_path / "given")
    store = JobStore()
    monkeypatch.chdir("/")
    assert store.path == JobStore().path == tmp_path / "relative"


def test_a_home_folder_in_the_path_of_a_store_is_found(tmp_path, monkeypatch):
    """``~`` means the same as in a shell, in the variable and in an argument."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JOBCONTAINER_HOME", "~/jobs")
    assert JobStore().path == tmp_path / "jobs"
    assert JobStore("~/others").path == tmp_path / "others"
    with JobPool(engine="inline", store=Path("~") / "third") as pool:
        assert pool.store == tmp_path / "third"


def test_a_working_directory_that_is_gone_is_named(tmp_path, monkeypatch):
    """Neither a pool nor a job can be made from there, and the error says what to do."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.delenv("JOBCONTAINER_HOME", raising=False)
    with JobPool(engine="inline", store=tmp_path / "store") as pool:
        monkeypatch.chdir(gone)
        gone.rmdir()
        try:
            for fail in (JobStore, JobPool, lambda: pool.submit(pow, 2, 3)):
                with pytest.raises(FileNotFoundError, match=r"was deleted.*os\.chdir"):
                    fail()
        finally:
            os.chdir(tmp_path)
    assert [path for path in (tmp_path / "store").iterdir() if path.is_dir()] == []


def test_where_no_descriptor_is_left_the_error_says_how_to_get_some(tmp_path):
    """Nothing was submitted; the pool works again when files were closed."""
    with JobPool(engine="inline", store=tmp_path / "store") as pool:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = os.open(os.devnull, os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken, before[1]))
        try:
            with pytest.raises(OSError, match=r"ulimit -n"):
                pool.submit(pow, 2, 3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            os.close(taken)
        assert pool.submit(pow, 2, 3).result() == 8


@pytest.mark.slow
def test_a_job_whose_folder_is_deleted_meanwhile_says_so(tmp_path):
    """Its result can't be written, and that is not what its code has done wrong."""
    gate = tmp_path / "gate"
    with JobPool(1, store=tmp_path / "store") as pool:
        job = pool.submit(wait_for_gate, gate)
        wait_for(lambda: job.state is JobState.RUNNING and (job.folder.path / "log.txt").exists() and job.log)
        shutil.rmtree(job.folder.path)
        gate.touch()
        assert "deleted or moved while the job ran" in str(job.exception(30))


def wait_for_gate(gate):
    print("waits", flush=True)
    wait_for(gate.exists)
