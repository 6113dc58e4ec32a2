"""A process and everything it started: who they are, what memory they hold, and how they end.

On Linux all of it is read from ``/proc``; elsewhere ``ps`` is asked. A process that ends while it is looked at is
passed over everywhere: that is the ordinary case, not an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_TRACKER_SECONDS = 0.1
_PROC = Path("/proc")
_LINUX = sys.platform == "linux"
_HELD = re.compile(rb"^Rss(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)
_PEAK_AND_FILES = re.compile(rb"^(?:VmHWM|RssFile):\s+(\d+) kB", re.MULTILINE)
_PROPORTIONAL = re.compile(rb"^Pss_(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent is ``pid``."""
    if not _LINUX:
        return _children_by_ps(pid)
    found: list[int] = []
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            found += map(int, (task / "children").read_bytes().split())
    except OSError:  # it has ended, or the kernel was built without these files
        return found if (_PROC / "thread-self" / "children").exists() else _children_by_ps(pid)
    return found


def parent_of(pid: int) -> int:
    """Return the parent of a process; 0 where it has ended, or is not known."""
    with contextlib.suppress(OSError):  # not on Linux
        return int(_read(pid, "stat").rpartition(b") ")[2].split()[1])
    return 0


def descendants_of(pid: int) -> list[int]:
    """Return every process below ``pid``, parents before their children."""
    found = children_of(pid)
    for child in found:  # grows while it is gone through
        found += children_of(child)
    return found


def memory_of(pids: Iterable[int]) -> int:
    """Return how much anonymous and shared memory processes hold, in bytes; pages they share count for each of them.

    A few tens of microseconds for each process.
    """
    return sum(_memory(pid, "status", _HELD) for pid in pids)


def cpu_of(pids: Iterable[int]) -> float:
    """Return the CPU seconds of processes, with those of their children that have ended; 0 where unknown."""
    ticks = 0
    for pid in pids if _LINUX else ():
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _read(pid, "stat").rpartition(b") ")[2].split()[11:15]))  # proc(5): 14 to 17
    return ticks / os.sysconf("SC_CLK_TCK")


def exact_memory_of(pids: Iterable[int]) -> int:
    """Return how much anonymous and shared memory processes hold, in bytes; a page shared by n processes counts 1/n.

    The kernel walks all their pages for it: some milliseconds for each gigabyte.
    """
    return sum(_memory(pid, "smaps_rollup", _PROPORTIONAL) for pid in pids)


def peak_memory() -> int:
    """Return the most memory of its own that this process has held, in bytes; 0 where unknown.

    It is the peak of the RSS less the files that are mapped now: the kernel keeps no peak of its own for
    anonymous memory.
    """
    with contextlib.suppress(OSError):  # not on Linux
        peak, files = (int(size) for size in _PEAK_AND_FILES.findall(_read(os.getpid(), "status")))
        return max(peak - files, 0) * 1024
    return 0


def kill(pids: Iterable[int]) -> None:
    """Kill processes, at once and for sure."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end_children(spared: Collection[int] = (), *, within: float = 1.0) -> set[int]:
    """Kill and reap every child of this process, and every process below, until none is left.

    Resource trackers get a tenth of a second to remove the semaphores and files of those that were killed; they end
    by themselves when nobody is left to serve. A process that can't be killed within so many seconds, as it hangs in
    the kernel, is given up.

    Returns:
        The process ids of those that were ended.
    """
    begun = time.monotonic()
    ended: set[int] = set()
    while children := [pid for pid in children_of(os.getpid()) if pid not in spared]:
        everyone = [*children, *(pid for child in children for pid in descendants_of(child))]
        ended.update(everyone)
        patient = time.monotonic() - begun < _TRACKER_SECONDS
        kill(pid for pid in everyone if not (patient and _is_tracker(pid)))
        _await_end(children, 0.02)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() - begun > within:
            break
    return ended


def end_descendants(pid: int, *, within: float = 1.0) -> None:
    """Kill every process below ``pid``, which is another's to reap; what can't be killed in time is given up."""
    until = time.monotonic() + within
    while strays := descendants_of(pid):
        kill(strays)
        if not running(strays) or time.monotonic() > until:
            return


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal, or by a debugger, and has not gone on; never known but on Linux."""
    return _state_of(pid) in {"T", "t"}


def is_waiting(pid: int) -> bool:
    """Whether a process has nothing to do, or was stopped; never known but on Linux."""
    return _state_of(pid) in {"S", "T", "t"}


def running(pids: Collection[int]) -> list[int]:
    """Return those of the processes that have not ended within a tenth of a second; zombies have."""
    _await_end(pids, 0.1)
    return [pid for pid in pids if _state_of(pid) not in {"", "Z", "X"}]


def marked_with(mark: str) -> list[int]:
    """Return every process of this user that was started with a text in its environment, on Linux only.

    It finds what no chain of parents leads to any more.
    """
    found = []
    for entry in _PROC.glob("[0-9]*") if _LINUX else ():
        with contextlib.suppress(OSError):
            if mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def oom_kills() -> int:
    """Return how many processes the kernel's OOM killer has killed since the machine started; 0 where unknown."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "vmstat").read_bytes().splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def _await_end(pids: Collection[int], seconds: float) -> None:
    """Wait until all of them have ended, or the time is over."""
    if not hasattr(os, "pidfd_open"):
        time.sleep(seconds / 10)
        return
    watched = select.poll()
    handles = []
    try:
        for pid in pids:
            with contextlib.suppress(OSError):
                handles.append(os.pidfd_open(pid))
                watched.register(handles[-1], select.POLLIN)
        until = time.monotonic() + seconds
        alive = set(handles)
        while alive and (left := until - time.monotonic()) > 0:
            for handle, _ in watched.poll(left * 1000):
                watched.unregister(handle)
                alive.discard(handle)
    finally:
        for handle in handles:
            os.close(handle)


def _memory(pid: int, table: str, pattern: re.Pattern[bytes]) -> int:
    if not _LINUX:
        return _table().get(pid, (0, 0))[1] * 1024
    with contextlib.suppress(OSError):
        return sum(map(int, pattern.findall(_read(pid, table)))) * 1024
    return 0


def _state_of(pid: int) -> str:
    """Return the letter of a process's state; empty where there is none such."""
    with contextlib.suppress(OSError):
        return chr(_read(pid, "stat").rpartition(b") ")[2][0])
    return ""


def _is_tracker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"resource_tracker" in _read(pid, "cmdline")
    return False


def _read(pid: int, name: str) -> bytes:
    return (_PROC / str(pid) / name).read_bytes()


def _children_by_ps(pid: int) -> list[int]:
    return [child for child, (parent, _) in _table().items() if parent == pid]


def _table() -> dict[int, tuple[int, int]]:
    """Ask ``ps`` for every process: its parent, and its RSS in KiB."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, check=False)  # noqa: S607 -- POSIX
    rows = (list(map(int, line.split())) for line in listed.stdout.splitlines())
    return {pid: (parent, size) for pid, parent, size in rows}
