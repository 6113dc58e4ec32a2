"""A job's file is a regular file of its owner: nothing else is opened, followed or waited for."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from jobcontainer.storage.regular_file import append, open_regular, read_part, size_of, status_of

IMPOSTORS = {
    "pipe": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
    "link": lambda path, target: path.symlink_to(target),
    "link to a pipe": lambda path, target: (
        os.mkfifo(target.with_name("pipe")),
        path.symlink_to(target.parent / "pipe"),
    ),
    "link to nowhere": lambda path, target: path.symlink_to(target.with_name("nowhere")),
    "link to itself": lambda path, _: path.symlink_to(path),
    "link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "socket": lambda path, _: bind(path),
}
"""What a job can put in the place of one of its files, and how."""


def bind(path):
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


@pytest.fixture
def target(tmp_path):
    """A file of the user's that is none of the job's."""
    file = tmp_path / "target"
    file.write_bytes(b"precious")
    return file


@pytest.fixture(params=IMPOSTORS)
def impostor(request, tmp_path, target):
    path = tmp_path / "job" / "events.jsonl"
    path.parent.mkdir()
    IMPOSTORS[request.param](path, target)
    return path


def test_what_is_no_regular_file_is_no_file_to_a_reader(impostor):
    """Nothing is read from it, at once, and it has no size."""
    begun = time.monotonic()
    assert read_part(impostor, 0, 100) == b""
    assert (status_of(impostor), size_of(impostor)) == (None, 0)
    with pytest.raises(FileNotFoundError):
        open_regular(impostor)
    assert time.monotonic() - begun < 1


def test_nothing_is_appended_to_what_is_no_regular_file(impostor, target):
    """Who appends gets an error at once, and no other file has changed or was made."""
    before = sorted(target.parent.iterdir())
    begun = time.monotonic()
    with pytest.raises(OSError, match="file"):
        append(impostor, b"more")
    assert time.monotonic() - begun < 1
    assert target.read_bytes() == b"precious"
    assert sorted(target.parent.iterdir()) == before


def test_a_pipe_that_has_a_reader_gets_nothing(tmp_path):
    """Nor one that has a writer who says nothing keep a reader waiting."""
    path = tmp_path / "log.txt"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        assert read_part(path, 0, 10) == b""
        with pytest.raises(FileNotFoundError):
            append(path, b"more")
        with pytest.raises(BlockingIOError):
            os.read(end, 10)
    finally:
        os.close(end)


def test_a_second_name_of_a_file_is_not_appended_to(tmp_path, target):
    """A job that links a file of the user's has nobody write into it; it may be read, as a backup has such links."""
    path = tmp_path / "events.jsonl"
    path.hardlink_to(target)
    with pytest.raises(FileNotFoundError, match="another name"):
        append(path, b"more")
    assert target.read_bytes() == b"precious"
    assert read_part(path, 0, 100) == b"precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of somebody else")
def test_a_file_of_another_user_is_not_used(tmp_path, target):
    """Neither read nor written, unless the folder is that user's too: root may look at anybody's store."""
    os.chown(target, 12345, 12345)
    assert read_part(target, 0, 10) == b""
    with pytest.raises(FileNotFoundError, match="another user"):
        append(target, b"more")
    os.chown(tmp_path, 12345, 12345)
    assert read_part(target, 0, 10) == b"precious"


def test_a_new_file_is_for_its_owner_alone(tmp_path):
    """What is appended makes the file, whatever the umask allows."""
    before = os.umask(0)
    try:
        append(tmp_path / "new", b"a")
    finally:
        os.umask(before)
    append(tmp_path / "new", b"b")
    assert (tmp_path / "new").read_bytes() == b"ab"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["no\0name", "x" * 300, "missing/file", "missing"])
def test_names_that_no_file_has_are_no_files(tmp_path, name):
    """A question about them is answered, not refused."""
    assert status_of(tmp_path / name) is None
