"""Standard output and error of a job, into its log.

Descriptors 1 and 2 are one file opened for appending, so that whatever writes to them (Python, C code, subprocesses)
is in the log, in the order it was written. Python's streams hold nothing back: what was printed is in the log when
``print`` returns, and a crash loses none of it. C's standard output is flushed at each line.

What the worker itself reports goes there by :func:`note` and :func:`note_exception`. None of it is worth a job: where
standard error is closed, or the disk full, it is dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import os
import signal
import sys
import traceback
from typing import BinaryIO, cast

from jobcontainer.storage.regular_file import open_regular

TRACE_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
"""This signal writes the traceback of every thread to the log, also while C code holds the interpreter's lock."""

_LIBC = ctypes.CDLL(None)
_LINE_BUFFERED = 1  # _IOLBF in C's stdio.h
_TRACE_NUMBER = min(50, os.sysconf("SC_OPEN_MAX") - 3)  # where a program that closes 0 to 2 does not hit it


def prepare_streams() -> None:
    """Make Python's streams those of the descriptors 0 to 2, and let output hold nothing back; once in a keeper.

    Its jobs inherit them. What multiprocessing opens as standard input has another descriptor, which they close.
    """
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 -- a descriptor, for good
    sys.__stdin__ = sys.stdin  # type: ignore[misc]  # as the next two
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw = io.FileIO(number, "w", closefd=False)
        raw.name = f"<{name}>"
        stream = io.TextIOWrapper(
            cast("BinaryIO", raw),  # as PYTHONUNBUFFERED does it
            encoding="utf-8",
            errors="backslashreplace",
            newline="\n",
            write_through=True,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        with contextlib.suppress(ValueError):  # another C library, which names them otherwise
            _LIBC.setvbuf(ctypes.c_void_p.in_dll(_LIBC, name), None, _LINE_BUFFERED, 0)


def redirect(log: str | os.PathLike[str], *, attempt: int = 1) -> None:
    """Send standard output and error of this process, and the traceback of a crash, to the end of a log.

    From the second attempt on, a line marks where it begins.
    """
    descriptor = open_regular(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.set_blocking(descriptor, True)  # as user code expects of its standard output
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.dup2(descriptor, _TRACE_NUMBER, inheritable=False)
    os.close(descriptor)
    faulthandler.enable(_TRACE_NUMBER)
    faulthandler.register(TRACE_SIGNAL, _TRACE_NUMBER)
    if attempt > 1:
        os.write(1, f"--- attempt {attempt} ---\n".encode())


def flush() -> None:
    """Write out what user code's and C's streams still hold."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it may be anything by now
            stream.flush()
    _LIBC.fflush(None)


def note(text: str) -> None:
    """Write a line of the worker's own into the log."""
    with contextlib.suppress(Exception):
        print(f"jobcontainer: {text}", file=sys.stderr)  # noqa: T201 -- the job's log


def note_exception() -> None:
    """Write the traceback of the exception that is being handled into the log."""
    with contextlib.suppress(Exception):
        traceback.print_exc()
