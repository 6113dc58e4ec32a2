"""The options of a job as flags: the same words in the magic's line and at the shell."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from jobcontainer.process import JobOptions, memory_in_bytes


def add_option_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each option of a job to a parser.

    Flags that are not given are absent from the parsed namespace, so that :func:`options_given` can tell them from
    those that were set to a default.

    Args:
        parser: an argparse parser, or a subclass of it.
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
    group.add_argument(
        "--detach",
        action="store_true",
        default=argparse.SUPPRESS,
        help="let the job outlive the kernel or shell it came from",
    )


def options_given(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a job that were given as flags.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser()
        >>> add_option_flags(parser)
        >>> options_given(parser.parse_args(["--timeout", "5", "--env", "A=1"]))
        {'timeout': 5.0, 'env': {'A': '1'}}
    """
    given = {name: getattr(namespace, name) for name in _names() if hasattr(namespace, name)}
    if "env" in given:
        given["env"] = dict(given["env"])
    return given


def _names() -> list[str]:
    return [option.name for option in fields(JobOptions)]


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text!r}: give NAME=VALUE.")
    return name, value
