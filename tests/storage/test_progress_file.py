"""The progress file: whole at every instant, whoever dies, and readable by anyone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcontainer.events import Bar
from jobcontainer.storage.progress_file import ProgressFile, presentable, read_bars

# Writes bars whose every field is the same number, so that a torn one is seen, and says each number once it stands.
WRITER = """
import os, sys
from jobcontainer.events import Bar
from jobcontainer.storage.progress_file import ProgressFile
path, updates = sys.argv[1], int(sys.argv[2])
file = ProgressFile(path)
for number in range(1, updates + 1):
    text = str(number) * 12
    bar = Bar(label=text, done=number, total=number, initial=number, started=number, updated=number, message=text,
              level=number % 1000)
    file.write([bar] * (1 + number % 6))
    if sys.argv[3] == "announce":
        os.write(1, b"%d\\n" % number)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "progress"


@pytest.fixture
def file(path):
    file = ProgressFile(path)
    yield file
    file.close()


def writer(path, updates, *, announce):
    arguments = [sys.executable, "-c", WRITER, str(path), str(updates), "announce" if announce else "quiet"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE)


def assert_whole(bars):
    """Every bar is the one that was written together with the others."""
    number = int(bars[0].done)
    text = str(number) * 12
    bar = Bar(
        label=text,
        done=number,
        total=number,
        initial=number,
        started=number,
        updated=number,
        message=text,
        level=number % 1000,
    )
    assert bars == (bar,) * (1 + number % 6)


def test_every_field_of_a_bar_is_read_as_it_was_written(path, file):
    """What one process writes is what another shows, in the same order."""
    bars = (
        Bar(label="épochs 🚀", done=3, total=10, initial=1, started=1e9, updated=1e9 + 5, message="loss=0.31"),
        Bar(label="no total", done=5, level=1),
    )
    file.write(bars)
    assert read_bars(path) == bars
    file.write(bars[1:])
    assert read_bars(path) == bars[1:]
    file.write([])
    assert read_bars(path) == ()


@pytest.mark.parametrize(
    "text", ["é" * 500, "a" + "é" * 500, "🚀" * 300, "\ud800 lone", "zero\0inside", "", "\0" * 300]
)
def test_texts_are_cut_between_characters_and_never_break_the_file(path, file, text):
    """Any text of the user's can stand in each of six bars."""
    file.write([presentable(Bar(label=text, message=text))] * 6)
    bars = read_bars(path)
    assert len(bars) == 6
    expected = text.encode("utf-8", "replace").decode()
    assert expected.startswith(bars[0].label)
    assert expected.startswith(bars[0].message)
    assert len(expected.encode()) <= 96 or 92 < len(bars[0].label.encode()) <= 96
    assert len(expected.encode()) <= 180 or 176 < len(bars[0].message.encode()) <= 180


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_do_not_reach_a_reader(path, file, number):
    """A card can divide by whatever it reads, and JSON can hold it."""
    file.write([presentable(Bar(done=number, total=number, initial=number))])
    assert read_bars(path) == (Bar(done=0.0, total=None, initial=0.0),)


def test_a_writer_killed_after_any_byte_of_an_update_leaves_whole_bars(path, file):
    """At every one of the bytes of an update, the bars are either those before it or the new ones."""
    before, after = (Bar(label="before", done=1, total=3), Bar(label="after", done=2, total=3, message="x"))
    file.write([Bar(label="first")])
    file.write([before])
    old = path.read_bytes()
    file.write([after])
    new = path.read_bytes()
    old = old.ljust(len(new), b"\0")
    changed = [offset for offset in range(len(new)) if old[offset] != new[offset]]
    start, stop = changed[0], changed[-1] + 1
    seen = set()
    for cut in range(start, stop + 1):
        path.write_bytes(new[:cut] + old[cut:])
        (bar,) = read_bars(path)
        assert bar == (after if cut == stop else before)
        seen.add(bar.label)
    assert seen == {"before", "after"}


def test_the_last_update_survives_a_kill_exactly(path):
    """SIGKILL at any moment: the file holds the last update that was made, or the one that was being made."""
    for round_ in range(4):
        with writer(path, 10**9, announce=True) as process:
            announced = [process.stdout.readline() for _ in range(50 + 400 * round_)]
            process.send_signal(signal.SIGKILL)
            announced += [line for line in process.stdout if line.endswith(b"\n")]
        bars = read_bars(path)
        assert_whole(bars)
        assert bars[0].done - int(announced[-1]) in {0, 1}


@pytest.mark.slow
def test_no_reader_ever_sees_torn_bars(path):
    """While another process writes as fast as it can, what is read is whole, goes never back and is never missing."""
    reads, last = 0, 0.0
    with writer(path, 60_000, announce=False) as process:
        while process.poll() is None:
            bars = read_bars(path)
            assert bars or not last
            if bars:
                assert_whole(bars)
                assert bars[0].done >= last
                last = bars[0].done
            reads += 1
    assert process.returncode == 0
    assert read_bars(path)[0].done == 60_000
    assert reads > 100


def test_a_new_attempt_begins_with_an_empty_file(path, file):
    """A file that is made anew forgets the old bars, and readers of the old one are not disturbed."""
    file.write([Bar(label="first attempt")])
    with path.open("rb") as old:
        second = ProgressFile(path)
        assert read_bars(path) == ()
        second.close()
        assert b"first attempt" in old.read()


@pytest.mark.parametrize("content", [b"", b"\1", b"\0" * 32768, b"x" * 9000, b"x" * 99_000])
def test_readers_find_nothing_in_what_is_no_progress_file(path, content):
    """A foreign file has no bars, and raises nothing."""
    path.write_bytes(content)
    assert read_bars(path) == ()


@pytest.mark.parametrize(
    "content", [5, [5], [[1, 2]], [["label", "many", 1, 0, 0, 0, "", 0]], [[5, 1, 1, 0, 0, 0, "", 0]]]
)
def test_readers_find_nothing_in_what_a_hostile_job_wrote(path, file, content, monkeypatch):
    """A job that forges a whole record with something else in it shows no bars, and costs its reader nothing."""
    monkeypatch.setattr("jobcontainer.storage.progress_file._ENCODER.encode", lambda _: json.dumps(content))
    file.write([Bar()])
    assert read_bars(path) == ()


def test_readers_find_nothing_where_no_file_is(path, tmp_path):
    """A missing file, a folder, a broken link, a pipe and an impossible name have no bars, and raise nothing."""
    path.symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "missing", tmp_path, path, tmp_path / "pipe", tmp_path / "no\0name"):
        assert read_bars(place) == ()


@settings(max_examples=50, deadline=None)  # a machine may be busy
@given(noise=st.binary(min_size=1, max_size=4096), offset=st.integers(0, 20_000))
def test_noise_in_the_file_is_never_shown(noise, offset):
    """Damaged bytes cost the update they hit, never an exception or a wrong number."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "progress")
        file = ProgressFile(path)
        bars = tuple(Bar(label=str(index), done=index, total=9, level=index) for index in range(6))
        file.write(bars[:5])
        file.write(bars)
        file.close()
        content = path.read_bytes()
        path.write_bytes(content[:offset] + noise + content[offset + len(noise) :])
        assert read_bars(path) in {(), bars[:5], bars}


def test_a_file_that_can_not_be_written_says_so(tmp_path):
    """The writer's own trouble is an OSError, and no file is left behind."""
    with pytest.raises(FileNotFoundError):
        ProgressFile(tmp_path / "no folder" / "progress")
    assert list(tmp_path.iterdir()) == []
