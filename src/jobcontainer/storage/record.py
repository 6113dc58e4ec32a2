"""What is written down of a job before it is queued: its id, what ``job.json`` holds, and who runs it.

The owner of a job is the process that runs it, as host, pid and start time.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

_SAME_START = 1.0  # seconds; two processes of one pid never start this close to each other


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What ``job.json`` holds: written once, before the job is queued.

    Attributes:
        id: the job's id, the name of its folder.
        name: what the job is called.
        submitted: seconds since the epoch.
        options: as :meth:`jobcontainer.process.JobOptions.to_json` gives them.
        cwd: the working directory at submit.
        sys_path: ``sys.path`` at submit.
        source: the source of the process's class or function, as it was at submit; empty where it is not known.
        owner: who runs the job: ``{"host": ..., "pid": ..., "started": ...}``.
    """

    id: str
    name: str
    submitted: float
    options: dict[str, Any] = field(default_factory=dict)
    cwd: str = ""
    sys_path: tuple[str, ...] = ()
    source: str = ""
    owner: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> JobRecord:
        """Return the record that plain data holds."""
        return cls(**data | {"sys_path": tuple(data["sys_path"])})


def new_job_id(name: str) -> str:
    """Make an id that sorts by time: time, name, random.

    Example:
        >>> new_job_id("Train model!").split("-", 2)[2].startswith("Train_model")
        True
    """
    now = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}"
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:32] or "job"
    return f"{stamp}-{word}-{secrets.token_hex(3)}"


def host_name() -> str:
    """Return the name of this machine, as owners and events hold it."""
    return os.uname().nodename


def this_process() -> dict[str, Any]:
    """Return this process as an owner: host, pid and start time, for ``job.json`` and the journal."""
    return _this_process(os.getpid())  # by pid, as a fork is another owner


def is_alive(owner: dict[str, Any]) -> bool:
    """Return whether an owner still runs.

    An owner on another host can't be seen from here and counts as alive.
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
