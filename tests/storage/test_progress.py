"""The progress record: whole at every instant, whoever dies, and readable by anyone."""

from __future__ import annotations

import mmap
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcontainer.events import Bar
from jobcontainer.storage import progress_file
from jobcontainer.storage.progress_file import MAX_BARS, ProgressRecord, read_bars

PAGE = 4096

# Writes bars whose every field is the same number, so that a torn one is seen, and says each number once it stands.
WRITER = """
import os, sys
from jobcontainer.events import Bar
from jobcontainer.storage.progress_file import ProgressRecord
path, updates = sys.argv[1], int(sys.argv[2])
record = ProgressRecord(path)
for number in range(1, updates + 1):
    text = str(number) * 12
    record.put(number % 3, Bar(label=text, done=number, total=number, initial=number, started=number,
                               updated=number, message=text, level=number % 1000))
    if sys.argv[3] == "tell":
        os.write(1, b"%d\\n" % number)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "progress"


@pytest.fixture
def record(path):
    record = ProgressRecord(path)
    yield record
    record.close()


def writer(path, updates, *, tell):
    arguments = [sys.executable, "-c", WRITER, str(path), str(updates), "tell" if tell else "quiet"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE)


def assert_whole(bar):
    number = int(bar.done)
    text = str(number) * 12
    assert bar == Bar(
        label=text,
        done=number,
        total=number,
        initial=number,
        started=number,
        updated=number,
        message=text,
        level=number % 1000,
    )


def test_every_field_of_a_bar_is_read_as_it_was_put(path, record):
    """What one process writes is what another shows."""
    bar = Bar(
        label="épochs 🚀", done=3, total=10, initial=1, started=1e9, updated=1e9 + 5, message="loss=0.31", level=2
    )
    record.put(0, bar)
    assert read_bars(path) == (bar,)


def test_an_unknown_total_stays_unknown(path, record):
    """No total is not a total of zero."""
    record.put(0, Bar(done=5))
    assert read_bars(path)[0].total is None


def test_bars_are_shown_in_their_order_and_not_after_removal(path, record):
    """The order is the writer's, whichever place a bar has; a bar taken away is gone."""
    for index, order in ((0, 9), (5, 1), (3, 4)):
        record.put(index, Bar(label=f"{order}"), order=order)
    assert [bar.label for bar in read_bars(path)] == ["1", "4", "9"]
    record.remove(3)
    assert [bar.label for bar in read_bars(path)] == ["1", "9"]


def test_advance_moves_the_count_and_keeps_the_rest(path, record):
    """The cheap update is a whole one."""
    record.put(MAX_BARS - 1, Bar(label="steps", total=8, message="warm", level=1), order=3)
    for done in range(1, 8):
        record.advance(MAX_BARS - 1, done, 100.0 + done)
    assert read_bars(path) == (Bar(label="steps", done=7, total=8, updated=107.0, message="warm", level=1),)


@pytest.mark.parametrize("text", ["é" * 500, "a" + "é" * 500, "🚀" * 300, "\ud800 lone", "zero\0inside", ""])
def test_texts_are_cut_between_characters_and_never_break_the_record(path, record, text):
    """Any text of the user's can stand in a bar."""
    record.put(0, Bar(label=text, message=text))
    (bar,) = read_bars(path)
    expected = text.encode("utf-8", "replace").decode()
    assert expected.startswith(bar.label)
    assert expected.startswith(bar.message)
    assert len(expected.encode()) <= 96 or 92 < len(bar.label.encode()) <= 96
    assert len(expected.encode()) <= 180 or 176 < len(bar.message.encode()) <= 180


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_do_not_reach_a_reader(path, record, number):
    """A card can divide by whatever it reads, and JSON can hold it."""
    record.put(0, Bar(done=number, total=number, initial=number))
    assert read_bars(path) == (Bar(done=0.0, total=None, initial=0.0),)


def test_a_writer_killed_after_any_byte_of_an_update_leaves_a_whole_bar(path, record):
    """At every one of the bytes of an update, the bar is either the one before it or the new one."""
    before, after = (Bar(label="before", done=1, total=3), Bar(label="after", done=2, total=3, message="x"))
    record.put(2, Bar(label="first"))
    record.put(2, before)
    old = path.read_bytes()
    record.put(2, after)
    new = path.read_bytes()
    changed = [offset for offset in range(PAGE) if old[offset] != new[offset]]
    start, stop = changed[0], changed[-1] + 1
    seen = set()
    for cut in range(start, stop + 1):
        path.write_bytes(new[:cut] + old[cut:])
        (bar,) = read_bars(path)
        assert bar == (after if cut == stop else before)
        seen.add(bar.label)
    assert seen == {"before", "after"}


def test_the_last_update_survives_a_kill_exactly(path):
    """SIGKILL at any moment: the record holds the last update that was made, or the one that was being made."""
    for round_ in range(4):
        with writer(path, 10**9, tell=True) as process:
            told = [process.stdout.readline() for _ in range(50 + 400 * round_)]
            process.send_signal(signal.SIGKILL)
            told += [line for line in process.stdout if line.endswith(b"\n")]
        bars = read_bars(path)
        assert len(bars) == 3
        for bar in bars:
            assert_whole(bar)
        assert max(bar.done for bar in bars) - int(told[-1]) in {0, 1}


def test_no_reader_ever_sees_a_torn_bar(path):
    """While another process writes as fast as it can, every bar that is read is whole, none goes back or missing."""
    reads, last, bars = 0, 0.0, ()
    with writer(path, 60_000, tell=False) as process:
        while process.poll() is None:
            before, bars = bars, read_bars(path)
            assert len(bars) >= len(before)
            for bar in bars:
                assert_whole(bar)
            newest = max((bar.done for bar in bars), default=0.0)
            assert newest >= last
            last = newest
            reads += 1
    assert process.returncode == 0
    assert [bar.done for bar in sorted(read_bars(path), key=lambda bar: bar.done)] == [59_998, 59_999, 60_000]
    assert reads > 100


def test_threads_of_the_writer_do_not_tear_each_others_bars(path, record):
    """Threads that move the same bars at the same time leave each of them whole."""

    def write(first):
        for number in range(first, 4000, 4):
            text = str(number) * 12
            same = {"done": number, "total": number, "initial": number, "started": number, "updated": number}
            record.put(number % 2, Bar(label=text, message=text, level=number % 1000, **same))

    threads = [threading.Thread(target=write, args=[first]) for first in range(1, 5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for bar in read_bars(path):
            assert_whole(bar)
    assert len(read_bars(path)) == 2


def test_a_new_attempt_begins_with_an_empty_record(path, record):
    """A record that is made anew forgets the old bars, and readers of the old file are not disturbed."""
    record.put(0, Bar(label="first attempt"))
    with path.open("rb") as old:
        second = ProgressRecord(path)
        assert read_bars(path) == ()
        second.close()
        assert b"first attempt" in old.read()


@pytest.mark.parametrize("content", [b"", b"jobbars1", b"\0" * PAGE, b"jobbars1".ljust(PAGE - 1, b"\0"), b"x" * 9000])
def test_readers_find_nothing_in_what_is_no_record(path, content):
    """A half-written or foreign file has no bars, and raises nothing."""
    path.write_bytes(content)
    assert read_bars(path) == ()


def test_readers_find_nothing_where_no_file_is(path, tmp_path):
    """A missing file, a folder, a broken link and an impossible name have no bars, and raise nothing."""
    path.symlink_to(tmp_path / "nowhere")
    for place in (tmp_path / "missing", tmp_path, path, tmp_path / "no\0name"):
        assert read_bars(place) == ()


@settings(max_examples=50, deadline=None)  # a machine may be busy
@given(noise=st.binary(max_size=PAGE), offset=st.integers(0, PAGE - 1))
def test_noise_in_the_record_is_never_shown(noise, offset):
    """Damaged bytes cost the bar they hit, never an exception or a wrong number."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "progress")
        record = ProgressRecord(path)
        bars = [Bar(label=str(index), done=index, total=9, level=index) for index in range(MAX_BARS)]
        for index, bar in enumerate(bars):
            record.put(index, bar, order=index)
            record.put(index, bar, order=index)
        record.close()
        page = path.read_bytes()
        path.write_bytes((page[:offset] + noise + page[offset + len(noise) :])[:PAGE])
        assert set(read_bars(path)) <= set(bars)


@pytest.mark.parametrize("why", ["no shared mappings", "network file system"])
def test_the_record_works_where_it_can_not_be_mapped(path, monkeypatch, why):
    """Where mmap is missing or unsafe, updates are written, with the same promise: the last one is read at once."""
    if why == "no shared mappings":

        def refuse(*_):
            raise OSError(19, "No such device")

        monkeypatch.setattr(mmap, "mmap", refuse)
    else:
        monkeypatch.setattr(progress_file, "_is_remote", lambda _: True)
    record = ProgressRecord(path)
    record.put(4, Bar(label="far", total=3))
    for done in (1, 2, 3):
        record.advance(4, done, 5.0)
        assert read_bars(path) == (Bar(label="far", done=done, total=3, updated=5.0),)
    record.close()


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="only Linux tells file systems apart")
def test_a_file_system_is_known_by_its_kind(monkeypatch):
    """A file on a network file system is not mapped; which one it lies on is read from the kernel's table of mounts."""
    memory = Path("/dev/shm")  # noqa: S108 -- the one mount whose kind is known everywhere
    if not memory.is_mount():
        pytest.skip("no /dev/shm here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        local = ProgressRecord(Path(folder, "local"))
        monkeypatch.setattr(progress_file, "_REMOTE", frozenset({"tmpfs"}))
        remote = ProgressRecord(Path(folder, "remote"))
        assert (local._page is None, remote._page is None) == (False, True)
        local.close()
        remote.close()


def test_a_record_that_can_not_be_written_says_so(tmp_path):
    """The writer's own trouble is an OSError, and no file is left behind."""
    with pytest.raises(FileNotFoundError):
        ProgressRecord(tmp_path / "no folder" / "progress")
    assert list(tmp_path.iterdir()) == []
