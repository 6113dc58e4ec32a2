"""What the worker itself has to say in the job's log, beside what user code prints there.

None of it is worth a job: where standard error is closed, or the disk full, it stays unsaid.
"""

from __future__ import annotations

import contextlib
import sys
import traceback


def note(text: str) -> None:
    """Write a line of ours into the log."""
    with contextlib.suppress(Exception):
        print(f"jobcontainer: {text}", file=sys.stderr)  # noqa: T201 -- the job's log


def note_exception() -> None:
    """Write the traceback of the exception that is being handled into the log."""
    with contextlib.suppress(Exception):
        traceback.print_exc()
