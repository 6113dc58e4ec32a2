"""The owner of a job: the process that runs it, and whether that process still runs."""

from __future__ import annotations

import functools
import os
from typing import Any

_SAME_START = 1.0  # seconds; two processes of one pid never start this close to each other


def host_name() -> str:
    """Return the name of this machine, as owners and events hold it."""
    return os.uname().nodename


def this_process() -> dict[str, Any]:
    """Return this process as an owner: host, pid and start time, for ``job.json`` and the journal."""
    return _this_process(os.getpid())  # by pid, as a fork is another owner


def is_alive(owner: dict[str, Any]) -> bool:
    """Return whether an owner still runs.

    An owner on another host can't be seen from here and counts as alive.

    Example:
        >>> is_alive(this_process())
        True
    """
    import psutil  # noqa: PLC0415 -- keepers, which only need the host's name, are small without it

    try:
        if owner["host"] != host_name():
            return True
        process = psutil.Process(owner["pid"])
        same = abs(process.create_time() - owner["started"]) < _SAME_START
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        return False


@functools.cache
def _this_process(pid: int) -> dict[str, Any]:
    import psutil  # noqa: PLC0415 -- as above

    return {"host": host_name(), "pid": pid, "started": psutil.Process(pid).create_time()}
