"""Large content is hashed once in a process, unless whoever wrote it vouches for it; every change is noticed."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from jobcontainer import CorruptFileError, Serializer, UntrustedFileError
from jobcontainer.jobfile import loading, signing
from jobcontainer.jobfile.identity import FileIdentity
from jobcontainer.jobfile.loading import check_file, load_file
from jobcontainer.jobfile.serializer import write_file
from jobcontainer.worker.job_imports import load_in_job

SIZE = 3 * 2**20


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch):
    """Each test starts in a process that remembers no file."""
    monkeypatch.setattr(loading, "_whole", set())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "large.job"


def array(seed=1):
    return np.full(SIZE, seed, dtype=np.uint8)


def forget():
    """Be as another process, which has neither written nor checked the file."""
    loading._whole.clear()


def let_the_clock_move(file):
    """Wait until a change of the file gets another time, also where the kernel counts in steps of some milliseconds."""
    written = file.stat().st_mtime_ns
    deadline = time.monotonic() + 10
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        while time.monotonic() < deadline:
            probe = Path(folder, "probe")
            probe.write_bytes(b"")
            if probe.stat().st_mtime_ns > written:
                return
    raise AssertionError("the clock of this file system stands still")


def place(file):
    """An offset within the array."""
    return file.stat().st_size // 2


def write_a_byte(file):
    descriptor = os.open(file, os.O_WRONLY)
    os.pwrite(descriptor, b"\xff", place(file))
    os.close(descriptor)


def store_through_a_mapping(file):
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[place(file)] = 0xFF
        mapped.flush()


def write_through_a_link(file):
    other = file.with_suffix(".link")
    other.hardlink_to(file)
    write_a_byte(other)
    other.unlink()


def cut_and_extend(file):
    size = file.stat().st_size
    os.truncate(file, size // 2)
    os.truncate(file, size)


def cut(file):
    os.truncate(file, file.stat().st_size - 1)


def extend(file):
    os.truncate(file, file.stat().st_size + 1)


def put_a_damaged_copy_in_its_place(file):
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    other = file.with_suffix(".copy")
    other.write_bytes(data)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)


CHANGES = (
    write_a_byte,
    store_through_a_mapping,
    write_through_a_link,
    cut_and_extend,
    cut,
    extend,
    put_a_damaged_copy_in_its_place,
)


@pytest.mark.parametrize("load", [load_file, load_in_job])
@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_a_file_is_noticed(path, change, load):
    """Also by the process that has written and loaded it, and by one that was given its identity."""
    identity = write_file(array(), path, kind="process")
    assert load(path, identity=identity)[5] == 1
    let_the_clock_move(path)
    change(path)
    for known in (identity, None):
        for _ in range(2):
            with pytest.raises((CorruptFileError, UntrustedFileError)):
                load(path, identity=known)


def test_who_wrote_a_file_need_not_hash_it(path, checks):
    """Nor is a hard link to it hashed, as when a file is submitted many times."""
    Serializer.serialize_to_file([array(), np.ones(100), array(2)], path)
    link = path.with_suffix(".link")
    link.hardlink_to(path)
    for file in (path, link):
        assert Serializer.deserialize_from_file(file)[2][5] == 2
        assert check_file(file) == FileIdentity.of(path)
    assert checks == []


def test_everybody_else_hashes_it_once(path, checks):
    """A process that has not written a file checks its digests at the first load, and not again."""
    Serializer.serialize_to_file(array(), path)
    forget()
    for _ in range(3):
        assert Serializer.deserialize_from_file(path)[5] == 1
        check_file(path)
    assert len(checks) == 1
    Serializer.serialize_to_file(array(2), path)
    forget()
    assert Serializer.deserialize_from_file(path)[5] == 2
    assert len(checks) == 2


@pytest.mark.parametrize("load", [load_file, load_in_job])
def test_an_identity_from_the_writer_saves_the_hashing(path, checks, load):
    """That is what a parent sends to a job, and a job to its parent."""
    identity = write_file(array(), path, kind="process")
    forget()
    assert load(path, identity=identity)[5] == 1
    assert checks == []


def test_the_identity_of_another_file_saves_nothing(path, checks):
    """One of an older file at the same path, or of any other, does not count."""
    older = write_file(array(), path, kind="object")
    other = write_file(array(), path.with_name("other.job"), kind="object")
    write_file(array(3), path, kind="object")
    forget()
    for identity in (older, other):
        assert load_file(path, identity=identity)[5] == 3
    assert len(checks) == 1
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for identity in (older, other):
        with pytest.raises(CorruptFileError):
            load_file(path, identity=identity)


def test_an_identity_does_not_replace_the_signature(path, tmp_path, monkeypatch):
    """A file that another key has signed is refused, whoever vouches for its identity."""
    identity = write_file(array(), path, kind="process")
    key = tmp_path / "other"
    key.write_text("k" * 64)
    key.chmod(0o600)
    monkeypatch.setenv(signing.KEY_VARIABLE, str(key))
    monkeypatch.setattr(signing, "_known", [])  # as in a process that never had the first one
    for load in (load_file, load_in_job):
        with pytest.raises(UntrustedFileError):
            load(path, identity=identity)


def test_the_stream_is_checked_whoever_vouches(path):
    """What is unpickled is hashed each time: only the buffers beside it are not."""
    write_file([array(), "text"], path, kind="object")
    data = bytearray(path.read_bytes())
    data[data.index(b"text")] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFileError):
        load_file(path, identity=FileIdentity.of(path))


def test_small_files_are_hashed_each_time(path, checks):
    """It takes less than a millisecond."""
    Serializer.serialize_to_file(array()[: 2**17], path)
    for _ in range(2):
        Serializer.deserialize_from_file(path)
    assert len(checks) == 2


def test_verify_always_hashes_all_of_it(path, checks):
    """That is what it is for."""
    Serializer.serialize_to_file(array(), path)
    for _ in range(2):
        Serializer.verify(path)
    assert len(checks) == 2


def test_what_is_remembered_does_not_grow(path, monkeypatch):
    """However many files a process loads."""
    monkeypatch.setattr(loading, "_MOST_REMEMBERED", 3)
    for seed in range(10):
        Serializer.serialize_to_file(array(seed), path)
        assert Serializer.deserialize_from_file(path)[5] == seed
    assert len(loading._whole) <= 3


@pytest.mark.slow
def test_a_written_file_does_not_count_as_memory(path):
    """The peak memory of a job that is shown does not include its result a second time."""
    code = f"""
import resource
import numpy as np
from jobcontainer import Serializer
array = np.ones(256 * 2**20, dtype=np.uint8)
Serializer.serialize_to_file(array[: 64 * 2**20], {str(path)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Serializer.serialize_to_file(array, {str(path)!r})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert int(result.stdout) <= 64, result.stderr  # MiB
