"""Jobs of other processes: their handles always end, and their requests to cancel jobs of ours are heeded."""

from __future__ import annotations

import shutil

import pytest

from jobcontainer import JobLostError, JobState, JobStore
from jobcontainer.events import Display, Outcome, Started
from jobcontainer.jobs import watcher
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.process import JobOptions
from jobcontainer.storage import turns
from jobcontainer.storage.owner import this_process
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.storage.turns import TurnReader
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
        submission = Submitter(store, owner=owner).of_process(_Nothing(), JobOptions(**options))
        write_records([submission])
        folder = submission.folder
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


NEWER = b'{"event": "started", "at": 1.0, "pid": 1, "attempt": 1, "host": "here", "gpu": [0]}\n'


def test_events_of_a_newer_version_are_understood_as_far_as_they_go(foreign):
    """A field that is not known here kills no thread, and hides no event."""
    job = foreign()
    with job.folder.events_file.open("ab") as events:
        events.write(NEWER + b'{"event": "something new", "at": 1.0}\n')
    wait_for(lambda: job.state is JobState.RUNNING)
    job.folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    wait_for(job.done)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("a bug"), RecursionError()])
def test_a_job_that_cannot_be_looked_at_keeps_no_other_waiting(foreign, monkeypatch, caplog, error):
    """It is looked at again, and told once where the error is none of the system's; listing it raises nothing."""
    spoilt, other = foreign(), foreign()
    look, raised = TurnReader.look, []

    def fail(reader):
        if spoilt.id in str(reader._path):
            raised.append(error)
            raise error
        return look(reader)

    monkeypatch.setattr(TurnReader, "look", fail)
    spoilt.folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    wait_for(lambda: len(raised) > 2)
    assert not JobStore(spoilt.folder.path.parent).open(spoilt.id).done()
    other.folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    wait_for(other.done)
    assert not spoilt.done()
    monkeypatch.undo()
    wait_for(spoilt.done)
    told = [record for record in caplog.records if spoilt.id in record.getMessage()]
    assert bool(told) is not isinstance(error, OSError)


def test_a_queue_that_cannot_cancel_costs_no_other_job_its_end(foreign, caplog):
    """What it raises is logged, and the watch goes on."""
    job = foreign()
    raised = []

    class Queue:
        def waiting(self):
            raised.append(1)
            if len(raised) < 3:
                raise RuntimeError("no")
            return []

    job._control._watcher.add_queue(Queue())
    wait_for(lambda: len(raised) > 2)
    job.folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    wait_for(job.done)
    assert "could not be looked at" in caplog.text


@pytest.mark.parametrize("running", [False, True])
def test_a_job_without_a_record_that_can_be_read_is_lost_but_nothing_is_written(foreign, running):
    """Nobody knows who runs it; who does will write the true end."""
    job = foreign(events=[Started(at=1.0, pid=1)] if running else ())
    job.folder.record_file.write_bytes(b"x")
    found = JobStore(job.folder.path.parent).open(job.id)
    assert found.state is JobState.LOST
    assert "job.json" in found.outcome.reason
    assert not isinstance(job.folder.last_turn(), Outcome)
    job.folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    assert JobStore(job.folder.path.parent).open(job.id).state is JobState.SUCCEEDED
    wait_for(job.done)
    assert job.state is JobState.SUCCEEDED


def test_a_watch_reads_of_the_events_only_what_was_added(foreign, monkeypatch):
    """40 MB of plots are looked at once, and not ten times a second."""
    folder = foreign(events=[Started(at=1.0, pid=1)]).folder
    plot = Display(at=1.0, data={"image/png": "x" * 1_000_000})
    for _ in range(40):
        folder.append_event(plot)
    sizes = []
    read = turns.read_part
    monkeypatch.setattr(turns, "read_part", lambda path, *part: sizes.append(len(found := read(path, *part))) or found)
    watched = JobStore(folder.path.parent).open(folder.id)
    assert watched.state is JobState.RUNNING
    assert sum(sizes) < 20_000_000
    sizes.clear()
    for _ in range(5):
        folder.append_event(Display(at=1.0, data={"text/plain": "x"}))
        before = len(sizes)
        wait_for(lambda before=before: len(sizes) > before)
    assert sum(sizes) < 10_000
    folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    wait_for(watched.done)


def test_a_listing_asks_once_for_each_owner(foreign, monkeypatch):
    """Ten thousand jobs of another kernel cost one look at that kernel."""
    store = JobStore(foreign().folder.path.parent)
    for _ in range(5):
        foreign()
    asked = []
    monkeypatch.setattr(watcher, "is_alive", lambda owner: asked.append(owner) or True)
    jobs = store.jobs()
    assert len(list(jobs)) == 6
    assert 1 <= len(asked) <= 4  # the listing's own, and those of the thread meanwhile
    monkeypatch.undo()
    for job in jobs:
        job.folder.append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    assert jobs.wait(10)
