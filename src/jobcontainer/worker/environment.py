"""The environment of a job, set in its process: variables, working directory, paths, level of the log, threads.

A keeper sets it before it forks, so that its jobs find it set.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from jobcontainer.jobfile import signing
from jobcontainer.worker import MARK, limits, process_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobcontainer.process import Environment


_of_imports: dict[str, str] = {}  # the variables that imports in this process, or in the one above it, have set


def take_over(environment: Environment, threads: int | None, keys: Sequence[bytes]) -> None:
    """Make this process look like the one that submitted the job.

    Args:
        environment: of that process.
        threads: of numerical libraries; None leaves them as they are.
        keys: what the job signs and checks with, whatever HOME the environment has.

    Raises:
        OSError: the working directory is not there.
    """
    mark = os.environ.get(MARK, "")
    os.environ.clear()
    os.environ.update(_of_imports | dict(environment.environ))
    os.environ[MARK] = mark
    if threads is not None:
        limits.announce_cap(threads)
    signing.hold(keys)
    sys.path[:] = environment.sys_path
    logging.getLogger().setLevel(environment.log_level)
    if logging.lastResort is not None:  # what prints while user code has set no handler
        logging.lastResort.setLevel(environment.log_level)
    os.chdir(environment.cwd)


def set_for_job(variables: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Set what holds for one job alone, in its own process: the variables of ``env=``, and the notebook's settings.

    Variables that Python reads when it starts have had their effect already, but for ``PYTHONPATH``; the warning
    filters are what ``PYTHONWARNINGS`` says where it is given.
    """
    os.environ.update(variables)
    time.tzset()  # C reads the time zone once
    given = [entry for entry in variables.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[1:1] = [os.path.abspath(entry) for entry in given]  # noqa: PTH100 -- Path.resolve would follow links
    process_settings.apply(
        {name: content for name, content in settings.items() if name != "warnings" or "PYTHONWARNINGS" not in variables}
    )


def keep_changes_since(before: Mapping[str, str]) -> None:
    """Note which variables imports have set, for jobs that come from here: they are theirs, as if they had imported."""
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    _of_imports.update({name: value for name, value in changed.items() if name not in limits.THREAD_VARIABLES})


def take_over_early(environment: Environment, threads: int | None, keys: Sequence[bytes]) -> bool:
    """Do the same in a keeper, and return whether it worked; else the job itself will fail and say why."""
    try:
        take_over(environment, threads, keys)
    except OSError:
        return False
    return True
