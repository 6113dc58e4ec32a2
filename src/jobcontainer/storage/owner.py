"""Who runs a job, and whether they still live: what a restarted kernel asks of every unfinished job."""

from __future__ import annotations

import functools
import os
import platform
from typing import Any

_SAME_START = 1.0  # seconds; two processes of one pid never start this close to each other


@functools.cache
def _this_process(pid: int) -> dict[str, Any]:
    import psutil  # noqa: PLC0415 -- with the first job, whose keeper starts meanwhile

    return {"host": platform.node(), "pid": pid, "started": psutil.Process(pid).create_time()}


def this_process() -> dict[str, Any]:
    """Return this process as an owner: host, pid and start time, for ``job.json`` and the journal."""
    return _this_process(os.getpid())  # by pid, as a fork is another owner


def is_alive(owner: dict[str, Any]) -> bool:
    """Tell whether an owner still runs.

    An owner on another host can't be asked from here and counts as alive.

    Example:
        >>> is_alive(this_process())
        True
    """
    if owner.get("host") != platform.node():
        return True
    import psutil  # noqa: PLC0415 -- as above

    try:
        process = psutil.Process(owner["pid"])
        same = abs(process.create_time() - owner["started"]) < _SAME_START
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError):
        return False
