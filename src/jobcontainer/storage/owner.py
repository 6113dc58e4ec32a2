"""The owner of a job: the process that runs it, named so that any later process can say whether it is still there.

A process id alone names many processes, one after another, and a wall clock can be set. On Linux an owner is named as
the kernel counts: the boot, the pid namespace, the pid, and the start in clock ticks since the boot. None of these
changes while the process runs. macOS has the wall clock's time of the start instead.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

from jobcontainer.jobfile.identity import boot_id

_SAME_START = 1.0  # seconds; two processes of one pid never start this close to each other
_LINUX = sys.platform == "linux"
_ENDED = {b"Z", b"X", b"x"}  # proc(5): zombies are ended


def host_name() -> str:
    """Return the name of this machine, as owners and events hold it."""
    return os.uname().nodename


def this_process() -> dict[str, Any]:
    """Return this process as an owner, for ``job.json`` and the journal: plain data."""
    return _this_process(os.getpid())  # by pid, as a fork is another owner


def is_alive(owner: dict[str, Any]) -> bool:
    """Return whether an owner still runs, or may do so: one that can't be seen from here is not taken for dead.

    Another host, and another pid namespace (a container) of this one, can't be seen. An owner that is no owner (a
    damaged file) runs nothing.

    Example:
        >>> is_alive(this_process()), is_alive(this_process() | {"host": "another", "boot": "another"})
        (True, True)
        >>> is_alive(this_process() | {"pid": 2**22 + 1})
        False
    """
    try:
        host, pid = owner["host"], owner["pid"]
        if not (isinstance(host, str) and type(pid) is int and pid > 0):
            return False
        return _runs_here(owner, pid) if _LINUX else host != host_name() or _started_then(pid, owner.get("created"))
    except (KeyError, TypeError):
        return False


def _runs_here(owner: dict[str, Any], pid: int) -> bool:
    try:
        if owner.get("boot") != boot_id():
            if owner["host"] != host_name():
                return True
            if "boot" in owner:  # this machine was started anew since
                return False
        if owner.get("namespace", _namespace()) != _namespace():
            return True
        state, ticks = _state_and_start(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:  # there are no descriptors to look with
        return True
    return state not in _ENDED and owner.get("ticks", ticks) == ticks


@functools.cache
def _this_process(pid: int) -> dict[str, Any]:
    owner: dict[str, Any] = {"host": host_name(), "pid": pid}
    if _LINUX:
        return owner | {"boot": boot_id(), "namespace": _namespace(), "ticks": _state_and_start(pid)[1]}
    return owner | {"created": _created(pid)}


def _state_and_start(pid: int) -> tuple[bytes, int]:
    """Return the state of a process, and when it started in ticks since the boot; an OSError where there is none."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()  # from the third on; proc(5)
    return fields[0], int(fields[19])


@functools.cache
def _namespace() -> int:
    """Return what names the pid namespace of this process; a process never changes its own."""
    return Path("/proc/self/ns/pid").stat().st_ino


def _started_then(pid: int, created: float | None) -> bool:
    """Whether a process runs that was created at that time, on macOS."""
    import psutil  # noqa: PLC0415 -- keepers, which only need the host's name, are small without it

    try:
        same = created is None or abs(_created(pid) - created) < _SAME_START
        return same and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _created(pid: int) -> float:
    import psutil  # noqa: PLC0415 -- as above

    return float(psutil.Process(pid).create_time())
