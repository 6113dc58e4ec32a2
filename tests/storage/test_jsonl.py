"""Files of JSON lines: whatever was written into them, and however it was cut off, the other lines are read."""

from __future__ import annotations

import json
import os
import resource

import pytest

from jobcontainer.storage import jsonl
from jobcontainer.storage.jsonl import all_lines, append_lines, decode_line, read_lines


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


@pytest.mark.parametrize("torn", [b'{"number": 7', b"{", b"\xff\xfe", b'{"number": 7}', b"\0" * 100])
def test_a_torn_line_does_not_swallow_the_next(path, torn):
    """Whoever appends begins on a line of their own, also where an earlier writer was cut off."""
    append_lines(path, [{"number": 1}])
    with path.open("ab") as file:
        file.write(torn)
    append_lines(path, [{"number": 2}])
    append_lines(path, [{"number": 3}])
    numbers = [line["number"] for line in read_lines(path)[0]]
    assert numbers == [1, *([7] if torn.endswith(b"}") else []), 2, 3]


def test_a_disk_that_was_full_for_a_moment_costs_the_line_that_did_not_fit(path):
    """The part of it that did is passed over; those after it are read."""
    append_lines(path, [{"number": 1}])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            append_lines(path, [{"number": 2, "text": "x" * 100}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    append_lines(path, [{"number": 3}])
    assert [line["number"] for line in all_lines(path)] == [1, 3]


def test_a_torn_last_line_is_read_once_it_is_whole(path):
    """The offset stays before it until then."""
    path.write_bytes(b'{"number": 1}\n{"num')
    lines, offset = read_lines(path)
    assert ([line["number"] for line in lines], offset) == ([1], 14)
    assert read_lines(path, offset) == ([], offset)
    with path.open("ab") as file:
        file.write(b'ber": 2}\n')
    assert read_lines(path, offset) == ([{"number": 2}], path.stat().st_size)


def test_one_call_reads_a_bounded_piece(path, monkeypatch):
    """However much there is; the calls after it read the rest, and nothing twice."""
    monkeypatch.setattr(jsonl, "AT_ONCE", 1000)
    append_lines(path, [{"number": number} for number in range(1000)])
    first, offset = read_lines(path)
    assert 0 < len(first) < 100
    assert offset <= 1000
    assert [line["number"] for line in all_lines(path)] == list(range(1000))


def test_a_line_that_is_longer_than_a_piece_is_read_whole(path, monkeypatch):
    """A plot may be large; what is larger than any output may be is passed over, without being held in memory."""
    monkeypatch.setattr(jsonl, "AT_ONCE", 1000)
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 20_000)
    large, too_large = {"text": "x" * 15_000}, {"text": "y" * 100_000}
    append_lines(path, [{"number": 1}, large, too_large, {"number": 2}])
    assert list(all_lines(path)) == [{"number": 1}, large, {"number": 2}]


@pytest.mark.slow
def test_a_gigabyte_without_a_line_costs_nobody_its_memory(path):
    """It is passed over in pieces of 64 MiB."""
    append_lines(path, [{"number": 1}])
    with path.open("ab") as file:
        file.truncate(2**30)  # a hole: zeros that take no room
    append_lines(path, [{"number": 2}])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert list(all_lines(path)) == [{"number": 1}, {"number": 2}]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"7",
        b'"text"',
        b"null",
        b'{"half',
        b"\xff",
        b'{"a": "\xed\xa0\x80"}',  # half a pair, written out
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'\0{"a": 1}',
    ],
)
def test_what_is_no_object_is_passed_over(line):
    """Garbage, other JSON, and nesting or numbers beyond all measure."""
    assert decode_line(line) is None


def test_half_a_pair_of_surrogates_becomes_a_question_mark():
    """So that whoever shows the text can encode it; a whole pair is a character, as in any JSON."""
    assert decode_line(rb'{"a": "\ud800 \ude80", "\udfff": ["\uD83D\uDE80"]}') == {"a": "? ?", "?": ["🚀"]}
    assert json.dumps(decode_line(b'{"a": NaN}')) == '{"a": NaN}'


def test_two_writers_never_mix_their_lines(path):
    """Each write is one append."""
    writers = []
    for number in range(10):
        if (pid := os.fork()) == 0:
            append_lines(path, [{"number": number, "text": "x" * 10_000}] * 5)
            os._exit(0)
        writers.append(pid)
    for pid in writers:
        os.waitpid(pid, 0)
    assert len(list(all_lines(path))) == 50
