"""The environment of a job, set in its process: variables, working directory, paths, level of the log, threads.

A keeper sets it before it forks, so that its jobs find it set.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from jobcontainer.errors import UntrustedFileError
from jobcontainer.jobfile import signing
from jobcontainer.worker import MARK, limits

if TYPE_CHECKING:
    from jobcontainer.process import Environment

_variables_of: tuple[str, int | None] | None = None  # digest and threads of those that are set


def take_over(environment: Environment, threads: int | None, *, anew: bool = False) -> None:
    """Make this process look like the one that submitted the job.

    Args:
        environment: of that process.
        threads: of numerical libraries; None leaves them as they are.
        anew: whether user code may have changed the variables since they were set.

    Raises:
        UntrustedFileError: there is no usable key.
        OSError: the working directory is not there.
    """
    global _variables_of  # noqa: PLW0603 -- the process has one environment
    if anew or _variables_of != (environment.digest, threads):
        _variables_of = None
        mark = os.environ.get(MARK, "")
        os.environ.clear()
        os.environ.update(environment.environ)
        os.environ[MARK] = mark
        if threads is not None:
            limits.announce_cap(threads)
        signing.hold_key()  # a job that sets HOME shall not sign its result with another key
        _variables_of = environment.digest, threads
    sys.path[:] = environment.sys_path
    root = logging.getLogger()
    if root.level != environment.log_level:
        root.setLevel(environment.log_level)
    if logging.lastResort is not None:  # what prints while user code has set no handler
        logging.lastResort.setLevel(environment.log_level)
    os.chdir(environment.cwd)


def take_over_early(environment: Environment, threads: int | None) -> None:
    """Do the same in a keeper; where it can't be done, the job itself will fail and say why."""
    try:
        take_over(environment, threads)
    except (OSError, UntrustedFileError):
        return
