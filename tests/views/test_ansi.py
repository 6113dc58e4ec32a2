"""What a job printed, as a terminal would show it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcontainer.views.ansi import LONGEST_LINE, visible_lines, visible_text

CONTROL = [chr(code) for code in (*range(32), *range(0x7F, 0xA0))] + ["\u202e", "\u2066"]
CONTROL.remove("\t")


@given(st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from("\x1b[]m;\r\b\x07\x9b")), max_size=5))
def test_nothing_that_could_act_on_a_page_or_terminal_is_left(printed):
    """Whatever a job prints, what is shown of it holds no control character and no mark that turns a text round."""
    printed = [line.replace("\n", "") for line in printed]
    lines = visible_lines(printed)
    assert len(lines) == len(printed)
    for line in lines:
        for _, text in line:
            assert not set(text) & set(CONTROL)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("\x1b[31mred\x1b[0m plain", (("red", "red"), ("", " plain"))),
        ("\x1b[1;4;96mloud\x1b[22m less", (("bold cyan underline", "loud"), ("cyan underline", " less"))),
        ("\x1b[38;5;196mof 256\x1b[m", (("", "of 256"),)),
        ("\x1b[38;2;1;2;3;31mof 16 million, then red", (("red", "of 16 million, then red"),)),
        (" 10%\r 55%\r100%", (("", "100%"),)),
        (" 10%\r100%\r", (("", "100%"),)),
        ("Loading...\x1b[2Kdone", (("", "done"),)),
        ("spam\b\b\b\begg", (("", "egg"),)),
        ("\x1b]0;a window title\x07text", (("", "text"),)),
        ("\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", (("", "link"),)),
        ("a\x00b\x07c", (("", r"a\x00b\x07c"),)),
        ("gro\u202e\u0441abc", (("", "gro\\u202e\u0441abc"),)),
        ("", ()),
    ],
)
def test_a_line_shows_what_a_terminal_would(printed, shown):
    """Colours become names, overwritten text is gone, links are just their text, other controls are shown."""
    assert visible_lines([printed]) == [shown]


def test_a_colour_goes_on_over_the_end_of_a_line():
    """As in a terminal, until it is reset."""
    assert visible_lines(["\x1b[32mone", "two\x1b[0m", "three"]) == [
        (("green", "one"),),
        (("green", "two"),),
        (("", "three"),),
    ]


def test_a_line_without_end_is_cut_with_a_note():
    """Ten megabytes without a line break come down to a thousand characters that say so."""
    ((_, shown), *_) = visible_lines(["x" * 10_000_000])[0]
    assert len(shown) < LONGEST_LINE + 50
    assert shown.endswith("… (10,000,000 characters)")


def test_a_text_keeps_its_lines():
    """Messages of several lines stay that."""
    assert visible_text("\x1b[1mone\x1b[0m\ntwo\x07") == "one\ntwo\\x07"
