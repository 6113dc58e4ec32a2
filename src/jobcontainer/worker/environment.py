"""Environment of a job, taken over by its process: environment, working directory, paths, level of the log, threads.

A process that runs one job after another looks first whether the environment is still as it was put: to fill it anew
takes as long as a small job.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import UntrustedFileError
from jobcontainer.jobfile import signing
from jobcontainer.worker import isolation, limits

if TYPE_CHECKING:
    from jobcontainer.process import Environment

# What os.environ holds, encoded: a comparison of os.environ itself would decode and encode every variable.
_environ: dict[Any, Any] = vars(os.environ)["_data"]
_put: tuple[Environment, int | None, dict[Any, Any]] | None = None


def take_over(environment: Environment, threads: int | None) -> None:
    """Make this process look like the place where the job was submitted.

    Args:
        environment: of that place.
        threads: of numerical libraries; None leaves them as they are.

    Raises:
        UntrustedFileError: there is no usable key.
        OSError: the working directory is not there.
    """
    global _put  # noqa: PLW0603 -- the process has one environment
    if _put is None or _put[0] is not environment or _put[1] != threads or _put[2] != _environ:
        _put = None
        mark = os.environ.get(isolation.MARK, "")
        os.environ.clear()
        os.environ.update(environment.environ)
        os.environ[isolation.MARK] = mark
        limits.forget_cap()
        if threads is not None:
            limits.announce_cap(threads)
        signing.hold_key()  # a job that sets HOME shall not sign its result with another key
        _put = environment, threads, dict(_environ)
    sys.path[:] = environment.sys_path
    root = logging.getLogger()
    if root.level != environment.log_level:
        root.setLevel(environment.log_level)
    if logging.lastResort is not None:  # what prints while user code has set no handler
        logging.lastResort.setLevel(environment.log_level)
    os.chdir(environment.cwd)


def were_taken_over(environment: Environment, threads: int | None) -> bool:
    """Take them over ahead of the job; whether it worked, else the job is to tell of it."""
    try:
        take_over(environment, threads)
    except (OSError, UntrustedFileError):
        return False
    return True
