"""Waiting for conditions, with a deadline, instead of for time to pass."""

from __future__ import annotations

import time


def wait_for(condition, within=20.0):
    """Call until it gives something true, and return that; fail when the time is over."""
    until = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < until, f"waited {within} s in vain"
        time.sleep(0.005)
    return found


def is_running(pid):
    """Whether a process is there and has not ended; a zombie has."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] not in b"ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
