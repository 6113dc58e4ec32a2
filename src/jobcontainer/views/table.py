"""A table: of jobs with their parameters and results, and how tables are laid out as text and as HTML.

Cells hold what jobs have said: each is one line of bounded length, escaped; see :mod:`jobcontainer.views.escaping`.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from jobcontainer.events import JobState
from jobcontainer.views import units
from jobcontainer.views.card import ICONS
from jobcontainer.views.escaping import shown_line
from jobcontainer.views.parameters import value_text
from jobcontainer.views.records import FACTS, JOB, columns_of, records_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobcontainer.views.snapshot import JobView

MOST_ROWS = 20
MOST_COLUMNS = 20
NO_MATH = "tex2jax_ignore mathjax_ignore"
"""The classes of an element that MathJax passes over: its second version (nbconvert, nbclassic), and its later ones."""

_LONGEST_CELL = 40
_LONGEST_ERROR = 80


class JobTable:
    """The first jobs of several as a table, a row for each.

    Args:
        jobs: all of them; the first twenty are read.
    """

    def __init__(self, jobs: Sequence[JobView]) -> None:
        records = records_of(jobs[:MOST_ROWS])
        columns = [
            name
            for name in columns_of(records)
            if name in {JOB, FACTS[0]} or any(record.get(name) is not None for record in records)
        ]
        self._columns = [shown_line(name, _LONGEST_CELL) for name in columns[:MOST_COLUMNS]]
        self._rows = [[_cell(name, record.get(name)) for name in columns[:MOST_COLUMNS]] for record in records]
        more = [
            units.count(count, noun)
            for count, noun in ((len(jobs) - len(records), "more job"), (len(columns) - MOST_COLUMNS, "more column"))
            if count > 0
        ]
        self._note = f"{' and '.join(more)}: to_frame() has all." if more else ""

    def __repr__(self) -> str:
        """Show a line for each job."""
        return "\n".join([*text_table([self._columns, *self._rows]), *units.present(self._note)])

    def _repr_html_(self) -> str:
        """Show a table."""
        return html_table(self._columns, self._rows, self._note)


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out in columns, a line for each.

    Example:
        >>> text_table([("name", "n"), ("a", "10")])
        ['name  n', 'a     10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def html_table(titles: Iterable[str], rows: Iterable[Iterable[str]], caption: str = "") -> str:
    """Return rows as a table that MathJax passes over; every text is escaped here.

    Example:
        >>> html_table(["name"], [["<b>"]]).partition("<thead>")[2]
        '<tr><th>name</th></tr></thead><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    lines = ("".join(map(_html_cell, row)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<table class="{NO_MATH}">{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _html_cell(text: str) -> str:
    """Keep a short text in one line: an id, a state, a time; a long one breaks."""
    may_break = len(text) > _LONGEST_CELL or not {" ", "-"} & set(text)
    style = "" if may_break else ' style="white-space:nowrap"'
    return f"<td{style}>{escape(text)}</td>"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    match name:
        case "state":
            known = value in set(JobState)
            return f"{ICONS[JobState(value)]} {JobState(value).words}" if known else f"? {value}"
        case "seconds" | "cpu":
            return units.seconds(value)
        case "peak_memory":
            return units.memory(value)
        case "error":
            return shown_line(f"{value}".partition("\n")[0], _LONGEST_ERROR)
    return value_text(value, _LONGEST_CELL)
