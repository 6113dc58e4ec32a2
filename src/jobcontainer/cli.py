"""The command line: ``jobcontainer run · list · show · log · cancel · rerun · inspect · trust · prune``.

``run`` and ``rerun`` end with an exit code that says how the job ended, see :data:`EXIT_CODES`; the other commands
with 0, or 2 where they could not do what was asked.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import JobContainerError
from jobcontainer.events import JobState
from jobcontainer.jobfile.serializer import Serializer, trust_file
from jobcontainer.jobs.container import JobContainer, LogCopy, interrupt_cancels
from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.option_flags import add_option_flags, add_prune_flags, options_given, prune
from jobcontainer.jobs.store import JobStore
from jobcontainer.views import units
from jobcontainer.views.ansi import visible_text
from jobcontainer.views.card import checkpoint_text, error_line, preview_problem
from jobcontainer.views.chain import waited_for
from jobcontainer.views.escaping import encodable, shown, shown_line
from jobcontainer.views.fields import LONGEST_FIELD, field_lines
from jobcontainer.views.render import MOST_LISTED, Listing
from jobcontainer.views.snapshot import preview_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobcontainer.jobs.job import Job

EXIT_CODES = {
    JobState.SUCCEEDED: 0,
    JobState.FAILED: 1,
    JobState.CRASHED: 3,
    JobState.LOST: 4,
    JobState.UPSTREAM_FAILED: 5,
    JobState.TIMED_OUT: 124,
    JobState.CANCELLED: 130,
    JobState.OUT_OF_MEMORY: 137,
}
"""Exit code of ``run`` by the job's state; 2 is bad usage, 124, 130 and 137 are those of timeout(1) and the shell."""

_UNABLE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command and its flags; None for those of this process.

    Returns:
        The exit code.
    """
    given = _parser().parse_args(arguments)
    if given.store:
        os.environ["JOBCONTAINER_HOME"] = given.store
    try:
        code: int = given.command(given)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, head(1) say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:  # while it was not waiting for a job; what it started ends with it
        return EXIT_CODES[JobState.CANCELLED]
    except (JobContainerError, OSError, ValueError, KeyError) as error:
        _complain(str(error.args[0] if isinstance(error, KeyError) else error))
        return _UNABLE
    return code


def _run(given: argparse.Namespace) -> int:
    return _follow(JobContainer(given.file, trusted=given.trusted, **options_given(given, JobStore().open)).submit())


def _rerun(given: argparse.Namespace) -> int:
    return _follow(JobStore().open(given.id).rerun(resume=given.resume))


def _follow(job: Job[Any]) -> int:
    """Copy the log to standard output and draw progress on standard error, until the job has ended."""
    from jobcontainer.views.console import watch  # noqa: PLC0415 -- rich takes long to import, and only this needs it

    copy = LogCopy(job)
    with interrupt_cancels(job):
        watch([job], JobGroup([job]).wait, meanwhile=copy.step)
    copy.step()
    if job.state is not JobState.SUCCEEDED:
        _complain(_end(job))
    return EXIT_CODES[job.state]


def _end(job: Job[Any]) -> str:
    """Return how a job ended that did not succeed; an exception of its is not loaded."""
    if job.state is JobState.CANCELLED:
        return f"{job.id} was cancelled."
    outcome = job.outcome
    if outcome is not None and outcome.state is JobState.FAILED and outcome.error_type:
        words = error_line(outcome)
    else:
        error = job.exception()
        words = f"{type(error).__name__}: {error}"
    return f"{words}\njobcontainer: `jobcontainer show {job.id}` says more."


def _list(given: argparse.Namespace) -> int:
    store = JobStore()
    jobs = store.jobs()
    if given.json:
        print(json.dumps([_facts(job) for job in jobs]))
    else:
        most = len(jobs) if given.all else MOST_LISTED
        print(Listing(jobs, most=most, how_to_see_all="`jobcontainer list --all`"))
        if advice := store.advice():
            print(shown(advice, LONGEST_FIELD), file=sys.stderr)
    return 0


def _show(given: argparse.Namespace) -> int:
    job = JobStore().open(given.id)
    preview = preview_of(job)
    facts = _facts(job) | {
        "result": "" if preview is None else preview.data.get("text/plain", ""),
        "traceback": "" if preview is None else preview.traceback,
        "problem": preview_problem(preview),
        "source": job.source,
        "options": job.record.options,
        "parameters": job.record.parameters,
        "inputs": [needed.id for needed in job.inputs],
        "checkpoints": [dataclasses.asdict(one) for one in job.checkpoints],
        "tail": job.tail(),
    }
    if not given.json:
        last = "".join(f"the last {checkpoint_text(one)}" for one in job.checkpoints[-1:])
        waits = f" for {names}" if (names := waited_for(job)) else ""
        facts |= {"state": f"{job.state.words}{waits}", "checkpoints": last}
    return _print(facts, as_json=given.json)


def _log(given: argparse.Namespace) -> int:
    copy = LogCopy(JobStore().open(given.id))
    copy.follow() if given.follow else copy.step()
    return 0


def _cancel(given: argparse.Namespace) -> int:
    job = JobStore().open(given.id)
    if not job.cancel():
        raise ValueError(f"{job.id} has ended already: {job.state.words}.")
    return 0


def _inspect(given: argparse.Namespace) -> int:
    return _print(dataclasses.asdict(Serializer.inspect(given.file)), as_json=given.json)


def _print(facts: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(encodable(facts), default=str))
        return 0
    dated = {name: units.clock(facts[name]) for name in ("created", "submitted") if name in facts}
    tail = {"tail": [visible_text(line) for line in facts["tail"]]} if "tail" in facts else {}
    print("\n".join(field_lines(facts | dated | tail)))
    return 0


def _complain(text: str) -> None:
    print(f"jobcontainer: {shown(text, LONGEST_FIELD)}", file=sys.stderr)


def _trust(given: argparse.Namespace) -> int:
    signed, given_as = trust_file(given.file), ""
    if signed != Path(given.file).absolute():
        given_as = f" ({shown_line(given.file, LONGEST_FIELD)} leads to it)"
    print(f"{shown_line(signed, LONGEST_FIELD)}{given_as} is signed by your key now: whatever is in it may run.")
    return 0


def _prune(given: argparse.Namespace) -> int:
    print(prune(JobStore(), given))
    return 0


def _facts(job: Job[Any]) -> dict[str, Any]:
    """Return a job as plain data."""
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state.value,
        "submitted": job.submitted,
        "reason": job.outcome.reason if job.outcome else "",
        "usage": dataclasses.asdict(job.usage),
        "folder": str(job.folder.path),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jobcontainer", description="Run process files in isolation, and keep jobs.")
    parser.add_argument("--store", metavar="FOLDER", help="where jobs are kept; default .jobcontainer")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, call: Callable[[argparse.Namespace], int], about: str, *words: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about)
        for word in words:
            made.add_argument(word)
        made.set_defaults(command=call)
        return made

    run = command("run", _run, "Run a process file; the exit code says how it ended.", "file")
    run.add_argument("--trusted", action="store_true", help="load it though it is not signed by a key of yours")
    add_option_flags(run)
    rerun = command("rerun", _rerun, "Run a job's process again, as a new job.", "id")
    rerun.add_argument("--resume", action="store_true", help="go on from its checkpoint, where there is one")
    jobs = command("list", _list, f"List the newest {MOST_LISTED} jobs, oldest first.")
    jobs.add_argument("--all", action="store_true", help="list every job")
    for listing in (
        jobs,
        command("show", _show, "Show what is known of a job.", "id"),
        command("inspect", _inspect, "Show what a file says of itself, without running anything in it.", "file"),
    ):
        listing.add_argument("--json", action="store_true", help="as JSON")
    log = command("log", _log, "Print a job's log.", "id")
    log.add_argument("-f", "--follow", action="store_true", help="until the job has ended")
    command("cancel", _cancel, "End a job that waits, is queued or runs.", "id")
    command("trust", _trust, "Sign a file with your key, after you decided that it may run.", "file")
    add_prune_flags(command("prune", _prune, "Delete the folders of ended jobs that meet every condition."))
    return parser
