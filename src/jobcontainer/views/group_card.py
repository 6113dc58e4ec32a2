"""Many jobs as one card: counted as they change, never all of them again.

A :class:`GroupSummary` is given each job whose state has changed and keeps what a group's card needs: how many are in
which state, which are running, and the failures by error. So a change costs the same in a group of ten and of ten
thousand.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from jobcontainer.events import Bar, JobState
from jobcontainer.views import units
from jobcontainer.views.ansi import visible_text
from jobcontainer.views.card import ICONS, NO_ERRORS, Card, Row, bar_lines, unreadable
from jobcontainer.views.escaping import shown_line
from jobcontainer.views.failure_kinds import FailureKinds, reason_of
from jobcontainer.views.parameters import differing, parameters_text, recorded_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobcontainer.views.snapshot import JobSnapshot, JobView

MOST_ROWS = 8
_MOST_READ = 1000  # jobs that had ended before and whose ends are read, the newest; of others the state counts
_UNSTARTED = (JobState.QUEUED, JobState.WAITING)
_ORDER = (*(state for state in JobState if state.ended), JobState.RUNNING, *_UNSTARTED)


class GroupSummary:
    """Counts the jobs of a group by state, and its failures by what they say."""

    def __init__(self, jobs: Sequence[JobView]) -> None:
        self.jobs = jobs
        number = units.count(len(jobs), "job")
        self._is_of_one_name = len({job.name for job in jobs}) == 1
        self.name = f"{shown_line(jobs[0].name)}, {number}" if self._is_of_one_name else number
        self.numbers = {job.id: number for number, job in enumerate(jobs, start=1)}
        self.counts: Counter[JobState] = Counter()
        self.running: dict[str, JobView] = {}
        self._states: dict[str, JobState] = {}
        self._failures: FailureKinds[JobView] = FailureKinds()
        self._last_end = 0.0
        self._differing: list[str] | None = None
        for later, job in zip(range(len(jobs), 0, -1), jobs, strict=True):
            self.note(job, with_end=later <= _MOST_READ)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return not any(self.counts[state] for state in (JobState.RUNNING, *_UNSTARTED))

    @property
    def state(self) -> JobState:
        """The state of the whole: of its failures the most frequent kind, where there are any."""
        ended = [state for state in JobState if state.ended and self.counts[state]]
        if not self.ended:
            if self.counts[JobState.RUNNING] or ended:
                return JobState.RUNNING
            return JobState.QUEUED if self.counts[JobState.QUEUED] else JobState.WAITING
        bad = {state: self.counts[state] for state in ended if state is not JobState.SUCCEEDED}
        return max(bad, key=bad.__getitem__) if bad else JobState.SUCCEEDED

    def note(self, job: JobView, *, with_end: bool = True) -> None:
        """Count a job in its present state; twice in the same state counts once.

        Args:
            job: the job.
            with_end: whether its end, if it has come, is read: when it was, and why a job failed.
        """
        before, now = self._states.get(job.id), job.state
        if before is now:
            return
        self._states[job.id] = now
        if before is not None:
            self.counts[before] -= 1
        self.counts[now] += 1
        if now is JobState.RUNNING:
            self.running[job.id] = job
        else:
            self.running.pop(job.id, None)
        if now.ended and with_end:
            self._note_end(job)
        elif now.ended and now not in NO_ERRORS:
            self._failures.note(now.words, now, job, 0.0)

    def card(self, now: float, look: Callable[[JobView], JobSnapshot]) -> Card:
        """Make the card of the group."""
        state, total = self.state, len(self.jobs)
        done = sum(self.counts[state] for state in JobState if state.ended)
        began = (units.sound(self.jobs[0].submitted) if self.jobs else None) or now
        bar = Bar(done=done, total=total, started=began, updated=now if done < total else self._last_end)
        bad = done - self.counts[JobState.SUCCEEDED]
        actions = ([] if self.ended else ["cancel_all"]) + (["rerun_failed"] if bad else [])
        return Card(
            id=shown_line(self.jobs[0].id) if self.jobs else "",
            state=state,
            icon=ICONS[state],
            words=", ".join(f"{self.counts[state]:,} {state.words}" for state in _ORDER if self.counts[state]),
            name=self.name,
            facts=(units.seconds(self._last_end - began), units.clock(self._last_end)) if self.ended else (),
            clock=None if self.ended else now - began,
            bars=bar_lines((bar,), moving=not self.ended),
            rows=tuple(self._row(job, look) for job in list(self.running.values())[:MOST_ROWS]),
            failures=self._failures.rows(lambda job: job.id, self.label),
            notes=self._notes(look),
            actions=tuple(actions),
        )

    def label(self, job: JobView) -> str:
        """Name a job by the parameters that differ within the group; where none do, by its place in it."""
        if self._differing is None:
            self._differing = differing(self.jobs)
        given = parameters_text(recorded_parameters(job), self._differing) if self._differing else ""
        if not given:
            return f"{shown_line(job.name)} #{self.numbers[job.id]}"
        return given if self._is_of_one_name else f"{shown_line(job.name)} {given}"

    def _note_end(self, job: JobView) -> None:
        outcome = job.outcome
        if outcome is None:
            return
        at = units.sound(outcome.at) or 0.0
        self._last_end = max(self._last_end, at)
        if outcome.state not in NO_ERRORS:
            self._failures.note(reason_of(outcome, job.folder), outcome.state, job, at)

    def _row(self, job: JobView, look: Callable[[JobView], JobSnapshot]) -> Row:
        seen = _seen(job, look)
        if isinstance(seen, str):
            return Row(id=shown_line(job.id), title=self.label(job), facts=(seen,))
        bars = bar_lines(seen.bars, moving=True)
        fraction, facts = (bars[0].fraction, bars[0].facts[:2]) if bars else (None, ())
        last = shown_line(visible_text(seen.log[-1])) if seen.log else ""
        return Row(id=shown_line(job.id), title=self.label(job), fraction=fraction, facts=units.present(*facts, last))

    def _notes(self, look: Callable[[JobView], JobSnapshot]) -> tuple[str, ...]:
        rest = len(self.running) - MOST_ROWS
        return units.present(
            self._what_the_first_waits_for(look),
            f"{units.count(rest, 'more job')} running." if rest > 0 else "",
            self._failures.note_of_others("job.exception() has each."),
        )

    def _what_the_first_waits_for(self, look: Callable[[JobView], JobSnapshot]) -> str:
        if not self.counts[JobState.WAITING]:
            return ""
        first = next(job for job in self.jobs if self._states[job.id] is JobState.WAITING)
        seen = _seen(first, look)
        if isinstance(seen, str) or not seen.chain:
            return ""
        which = "The waiting job" if self.counts[JobState.WAITING] == 1 else "The first that waits"
        return f"{which} needs: {seen.chain}"


def _seen(job: JobView, look: Callable[[JobView], JobSnapshot]) -> JobSnapshot | str:
    """Read a job, or return why it can't be read: the rest of the card is shown."""
    try:
        return look(job)
    except Exception as error:  # noqa: BLE001 -- whatever a damaged folder makes of it
        return unreadable(error)
