"""Standard output and error of a job, into its log.

Descriptors 1 and 2 are one file opened for appending, so that whatever writes to them (Python, C code, subprocesses)
is in the log, in the order it was written. Python's streams hold nothing back: what was printed is in the log when
``print`` returns, and a crash loses none of it. C's standard output is flushed at each line.

What the worker itself reports goes there by :func:`note` and :func:`note_exception`, also where user code has closed
standard error and opened a file of its own, which has its number then. None of it is worth a job: where the log was
deleted, or the disk is full, it is dropped.
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

from jobcontainer.storage.own_descriptor import OwnDescriptor
from jobcontainer.storage.regular_file import open_regular
from jobcontainer.worker import TRACE_NUMBER

TRACE_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
"""This signal writes the traceback of every thread to the log, also while C code holds the interpreter's lock."""

_LIBC = ctypes.CDLL(None)
_LINE_BUFFERED = 1  # _IOLBF in C's stdio.h

_own: OwnDescriptor | None = None  # of the log of the job that runs in this process
_stderr: object = None  # as it was before user code ran


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
    global _own, _stderr  # noqa: PLW0603 -- a process has one log at a time
    with open_regular(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
        os.set_blocking(file.fileno(), True)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), TRACE_NUMBER, inheritable=False)
    faulthandler.enable(TRACE_NUMBER)
    faulthandler.register(TRACE_SIGNAL, TRACE_NUMBER)
    _own = OwnDescriptor(2, reopen=lambda: open_regular(log, os.O_WRONLY | os.O_APPEND))
    _stderr = sys.stderr
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
    write(f"jobcontainer: {text}\n")


def note_exception(error: BaseException | None = None) -> None:
    """Write the traceback of an exception into the log; of the one that is being handled where none is given."""
    with contextlib.suppress(Exception):  # one that can't be shown
        write("".join(traceback.format_exception(error or sys.exception())))


def write(text: str) -> None:
    """Write into the log, through standard error where user code has replaced that in Python."""
    with contextlib.suppress(Exception):  # it may be anything by now
        if _own is None or sys.stderr is not _stderr:
            sys.stderr.write(text)
        else:
            _own.write(text.encode("utf-8", "backslashreplace"))
