"""The bytes of a job file are as the format's documentation says."""

from __future__ import annotations

import errno
import hashlib
import hmac
import io
import json
import os
import pickle
import resource
import stat
import struct
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from blake3 import blake3

from jobcontainer import CorruptFileError, IncompatibleFileError, Serializer, UntrustedFileError
from jobcontainer.jobfile import reader, signing, writer
from jobcontainer.jobfile.format import FORMAT, FORMAT_WITHOUT_BLOBS, MAGIC, PAGE
from jobcontainer.jobfile.serializer import trust_file
from jobcontainer.jobfile.signing import Purpose

PRELUDE = struct.Struct("<8sIIQQ")
PIECE = 4 * 2**20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "object.job"


def digest_of_buffer(data):
    pieces = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
    return blake3(b"".join(blake3(piece).digest() for piece in pieces)).hexdigest()


def forged(data, **changes):
    """A file whose first bytes are changed, signed with the user's own key."""
    names = ("magic", "version", "header_size", "header_offset", "file_size")
    values = dict(zip(names, PRELUDE.unpack_from(data), strict=True)) | changes
    prelude = PRELUDE.pack(*values.values())
    header = data[values["header_offset"] : values["header_offset"] + values["header_size"]]
    return prelude + signing.sign(Purpose.JOB_FILE, prelude + header) + data[64:]


def with_header(data, **changes):
    """A file with another header, signed with the user's own key."""
    _, _, size, offset, _ = PRELUDE.unpack_from(data)
    header = json.dumps(json.loads(data[offset : offset + size]) | changes).encode()
    changed = data[:offset] + header
    return forged(changed, header_size=len(header), file_size=len(changed))


@pytest.mark.parametrize("sizes", [[], [100_000], [70_000, 4096 * 20, 5 * 2**20, 65_537]])
def test_a_file_can_be_read_by_its_documentation_alone(path, key_file, sizes):
    """Magic, header, stream, sources, buffers, digests and signature stand where the documentation says."""
    arrays = [np.arange(size, dtype=np.uint8) for size in sizes]
    Serializer.serialize_to_file({"arrays": arrays}, path)
    data = path.read_bytes()
    magic, version, header_size, header_offset, file_size = PRELUDE.unpack_from(data)
    assert (magic, version, file_size) == (b"\x93JOB\r\n\x1a\n", 1, len(data))
    assert (magic, version) == (MAGIC, FORMAT_WITHOUT_BLOBS)
    header = data[header_offset:]
    assert len(header) == header_size
    assert data[32:64] == hmac.digest(key_file.read_bytes().strip(), b"job file\0" + data[:32] + header, hashlib.sha256)
    facts = json.loads(header)
    stream_size, stream_digest = facts["stream"]
    stream = data[64 : 64 + stream_size]
    assert blake3(stream).hexdigest() == stream_digest
    end = 64 + stream_size + facts["sources"][0]
    buffers = []
    for size, digest in facts["buffers"]:
        start = -(-end // PAGE) * PAGE
        assert not data[end:start].strip(b"\0")
        end = start + size
        buffers.append(data[start:end])
        assert digest_of_buffer(buffers[-1]) == digest
    assert end == header_offset
    loaded = pickle.loads(stream, buffers=buffers)
    assert all(map(np.array_equal, loaded["arrays"], arrays))
    assert len(facts["buffers"]) == len(arrays)


def test_only_its_owner_can_read_a_file(path):
    """Whatever the umask, as the file may hold secrets."""
    before = os.umask(0)
    try:
        Serializer.serialize_to_file(1, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_long_stream_is_written_as_it_is_made(path, monkeypatch):
    """A stream of any size is never held in memory as a whole."""
    monkeypatch.setattr(writer, "_HELD", 2**16)
    numbers = list(range(3 * 10**5))
    tracemalloc.start()
    Serializer.serialize_to_file(numbers, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 10**6
    assert peak < 10**6 / 2
    assert Serializer.deserialize_from_file(path) == numbers


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 2**20 - 64, 2**20, 2**20 + 1, 4 * 2**20 + 1])
def test_every_size_of_stream_and_of_buffer_is_carried(path, size):
    """Also those at which the writer changes its way."""
    given = (bytes(size), np.ones(size, dtype=np.uint8), "end")
    Serializer.serialize_to_file(given, path)
    data, array, end = Serializer.deserialize_from_file(path)
    assert (data, end) == (given[0], "end")
    assert np.array_equal(array, given[1])


def test_a_loaded_array_can_be_written_to_and_the_file_stays(path):
    """Buffers are mapped copy-on-write."""
    Serializer.serialize_to_file(np.zeros(10**6), path)
    before = path.read_bytes()
    array = Serializer.deserialize_from_file(path)
    array += 1
    assert array.sum() == 10**6
    assert path.read_bytes() == before
    assert Serializer.deserialize_from_file(path).sum() == 0


def test_a_loaded_array_outlives_its_file(path):
    """A file that is replaced or removed takes nothing from who has loaded it."""
    Serializer.serialize_to_file(np.arange(10**6), path)
    array = Serializer.deserialize_from_file(path)
    Serializer.serialize_to_file(np.zeros(10), path)
    path.unlink()
    assert array.sum() == 10**6 * (10**6 - 1) // 2


def test_without_a_descriptor_to_spare_buffers_are_read(path, monkeypatch):
    """Each mapping holds one, so thousands of loaded arrays may use them up."""

    def refuse(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    Serializer.serialize_to_file(np.arange(10**6), path)
    monkeypatch.setattr(reader.mmap, "mmap", refuse)
    array = Serializer.deserialize_from_file(path)
    array[0] = 5
    assert array[:3].tolist() == [5, 1, 2]


def test_a_newer_format_is_distinguished_from_a_damaged_file(path):
    """Signed: upgrade. Not signed: damaged or foreign."""
    Serializer.serialize_to_file(1, path)
    data = path.read_bytes()
    path.write_bytes(forged(data, version=FORMAT + 1))
    with pytest.raises(IncompatibleFileError, match=r"format 3, .* Upgrade jobcontainer"):
        Serializer.deserialize_from_file(path)
    path.write_bytes(data[:8] + bytes([FORMAT + 1]) + data[9:])
    with pytest.raises(UntrustedFileError):
        Serializer.deserialize_from_file(path)


HUGE = 10 * 10**18
LIES = {
    "header size": lambda data: forged(data, header_size=2**32 - 1),
    "header offset": lambda data: forged(data, header_offset=HUGE),
    "file size": lambda data: forged(data, file_size=HUGE),
    "format 0": lambda data: forged(data, version=0),
    "stream of 10 EB": lambda data: with_header(data, stream=[HUGE, ""]),
    "stream below zero": lambda data: with_header(data, stream=[-1, ""]),
    "sources of 10 EB": lambda data: with_header(data, sources=[HUGE, ""]),
    "buffers of 10 EB": lambda data: with_header(data, buffers=[[HUGE, ""]] * 100),
    "buffers below zero": lambda data: with_header(data, buffers=[[-4096, ""]]),
    "too many empty buffers": lambda data: with_header(data, buffers=[[0, ""]] * 100_001),
    "no stream": lambda data: with_header(data, stream=None),
    "a stream without a digest": lambda data: with_header(data, stream=[10]),
    "infinite size": lambda data: with_header(data, stream=[float("inf"), ""]),
    "size as text": lambda data: with_header(data, buffers=[["many", ""]]),
    "no packages": lambda data: with_header(data, packages=7),
    "packages without version": lambda data: with_header(data, packages={"numpy": ["numpy"]}),
    "nested header": lambda data: with_raw_header(data, b"[" * 100_000),
    "no header": lambda data: with_raw_header(data, b""),
    "header of zeros": lambda data: with_raw_header(data, bytes(100)),
    "a number of a million digits": lambda data: with_raw_header(data, b'{"stream":[' + b"9" * 10**6 + b',""]}'),
}


def with_raw_header(data, header):
    _, _, _, offset, _ = PRELUDE.unpack_from(data)
    changed = data[:offset] + header
    return forged(changed, header_size=len(header), file_size=len(changed))


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_header_that_lies_costs_nothing(path, lie):
    """Even if it is signed: it is refused before anything of the claimed size is read or reserved."""
    Serializer.serialize_to_file({"a": 1}, path)
    path.write_bytes(lie(path.read_bytes()))
    size = path.stat().st_size
    for read in (
        Serializer.deserialize_from_file,
        Serializer.inspect,
        lambda file: Serializer.deserialize_from_file(file, trusted=True),
    ):
        tracemalloc.start()
        with pytest.raises(CorruptFileError):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20 + 30 * size


def test_something_between_the_buffers_is_found(path):
    """The zeros that align them are looked at too."""
    Serializer.serialize_to_file(np.zeros(10**5), path)
    data = bytearray(path.read_bytes())
    data[4095] ^= 1
    path.write_bytes(data)
    for check in (Serializer.deserialize_from_file, Serializer.verify):
        with pytest.raises(CorruptFileError, match="between its buffers"):
            check(path)


WRITES_TOO_MUCH = """
import resource, sys
import numpy
from jobcontainer import Serializer
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    Serializer.serialize_to_file(numpy.ones(10**6) if sys.argv[2] == "array" else list(range(10**6)), sys.argv[1])
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.parametrize("what", ["array", "list"])
def test_a_full_disk_leaves_the_old_file_and_no_other(path, key_file, what):
    """The kernel refuses to write more than 1 MiB: an OSError, the old file is as it was, no temporary file is left."""
    Serializer.serialize_to_file("old", path)
    result = subprocess.run(
        [sys.executable, "-c", WRITES_TOO_MUCH, path, what],
        env={**os.environ, signing.KEY_VARIABLE: str(key_file)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["OSError", str(errno.EFBIG)], result.stderr
    assert Serializer.deserialize_from_file(path) == "old"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("at", ["open", "write", "close", "replace"])
def test_whatever_fails_while_writing_leaves_the_old_file_and_no_other(path, monkeypatch, at):
    """Interrupts too, wherever they come."""
    Serializer.serialize_to_file("old", path)

    def fail(*_, **__):
        raise KeyboardInterrupt if at == "replace" else OSError(errno.ENOSPC, "No space left on device")

    class Broken(io.BufferedWriter):
        pass

    if at in {"write", "close"}:
        setattr(Broken, at, fail)
    with monkeypatch.context() as patch:
        patch.setattr(writer.io, "BufferedWriter", Broken)
        patch.setattr(writer.os, "open", fail if at == "open" else os.open)
        patch.setattr(writer.Path, "replace", fail if at == "replace" else writer.Path.replace)
        with pytest.raises((OSError, KeyboardInterrupt)):
            Serializer.serialize_to_file(np.ones(10**6), path)
    assert Serializer.deserialize_from_file(path) == "old"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "FIFO"])
def test_only_a_regular_file_is_replaced(tmp_path, make):
    """Root who writes to /dev/null by mistake must still have one afterwards."""
    make(tmp_path / "there")
    with pytest.raises(OSError, match="not a regular file"):
        Serializer.serialize_to_file(1, tmp_path / "there")
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    """No folder is made, and the error is the system's own."""
    with pytest.raises(FileNotFoundError):
        Serializer.serialize_to_file(1, tmp_path / "missing" / "object.job")
    with pytest.raises(FileNotFoundError):
        Serializer.deserialize_from_file(tmp_path / "missing.job")


WRITES_AS_NOBODY = """
import os, sys
from jobcontainer import Serializer
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Serializer.serialize_to_file(1, sys.argv[1])
except PermissionError as error:
    print("refused")
"""


def test_a_folder_one_may_not_write_to_is_an_os_error(tmp_path, path):
    """It is the system's own PermissionError."""
    Serializer.serialize_to_file("old", path)
    key = tmp_path / "key"
    key.write_text("k" * 64)
    key.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(key, 65534, 65534)
    (tmp_path / "locked").mkdir(mode=0o500)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    result = subprocess.run(
        [sys.executable, "-c", WRITES_AS_NOBODY, tmp_path / "locked" / "object.job"],
        env={**os.environ, signing.KEY_VARIABLE: str(key)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "refused\n", result.stderr
    assert list((tmp_path / "locked").iterdir()) == []


def test_names_of_any_length_and_alphabet(tmp_path):
    """The temporary file's name has room in what the file's own leaves."""
    for name in ("a" * 255, "ü" * 127, "漢" * 85, "a b\n.job", ".job"):
        Serializer.serialize_to_file(name, tmp_path / name)
        assert Serializer.deserialize_from_file(tmp_path / name) == name


def test_readers_of_a_file_that_is_replaced_see_one_version_or_the_other(tmp_path):
    """While one thread writes it again and again, others never find it missing, torn or mixed."""
    path = tmp_path / "shared.job"
    versions = [{"number": number, "array": np.full(200_000, number)} for number in range(8)]
    Serializer.serialize_to_file(versions[0], path)
    done = threading.Event()
    wrong = []

    def read():
        while not done.is_set():
            try:
                found = Serializer.deserialize_from_file(path)
                if not (found["array"] == found["number"]).all():
                    wrong.append(found)
            except Exception as error:  # noqa: BLE001 -- any is wrong
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for version in versions * 5:
        Serializer.serialize_to_file(version, path)
    done.set()
    for thread in readers:
        thread.join()
    assert wrong == []


def test_a_file_can_be_named_relatively_and_by_any_path_like(tmp_path, monkeypatch):
    """Paths are what the standard library takes for one."""
    monkeypatch.chdir(tmp_path)
    Serializer.serialize_to_file(5, "here.job")
    assert Serializer.deserialize_from_file("here.job") == 5
    trust_file("here.job")
    assert Serializer.inspect(tmp_path / "here.job").signed


def test_a_mapped_file_costs_memory_once(path):
    """Loading maps: what is not looked at is not in memory."""
    Serializer.serialize_to_file(np.zeros(50 * 2**20, dtype=np.uint8), path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    arrays = [Serializer.deserialize_from_file(path) for _ in range(4)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert len(arrays) == 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


class Forks:
    """Forks while it is pickled; parent and child both go on."""

    def __reduce__(self):
        child = os.fork()
        if child:
            self.status = os.waitpid(child, 0)[1]
        return str, ("whole",)


def test_a_child_that_is_forked_while_a_file_is_written_writes_nothing_into_it(tmp_path):
    """An object may fork in its own pickling: the child's copy fails, and the parent's file is whole."""
    forks, parent = Forks(), os.getpid()
    code = 0
    try:
        Serializer.serialize_to_file([b"x" * 300_000, forks, b"y" * 3_000_000], tmp_path / "object.job")
    except BaseException:
        code = 7
        if os.getpid() == parent:
            raise
    finally:
        if os.getpid() != parent:
            os._exit(code)
    assert os.waitstatus_to_exitcode(forks.status) == 7
    assert Serializer.deserialize_from_file(tmp_path / "object.job") == [b"x" * 300_000, "whole", b"y" * 3_000_000]
    assert [file.name for file in tmp_path.iterdir()] == ["object.job"]
