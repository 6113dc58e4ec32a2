"""A job as text or static HTML.

Everything that a job may have said is escaped here, and only here. The HTML needs no script, follows a notebook's
theme through its ``--jp-`` variables with fallbacks for everywhere else, and still reads in order where a host takes
the styles away: state in words, one line for each bar, the log folded. MathJax, which typesets what stands between
dollars in any output of a notebook, passes over it.
"""

from __future__ import annotations

import functools
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from jobcontainer.views import units
from jobcontainer.views.card import ICONS, job_card, unreadable, unwritten
from jobcontainer.views.chain import waited_for
from jobcontainer.views.escaping import shown_line
from jobcontainer.views.group_card import GroupSummary
from jobcontainer.views.parameters import parameters_text, recorded_parameters
from jobcontainer.views.snapshot import snapshot_of
from jobcontainer.views.table import NO_MATH, JobTable, html_table, text_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobcontainer.views.ansi import Line
    from jobcontainer.views.card import BarLine, Card, Row
    from jobcontainer.views.snapshot import JobView

_BAR_WIDTH = 20
_LINES_IN_TEXT = 10
_LONGEST_PATH = 1000
_COLUMNS = ("id", "state", "name", "took", "submitted", "parameters")

MOST_LISTED = 100
"""Jobs that a listing shows, where nobody asks for more: the newest."""


def job_html(job: JobView) -> str:
    """Return a job as static HTML, dated where it has not ended."""
    now = time.time()
    return card_html(job_card(snapshot_of(job), now), now)


def job_text(job: JobView) -> str:
    """Return a job's card as text."""
    return card_text(job_card(snapshot_of(job), time.time()))


def group_html(jobs: Sequence[JobView]) -> str:
    """Return several jobs as a static card, dated where they have not all ended, and a table of the first of them."""
    now = time.time()
    table = JobTable(jobs)._repr_html_() if jobs else ""
    return card_html(GroupSummary(jobs).card(now, snapshot_of), now) + table


class Listing:
    """Jobs as a table, for ``%jobs`` and ``jobcontainer list``.

    Args:
        jobs: all of them, oldest first.
        store: the path of their store, which is shown where it is given.
        most: how many are shown, the newest; of the others there is the number.
        how_to_see_all: what shows them all, as a person would type it.
    """

    def __init__(
        self, jobs: Sequence[JobView], store: object = None, *, most: int = MOST_LISTED, how_to_see_all: str
    ) -> None:
        self.jobs = jobs[-most:]
        self._store = None if store is None else shown_line(store, _LONGEST_PATH)
        older = len(jobs) - len(self.jobs)
        self._older = f"{units.count(older, 'older job')} not shown: {how_to_see_all}" if older else ""

    def __repr__(self) -> str:
        """Show a line for each job in columns, whole ids first."""
        if self.jobs:
            store = "" if self._store is None else f"Store: {self._store}"
            return "\n".join([*text_table([_COLUMNS, *self._rows()]), *units.present(self._older, store)])
        return "There are no jobs." if self._store is None else f"There are no jobs in {self._store}."

    def _repr_html_(self) -> str:
        """Show a table."""
        if not self.jobs:
            return escape(repr(self))
        caption = ". ".join(units.present("" if self._store is None else f"Store: {self._store}", self._older))
        return html_table(_COLUMNS, self._rows(), caption)

    def _rows(self) -> list[tuple[str, ...]]:
        return [_listed(job) for job in self.jobs]


def card_text(card: Card) -> str:
    r"""Render a card as text.

    Example:
        >>> from jobcontainer.events import JobState
        >>> from jobcontainer.views.card import Card
        >>> card_text(Card(id="1", state=JobState.LOST, icon="?", words="lost", name="Train", error="Its keeper died."))
        '? Train lost\n  Its keeper died.'
    """
    clock = (units.seconds(card.clock),) if card.clock is not None else ()
    lines = [" · ".join((f"{card.icon} {card.name} {card.words}", *clock, *card.facts))]
    lines += [
        f"{'  ' * bar.level}{bar.label:<12} {_text_bar(bar.fraction)} {'  '.join(bar.facts)}" for bar in card.bars
    ]
    lines += [f"▶ {row.title}  {'  '.join(row.facts)}" for row in card.rows]
    lines += [f"✖ {row.title}  ({', '.join(row.facts)})" for row in card.failures]
    lines += [part for text in (card.error, card.where, *card.notes) for part in text.splitlines()]
    if card.log:
        lines.append(f"{card.log_title}, {card.log_file}:" if card.log_file else f"{card.log_title}:")
        lines += ["  " + "".join(text for _, text in line) for line in card.log[-_LINES_IN_TEXT:]]
    return "\n".join([lines[0], *(f"  {line}".rstrip() for line in lines[1:])])


def card_html(card: Card, now: float, card_id: str = "") -> str:
    """Render a card as static HTML.

    Args:
        card: what to render.
        now: when it was read, in seconds since the epoch; shown where the work has not ended.
        card_id: names the card, for a live panel to find it by.
    """
    dated = (
        "" if card.state.ended else _div("note", f"As of {units.clock(now)}; the work went on after this was saved.")
    )
    body = (
        _head(card),
        _grid(_bar(bar) for bar in card.bars),
        _grid(_row("row", "▶", row) for row in card.rows),
        *(_row("failure", "✖", row) for row in card.failures),
        _div("error", card.error),
        _div("where", card.where),
        *(_div("note", note) for note in card.notes),
        dated,
        _folded("Traceback", (_div("line", line or " ") for line in card.traceback.splitlines())),
        _folded(card.log_title, (_line(line) for line in card.log), _div("path", card.log_file)),
    )
    label = escape(f"{card.name}, {card.words}", quote=True)
    snapshot = "" if card.state.ended else " data-snapshot"
    name = f' data-card="{escape(card_id, quote=True)}"' if card_id else ""
    return (
        f'<div class="jobcontainer {NO_MATH}" role="group" aria-label="{label}" data-state="{card.state}" '
        f'data-job="{escape(card.id, quote=True)}"{snapshot}{name}><style>{style()}</style>{"".join(body)}</div>'
    )


@functools.cache
def style() -> str:
    """Return the style sheet of every card, static or live."""
    return Path(__file__).with_name("card.css").read_text("utf-8")


def _listed(job: JobView) -> tuple[str, ...]:
    """Return the row of a job in a listing; one that can't be read says so, and the others are listed."""
    try:
        wall, submitted = job.usage.wall, job.submitted
        waits = f"for {names}" if (names := waited_for(job)) else ""
        state = " ".join(units.present(ICONS[job.state], job.state.words, waits, unwritten(job.outcome)))
        took = units.seconds(wall) if wall else ""
    except Exception as error:  # noqa: BLE001 -- whatever a damaged folder makes of a job
        return shown_line(job.id), f"? {unreadable(error)}", "", "", "", ""
    parameters = recorded_parameters(job)
    given = parameters_text(parameters, parameters)
    return shown_line(job.id), state, shown_line(job.name), took, units.clock(submitted), given


def _head(card: Card) -> str:
    clock = (units.seconds(card.clock),) if card.clock is not None else ()
    facts = "".join(f" · {escape(fact)}" for fact in (*clock, *card.facts))
    return (
        f'<div class="jc-head"><span class="jc-title"><span class="jc-icon" aria-hidden="true">{card.icon}</span> '
        f'<b class="jc-name">{escape(card.name)}</b> <span class="jc-words">{escape(card.words)}</span>'
        f'<span class="jc-facts">{facts}</span></span></div>'
    )


def _bar(bar: BarLine) -> str:
    facts = " ".join(f"<span>{escape(fact)}</span>" for fact in bar.facts)
    return (
        f'<div class="jc-bar" data-level="{bar.level}"><span class="jc-label">{escape(bar.label)}</span> '
        f'{_progress(bar.label or "progress", bar.fraction, bar.facts)} <span class="jc-facts">{facts}</span></div>'
    )


def _progress(label: str, fraction: float | None, facts: Sequence[str]) -> str:
    value = "" if fraction is None else f' value="{fraction:.4f}"'
    text = escape(", ".join(facts), quote=True)
    return f'<progress max="1"{value} aria-label="{escape(label, quote=True)}" aria-valuetext="{text}"></progress>'


def _row(kind: str, icon: str, row: Row) -> str:
    bar = _progress(row.title, row.fraction, row.facts) if kind == "row" else ""
    facts = " ".join(f"<span>{escape(fact)}</span>" for fact in row.facts)
    return (
        f'<div class="jc-{kind}"><span class="jc-label"><span class="jc-icon" aria-hidden="true">{icon}</span> '
        f'{escape(row.title)}</span> {bar} <span class="jc-facts">{facts}</span></div>'
    )


def _line(line: Line) -> str:
    segments = (_segment(styles, text) for styles, text in line)
    return f'<div class="jc-line">{"".join(segments) or " "}</div>'


def _segment(styles: str, text: str) -> str:
    if not styles:
        return escape(text)
    return f'<span class="{" ".join(f"jc-{name}" for name in styles.split())}">{escape(text)}</span>'


def _folded(title: str, lines: Iterable[str], below: str = "") -> str:
    body = "".join(lines)
    inside = f'<summary>{escape(title)}</summary><div class="jc-code">{body}</div>{below}'
    return f"<details>{inside}</details>" if body else ""


def _grid(rows: Iterable[str]) -> str:
    body = "".join(rows)
    return f'<div class="jc-grid">{body}</div>' if body else ""


def _div(kind: str, text: str) -> str:
    return f'<div class="jc-{kind}">{escape(text)}</div>' if text else ""


def _text_bar(fraction: float | None) -> str:
    if fraction is None:
        return "·" * _BAR_WIDTH
    full = round(fraction * _BAR_WIDTH)
    return "█" * full + "░" * (_BAR_WIDTH - full)
