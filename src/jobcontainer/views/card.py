"""A job as a card: every text that is shown of it, of bounded length, before anything is rendered.

Three steps, each a function of the one before: what was read of a job (:class:`JobSnapshot`), the texts to show
(:class:`Card`, plain data that goes through JSON), and the rendering (:mod:`jobcontainer.views.render` for text and
static HTML, ``panel.js`` for the live panel). So the static card, a job as text and the live panel say the same.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobcontainer.events import JobState
from jobcontainer.storage.preview import LONGEST_TEXT
from jobcontainer.storage.progress_file import presentable
from jobcontainer.views import units
from jobcontainer.views.ansi import Line, visible_lines
from jobcontainer.views.escaping import shown, shown_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jobcontainer.events import Bar, Checkpoint, Outcome
    from jobcontainer.storage.preview import Preview
    from jobcontainer.views.snapshot import JobSnapshot

MOST_BARS = 6
LONGEST_MESSAGE = 2000
_LARGE_RESULT = 1_000_000  # bytes; the size of a smaller one is of no interest

ICONS = {
    JobState.WAITING: "◌",
    JobState.QUEUED: "○",
    JobState.RUNNING: "▶",
    JobState.SUCCEEDED: "✔",
    JobState.FAILED: "✖",
    JobState.CRASHED: "✖",
    JobState.TIMED_OUT: "◷",
    JobState.OUT_OF_MEMORY: "▲",
    JobState.CANCELLED: "■",
    JobState.LOST: "?",
    JobState.UPSTREAM_FAILED: "↥",
}

NO_ERRORS = {JobState.SUCCEEDED, JobState.CANCELLED}

_FRAME = re.compile(
    r'^ +File "(?P<file>[^"\n]+)", line (?P<line>\d+)(?:, in (?P<function>[^\n]+))?\n(?: {4,}(?P<code>[^\n]+))?',
    re.MULTILINE,
)
_CELL = re.compile(r".*[/\\]ipykernel_\d+[/\\]\d+\.py|<ipython-input-.*>")
_NOT_THE_USERS = re.compile(r"site-packages|dist-packages|[/\\]lib[/\\]python\d|[/\\]jobcontainer[/\\]|^<(?!ipython)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BarLine:
    """The texts of one progress bar.

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
        notes: further information and what to do next, a sentence each.
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


def job_card(job: JobSnapshot, now: float) -> Card:
    """Make the card of a job.

    Example:
        >>> from jobcontainer.views.snapshot import JobSnapshot
        >>> card = job_card(JobSnapshot(id="1", name="Train", state=JobState.QUEUED, position=2), now=0.0)
        >>> card.words, card.notes
        ('queued', ('2 jobs start before it.',))
    """
    outcome = job.outcome
    failed = job.state is JobState.FAILED and outcome is not None
    running = job.state is JobState.RUNNING
    started = units.sound(job.started)
    return Card(
        id=shown_line(job.id),
        state=job.state,
        icon=ICONS[job.state],
        words="starting" if running and job.started is None else job.state.words,
        name=shown_line(job.name),
        facts=_running_facts(job) if running else _ended_facts(job),
        clock=max(0.0, now - started) if running and started else None,
        bars=bar_lines(job.bars, moving=not job.state.ended),
        error=error_line(outcome) if outcome is not None and job.state not in NO_ERRORS else "",
        where=own_line(_traceback_of(job)) if failed else "",
        traceback=shown(_traceback_of(job), LONGEST_TEXT, keep_end=True),
        notes=_notes(job),
        log=tuple(visible_lines(list(job.log))),
        log_title=_log_title(job),
        log_file=shown_line(job.log_file, LONGEST_MESSAGE) if job.log_file and job.log else "",
        actions=("rerun",) if job.state.ended else ("cancel",),
    )


def bar_lines(bars: tuple[Bar, ...], *, moving: bool) -> tuple[BarLine, ...]:
    """Make the texts of progress bars; of more than six, of the outermost and the newest."""
    kept = bars if len(bars) <= MOST_BARS else (bars[0], *bars[1 - MOST_BARS :])
    return tuple(
        BarLine(
            label=shown_line(bar.label),
            level=min(max(bar.level, 0), MOST_BARS),
            fraction=bar.fraction,
            facts=_bar_facts(bar, moving=moving),
        )
        for bar in sound_bars(kept)
    )


def error_line(outcome: Outcome) -> str:
    """Return what went wrong in one line: type and message of what was raised, or the reason of another end.

    Example:
        >>> from jobcontainer.events import Outcome
        >>> error_line(Outcome(state=JobState.FAILED, at=0.0, error_type="ValueError", error_message="bad row"))
        'ValueError: bad row'
    """
    if outcome.state is JobState.FAILED and outcome.error_type:
        kind = f"{outcome.error_type}".removeprefix("builtins.")
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


def preview_problem(preview: Preview | None) -> str:
    """Return what went wrong when the text of a result was made, and what to do; empty where nothing did.

    Example:
        >>> from jobcontainer.storage.preview import Preview
        >>> preview_problem(Preview(problem="Its __repr__() raised SystemExit."))
        'The result is kept, but it can not be shown in full. Its __repr__() raised SystemExit. job.result() loads it.'
    """
    if preview is None or not preview.problem:
        return ""
    problem = shown_line(preview.problem, LONGEST_MESSAGE)
    return f"The result is kept, but it can not be shown in full. {problem} job.result() loads it."


def unreadable(error: BaseException) -> str:
    """Return in a few words why a job's folder can't be read.

    Example:
        >>> unreadable(PermissionError(13, "Permission denied"))
        "can't be read: PermissionError: [Errno 13] Permission denied"
    """
    return shown_line(f"can't be read: {type(error).__name__}: {error}", LONGEST_MESSAGE)


def sound_bars(bars: Iterable[Bar]) -> Iterator[Bar]:
    """Yield those bars whose fields are of the types that they should have: events are written by jobs."""
    for bar in bars:
        with contextlib.suppress(TypeError, ValueError, OverflowError, AttributeError):
            yield presentable(bar)


def checkpoint_text(checkpoint: Checkpoint) -> str:
    """Return when a checkpoint was saved, and how large it is."""
    return f"{units.clock(checkpoint.at)}, {units.memory(checkpoint.size)}"


def _traceback_of(job: JobSnapshot) -> str:
    return job.preview.traceback if job.preview is not None and job.state is JobState.FAILED else ""


def _bar_facts(bar: Bar, *, moving: bool) -> tuple[str, ...]:
    fraction, left = bar.fraction, bar.seconds_left
    done = units.number(bar.done)
    unfinished = moving and (bar.total is None or bar.done < bar.total)
    return units.present(
        units.share(fraction) if fraction is not None else "",
        f"{done}/{units.number(bar.total)}" if bar.total is not None else done,
        units.rate(bar.rate) if bar.rate and unfinished else "",
        f"{units.seconds(left)} left" if left and unfinished else "",
        shown_line(bar.message),
    )


def _running_facts(job: JobSnapshot) -> tuple[str, ...]:
    limit, timeout = job.options.get("memory"), job.options.get("timeout")
    attempts = units.sound(job.attempts) or 0
    retries = units.sound(job.options.get("retries")) or 0
    held = units.memory(job.memory) if job.memory else ""
    allowed = units.memory(limit) if limit else ""
    return units.present(
        f"attempt {units.number(attempts)} of {units.number(retries + 1)}" if attempts > 1 else "",
        f"at most {units.seconds(timeout)}" if timeout else "",
        f"CPU {units.share(job.load)}" if job.load is not None else "",
        f"{held} of {allowed}" if held and allowed else held or (f"at most {allowed}" if allowed else ""),
    )


def _ended_facts(job: JobSnapshot) -> tuple[str, ...]:
    outcome = job.outcome
    if outcome is None:
        return ()
    usage, limit, attempt = outcome.usage, job.options.get("memory"), units.sound(outcome.attempt) or 0
    peak = f"peak {units.memory(usage.peak_memory)}" if usage.peak_memory else ""
    return units.present(
        units.seconds(usage.wall) if usage.wall else "",
        f"attempt {units.number(attempt)}" if attempt > 1 else "",
        f"CPU {units.seconds(usage.cpu)}" if usage.cpu else "",
        f"{peak} of {units.memory(limit)}" if peak and limit else peak,
        _size_of_result(job),
        units.clock(outcome.at),
    )


def _size_of_result(job: JobSnapshot) -> str:
    if job.preview is None or job.state is not JobState.SUCCEEDED:
        return ""
    size = units.sound(job.preview.size) or 0
    return f"result {units.memory(size)}" if size >= _LARGE_RESULT else ""


def _place_in_queue(job: JobSnapshot) -> str:
    if job.state is not JobState.QUEUED or job.position is None:
        return ""
    if job.position == 0:
        return "It is next: it starts as soon as a slot is free."
    return f"{units.count(job.position, 'job')} start{'s' if job.position == 1 else ''} before it."


def _why_cancelled(job: JobSnapshot) -> str:
    return shown(job.outcome.reason, LONGEST_MESSAGE) if job.state is JobState.CANCELLED and job.outcome else ""


def unwritten(outcome: Outcome | None) -> str:
    """Return that the end of a job could not be written when it came, and why; mostly empty.

    Example:
        >>> from jobcontainer.events import Outcome
        >>> unwritten(Outcome(state=JobState.LOST, at=0.0, unwritten="No space left on device"))
        'Its end could not be written: No space left on device.'
    """
    if outcome is None or not outcome.unwritten:
        return ""
    return shown_line(f"Its end could not be written: {outcome.unwritten}.", LONGEST_MESSAGE)


def _notes(job: JobSnapshot) -> tuple[str, ...]:
    return units.present(
        _place_in_queue(job),
        f"It needs: {job.chain}" if job.chain else "",
        _last_checkpoint(job),
        _why_cancelled(job),
        unwritten(job.outcome),
        preview_problem(job.preview),
        _why_incomplete(job),
    )


def _last_checkpoint(job: JobSnapshot) -> str:
    if job.checkpoint is None or job.state is JobState.SUCCEEDED:
        return ""
    goes_on = job.state.ended and job.state is not JobState.LOST  # whose reason says so
    advice = " job.rerun(resume=True) goes on from it." if goes_on else ""
    return f"Last checkpoint: {checkpoint_text(job.checkpoint)}.{advice}"


def _why_incomplete(job: JobSnapshot) -> str:
    return "Its folder was deleted: its log, outputs and result are gone." if job.is_deleted else ""


def _log_title(job: JobSnapshot) -> str:
    if not job.log:
        return ""
    shown_bytes = sum(len(line.encode("utf-8", "replace")) + 1 for line in job.log)
    if shown_bytes >= job.log_size:
        return f"Log, {units.count(len(job.log), 'line')}"
    return f"Log, last {units.count(len(job.log), 'line')} of {units.memory(job.log_size)}"
