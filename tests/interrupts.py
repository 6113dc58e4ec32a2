"""Interrupts a call at a chosen step of it."""

from __future__ import annotations

import inspect
import sys

LOOKS = {"call", "c_return"}
"""Where Python looks for signals: when a function begins, and when one of C has returned."""


def interrupted(call, number, kind, where):
    """Make a call with a KeyboardInterrupt at its nth step; return whether it has so many.

    Args:
        call: takes no arguments.
        number: of the step, from 0 on.
        kind: of the steps: ``line``, ``opcode``, or ``signal`` for those where Python looks for signals.
        where: beginnings of the paths of the code whose steps are counted.
    """
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if not frame.f_code.co_filename.startswith(where):
            return None
        frame.f_trace_opcodes = kind == "opcode"
        if event == kind or (kind == "signal" and event in LOOKS):
            seen += 1
            if seen > number:
                switch(None)
                raise KeyboardInterrupt
        return trace

    def in_a_generator():  # has a handled exception of its own: one cut off inside ``except`` would stay this thread's
        yield call()

    switch, before = (sys.setprofile, sys.getprofile()) if kind == "signal" else (sys.settrace, sys.gettrace())
    inspect.currentframe().f_trace_opcodes = kind == "opcode"  # Python 3.12 must know when it begins to trace
    switch(trace)
    try:
        next(in_a_generator())
    except KeyboardInterrupt:
        pass
    finally:
        switch(before)
    return seen > number
