"""A job as a card: everything that is said about it, worded and bounded, before anything is painted.

Three steps, each a function of the one before: what was read of a job (:class:`JobFacts`), what is said of it
(:class:`Card`, plain data that goes through JSON), and the paint (:mod:`jobcontainer.views.render` for text and static
HTML, ``panel.js`` for the live panel). So the static card, a job's ``repr`` and the live panel say the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobcontainer.events import JobState
from jobcontainer.views import units
from jobcontainer.views.ansi import Line, visible_lines, visible_text

if TYPE_CHECKING:
    from jobcontainer.events import Bar, Outcome
    from jobcontainer.views.snapshot import JobFacts

MOST_BARS = 6
LONGEST_NAME = 120
LONGEST_MESSAGE = 2000
LONGEST_TRACEBACK = 20_000

ICONS = {
    JobState.QUEUED: "○",
    JobState.RUNNING: "▶",
    JobState.SUCCEEDED: "✔",
    JobState.FAILED: "✖",
    JobState.CRASHED: "✖",
    JobState.TIMED_OUT: "◷",
    JobState.OUT_OF_MEMORY: "▲",
    JobState.CANCELLED: "■",
    JobState.LOST: "?",
}

_NO_ERRORS = {JobState.SUCCEEDED, JobState.CANCELLED}

_FRAME = re.compile(
    r'^ +File "(?P<file>[^"\n]+)", line (?P<line>\d+)(?:, in (?P<function>[^\n]+))?\n(?: {4,}(?P<code>[^\n]+))?',
    re.MULTILINE,
)
_CELL = re.compile(r".*[/\\]ipykernel_\d+[/\\]\d+\.py|<ipython-input-.*>")
_NOT_THE_USERS = re.compile(r"site-packages|dist-packages|[/\\]lib[/\\]python\d|[/\\]jobcontainer[/\\]|^<(?!ipython)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BarLine:
    """One progress bar, worded.

    Attributes:
        label: what it counts.
        level: 0 for an outer bar, 1 for one nested in it.
        fraction: between 0 and 1; None where the total is not known.
        facts: percentage, count, speed, time left, message: what there is of them.
    """

    label: str
    level: int
    fraction: float | None
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One job of a group: a running one, or a kind of failure.

    Attributes:
        id: the job's id; of a failure, the newest job's.
        title: the job's name, or the error.
        fraction: of the job's outermost bar; None where there is none.
        facts: what else there is to say.
    """

    id: str
    title: str
    fraction: float | None = None
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """All that a card says.

    Attributes:
        id: of the job, or of a group's first.
        state: names the colour and, with ``icon`` and ``words``, the state.
        icon: one character.
        words: the state in words.
        name: of the job or the group.
        facts: short facts behind the state.
        clock: seconds that the work has run at the moment of reading, where they go on; else None.
        bars: progress.
        rows: a group's running jobs.
        failures: a group's failures, by error.
        error: what went wrong, in one or a few lines.
        where: the user's own line where it went wrong.
        traceback: all of it.
        notes: what to know or to do next, a sentence each.
        log: the last lines.
        log_title: what part of the log they are.
        log_file: where all of it is.
        actions: what can be asked for: ``cancel``, ``rerun``, ``cancel_all``, ``rerun_failed``, ``cancel_earlier``.
    """

    id: str
    state: JobState
    icon: str
    words: str
    name: str
    facts: tuple[str, ...] = ()
    clock: float | None = None
    bars: tuple[BarLine, ...] = ()
    rows: tuple[Row, ...] = ()
    failures: tuple[Row, ...] = ()
    error: str = ""
    where: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()
    log: tuple[Line, ...] = ()
    log_title: str = ""
    log_file: str = ""
    actions: tuple[str, ...] = ()


def job_card(facts: JobFacts, now: float) -> Card:
    """Word what was read of a job.

    Args:
        facts: what was read.
        now: the moment of reading, in seconds since the epoch.

    Example:
        >>> from jobcontainer.views.snapshot import JobFacts
        >>> card = job_card(JobFacts(id="1", name="Train", state=JobState.QUEUED, ahead=2), now=0.0)
        >>> card.words, card.notes
        ('queued', ('2 jobs start before it.',))
    """
    outcome = facts.outcome
    failed = facts.state is JobState.FAILED and outcome is not None
    running = facts.state is JobState.RUNNING
    log = visible_lines(list(facts.log))
    return Card(
        id=facts.id,
        state=facts.state,
        icon=ICONS[facts.state],
        words="starting" if running and facts.started is None else facts.state.words,
        name=shown(facts.name, LONGEST_NAME),
        facts=_running_facts(facts) if running else _ended_facts(facts),
        clock=max(0.0, now - facts.started) if running and facts.started else None,
        bars=bar_lines(facts.bars, moving=not facts.state.ended),
        error=error_line(outcome) if outcome is not None and facts.state not in _NO_ERRORS else "",
        where=own_line(facts.traceback) if failed else "",
        traceback=shown(facts.traceback, LONGEST_TRACEBACK, keep_end=True),
        notes=(*_waiting(facts), *_why_cancelled(facts), *facts.notes),
        log=tuple(log),
        log_title=_log_title(facts),
        log_file=str(facts.log_file) if facts.log_file and facts.log else "",
        actions=("rerun",) if facts.state.ended else ("cancel",),
    )


def bar_lines(bars: tuple[Bar, ...], *, moving: bool) -> tuple[BarLine, ...]:
    """Word progress bars; of more than six, the outermost and the newest.

    Args:
        bars: the bars as they stand.
        moving: whether they may go on; speed and time left are told only then.
    """
    kept = bars if len(bars) <= MOST_BARS else (bars[0], *bars[1 - MOST_BARS :])
    return tuple(
        BarLine(
            label=shown(bar.label, LONGEST_NAME), level=bar.level, fraction=bar.fraction, facts=_bar_facts(bar, moving)
        )
        for bar in kept
    )


def error_line(outcome: Outcome) -> str:
    """Say in a line what went wrong: type and message of what was raised, or the reason of another end.

    Example:
        >>> from jobcontainer.events import Outcome
        >>> error_line(Outcome(state=JobState.FAILED, at=0.0, error_type="ValueError", error_message="bad row"))
        'ValueError: bad row'
    """
    if outcome.state is JobState.FAILED and outcome.error_type:
        kind = outcome.error_type.removeprefix("builtins.")
        return shown(f"{kind}: {outcome.error_message}".removesuffix(": "), LONGEST_MESSAGE)
    return shown(outcome.reason, LONGEST_MESSAGE)


def own_line(traceback: str) -> str:
    """Find the last line of the user's own code in a traceback, libraries left out; empty where there is none."""
    frames = [frame for frame in _FRAME.finditer(traceback) if not _NOT_THE_USERS.search(frame["file"])]
    if not frames:
        return ""
    last = frames[-1]
    file = _CELL.sub("notebook", last["file"])
    place = f"{file}, line {last['line']}" + (f", in {last['function']}" if last["function"] else "")
    return shown(f"{place}\n    {last['code']}" if last["code"] else place, LONGEST_MESSAGE)


def shown(text: str, longest: int, *, keep_end: bool = False) -> str:
    """Return a text from a job as it may be shown: no control characters, and cut with a note where it is too long.

    Args:
        text: the text.
        longest: how many characters are kept.
        keep_end: whether the end is what matters, as of a traceback.
    """
    if len(text) > longest:
        cut = f"… ({len(text):,} characters)"
        text = f"{cut} {text[-longest:]}" if keep_end else f"{text[:longest]} {cut}"
    return visible_text(text)


def _bar_facts(bar: Bar, moving: bool) -> tuple[str, ...]:  # noqa: FBT001 -- of this module alone
    fraction, left = bar.fraction, bar.seconds_left
    done = units.number(bar.done)
    unfinished = moving and (bar.total is None or bar.done < bar.total)
    return tuple(
        fact
        for fact in (
            f"{fraction:.0%}".replace("%", " %") if fraction is not None else "",
            f"{done}/{units.number(bar.total)}" if bar.total is not None else done,
            units.rate(bar.rate) if bar.rate and unfinished else "",
            f"{units.seconds(left)} left" if left and unfinished else "",
            shown(bar.message, LONGEST_NAME),
        )
        if fact
    )


def _running_facts(facts: JobFacts) -> tuple[str, ...]:
    limit, timeout = facts.options.get("memory"), facts.options.get("timeout")
    retries = facts.options.get("retries", 0)
    return tuple(
        fact
        for fact in (
            f"attempt {facts.attempts} of {retries + 1}" if facts.attempts > 1 else "",
            f"at most {units.seconds(timeout)}" if timeout else "",
            f"CPU {facts.load:.0%}".replace("%", " %") if facts.load is not None else "",
            _memory(facts.memory, limit),
        )
        if fact
    )


def _memory(held: int, limit: int | None) -> str:
    """Say how much memory is held, of how much that is allowed."""
    if not limit:
        return units.memory(held) if held else ""
    return f"{units.memory(held)} of {units.memory(limit)}" if held else f"at most {units.memory(limit)}"


def _ended_facts(facts: JobFacts) -> tuple[str, ...]:
    outcome = facts.outcome
    if outcome is None:
        return ()
    usage, limit = outcome.usage, facts.options.get("memory")
    peak = f"peak {units.memory(usage.peak_memory)}" if usage.peak_memory else ""
    return tuple(
        fact
        for fact in (
            units.seconds(usage.wall) if usage.wall else "",
            f"attempt {outcome.attempt}" if outcome.attempt > 1 else "",
            f"CPU {units.seconds(usage.cpu)}" if usage.cpu else "",
            f"{peak} of {units.memory(limit)}" if peak and limit else peak,
            units.clock(outcome.at),
        )
        if fact
    )


def _waiting(facts: JobFacts) -> tuple[str, ...]:
    if facts.state is not JobState.QUEUED or facts.ahead is None:
        return ()
    if facts.ahead == 0:
        return ("It is next: it starts as soon as a slot is free.",)
    return (f"{units.count(facts.ahead, 'job')} start{'s' if facts.ahead == 1 else ''} before it.",)


def _why_cancelled(facts: JobFacts) -> tuple[str, ...]:
    if facts.state is not JobState.CANCELLED or facts.outcome is None or not facts.outcome.reason:
        return ()
    return (shown(facts.outcome.reason, LONGEST_MESSAGE),)


def _log_title(facts: JobFacts) -> str:
    if not facts.log:
        return ""
    shown_bytes = sum(len(line.encode("utf-8", "replace")) + 1 for line in facts.log)
    if shown_bytes >= facts.log_size:
        return f"Log, {units.count(len(facts.log), 'line')}"
    return f"Log, last {units.count(len(facts.log), 'line')} of {units.memory(facts.log_size)}"
