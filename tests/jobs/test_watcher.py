"""Jobs of other processes: their handles always end, and their requests to cancel jobs of ours are heeded."""

from __future__ import annotations

import shutil

import pytest

from jobcontainer import JobLostError, JobState, JobStore
from jobcontainer.events import Outcome, Started
from jobcontainer.jobs import watcher
from jobcontainer.jobs.submission import Submitter
from jobcontainer.process import JobOptions
from jobcontainer.storage.folder import StoreFolder
from jobcontainer.storage.owner import this_process
from waiting import wait_for


class _Nothing:
    def run(self):
        return None


ALIVE = this_process()
DEAD = ALIVE | {"pid": 2**22 + 1}


@pytest.fixture
def foreign(tmp_path):
    """A function that makes a job as another process would, and returns a handle that watches it."""
    store = StoreFolder(tmp_path / "store")
    store.create()

    def make(owner=ALIVE, events=(), **options):
        folder = Submitter(store, owner=owner).of_process(_Nothing(), JobOptions(**options)).folder
        for event in events:
            folder.append_event(event)
        return JobStore(store.path).open(folder.id)

    return make


def test_a_handle_follows_its_job_to_the_end(foreign):
    """Started, retried, ended, as the events say."""
    job = foreign(retries=1)
    assert job.state is JobState.QUEUED
    job.folder.append_event(Started(at=1.0, pid=1))
    wait_for(lambda: job.state is JobState.RUNNING)
    job.folder.append_event(Outcome(state=JobState.CRASHED, at=2.0, attempt=1))
    job.folder.append_event(Started(at=3.0, pid=1, attempt=2))
    wait_for(lambda: job.attempts == 2)
    job.folder.append_event(Outcome(state=JobState.CRASHED, at=4.0, attempt=2))
    wait_for(job.done)
    assert (job.state, job.attempts) == (JobState.CRASHED, 2)


def test_a_job_whose_folder_is_deleted_is_lost(foreign):
    """No handle waits for a folder that nobody can write into any more."""
    job = foreign(events=[Started(at=1.0, pid=1)])
    shutil.rmtree(job.folder.path)
    with pytest.raises(JobLostError, match="deleted"):
        job.result(10)


@pytest.mark.parametrize("retries", [0, 5])
def test_an_end_of_a_dead_owner_is_final(foreign, retries):
    """Nobody is left to try the job again."""
    job = foreign(DEAD, [Started(at=1.0, pid=1), Outcome(state=JobState.CRASHED, at=2.0)], retries=retries)
    assert job.state is JobState.CRASHED


def test_a_job_of_a_dead_owner_is_lost_and_its_folder_says_so(foreign):
    """The loss is written once, for every later reader."""
    job = foreign(DEAD, [Started(at=1.0, pid=1, attempt=2)])
    assert (job.state, job.outcome.attempt) == (JobState.LOST, 2)
    assert job.folder.last_turn() == job.outcome


@pytest.mark.parametrize("content", [b"\xff\n", b'{"event": "started"}\n', b'{"event": "ended", "state": 1}\n[]\n7\n'])
def test_garbage_in_the_events_of_one_job_keeps_no_other_waiting(foreign, content):
    """What a job does to its own folder costs that job alone."""
    spoilt, other = foreign(), foreign()
    with spoilt.folder.events_file.open("ab") as events:
        events.write(content)
    other.folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    wait_for(other.done)
    spoilt.folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    wait_for(spoilt.done)


def test_a_listing_asks_once_for_each_owner(foreign, monkeypatch):
    """Ten thousand jobs of another kernel cost one look at that kernel."""
    store = JobStore(foreign().folder.path.parent)
    for _ in range(5):
        foreign()
    asked = []
    monkeypatch.setattr(watcher, "is_alive", lambda owner: asked.append(owner) or True)
    jobs = store.jobs()
    assert len(jobs) == 6
    assert 1 <= len(asked) <= 4  # the listing's own, and those of the thread meanwhile
    monkeypatch.undo()
    for job in jobs:
        job.folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    assert jobs.wait(10)
