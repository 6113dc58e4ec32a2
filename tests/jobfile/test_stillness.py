"""A large file that was written just now is not read again to be checked; but whatever is done to it is noticed."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from jobcontainer import CorruptFileError, Serializer, UntrustedFileError
from jobcontainer.jobfile import stillness, verified, writer
from jobcontainer.jobfile.mounts import file_system

SIZE = 3 * 2**20
MEMORY = Path("/dev/shm")  # noqa: S108 -- the file system in memory
TRIES = [20, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no writer records its file")


@pytest.fixture(autouse=True)
def _smaller(monkeypatch):
    """Let files of a megabyte count as large."""
    for module, name in ((writer, "_MAPPED_FROM"), (verified, "_AWAITED_FROM"), (verified, "_RECORDED_FROM")):
        monkeypatch.setattr(module, name, 2**20)


@pytest.fixture
def path(tmp_path):
    """Where to write: on a file system whose times tell."""
    if file_system_of(tmp_path) not in stillness._TELLING:
        pytest.skip("nothing is recorded here")
    return tmp_path / "large.job"


def file_system_of(folder):
    with tempfile.TemporaryFile(dir=folder) as file:
        return file_system(file.fileno())


def array(seed=1):
    return np.full(SIZE, seed, dtype=np.uint8)


def place(file):
    """An offset within the array."""
    return file.stat().st_size // 2


def write_a_byte(file):
    descriptor = os.open(file, os.O_WRONLY)
    os.pwrite(descriptor, b"\xff", place(file))
    os.close(descriptor)


def write_a_byte_and_set_the_time_back(file):
    status = file.stat()
    write_a_byte(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def store_through_a_mapping(file):
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[place(file)] = 0xFF


def write_through_an_old_link(file):
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


def make_a_hole(file):
    descriptor = os.open(file, os.O_RDWR)
    os.ftruncate(descriptor, place(file))
    os.pwrite(descriptor, b"\0", SIZE)
    os.close(descriptor)


def put_a_damaged_copy_in_its_place(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    other = file.with_suffix(".copy")
    other.write_bytes(data)
    other.replace(file)


CHANGES = (
    write_a_byte,
    write_a_byte_and_set_the_time_back,
    store_through_a_mapping,
    write_through_an_old_link,
    cut_and_extend,
    cut,
    extend,
    make_a_hole,
    put_a_damaged_copy_in_its_place,
)


@pytest.fixture
def _at_once(monkeypatch):
    """Let no load wait for somebody's record."""
    monkeypatch.setattr(verified, "_SHORTLY", 0)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("tries", TRIES)
@pytest.mark.parametrize("change", CHANGES)
def test_each_change_right_after_the_writing_is_noticed(path, change, tries):
    """The file is changed as soon as the writer has returned, many times over."""
    for seed in range(tries):
        Serializer.serialize_to_file(array(seed % 200), path)
        change(path)
        for _ in range(2):
            with pytest.raises((CorruptFileError, UntrustedFileError)):
                Serializer.deserialize_from_file(path)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("tries", TRIES)
def test_a_change_at_any_moment_after_the_writing_is_noticed(path, checks, tries):
    """Also after loads that believed the record."""
    for seed in range(tries):
        Serializer.serialize_to_file(array(seed % 200), path)
        for _ in range(seed % 3):
            assert Serializer.deserialize_from_file(path)[5] == seed % 200
        write_a_byte(path)
        with pytest.raises(CorruptFileError):
            Serializer.deserialize_from_file(path)
    assert len(checks) == tries


def test_what_was_written_just_now_is_not_checked_again(path, checks):
    """Neither here nor in another process that has the same key; one buffer or several, with small ones among them."""
    Serializer.serialize_to_file([array(), np.ones(10**5), np.ones(100), array(2)], path)
    for _ in range(3):
        first, ones, few, second = Serializer.deserialize_from_file(path)
        assert (first == 1).all()
        assert (ones == 1).all()
        assert (few == 1).all()
        assert (second == 2).all()
    assert checks == []
    Serializer.verify(path)
    assert checks == [str(path)]


def test_the_writer_records_nothing_while_somebody_may_write_to_the_file(path, checks, monkeypatch):
    """Who has opened the file before it is recorded could store into it later, and no time would tell."""
    replace = os.replace
    opened = []

    def replaced(source, target):
        opened.append(Path(source).open("r+b"))  # noqa: SIM115 -- it stays open
        replace(source, target)

    monkeypatch.setattr(writer.os, "replace", replaced)
    Serializer.serialize_to_file(array(), path)
    with opened[0] as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[place(path)] = 0xFF
        with pytest.raises(CorruptFileError):
            Serializer.deserialize_from_file(path)
    assert len(checks) == 1


def test_the_writer_records_nothing_that_was_changed_before_it_looked(path, checks, monkeypatch):
    """A byte is written between the last of ours and the record."""
    replace = os.replace

    def replaced(source, target):
        write_a_byte(Path(source))
        replace(source, target)

    monkeypatch.setattr(writer.os, "replace", replaced)
    Serializer.serialize_to_file(array(), path)
    with pytest.raises(CorruptFileError):
        Serializer.deserialize_from_file(path)
    assert len(checks) == 1


@pytest.mark.skipif(not MEMORY.is_mount(), reason="no /dev/shm here")
def test_in_memory_each_load_checks(checks):
    """A store through a mapping, to a page that was read through it before, shows in no time of a file on tmpfs."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder, "large.job")
        Serializer.serialize_to_file(array(), path)
        assert Serializer.deserialize_from_file(path)[5] == 1
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[place(path)] ^= 0xFF
        with pytest.raises(CorruptFileError):
            Serializer.deserialize_from_file(path)
    assert len(checks) == 2


@pytest.mark.parametrize("why", ["unknown file system", "coarse times", "another clock", "no lease", "no mapping"])
def test_where_a_change_might_go_unnoticed_each_load_checks(path, checks, monkeypatch, why):
    """As on network file systems, on FAT, and where the file can't be held still."""
    if why == "unknown file system":
        monkeypatch.setattr(stillness, "_TELLING", frozenset())
    elif why == "coarse times":
        monkeypatch.setattr(stillness, "_COARSEST_STEP", 1)  # each time is a multiple of it
    elif why == "another clock":
        monkeypatch.setattr(stillness.time, "time_ns", lambda: 10**18)
    elif why == "no lease":
        monkeypatch.setattr("fcntl.F_RDLCK", 12345)
    else:

        def refuse(*_, **__):
            raise OSError

        monkeypatch.setattr(writer.MappedFile, "digest_later", refuse)
    Serializer.serialize_to_file(array(), path)
    for _ in range(2):
        assert Serializer.deserialize_from_file(path)[5] == 1
    assert len(checks) == 2


def test_an_object_that_is_changed_under_the_writers_hands_makes_a_whole_file(path):
    """Which of its states went into the file is anybody's guess; but what is there is what was signed."""
    value = np.zeros(16 * 2**20, dtype=np.uint8)
    done = threading.Event()

    def change():
        while not done.is_set():
            value[:] += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(5):
            Serializer.serialize_to_file(value, path)
            Serializer.verify(path)
    finally:
        done.set()
        thread.join()


def test_the_written_file_does_not_count_as_memory(path):
    """A job's peak is told to its user."""
    code = f"""
import resource
import numpy as np
from jobcontainer import Serializer
from jobcontainer.jobfile import writer
array = np.ones(256 * 2**20, dtype=np.uint8)
Serializer.serialize_to_file(array[: writer._MAPPED_FROM], {str(path)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Serializer.serialize_to_file(array, {str(path)!r})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert int(result.stdout) <= 64, result.stderr  # MiB


def test_a_link_to_a_recorded_file_is_not_checked_again(path, checks):
    """Nor is the file itself; many links, as a file is submitted many times."""
    Serializer.serialize_to_file(array(), path)
    links = [path.with_suffix(f".{number}") for number in range(5)]
    for target in links:
        verified.link(path, target)
        for file in (path, target):
            assert Serializer.deserialize_from_file(file)[5] == 1
    assert checks == []
    write_a_byte(links[2])
    for file in (path, *links):
        with pytest.raises(CorruptFileError):
            Serializer.deserialize_from_file(file)
    for target in links:
        target.unlink()


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("tries", TRIES)
def test_a_link_does_not_hide_a_change(path, tries):
    """Made before, at any moment after the writing."""
    target = path.with_suffix(".link")
    for seed in range(tries):
        Serializer.serialize_to_file(array(seed % 200), path)
        write_a_byte_and_set_the_time_back(path)
        verified.link(path, target)
        with pytest.raises(CorruptFileError):
            Serializer.deserialize_from_file(target)
        target.unlink()


def test_a_link_while_somebody_may_write_to_the_file_is_checked(path, checks):
    Serializer.serialize_to_file(array(), path)
    target = path.with_suffix(".link")
    with path.open("r+b"):
        verified.link(path, target)
    Serializer.deserialize_from_file(target)
    target.unlink()
    assert len(checks) == 1


def test_a_load_waits_for_a_record_that_is_being_made(path, checks):
    """A link changes the file's time some milliseconds before it is recorded again."""
    Serializer.serialize_to_file(array(), path)
    targets = [path.with_suffix(f".{number}") for number in range(20)]
    thread = threading.Thread(target=lambda: [verified.link(path, target) for target in targets])
    thread.start()
    while thread.is_alive():
        assert Serializer.deserialize_from_file(path)[5] == 1
    thread.join()
    for target in targets:
        target.unlink()
    assert checks == []


def test_a_record_does_not_outlive_the_machines_start(path, checks, monkeypatch):
    """A machine that lost its power may have kept the times of a file and lost its bytes."""
    Serializer.serialize_to_file(array(), path)
    Serializer.deserialize_from_file(path)
    assert checks == []
    monkeypatch.setattr(verified, "_boot", lambda: "another start")
    Serializer.deserialize_from_file(path)
    assert len(checks) == 1


def test_a_file_that_is_held_still_can_be_opened_for_writing_a_moment_later(path):
    """Whoever writes waits; and the process that holds it is not ended by the kernel's word of that."""
    Serializer.serialize_to_file(array(), path)
    with path.open("rb") as file, stillness.held_still(file.fileno()) as still:
        assert still
        code = f"print('begun', flush=True); open({str(path)!r}, 'r+b').close()"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"begun\n"
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with process:
        assert process.wait(10) == 0
    with path.open("rb") as file, path.open("r+b"), stillness.held_still(file.fileno()) as still:
        assert not still


def test_no_room_is_told_before_anything_is_written(path, monkeypatch):
    """And nothing is left behind; a file system that can't reserve is written to all the same."""
    if file_system_of(path.parent) in writer._NEVER_RESERVED:
        pytest.skip("nothing is reserved here")

    def fail(*_):
        raise OSError(fail.errno, os.strerror(fail.errno))

    monkeypatch.setattr(writer.os, "posix_fallocate", fail)
    fail.errno = 28
    with pytest.raises(OSError, match="No space left"):
        Serializer.serialize_to_file(array(), path)
    assert list(path.parent.iterdir()) == []
    fail.errno = 95
    Serializer.serialize_to_file(array(), path)
    assert Serializer.deserialize_from_file(path)[5] == 1
