"""What is read of a job, and how often."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from types import SimpleNamespace

import pytest

from jobcontainer.events import Bar, Display, JobState, Outcome, Progress, Started
from jobcontainer.jobs.job import Job
from jobcontainer.storage.folder import JobFolder, JobRecord
from jobcontainer.storage.preview import Preview, write_preview
from jobcontainer.storage.progress_file import ProgressFile
from jobcontainer.views.snapshot import LOG_LINES, SnapshotReader
from jobcontainer.worker import process_tree


@pytest.fixture
def job(tmp_path):
    """A queued job in a folder, which a test moves as a scheduler would, and writes as a worker would."""
    folder = JobFolder(tmp_path / "20270115-080000.000000-Train-abcdef")
    folder.create()
    folder.write_record(JobRecord(id=folder.id, name="Train", submitted=1.0, options={"memory": 5}))
    return Job(folder, name="Train", submitted=1.0, control=None)


def start(job, attempt=1):
    job._dispatched(attempt)
    job.folder.append_event(Started(at=2.0, pid=1, attempt=attempt))


def show(job, text, **more):
    job.folder.append_event(Display(at=1.0, data={"text/plain": text}, **more))


def texts(reader):
    return [display.data["text/plain"] for display in reader.outputs()]


def test_a_look_sees_start_log_bars_and_options(job):
    """All from the folder, while the job runs."""
    reader = SnapshotReader(job)
    assert reader.look(3).position == 3
    start(job)
    job.folder.log_file.write_text("".join(f"line {number}\n" for number in range(100)))
    record = ProgressFile(job.folder.progress_file)
    record.write([Bar(label="epochs", done=1, total=3)])
    seen = reader.look()
    record.close()
    assert (seen.started, seen.attempts, seen.options) == (2.0, 1, {"memory": 5})
    assert len(seen.log) == LOG_LINES
    assert seen.log[-1] == "line 99"
    assert seen.log_size == 790
    assert [bar.label for bar in seen.bars] == ["epochs"]


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")
def test_a_running_job_of_this_machine_tells_how_busy_it_is(job, monkeypatch):
    """Over the last second or more, all of its processes together; one CPU is 1."""
    job.folder.append_event(Started(at=2.0, pid=os.getpid(), host=socket.gethostname()))
    job._phase = JobState.RUNNING
    reader = SnapshotReader(job)
    clock = iter([100.0, 100.5, 102.0, 104.0])
    used = iter([10.0, 10.5, 13.0, 13.5])
    with monkeypatch.context() as patch:  # for the looks alone: fixtures ask for the time as well
        patch.setattr("jobcontainer.views.snapshot.time", SimpleNamespace(monotonic=lambda: next(clock)))
        patch.setattr("jobcontainer.views.snapshot.process_tree.cpu_of", lambda _: next(used))
        loads = [reader.look().load for _ in range(4)]
    assert loads == [None, None, 1.5, 0.25]


def test_cpu_time_is_that_of_the_system():
    """As this process itself is told."""
    before = sum(os.times()[:2])
    while sum(os.times()[:2]) < before + 0.1:
        sum(range(10_000))
    assert abs(process_tree.cpu_of([os.getpid()]) - sum(os.times()[:4])) < 0.05
    assert process_tree.cpu_of([2**22 + 1]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_running_job_of_this_machine_tells_its_memory(job):
    """Of its process and all below; one of another machine can't be seen from here."""
    for host, seen in ((socket.gethostname(), True), ("elsewhere.example", False)):
        job._dispatched(1)
        job.folder.append_event(Started(at=2.0, pid=os.getpid(), host=host))
        assert (SnapshotReader(job).look().memory > 1_000_000) is seen


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_that_a_job_shares_with_its_keeper_is_not_counted_as_its_own(job):
    """The card says of a running job what its limit is compared with, and what its peak will be."""
    job._dispatched(1)
    for shared in (0, 10**12):
        job.folder.append_event(Started(at=2.0, pid=os.getpid(), host=socket.gethostname(), shared=shared))
        assert (SnapshotReader(job).look().memory == 0) is bool(shared)


def test_an_ended_job_is_read_once(job, monkeypatch):
    """Its second look touches no file."""
    start(job)
    job._settle(Outcome(state=JobState.SUCCEEDED, at=3.0))
    reader = SnapshotReader(job)
    first = reader.look()
    monkeypatch.setattr(JobFolder, "read_events", None)
    monkeypatch.setattr(JobFolder, "log_file", None)
    assert reader.look() is first


def test_a_queued_job_is_not_read(job, monkeypatch):
    """Nothing can have happened in its folder."""
    monkeypatch.setattr(JobFolder, "read_events", None)
    monkeypatch.setattr(JobFolder, "log_file", None)
    assert SnapshotReader(job).look().state is JobState.QUEUED


def test_events_are_read_on_from_where_the_last_look_stopped(job):
    """What was read is not read again: only the offset moves."""
    reader = SnapshotReader(job, most_outputs=5)
    start(job)
    show(job, "one")
    assert texts(reader) == ["one"]
    job.folder.events_file.write_bytes(b" " * job.folder.events_file.stat().st_size)
    show(job, "two")
    assert texts(reader) == ["one", "two"]


def test_outputs_are_updated_cleared_and_counted(job):
    """``update_display`` changes one in its place, ``clear_output`` takes all, and of too many the rest is counted."""
    reader = SnapshotReader(job, most_outputs=2)
    show(job, "0.9", display_id="loss")
    show(job, "other")
    show(job, "third")
    show(job, "0.1", display_id="loss", update=True)
    assert texts(reader) == ["0.1", "other"]
    assert reader.more_outputs == 1
    show(job, "fresh", clear=True)
    assert texts(reader) == ["fresh"]
    assert reader.more_outputs == 0


def test_a_job_that_fills_its_events_shows_what_is_read_of_them_and_that_there_is_more(job, monkeypatch):
    """A look takes no longer for it, and the last bars are shown."""
    monkeypatch.setattr("jobcontainer.storage.jsonl.AT_ONCE", 1000)
    monkeypatch.setattr("jobcontainer.storage.event_reader.EventReader.__init__.__defaults__", (5000,))
    monkeypatch.setattr("jobcontainer.storage.event_reader._END", 2000)
    reader = SnapshotReader(job, most_outputs=1000)
    start(job)
    for number in range(300):
        show(job, str(number))
    job.folder.append_event(Progress(at=2.0, bars=(Bar(label="epochs"),)))
    job._settle(Outcome(state=JobState.SUCCEEDED, at=3.0))
    assert [bar.label for bar in reader.look().bars] == ["epochs"]
    assert len(texts(reader)) < 100
    assert reader.more_outputs >= 1


def test_a_new_attempt_begins_with_no_outputs_and_no_bars(job):
    """What a failed attempt showed is not shown as the next one's."""
    reader = SnapshotReader(job, most_outputs=2)
    start(job)
    show(job, "first try")
    job.folder.append_event(Progress(at=2.0, bars=(Bar(label="epochs"),)))
    assert reader.look().bars
    start(job, attempt=2)
    seen = reader.look()
    assert (seen.attempts, seen.bars, texts(reader)) == (2, (), [])


def test_the_last_progress_is_told_of_a_job_whose_record_is_gone(job):
    """The events hold the bars too."""
    start(job)
    job.folder.append_event(Progress(at=2.0, bars=(Bar(label="epochs", done=2, total=3),)))
    assert [bar.done for bar in SnapshotReader(job).look().bars] == [2]


def test_a_failure_comes_with_its_traceback(job):
    """The one that was printed in the job, which put it beside the result file."""
    start(job)
    write_preview(job.folder.preview_file, Preview(traceback="Traceback: bad row"))
    job._settle(Outcome(state=JobState.FAILED, at=3.0, error_type="ValueError", error_message="bad row"))
    assert SnapshotReader(job).look().preview.traceback == "Traceback: bad row"


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_no_look_loads_what_a_job_left(job, monkeypatch, state):
    """Code in it would run in the notebook, unasked."""
    start(job)
    job.folder.result_file.write_bytes(b"whatever it is")
    monkeypatch.setattr("jobcontainer.jobs.contents.read_result", None)
    job._settle(Outcome(state=state, at=3.0))
    assert SnapshotReader(job).look().preview is None


def test_a_job_whose_folder_was_deleted_can_be_looked_at(job):
    """Its card says what the notebook knows."""
    start(job)
    shutil.rmtree(job.folder.path)
    assert SnapshotReader(job).look().name == "Train"
