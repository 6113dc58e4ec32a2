"""Text that others wrote, as it may be shown."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcontainer.views.escaping import encodable, shown, shown_line

ANY_TEXT = st.text(st.characters(exclude_categories=()))
JOINERS = "\u200c\u200d"  # of emoji and of several scripts


@given(ANY_TEXT)
def test_no_character_that_acts_on_a_terminal_or_turns_a_text_is_left(text):
    """Controls, marks of direction and halves of characters are written out; a text stays as long as it may be."""
    for made, kept in ((shown(text, 50), "\n\t"), (shown_line(text, 50), "")):
        assert len(made) < 50 * len(r"\U000e0001") + 30
        made.encode("utf-8")
        for character in made:
            assert unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"} or character in kept
            assert unicodedata.bidirectional(character) not in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI"}


@given(ANY_TEXT.filter(str.isprintable))
def test_what_can_be_printed_is_not_changed(text):
    """Names in any script are shown as they are."""
    assert shown(text, len(text)) == text
    assert shown_line(text, len(text)) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("safe\rexe", r"safe\rexe"),
        ("two\nlines\t", r"two\nlines\t"),
        ("gro\u202eabc", r"gro\u202eabc"),
        ("half \ud83d", r"half \ud83d"),
        ("👩\u200d💻", "👩\u200d💻"),
        (7, "7"),
        (None, "None"),
        pytest.param(10**5000, "<int>", id="a number with too many digits"),
    ],
)
def test_a_field_is_one_line(text, line):
    """Whatever it holds, nothing of it looks like the next field."""
    assert shown_line(text) == line


def test_a_long_text_is_cut_with_a_note():
    """At its end, or at its beginning where the end says more."""
    assert shown("x" * 10**6, 3) == "xxx … (1,000,000 characters)"
    assert shown("x" * 10**6, 3, keep_end=True) == "… (1,000,000 characters) xxx"


@given(st.recursive(ANY_TEXT | st.floats() | st.none(), lambda part: st.lists(part) | st.dictionaries(ANY_TEXT, part)))
def test_plain_data_can_be_sent(data):
    """A message of Jupyter can carry it: UTF-8, and no number that JSON lacks."""
    json.dumps(encodable(data), ensure_ascii=False, allow_nan=False).encode("utf-8")


def test_data_that_is_nested_too_deep_is_left_out():
    """A message is not lost for it."""
    deep = []
    for _ in range(10_000):
        deep = [deep]
    json.dumps(encodable(deep))
