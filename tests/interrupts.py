"""Interrupts a call at a chosen step of it."""

from __future__ import annotations

import contextlib
import sys


def interrupted(call, number, kind, where):
    """Make a call with a KeyboardInterrupt at its nth step; return whether it has so many."""
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if not frame.f_code.co_filename.startswith(where):
            return None
        frame.f_trace_opcodes = kind == "opcode"
        if event == kind:
            seen += 1
            if seen > number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            call()
    finally:
        sys.settrace(before)
    return seen > number
