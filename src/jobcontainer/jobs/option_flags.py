"""Flags that mean the same in the lines of the magics and at the shell: the options of a job, what to prune."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from jobcontainer.events import JobState
from jobcontainer.process import JobOptions, memory_in_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.jobs.store import JobStore

_DAY = 24 * 60 * 60


def add_option_flags(parser: argparse.ArgumentParser, named_by: str = "by its id") -> None:
    """Add a flag for each option of a job to a parser.

    Flags that are not given are absent from the parsed namespace, so that :func:`options_given` can tell them from
    those that were set to a default.

    Args:
        parser: the parser.
        named_by: how ``--after`` names a job.
    """
    group = parser.add_argument_group("options of the job")

    def flag(name: str, **facts: Any) -> None:
        group.add_argument(f"--{name}", default=argparse.SUPPRESS, **facts)

    flag("timeout", type=float, metavar="SECONDS", help="end an attempt that runs longer")
    flag("memory", type=memory_in_bytes, metavar="AMOUNT", help='end a job whose processes hold more, e.g. "2GB"')
    flag("retries", type=int, metavar="N", help="try a job again that crashed, failed or was lost, N times at most")
    flag("env", action="append", type=_assignment, metavar="NAME=VALUE", help="set an environment variable; repeatable")
    flag("cwd", metavar="FOLDER", help="the job's working directory")
    flag("name", metavar="NAME", help="what the job is called")
    flag("threads", type=int, metavar="N", help="BLAS and OpenMP threads of the job")
    flag("grace", type=float, metavar="SECONDS", help="time between the polite stop and the kill")
    flag("isolation", choices=("fresh", "reuse"), help="a new process for each job, or the slot's own one")
    flag("priority", type=int, metavar="N", help="jobs of a higher number start first")
    flag("after", action="append", metavar="JOB", help=f"start after this job has succeeded, {named_by}; repeatable")
    flag("key", metavar="KEY", help="what work this is: a job of that key that waits, runs or succeeded is returned")
    flag("rerun", action="store_true", help="with --key: run it anew, from the beginning, in any case")
    flag("detach", action="store_true", help="let the job outlive the kernel or shell it came from")


def options_given(namespace: argparse.Namespace, job: Callable[[str], Any] = str) -> dict[str, Any]:
    """Return the options of a job that were given as flags.

    Args:
        namespace: what was parsed.
        job: returns the job, or the group, that ``--after`` names.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser()
        >>> add_option_flags(parser)
        >>> options_given(parser.parse_args(["--timeout", "5", "--env", "A=1"]))
        {'timeout': 5.0, 'env': {'A': '1'}}
    """
    names = [option.name for option in fields(JobOptions)]
    given = {name: getattr(namespace, name) for name in names if hasattr(namespace, name)}
    if "env" in given:
        given["env"] = dict(given["env"])
    if "after" in given:
        given["after"] = [job(name) for name in given["after"]]
    return given


def add_prune_flags(parser: argparse.ArgumentParser) -> None:
    """Add the conditions of :meth:`jobcontainer.JobStore.prune` to a parser."""
    parser.add_argument("--older-than", type=_from_zero(float), metavar="DAYS", help="prune jobs submitted before that")
    parser.add_argument("--keep", type=_from_zero(int), metavar="N", help="keep the newest N in any case")
    parser.add_argument("--state", action="append", choices=[state.value for state in JobState if state.ended])
    parser.add_argument("--larger-than", type=memory_in_bytes, metavar="AMOUNT", help='on disk, e.g. "100MB"')
    parser.add_argument("--all", action="store_true", help="prune every job that has ended")


def prune(store: JobStore, namespace: argparse.Namespace) -> str:
    """Delete the jobs that meet the given conditions, and return how many they were.

    Raises:
        ValueError: no condition was given.
    """
    gone = store.prune(
        older_than=None if namespace.older_than is None else namespace.older_than * _DAY,
        keep=namespace.keep,
        states=namespace.state or (list(JobState) if namespace.all else None),
        larger_than=namespace.larger_than,
    )
    return f"{len(gone)} jobs deleted"


def _from_zero(number: Callable[[str], float]) -> Callable[[str], float]:
    def from_zero(text: str) -> float:
        value = number(text)
        if not value >= 0:  # neither a number that is none
            raise argparse.ArgumentTypeError(f"{text}: it takes a number from 0 up")
        return value

    from_zero.__name__ = number.__name__  # argparse names it where a text is no number
    return from_zero


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text!r}: give NAME=VALUE.")
    return name, value
