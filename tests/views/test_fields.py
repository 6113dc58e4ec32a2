"""Facts in a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcontainer.views.fields import MOST_ITEMS, field_lines

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY = st.recursive(
    ANY_TEXT | st.floats() | st.integers() | st.none() | st.booleans() | st.just(10**400),
    lambda part: st.lists(part) | st.dictionaries(ANY_TEXT, part) | st.tuples(part, part),
)


@given(ANY)
def test_nothing_in_a_field_looks_like_another_field(value):
    """Its name begins a line, and whatever it holds is behind it or indented, without control characters."""
    first, *others = "\n".join(field_lines({"name": value})).split("\n")
    assert first.startswith("name:")
    assert all(line.startswith("    ") or not line for line in others)
    assert all(character.isprintable() or character in "\t\u200c\u200d" or ord(character) > 0xA0 for character in first)


@pytest.mark.parametrize("many", [list, tuple, lambda numbers: {str(number): number for number in numbers}])
def test_of_many_items_the_first_are_shown(many):
    """A file that names twenty thousand packages fills no screen."""
    lines = list(field_lines({"packages": many(range(20_000))}))
    assert len(lines) == MOST_ITEMS + 2
    assert lines[-1] == "    … and 19,900 more"


def test_a_long_text_and_a_large_number_are_cut():
    """A header can hold both."""
    assert len("\n".join(field_lines({"source": "x" * 10**7}))) < 21_000
    assert list(field_lines({"created": 10**400, "size": float("inf")})) == ["created: ?", "size: ?"]
