"""Large buffers are checked once for each state of a file, and again as soon as anything about it is different."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from jobcontainer import CorruptFileError, Serializer
from jobcontainer.jobfile import signing, verified

LARGE = 16 * 2**20


@pytest.fixture
def path(tmp_path):
    """A file with large buffers that was not changed lately."""
    file = tmp_path / "large.job"
    Serializer.serialize_to_file(np.ones(LARGE, dtype=np.uint8), file)
    return file


@pytest.fixture
def later(monkeypatch):
    """Let the clock be ahead: what was written just now is old enough to be recorded."""
    now = verified.time.time
    monkeypatch.setattr(verified.time, "time", lambda: now() + 10)


@pytest.mark.usefixtures("later")
def test_the_second_load_does_not_read_it_all_again(path, checks):
    for _ in range(3):
        assert Serializer.deserialize_from_file(path)[5] == 1
    assert len(checks) == 1


@pytest.mark.usefixtures("later")
def test_another_process_need_not_check_again(path, checks, key_file):
    """The record is on disk; it is signed with the user's key."""
    Serializer.deserialize_from_file(path)
    assert len(checks) == 1
    code = f"""
import sys
from pathlib import Path
from jobcontainer import Serializer
from jobcontainer.jobfile import reader, signing
signing.cache_folder = lambda: Path({str(signing.cache_folder())!r})
def fail(*_):
    raise AssertionError("checked again")
reader.FileReader.check_buffers = fail
print(Serializer.deserialize_from_file(sys.argv[1]).sum())
"""
    result = subprocess.run(
        [sys.executable, "-c", code, path],
        env={**os.environ, signing.KEY_VARIABLE: str(key_file)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == str(LARGE), result.stderr


def test_a_file_that_was_changed_just_now_is_checked_each_time(path, checks):
    """It might be changed again without its times telling."""
    for _ in range(2):
        Serializer.deserialize_from_file(path)
    assert len(checks) == 2


@pytest.mark.usefixtures("later")
def test_a_bit_that_is_flipped_later_is_found(path):
    """Even if size and time of modification are set back to what they were."""
    Serializer.deserialize_from_file(path)
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(LARGE // 2)
        file.write(b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    for _ in range(2):
        with pytest.raises(CorruptFileError, match="a buffer of it was altered"):
            Serializer.deserialize_from_file(path)


@pytest.mark.usefixtures("later")
def test_verify_always_checks_all_of_it(path, checks):
    Serializer.deserialize_from_file(path)
    Serializer.verify(path)
    assert len(checks) == 2


@pytest.mark.usefixtures("later")
def test_a_record_that_another_key_made_counts_for_nothing(path, checks, tmp_path, monkeypatch):
    """Nor one that was made up, or torn."""
    Serializer.deserialize_from_file(path)
    table = signing.cache_folder() / "verified"
    size = table.stat().st_size
    for content in (bytes(size), os.urandom(size), table.read_bytes()[:-7]):
        table.write_bytes(content)
        Serializer.deserialize_from_file(path)
    assert len(checks) == 4
    key = tmp_path / "other"
    key.write_text("k" * 64)
    key.chmod(0o600)
    monkeypatch.setenv(signing.KEY_VARIABLE, str(key))
    Serializer.deserialize_from_file(path, trusted=True)
    assert len(checks) == 5


@pytest.mark.usefixtures("later")
def test_without_a_cache_folder_each_load_checks(path, checks, monkeypatch, tmp_path):
    """A file in its place, or no room: loading goes on all the same."""
    (tmp_path / "no folder").touch()
    monkeypatch.setattr(signing, "cache_folder", lambda: tmp_path / "no folder")
    for _ in range(2):
        Serializer.deserialize_from_file(path)
    assert len(checks) == 2


@pytest.mark.usefixtures("later")
def test_the_table_of_records_does_not_grow(tmp_path):
    """However many files there are."""
    for number in range(5):
        file = tmp_path / f"{number}.job"
        Serializer.serialize_to_file(np.full(LARGE, number, dtype=np.uint8), file)
        Serializer.deserialize_from_file(file)
        file.unlink()
    assert (signing.cache_folder() / "verified").stat().st_size <= 4096 * 32
