"""``checkpoint.save()`` and ``load()``, as code in ``run()`` uses them; on every engine: the contract suite."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import jobcontainer
from jobcontainer import JobPool, JobState, SerializationError, checkpoint
from jobcontainer.cli import main
from jobcontainer.views import units
from jobcontainer.views.card import job_card
from jobcontainer.views.render import card_text
from jobcontainer.views.snapshot import snapshot_of


class Counts:
    """Counts on from where it was, to a number that it is told."""

    def __init__(self, until=3, *, fails=True):
        self.until, self.fails = until, fails

    def run(self):
        begun = checkpoint.load(default=0)
        for number in range(begun, self.until):
            checkpoint.save(number + 1)
        if self.fails and begun == 0:
            raise ValueError("half way")
        return begun


class Slotted:
    __slots__ = ()

    def run(self):
        found = checkpoint.load(default="anew")
        checkpoint.save("saved")
        return found


@pytest.fixture
def pool(tmp_path):
    with JobPool(engine="inline", store=tmp_path / "store") as pool:
        yield pool


@pytest.mark.slow
def test_it_is_a_module_that_is_loaded_when_it_is_used():
    """Also under its own name; code that no ``run()`` calls, a script's top level say, shares one checkpoint."""
    assert jobcontainer.checkpoint is checkpoint is sys.modules["jobcontainer.checkpoint"]
    code = """
import jobcontainer, sys
assert "jobcontainer.checkpoint" not in sys.modules
from jobcontainer.checkpoint import load, save
print(load(1))
save(2)
print(jobcontainer.checkpoint.load(1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n2\n"


def test_retries_go_on_from_it(pool):
    """``retries=`` needs nothing else; the job tells when it saved, and how large that was."""
    job = pool.with_options(retries=1).submit(Counts())
    assert (job.result(), job.attempts) == (3, 2)
    assert len(job.checkpoints) == 3
    assert all(one.size > 0 and job.submitted < one.at for one in job.checkpoints)


def test_the_last_one_is_told_where_the_job_did_not_succeed(pool, capsys, monkeypatch):
    """On its card, and by ``jobcontainer show``: when, how large, and how to go on."""
    job, done = pool.submit(Counts()), pool.with_options(retries=1).submit(Counts())
    last = job.checkpoints[-1]
    words = f"{units.clock(last.at)}, {units.memory(last.size)}"
    shown = [card_text(job_card(snapshot_of(one), 0.0)) for one in (job, done)]
    assert f"Last checkpoint: {words}. job.rerun(resume=True) goes on from it." in shown[0]
    assert "Last checkpoint" not in shown[1]
    monkeypatch.setenv("JOBCONTAINER_HOME", str(pool.store))
    assert main(["show", job.id]) == 0
    assert f"checkpoints: the last {words}" in capsys.readouterr().out.splitlines()


def test_a_rerun_goes_on_only_where_it_is_to(pool):
    """``rerun(resume=True)``, of a job, a pool and a group; a plain one begins anew, and so does any other job."""
    job = pool.submit(Counts())
    assert job.state is JobState.FAILED
    assert job.rerun(resume=True).result() == 3
    assert pool.rerun(job, resume=True).result() == 3
    assert jobcontainer.JobGroup([job]).rerun_failed(resume=True).results() == [3]
    assert job.rerun(resume=True).rerun(resume=True).result() == 3
    again = job.rerun()
    assert (again.state, len(again.checkpoints)) == (JobState.FAILED, 3)
    assert pool.submit(Counts(fails=False)).result() == 0


def test_a_rerun_resumes_a_job_that_saved_nothing_anew(pool):
    """And tells of no checkpoint."""
    job = pool.submit(len, "work")
    again = job.rerun(resume=True)
    assert (again.result(), again.checkpoints, job.checkpoints) == (4, (), ())


def test_outside_of_a_job_it_is_kept_in_memory_for_the_object(pool):
    """So that code runs inline; another object begins anew, as another job does."""
    counts = Counts(fails=False)
    assert [counts.run(), counts.run(), Counts(fails=False).run()] == [0, 3, 0]
    slotted = Slotted()
    assert [slotted.run(), slotted.run()] == ["anew", "saved"]
    assert pool.submit(counts).result() == 0
    assert counts.run() == 3


def test_outside_of_a_job_it_is_a_copy_as_in_one():
    """What is done to the object afterwards changes neither; what can't be saved in a job can't be saved here."""

    class Saves:
        def run(self):
            state = {"weights": np.zeros(100_000), "epoch": [1]}
            checkpoint.save(state)
            state["weights"] += 1
            checkpoint.load()["epoch"].append(2)
            found = checkpoint.load()
            with pytest.raises(SerializationError, match="checkpoint"):
                checkpoint.save(threading.Lock())
            return found["weights"].max(), found["epoch"], checkpoint.load()["epoch"]

    assert Saves().run() == (0, [1], [1])


def test_what_is_kept_in_memory_goes_with_its_object():
    """Nothing is held for a process that is gone."""
    counts = Counts(fails=False)
    counts.run()
    key = id(counts)  # of others, garbage may be collected at any time
    assert key in checkpoint._kept._kept
    del counts
    assert key not in checkpoint._kept._kept


def test_jobs_within_one_another_have_each_their_own(pool, tmp_path):
    """An inline job that runs another one goes on with its own checkpoint afterwards."""

    class Outer:
        def run(self):
            checkpoint.save("outer")
            with JobPool(engine="inline", store=tmp_path / "inner") as inner:
                begun = inner.submit(Counts(fails=False)).result()
            return begun, checkpoint.load()

    assert pool.submit(Outer()).result() == (0, "outer")
    assert checkpoint.load("none here") == "none here"


def test_threads_of_several_jobs_do_not_mix_them_up(tmp_path):
    """Each thread that runs a job has its job's; one that may be of any is refused."""
    both, found = threading.Barrier(2, timeout=30), {}

    class Meets:
        def __init__(self, name):
            self.name = name

        def run(self):
            both.wait()
            checkpoint.save(self.name)
            refused = []
            other = threading.Thread(target=try_to_load, args=[refused])
            other.start()
            other.join()
            both.wait()
            return checkpoint.load(), len(refused)

    def try_to_load(refused):
        with pytest.raises(RuntimeError, match="Several jobs"):
            checkpoint.load()
        refused.append(1)

    def run(name):
        with JobPool(engine="inline", store=tmp_path / name) as pool:
            found[name] = pool.submit(Meets(name)).result()

    def in_thread(name):
        thread = threading.Thread(target=run, args=[name])
        thread.start()
        return thread

    globals()["both"] = both
    for thread in [in_thread("a"), in_thread("b")]:
        thread.join()
    assert found == {"a": ("a", 1), "b": ("b", 1)}


def test_calls_of_map_have_none_and_say_why(pool):
    """They share a process; the error is the call's own."""

    def call(number):
        with pytest.raises(RuntimeError, match=r"pool\.map\(\).*pool\.submit\(\)"):
            checkpoint.save(number)
        return checkpoint.load(number)

    with pytest.raises(RuntimeError, match="have no checkpoint"):
        list(pool.map(call, [1, 2]))


def test_a_child_that_was_forked_from_a_job_has_none(pool):
    """Not that of the job, nor one of its own."""

    class Forks:
        def run(self):
            checkpoint.save("the job's")
            if (pid := os.fork()) == 0:
                with pytest.raises(RuntimeError, match="child process of a job"):
                    checkpoint.save("the child's")
                os._exit(3)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), checkpoint.load()

    assert pool.submit(Forks()).result() == (3, "the job's")
