"""The last turn of a job is found in a bounded time, and is the true one."""

from __future__ import annotations

import os
import time

import pytest

from jobcontainer.events import Display, JobState, Outcome, Progress, Started, Usage
from jobcontainer.storage import turns
from jobcontainer.storage.event_reader import EventReader
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.turns import TurnReader, starts_from


@pytest.fixture
def folder(tmp_path):
    folder = JobFolder(tmp_path / "20270115-080000.000000-Train-abcdef")
    folder.create()
    return folder


@pytest.fixture
def small(monkeypatch):
    """Blocks so small that a few events fill them."""
    monkeypatch.setattr(turns, "_BLOCK", 1000)
    monkeypatch.setattr(turns, "_LONGEST", 500)
    monkeypatch.setattr(turns, "_MOST_SEARCHED", 16_000)


@pytest.fixture
def reads(monkeypatch):
    """The sizes of what is read."""
    done = []
    read = turns.read_part
    monkeypatch.setattr(turns, "read_part", lambda path, *part: done.append(part[1]) or read(path, *part))
    return done


def show(folder, times=1, size=100):
    for _ in range(times):
        folder.append_event(Display(at=1.0, data={"text/plain": '"started" "ended" ' + "x" * size}))


def start(folder, attempt=1):
    event = Started(at=float(attempt), pid=attempt, attempt=attempt)
    folder.append_event(event)
    return event


def end(folder, attempt=1, state=JobState.CRASHED):
    event = Outcome(state=state, at=attempt + 0.5, attempt=attempt, usage=Usage(wall=0.5))
    folder.append_event(event)
    return event


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("outputs", [0, 1, 7, 30])
def test_starts_and_ends_are_found_between_any_number_of_outputs(folder, outputs):
    """By a reader that looks once, and by one that has looked all along."""
    along = TurnReader(folder.events_file)
    for attempt in (1, 2, 3):
        for write in (start, end):
            event = write(folder, attempt)
            assert along.look() == event
            show(folder, outputs)
            once = TurnReader(folder.events_file)
            assert once.look() == along.look() == event
            assert (once.started, along.ended) == (along.started, once.ended or along.ended)


@pytest.mark.usefixtures("small")
def test_a_turn_that_crosses_two_blocks_is_found_once(folder):
    """Wherever the boundary falls."""
    start(folder)
    event = end(folder)
    size = folder.events_file.stat().st_size
    for more in range(700, 1300, 7):
        folder.events_file.write_bytes(folder.events_file.read_bytes()[:size] + b"x" * more + b"\n")
        reader = TurnReader(folder.events_file)
        assert reader.look() == event
        assert reader.started is not None


@pytest.mark.usefixtures("small")
def test_what_lies_before_the_last_start_is_not_read(folder, reads):
    """However many outputs an earlier attempt had."""
    start(folder)
    show(folder, 60)
    event = start(folder, 2)
    assert TurnReader(folder.events_file).look() == event
    assert sum(reads) < 2000


def test_a_look_reads_only_what_was_added(folder, reads):
    """A job that is watched for days is read once."""
    reader = TurnReader(folder.events_file)
    start(folder)
    show(folder, 1000)
    reader.look()
    reads.clear()
    show(folder)
    reader.look()
    reader.look()
    assert sum(reads) < 1000


@pytest.mark.usefixtures("small")
def test_a_job_that_fills_its_file_costs_a_bounded_read(folder, reads):
    """Of a start that lies before all of it, the first of the file is known; an end there is not the last turn."""
    event = start(folder)
    end(folder)
    show(folder, 400)
    reader = TurnReader(folder.events_file)
    assert reader.look() == event
    assert reader.ended is None
    assert sum(reads) < 16_000 * 2
    assert end(folder, 2) == reader.look()


def test_a_line_that_is_torn_is_a_turn_once_it_is_whole(folder):
    """The reader goes on where the line begins."""
    event = end(folder)
    whole = folder.events_file.read_bytes()
    reader = TurnReader(folder.events_file)
    for cut in (1, 20, len(whole) - 1):
        folder.events_file.write_bytes(whole[:cut])
        assert reader.look() is None
    folder.events_file.write_bytes(whole)
    assert reader.look() == event


def test_a_file_that_was_written_anew_is_read_anew(folder):
    """Its old turns are gone."""
    start(folder)
    end(folder)
    reader = TurnReader(folder.events_file)
    reader.look()
    folder.events_file.unlink()
    assert reader.look() is None
    assert start(folder) == reader.look()


def test_whether_an_attempt_has_started_is_seen_behind_what_earlier_ones_wrote(folder):
    """A worker that is gone may only be replaced where no process has begun with the attempt."""
    start(folder)
    show(folder, 1000)
    size = folder.events_size()
    assert starts_from(folder.events_file, size) == []
    event = start(folder, 2)
    show(folder, 1000)
    assert starts_from(folder.events_file, size) == [event]


def test_a_gigabyte_of_one_line_is_looked_at_in_no_time(folder):
    """By the reader of turns and by that of all events."""
    event = start(folder)
    with folder.events_file.open("ab") as file:
        file.truncate(2**30)
    begun = time.monotonic()
    assert TurnReader(folder.events_file).look() == event
    assert time.monotonic() - begun < 1
    assert next(EventReader(folder).read()) == event


def test_every_event_is_read_once_however_often_one_looks(folder, monkeypatch):
    """In pieces, also while they are being added."""
    monkeypatch.setattr("jobcontainer.storage.jsonl.AT_ONCE", 1000)
    reader = EventReader(folder)
    assert list(reader.read_all()) == []
    show(folder, 30)
    assert 0 < len(list(reader.read())) < 10
    show(folder, 20)
    assert 40 < len(list(reader.read_all())) < 50
    assert list(reader.read()) == []
    assert not reader.has_skipped


def test_of_too_many_events_those_at_the_end_are_read(folder, monkeypatch):
    """What a card needs is there: bars and the last start."""
    monkeypatch.setattr("jobcontainer.storage.jsonl.AT_ONCE", 1000)
    monkeypatch.setattr("jobcontainer.storage.event_reader._END", 2000)
    reader = EventReader(folder, most=5000)
    show(folder, 100)
    folder.append_event(Progress(at=3.0))
    events = list(reader.read_all())
    assert events[-1] == Progress(at=3.0)
    assert len(events) < 40  # a short one counts as a thousand bytes, as it takes its time
    assert reader.has_skipped


def test_a_torn_line_is_not_read_again_before_it_grows(folder, monkeypatch):
    """A job that leaves half of a long line costs one read."""
    with folder.events_file.open("ab") as file:
        file.write(b"{" + b"x" * 100_000)
    reader = EventReader(folder)
    assert list(reader.read_all()) == []
    monkeypatch.setattr(JobFolder, "read_events", None)
    assert list(reader.read_all()) == []


def test_events_are_read_although_they_cannot_be_for_a_moment(folder, monkeypatch):
    """Where no descriptor is left, a look raises, and the next one misses nothing."""
    event = start(folder)
    reader = TurnReader(folder.events_file)
    with monkeypatch.context() as patch:

        def no_descriptor(*_):
            raise OSError(24, "Too many open files")

        patch.setattr(os, "open", no_descriptor)
        with pytest.raises(OSError, match="Too many"):
            reader.look()
    assert reader.look() == event
