"""Waiting for conditions, with a deadline, instead of for time to pass."""

from __future__ import annotations

import asyncio
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


def ended(results):
    """Go through results to the end; return each value, or the type of what its call raised."""
    found = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 -- each is what a call raised
            found.append(type(error))
