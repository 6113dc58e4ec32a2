"""The hostile table: every job ends as it must, and harms nobody."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hostile import TABLE
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.events import JobState
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.result import read_result
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker import process_tree
from waiting import wait_for

SIBLINGS = 20


class Sibling:
    def __init__(self, number):
        self.number = number

    def run(self):
        print("sibling", self.number)
        return self.number


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["forked", "spawned"])
def jobs(tmp_path_factory, request):
    """The rows of the table that are tried, and twenty siblings, submitted at once to one engine; futures by name."""
    tried = [
        item.callspec.params for item in request.session.items if item.module is request.module and "[" in item.name
    ]
    names = {params["row"].name for params in tried if "row" in params}
    store = StoreFolder(tmp_path_factory.mktemp("hostile") / "store")
    store.create()
    engine = LokyEngine(4, forks=request.param)
    here = Environment.here()
    started = {}

    def submit(name, process, options):
        folder = store.new_job(name)
        Serializer.serialize_to_file(process, folder.process_file)
        started[name] = folder, engine.submit(folder, JobOptions(**options), here)

    for index, row in enumerate(TABLE):
        if row.name in names:
            submit(row.name, row.process, row.options)
        if index < SIBLINGS:
            submit(f"sibling {index}", Sibling(index), {})
    yield started
    begun = time.monotonic()
    engine.close()
    assert time.monotonic() - begun < 5


@pytest.mark.fast_cases(40)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_hostile_job_ends_as_it_must(jobs, row):
    """It ends in its state, within its bound, and what happened is told."""
    folder, future = jobs[row.name]
    outcome = future.result(row.bound)
    log = folder.tail(200) if row.told else []
    said = "\n".join([outcome.reason, outcome.error_type, outcome.error_message, *log])
    assert outcome.state is row.state, said
    for words in row.words:
        assert words in said
    if row.state is JobState.SUCCEEDED:
        assert read_result(folder.result_file)[1] is None
    elif row.state is not JobState.FAILED:
        assert not folder.result_file.exists()
    if folder.path.exists() and row.told:
        assert folder.read_events()[0][-1] == outcome


def test_siblings_are_unharmed(jobs):
    """Twenty jobs that ran beside the hostile ones returned what they should."""
    for number in range(SIBLINGS):
        folder, future = jobs[f"sibling {number}"]
        assert future.result(30).state is JobState.SUCCEEDED
        assert read_result(folder.result_file) == (number, None)
        assert folder.tail(9) == [f"sibling {number}"]


USES_JOBLIB = """
import os, time
import numpy
from joblib import Parallel, delayed
from pathlib import Path

class UsesJoblib:
    def __init__(self, reached):
        self.reached = reached

    def run(self):
        array = numpy.ones(1_000_000)
        Parallel(2)(delayed(numpy.sum)(array) for _ in range(2))
        Path(self.reached).write_text(str(os.getpid()))
        time.sleep(1000)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["job and trackers", "all of Python"])
def test_killed_jobs_leave_nothing_of_joblib_in_shared_memory(tmp_path, killed):
    """Its arrays and semaphores go, though the process that would remove them was killed with the job."""
    store, reached = StoreFolder(tmp_path / "store"), tmp_path / "reached"
    store.create()
    folder, engine = store.new_job("job"), LokyEngine(1)
    namespace = {"__name__": "__main__"}
    exec(USES_JOBLIB, namespace)  # noqa: S102 -- the class goes by value
    Serializer.serialize_to_file(namespace["UsesJoblib"](str(reached)), folder.process_file)
    try:
        future = engine.submit(folder, JobOptions(), Environment.here())
        wait_for(lambda: reached.exists() and reached.read_text(), within=60)
        job = int(reached.read_text())
        assert left_by(job)
        below = [job, *process_tree.descendants_of(job)]
        process_tree.kill([process_tree.parent_of(job), *below] if killed == "all of Python" else below)
        future.result(10)
        wait_for(lambda: not left_by(job), within=5)
    finally:
        engine.close()


def left_by(pid):
    """What joblib has in shared memory of a process."""
    return [path for path in Path("/dev/shm").iterdir() if f"_{pid}_" in path.name or f"-{pid}-" in path.name]  # noqa: S108
