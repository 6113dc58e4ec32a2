"""The job folder and the store: what is read of them, and how much."""

from __future__ import annotations

import json
import os
import time

import pytest

from jobcontainer import CorruptFileError
from jobcontainer.events import Outcome, Started, event_from_json, event_to_json
from jobcontainer.storage import folder as folder_module
from jobcontainer.storage.folder import JobFolder, JobRecord
from jobcontainer.storage.store_folder import StoreFolder


@pytest.fixture
def folder(tmp_path):
    folder = JobFolder(tmp_path / "20270115-080000.000000-Train-abcdef")
    folder.create()
    folder.write_record(JobRecord(id=folder.id, name="Train", submitted=1.0))
    return folder


@pytest.fixture
def reads(monkeypatch):
    """The sizes of what is read."""
    done = []
    read = folder_module.read_part
    monkeypatch.setattr(folder_module, "read_part", lambda path, *part: done.append(part[1]) or read(path, *part))
    return done


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", []),
        ("\n", [""]),
        ("one", ["one"]),
        ("one\ntwo\n", ["one", "two"]),
        ("1\n2\n3\n4", ["2", "3", "4"]),
        ("1\n2\n3\n\n", ["2", "3", ""]),
    ],
)
def test_the_last_lines_of_a_log(folder, content, expected):
    """As many as were asked for, a last one without an end among them."""
    folder.log_file.write_text(content)
    assert folder.tail(3) == expected
    assert folder.tail(0) == folder.tail(-1) == []


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("character", [b"x", b"\r", "é".encode(), "🚀".encode(), b"\xff", b"\x80"])
def test_of_a_log_without_lines_only_the_end_is_read(folder, reads, character):
    """100 MB of a progress bar cost no more than 100 kB."""
    folder.log_file.write_bytes(character * (100_000_000 // len(character)) + b"\rlast")
    begun = time.monotonic()
    (line,) = folder.tail(40)
    assert time.monotonic() - begun < 0.5
    assert line.endswith("last")
    assert sum(reads) <= 2**16
    if character not in {b"\xff", b"\x80"}:
        assert "\ufffd" not in line  # no character was cut


def test_who_asks_for_more_lines_gets_them(folder, reads):
    """A kilobyte is read for each, and nothing else of the log."""
    folder.log_file.write_bytes(b"".join(b"%0500d\n" % number for number in range(100_000)))
    assert [int(line) for line in folder.tail(1000)] == list(range(99_000, 100_000))
    assert sum(reads) == 1000 * 1024


def test_fields_that_a_newer_version_writes_are_passed_over():
    """In events, in what they hold, and in the record of a job."""
    for event in (Started(at=1.0, pid=7), Outcome(state="failed", at=1.0)):
        data = event_to_json(event) | {"new": {"deep": [1]}}
        if "usage" in data:
            data["usage"] |= {"gpu": 3.5}
        assert event_from_json(data) == event
    record = {"id": "a", "name": "b", "submitted": 1.0, "sys_path": [], "options": {"new": 1, "timeout": 5}, "new": 1}
    assert JobRecord.from_json(record).options == {"timeout": 5}


def test_an_end_that_only_a_newer_version_knows_is_an_end():
    """Or an older version would wait for ever, and in the end write its own over it."""
    outcome = event_from_json({"event": "ended", "state": "evicted", "at": 1.0})
    assert outcome.state.ended
    assert "'evicted'" in outcome.reason


def test_nobody_vouches_for_a_result_in_the_events():
    """A job could have its result loaded without a check by writing there that somebody had."""
    data = event_to_json(Outcome(state="succeeded", at=1.0)) | {"result_identity": [1, 2, 3, 4]}
    assert event_from_json(data).result_identity is None


@pytest.mark.parametrize(
    "changed",
    [
        {"submitted": "today"},
        {"submitted": 10**400},
        {"submitted": 1e300},
        {"name": 7},
        {"options": []},
        {"options": {"memory": "much"}},
        {"options": {"memory": 10**400}},
        {"sys_path": [1]},
        {"sys_path": None},
        {"owner": "me"},
    ],
)
def test_a_record_of_other_types_is_damaged(folder, changed):
    """The error names the file; whoever lists jobs goes by the id."""
    record = json.loads(folder.record_file.read_text()) | changed
    folder.record_file.write_text(json.dumps(record))
    with pytest.raises(CorruptFileError, match=r"job\.json is damaged"):
        folder.read_record()


def test_a_path_that_is_no_text_survives_the_record(folder):
    """A working directory may have any bytes in its name."""
    cwd = os.fsdecode(b"/tmp/\xff")
    folder.write_record(JobRecord(id=folder.id, name="\ud800", submitted=1.0, cwd=cwd, sys_path=(cwd,)))
    record = folder.read_record()
    assert (record.cwd, record.sys_path, record.name) == (cwd, (cwd,), "?")


def test_folders_with_odd_names_are_nobodys_jobs(tmp_path, folder):
    """Names that can't be printed, links to folders and files are passed over."""
    for name in (b"\xff-job", b"two\nlines", b"\x1b[31mred"):
        odd = JobFolder(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        odd.create()
        odd.record_file.write_text("{}")
    (tmp_path / "link").symlink_to(folder.path)
    (tmp_path / "file").touch()
    assert StoreFolder(tmp_path).job_ids() == [folder.id]
    assert StoreFolder(tmp_path).job_ids("2027") == [folder.id]
    assert StoreFolder(tmp_path / "file").job_ids() == StoreFolder(tmp_path / "none").job_ids() == []


def test_the_size_of_a_folder_is_told_while_files_go(folder, monkeypatch):
    """A file that is deleted meanwhile counts for nothing."""
    folder.log_file.write_bytes(b"x" * 10_000)
    whole = folder.size()
    assert whole >= 10_000
    scan = os.scandir

    def scan_and_delete(path):
        entries = scan(path)
        folder.log_file.unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(os, "scandir", scan_and_delete)
    assert folder.size() <= whole
    monkeypatch.undo()
    assert JobFolder(folder.path / "none").size() == 0
