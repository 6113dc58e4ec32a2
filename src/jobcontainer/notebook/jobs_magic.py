"""``%jobs``: what it does with the jobs of a store; and what the magics share: saving, completion, errors of jobs."""

from __future__ import annotations

import sys
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import JobContainerError
from jobcontainer.events import JobState
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.jobs.container import LogCopy
from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.option_flags import prune
from jobcontainer.jobs.reruns import rerun_all
from jobcontainer.notebook.arguments import JOB_ACTIONS, ArgumentsError, jobs_parser, submit_parser
from jobcontainer.views.escaping import escaped, shown_line
from jobcontainer.views.render import MOST_LISTED, Listing
from jobcontainer.views.snapshot import preview_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.store import JobStore
    from jobcontainer.notebook.discovery import FoundProcesses

_MOST_LEFT_OUT = 5  # lost jobs that are named


def manage(given: argparse.Namespace, store: JobStore) -> Job[Any] | JobGroup[Any] | Listing | None:
    """Run ``%jobs``, and return what IPython shows: a job, several, a list of them, or nothing.

    Raises:
        ArgumentsError: there is no such job, or the id or a condition is missing.
    """
    if given.action == "prune":
        _prune(given, store)
        return None
    if given.action not in JOB_ACTIONS:
        return Listing(store.jobs(), store.path, how_to_see_all="JobStore().jobs() has them all")
    if given.action == "resume" and given.id is None:
        return _resume_lost(store)
    job = _job(given, store)
    match given.action:
        case "log":
            LogCopy(job).step()
        case "cancel":
            job.cancel()
        case "rerun" | "resume":
            return job.rerun(resume=given.action == "resume")
        case "show":
            return job
    return None


def _prune(given: argparse.Namespace, store: JobStore) -> None:
    try:
        sys.stdout.write(f"{prune(store, given)}\n")
    except ValueError:
        raise ArgumentsError(
            "%jobs prune deletes nothing without a condition: add --older-than DAYS, --keep N or --all."
        ) from None


def _job(given: argparse.Namespace, store: JobStore) -> Job[Any]:
    if given.id is None:
        raise ArgumentsError(f"%jobs {given.action} takes the id of a job; %jobs lists them.")
    try:
        return store.open(given.id)
    except KeyError as error:
        raise ArgumentsError(str(error.args[0])) from None


def _resume_lost(store: JobStore) -> JobGroup[Any] | None:
    """Run every lost job again that was not yet, from its checkpoint, and say how many; None where there is none."""
    again: list[Job[Any]] = []
    done: dict[str, Job[Any]] = {}
    saved, left_out = 0, []
    for job in _lost_jobs(store):
        try:
            if "calls" in job.record.options:
                left_out.append(f"{job.id} has calls of map(), whose results nobody waits for: call it again.")
                continue
            again += rerun_all([job], resume=True, again=done)
            saved += bool(again[-1].checkpoints)
        except (JobContainerError, OSError) as error:  # its files are damaged or gone
            left_out.append(f"{job.id} is left out. {error}")
    words = f"Resumed {len(again)} lost jobs, {saved} of them from a checkpoint and {len(again) - saved} anew."
    lines = [words if again else "There is no lost job to resume.", *map(shown_line, left_out[:_MOST_LEFT_OUT])]
    if more := len(left_out[_MOST_LEFT_OUT:]):
        lines.append(f"{more} more are left out.")
    sys.stdout.write("\n".join([*lines, ""]))
    return JobGroup(again) if again else None


def _lost_jobs(store: JobStore) -> list[Job[Any]]:
    return [job for job in store.jobs() if job.state is JobState.LOST and not job.folder.was_rerun()]


def save(found: FoundProcesses, file: str) -> None:
    """Write the process of a cell into a file, and run nothing.

    Raises:
        ArgumentsError: the cell has several processes.
        SerializationError: it can't go into a file.
        OSError: the file can't be written.
    """
    if len(found.processes) > 1:
        raise ArgumentsError(f"--save writes one process, and the cell has {len(found.processes)}.")
    path = Path(file).expanduser().absolute()
    Serializer.serialize_to_file(found.processes[0], path)
    sys.stdout.write(f"Saved as {path}: JobContainer({str(path)!r}).execute() runs it.\n")


def unsuccessful(jobs: Job[Any] | JobGroup[Any]) -> Iterator[tuple[BaseException, str]]:
    """Yield the error of each ended job that did not succeed, with its traceback in the job as text."""
    for job in jobs if isinstance(jobs, JobGroup) else (jobs,):
        if job.state is JobState.SUCCEEDED:
            continue
        try:
            error = job.exception()
        except CancelledError as cancelled:
            error = cancelled
        if error is not None:
            preview = preview_of(job)
            yield error, escaped(preview.traceback) if preview is not None else ""


def completions(line: str, store: Callable[[], JobStore]) -> list[str]:
    """Return the completions of the last word of a line that begins with one of the magics.

    Example:
        >>> completions("%%jobcontainer --mem", None)
        ['--memory']
    """
    magic, *words = line.split() or [""]
    prefix = "" if line.endswith(" ") or not words else words.pop()
    if magic in {"%%jobcontainer", "%jobcontainer"}:
        offered = submit_parser(magic).flags()
    elif magic == "%jobs" and not words:
        offered = ["list", *JOB_ACTIONS, "prune"]
    elif magic == "%jobs" and words[0] in JOB_ACTIONS:
        offered = [job.id for job in store().jobs()[-MOST_LISTED:]]
    elif magic == "%jobs" and words[0] == "prune":
        offered = jobs_parser().flags()
    else:
        return []
    return [word for word in offered if word.startswith(prefix)]
