"""The journal saves reading the folders, and is never believed over them."""

from __future__ import annotations

import fcntl
import json
import os

import pytest

from jobcontainer import CorruptFileError, JobPool, JobState, JobStore
from jobcontainer.events import Outcome
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.journal import Journal, JournalEntry
from jobcontainer.storage.jsonl import append_lines, read_lines
from jobcontainer.storage.store_folder import StoreFolder


class Nothing:
    def run(self):
        return None


@pytest.fixture(autouse=True)
def _however_few(monkeypatch):
    """The journal is read however few the jobs are; else a few are read from their folders."""
    monkeypatch.setattr("jobcontainer.jobs.control._FEW", 0)


@pytest.fixture
def store(tmp_path):
    """A store with three jobs that succeeded."""
    with JobPool(engine="inline", store=tmp_path / "store") as pool:
        pool.submit_all([Nothing() for _ in range(3)])
    return StoreFolder(tmp_path / "store")


def states(store):
    return [job.state for job in JobStore(store.path).jobs()]


def lines(store):
    return read_lines(store.journal_file)[0]


def test_a_listing_reads_no_folder_that_the_journal_knows(store, monkeypatch):
    """Only the sizes and times of the files are looked at."""
    monkeypatch.setattr(JobFolder, "read_record", None)
    monkeypatch.setattr(JobFolder, "read_events", None)
    assert states(store) == [JobState.SUCCEEDED] * 3


def test_a_deleted_journal_is_made_anew_by_a_listing(store, monkeypatch):
    """The first listing reads the folders, the next one only the journal."""
    store.journal_file.unlink()
    assert states(store) == [JobState.SUCCEEDED] * 3
    monkeypatch.setattr(JobFolder, "read_record", None)
    monkeypatch.setattr(JobFolder, "read_events", None)
    assert states(store) == [JobState.SUCCEEDED] * 3


def test_a_folder_that_has_changed_is_believed_and_not_the_journal(store):
    """Whatever the journal says of an end, the events decide once they are others than those it was made from."""
    first = next(store.folders())
    first.append_event(Outcome(state=JobState.CANCELLED, at=3.0))
    assert states(store) == [JobState.CANCELLED, JobState.SUCCEEDED, JobState.SUCCEEDED]
    assert Journal(store).entries(list(store.folders()))[0].state is JobState.CANCELLED


def test_a_line_that_was_made_from_no_file_counts_for_nothing(store):
    """An end without the mark of the events that it repeats is not shown."""
    append_lines(
        store.journal_file, [{"event": "ended", "id": next(store.folders()).id, "state": "lost", "events": "1:2"}]
    )
    assert states(store) == [JobState.SUCCEEDED] * 3


def test_a_job_that_is_opened_is_read_from_its_folder(store):
    """Even where the journal's mark is right and its state is not."""
    wrong = [line | {"state": "failed"} if line["event"] == "ended" else line for line in lines(store)]
    store.journal_file.write_text("".join(json.dumps(line) + "\n" for line in wrong))
    assert JobStore(store.path).open(next(store.folders()).id).state is JobState.SUCCEEDED


def test_a_renamed_job_has_the_name_of_its_record(store):
    """``job.json`` is believed as the events are."""
    first = next(store.folders())
    record = json.loads(first.record_file.read_text()) | {"name": "Renamed"}
    first.record_file.write_text(json.dumps(record))
    assert [job.name for job in JobStore(store.path).jobs()] == ["Renamed", "Nothing", "Nothing"]


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"id": 1}', b"\xff\x00 no text", b"[" * 100_000])
def test_a_job_that_overwrites_its_record_costs_the_listing_that_job_alone(store, content):
    """The others are listed, and it is listed with what its id and its events say."""
    first = next(store.folders())
    first.record_file.write_bytes(content)
    job = JobStore(store.path).jobs()[0]
    assert (job.id, job.name, job.state) == (first.id, "Nothing", JobState.SUCCEEDED)
    assert states(store) == [JobState.SUCCEEDED] * 3
    with pytest.raises(CorruptFileError, match=r"job\.json is damaged"):
        _ = job.record


@pytest.mark.parametrize("line", [b"[]\n", b'{"id": 7}\n', b'{"event": "ended", "id": [], "state": 3}\n', b'{"half'])
def test_strange_lines_in_the_journal_are_passed_over(store, line):
    """They cost no job and no listing."""
    with store.journal_file.open("ab") as journal:
        journal.write(line)
    assert states(store) == [JobState.SUCCEEDED] * 3


def test_a_pruned_job_leaves_no_line_behind(store):
    """The journal does not grow for ever."""
    assert len(JobStore(store.path).prune(keep=1)) == 2
    assert {line["id"] for line in lines(store)} == {folder.id for folder in store.folders()}
    assert states(store) == [JobState.SUCCEEDED]


def test_a_listing_writes_nothing_that_the_journal_has(store):
    """It does not grow because somebody looks."""
    states(store)
    before = store.journal_file.read_bytes()
    assert states(store) == [JobState.SUCCEEDED] * 3
    assert store.journal_file.read_bytes() == before


def test_a_journal_that_has_outgrown_its_jobs_is_written_anew(store, monkeypatch):
    """By a listing: one line for each job that is there, and the same answer."""
    monkeypatch.setattr("jobcontainer.storage.journal._FEW_LINES", 0)
    Journal(store).add_submitted(
        [JournalEntry(store.job(f"gone-{number}"), "Gone", 1.0, {"host": "here"}) for number in range(100)]
    )
    assert states(store) == [JobState.SUCCEEDED] * 3
    assert [line["id"] for line in lines(store)] == store.job_ids()
    assert states(store) == [JobState.SUCCEEDED] * 3


def test_nobody_waits_for_whoever_writes_the_journal_anew(store):
    """A process that holds the lock for ever, being stopped, keeps nobody from submitting, listing and pruning."""
    lock = os.open(store.journal_file, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with JobPool(engine="inline", store=store.path) as pool:
            pool.submit(pow, 2, 3)
        assert states(store) == [JobState.SUCCEEDED] * 4
        assert len(JobStore(store.path).prune(keep=1)) == 3
        assert states(store) == [JobState.SUCCEEDED]
    finally:
        os.close(lock)
    Journal(store).shrink()
    assert [line["id"] for line in lines(store)] == store.job_ids()


def test_what_is_appended_while_the_journal_is_written_anew_is_not_lost(store, monkeypatch):
    """Neither what comes before the new one takes its place, nor what is added to the old one later."""
    journal = Journal(store)

    def entry(name):
        folder = store.job(name)
        folder.create()
        folder.record_file.write_text("{}")
        return JournalEntry(folder, name, 1.0, {"host": "here"})

    def write(path, data):
        journal.add_submitted([entry("20270101-before")])
        write_whole(path, data)

    monkeypatch.setattr("jobcontainer.storage.journal.write_whole", write)
    journal.shrink()
    assert "20270101-before" in {line["id"] for line in lines(store)}
    monkeypatch.undo()

    def append(path, records):
        inode = append_lines(path, records)
        if not replaced:
            replaced.append(journal.shrink())
            os.truncate(path, 0)  # as if it had not seen the line
        return inode

    replaced = []
    monkeypatch.setattr("jobcontainer.storage.journal.append_lines", append)
    journal.add_submitted([entry("20270101-after")])
    assert [line["id"] for line in lines(store)] == ["20270101-after"]


@pytest.mark.slow
def test_two_kernels_that_prune_and_submit_lose_no_line(store):
    """Four processes append while two others write the journal anew, again and again."""
    children = []
    for number in range(6):
        if (pid := os.fork()) == 0:
            journal = Journal(store)
            for index in range(200):
                if number < 2:
                    journal.shrink()
                else:
                    folder = store.job(f"2027-{number}-{index}")
                    folder.create()
                    folder.record_file.write_text("{}")
                    journal.add_submitted([JournalEntry(folder, "Some", 1.0, {"host": "here"})])
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6
    assert {line["id"] for line in lines(store)} == {*store.job_ids()}
    assert len(store.job_ids()) == 3 + 800


def test_a_journal_that_cannot_be_written_costs_no_job(store):
    """A full disk or a strange file in its place is no reason to lose an end."""
    store.journal_file.unlink()
    store.journal_file.mkdir()
    with JobPool(engine="inline", store=store.path) as pool:
        assert pool.submit(pow, 2, 3).result() == 8
    assert states(store) == [JobState.SUCCEEDED] * 4
