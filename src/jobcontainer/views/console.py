"""The progress of jobs in a terminal."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars

from jobcontainer.events import JobState
from jobcontainer.views.escaping import shown_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.progress import TaskID

    from jobcontainer.views.snapshot import JobView

_DRAW_SECONDS = 0.1
_ROWS = 8  # running jobs with a bar of their own; more would push the rest off the screen
_KERNEL = "JPY_PARENT_PID"  # set by Jupyter in its kernels, whose `!command` has a terminal that moves no cursor


def watch(
    jobs: Sequence[JobView],
    wait: Callable[[float], bool],
    *,
    timeout: float | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> bool:
    """Draw the progress of jobs on standard error until all have ended; draw nothing where that is no terminal.

    Args:
        jobs: the jobs.
        wait: waits so many seconds at the most for all to end, and returns whether they have.
        timeout: seconds to wait at the most; None waits for ever.
        meanwhile: called between two looks.

    Returns:
        Whether all have ended.
    """
    until = float("inf") if timeout is None else time.monotonic() + timeout
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    ended = False
    drawn = console.is_terminal and _KERNEL not in os.environ
    with ProgressBars(*columns, console=console, transient=True, disable=not drawn) as bars:
        drawing = _Drawing(bars, jobs)
        while not ended and time.monotonic() < until:
            ended = wait(min(_DRAW_SECONDS, max(0.0, until - time.monotonic())))
            meanwhile()
            drawing.update()
    return ended


class _Drawing:
    """Keeps one bar for all jobs, where there are several, and those of the first few running ones."""

    def __init__(self, bars: ProgressBars, jobs: Sequence[JobView]) -> None:
        self._bars, self._jobs = bars, jobs
        self._total = bars.add_task("jobs", total=len(jobs)) if len(jobs) > 1 else None
        self._rows: dict[tuple[str, int], TaskID] = {}

    def update(self) -> None:
        if self._total is not None:
            self._bars.update(self._total, completed=sum(job.state.ended for job in self._jobs))
        running = [job for job in self._jobs if job.state is JobState.RUNNING][:_ROWS]
        wanted = {(job.id, place): (job, bar) for job in running for place, bar in enumerate(job.progress)}
        for gone in self._rows.keys() - wanted.keys():
            self._bars.remove_task(self._rows.pop(gone))
        for key, (job, bar) in wanted.items():
            if key not in self._rows:
                self._rows[key] = self._bars.add_task("", total=bar.total)
            label = shown_line(f"{job.name} {bar.label}".strip())
            self._bars.update(self._rows[key], description=label, completed=bar.done, total=bar.total)
