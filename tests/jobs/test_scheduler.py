"""The queue before the slots: order, retries, cancel, shutdown; over an engine that a test moves by hand."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future, wait

import pytest

from jobcontainer.events import JobState, Outcome, Started
from jobcontainer.jobs.control import SchedulerControl, StoreControl
from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.job import Job
from jobcontainer.jobs.scheduler import Scheduler
from jobcontainer.jobs.submission import Submitter
from jobcontainer.process import JobOptions
from jobcontainer.storage.jsonl import read_lines
from jobcontainer.storage.result import write_returned
from jobcontainer.storage.store_folder import StoreFolder
from waiting import wait_for


class HandEngine:
    """An engine whose jobs end when the test says so."""

    def __init__(self, slots):
        self.slots = slots
        self.running = {}
        self.started = []
        self.most = 0
        self.closed = threading.Event()

    def submit(self, folder, options, environment, *, attempt=1, identity=None):  # noqa: ARG002 -- the protocol's
        future = Future()
        self.running[folder.id] = (folder, attempt, future)
        self.most = max(self.most, len(self.running))
        self.started.append(folder.read_record().name)
        folder.append_event(Started(at=time.time(), pid=1, attempt=attempt))
        return future

    def end(self, job, state=JobState.SUCCEEDED, value=None):
        folder, attempt, future = self.running.pop(job.id)
        if state is JobState.SUCCEEDED:
            write_returned(folder.result_file, value)
        outcome = Outcome(state=state, at=time.time(), attempt=attempt)
        folder.append_event(outcome)
        future.set_result(outcome)

    def cancel(self, job_id):
        folder, attempt, future = self.running.pop(job_id)
        outcome = Outcome(state=JobState.CANCELLED, at=time.time(), attempt=attempt)
        folder.append_event(outcome)
        future.set_result(outcome)

    def close(self):
        assert not self.running
        self.closed.set()


@pytest.fixture
def engine():
    return HandEngine(slots=2)


@pytest.fixture
def submit(engine, tmp_path):
    """A function that submits trivial jobs by name; its ``scheduler`` attribute is the one under test."""
    store = StoreFolder(tmp_path / "store")
    store.create()
    scheduler = Scheduler(engine, Submitter(store))
    control = SchedulerControl(scheduler)

    def submit(name, **options):
        submission = scheduler.submitter.of_process(_Nothing(), JobOptions(name=name, **options))
        return control.submit([submission])[0]

    submit.scheduler = scheduler
    yield submit
    scheduler.end()
    assert engine.closed.wait(5)


class _Nothing:
    def run(self):
        return None


def test_no_more_jobs_run_than_there_are_slots(submit, engine):
    """Processes are bounded, whatever the number of jobs."""
    jobs = [submit(f"job{number}") for number in range(20)]
    while engine.running:
        engine.end(next(job for job in jobs if job.id in engine.running))
    assert engine.most == 2
    assert all(job.state is JobState.SUCCEEDED for job in jobs)


def test_jobs_start_in_the_order_they_were_submitted(submit, engine):
    """First in, first out."""
    jobs = [submit(f"job{number}") for number in range(6)]
    for job in jobs:
        engine.end(job)
    assert engine.started == [f"job{number}" for number in range(6)]


def test_a_higher_priority_overtakes_the_queue(submit, engine):
    """``priority=`` goes before age."""
    jobs = [submit(f"job{number}") for number in range(4)]
    urgent = submit("urgent", priority=1)
    engine.end(jobs[0])
    assert engine.started == ["job0", "job1", "urgent"]
    for job in (jobs[1], urgent, *jobs[2:]):
        engine.end(job)


@pytest.mark.parametrize("state", [JobState.CRASHED, JobState.FAILED, JobState.LOST])
def test_a_job_with_retries_left_is_tried_again(submit, engine, state):
    """A crash, a failure and a loss are tried again, ``retries`` times, and the attempts are counted."""
    job = submit("fragile", retries=2)
    engine.end(job, state)
    engine.end(job, state)
    assert (job.state, job.attempts, job.done()) == (JobState.RUNNING, 3, False)
    engine.end(job, JobState.SUCCEEDED, value=7)
    assert job.result(5) == 7


@pytest.mark.parametrize("state", [JobState.TIMED_OUT, JobState.OUT_OF_MEMORY, JobState.CANCELLED])
def test_a_limit_or_a_cancel_is_not_tried_again(submit, engine, state):
    """What would happen again, or was wanted, ends the job."""
    job = submit("limited", retries=2)
    engine.end(job, state)
    assert (job.state, job.attempts) == (state, 1)


def test_a_retry_goes_before_younger_jobs(submit, engine):
    """A job keeps its place in the queue."""
    first, second, third = (submit(name, retries=1) for name in ("first", "second", "third"))
    engine.end(first, JobState.CRASHED)
    assert engine.started == ["first", "second", "first"]
    for job in (first, second, third):
        engine.end(job)


def test_cancelling_a_queued_job_never_starts_it(submit, engine):
    """A queued job is cancelled at once, in the journal and in its folder too."""
    jobs = [submit(f"job{number}") for number in range(3)]
    assert jobs[2].cancel()
    assert (jobs[2].state, jobs[2].cancelled()) == (JobState.CANCELLED, True)
    with pytest.raises(CancelledError):
        jobs[2].result(0)
    for job in jobs[:2]:
        engine.end(job)
    assert engine.started == ["job0", "job1"]
    assert jobs[2].folder.last_turn().state is JobState.CANCELLED
    ended = [line for line in read_lines(submit.scheduler.submitter.store.journal_file)[0] if line["event"] == "ended"]
    assert {line["id"] for line in ended} == {job.id for job in jobs}


@pytest.mark.slow
def test_cancelling_a_group_starts_none_of_it(submit, engine):
    """The end of a running job frees a slot while the others are told; nothing is left in the queue for it."""
    jobs = [submit(f"job{number}") for number in range(500)]
    other = submit("of somebody else")
    JobGroup(reversed(jobs)).cancel()
    assert all(job.cancelled() for job in jobs)
    assert engine.started == ["job0", "job1", "of somebody else"]
    ended = [line for line in read_lines(submit.scheduler.submitter.store.journal_file)[0] if line["event"] == "ended"]
    assert {line["id"] for line in ended} == {job.id for job in jobs}
    engine.end(other)


def test_another_process_cancels_a_queued_job_while_all_slots_are_busy(submit, engine):
    """By the file in its folder alone, and within a second or so."""
    jobs = [submit(f"job{number}") for number in range(5)]
    elsewhere = StoreControl(submit.scheduler.submitter.store)
    for job in jobs[3:]:
        assert elsewhere.cancel([Job(job.folder, name=job.name, submitted=job.submitted, control=elsewhere)])
        wait_for(job.cancelled, within=2)
    assert [job.state for job in jobs[:3]] == [JobState.RUNNING, JobState.RUNNING, JobState.QUEUED]
    for job in jobs[:3]:
        engine.end(job)
    assert engine.started == ["job0", "job1", "job2"]


def test_cancelling_a_running_job_succeeds(submit):
    """This is where a job differs from other futures."""
    job = submit("long")
    assert job.running()
    assert job.cancel()
    assert job in wait([job], 5).done
    assert job.cancelled()


def test_a_cancelled_job_is_not_tried_again_though_it_crashes(submit, engine):
    """A job that dies of itself while it is being cancelled ends as cancelled, for every onlooker."""
    job = submit("fragile", retries=5)
    engine.cancel = lambda job_id: engine.end(job, JobState.CRASHED)  # noqa: ARG005 -- the protocol's
    job.cancel()
    assert job.state is JobState.CANCELLED
    assert job.folder.last_turn().state is JobState.CANCELLED


def test_cancelling_an_ended_job_changes_nothing(submit, engine):
    """As for every future."""
    job = submit("quick")
    engine.end(job)
    assert not job.cancel()
    assert job.state is JobState.SUCCEEDED


def test_nothing_is_taken_after_shutdown(submit):
    """As for every executor."""
    submit.scheduler.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        submit("late")


def test_shutdown_closes_the_engine_only_when_the_last_job_has_ended(submit, engine):
    """Queued jobs run to their end."""
    jobs = [submit(f"job{number}") for number in range(3)]
    submit.scheduler.shutdown(wait=False)
    for job in jobs:
        assert not engine.closed.is_set()
        engine.end(job)
    submit.scheduler.shutdown()
    assert engine.closed.is_set()
    assert all(job.state is JobState.SUCCEEDED for job in jobs)


def test_shutdown_can_cancel_what_is_queued(submit, engine):
    """``cancel_futures`` leaves only the running ones."""
    jobs = [submit(f"job{number}") for number in range(5)]
    submit.scheduler.shutdown(wait=False, cancel_queued=True)
    assert [job.cancelled() for job in jobs] == [False, False, True, True, True]
    for job in jobs[:2]:
        engine.end(job)


def test_the_queue_tells_a_job_its_place(submit, engine):
    """How many start before it; None once it runs."""
    jobs = [submit(f"job{number}") for number in range(4)]
    assert [submit.scheduler.position(job) for job in jobs] == [None, None, 0, 1]
    for job in jobs:
        engine.end(job)
