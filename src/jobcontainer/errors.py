"""Every error that jobcontainer raises on purpose.

::

    JobContainerError
    ├── SerializationError        the object can't go into a file; .culprits says which parts and why
    ├── JobFileError
    │   ├── CorruptFileError      truncated or altered
    │   ├── UntrustedFileError    not signed by a key of this user
    │   └── IncompatibleFileError of another Python minor version, a newer format, or a module that is not here
    └── JobError                  .job, .log_tail
        ├── JobFailedError        run() raised what can't be carried over
        ├── JobCrashedError       the process died
        ├── JobTimeoutError       also a TimeoutError
        ├── JobMemoryError        also a MemoryError
        ├── JobLostError          the worker's machine or keeper went away
        └── JobUpstreamError      a job that it needs did not succeed, or its result is gone; .upstream

Every message says what happened and what to do next. A cancelled job raises
:class:`concurrent.futures.CancelledError`, as futures do.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_OWN_FOLDER = str(Path(__file__).parent)


class JobContainerError(Exception):
    """The root of every error of this package."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """One part of an object that can't go into a file.

    Attributes:
        path: where it hangs, as an expression, for example ``process.cfg['db'][0]``.
        type_name: its type, for example ``_thread.lock``.
        hint: what to do about it, in one sentence.
    """

    path: str
    type_name: str
    hint: str

    def __str__(self) -> str:
        """Path, type and hint in one line."""
        return f"{self.path} ({self.type_name}): {self.hint}"


class SerializationError(JobContainerError):
    """The object can't go into a file.

    Attributes:
        culprits: the parts that can't, outermost first; empty where none could be singled out.
    """

    def __init__(self, message: str, culprits: Sequence[Culprit] = ()) -> None:
        """Keep the culprits beside the message."""
        super().__init__(message)
        self.culprits = tuple(culprits)


class JobFileError(JobContainerError):
    """A job file can't be loaded."""


class CorruptFileError(JobFileError):
    """The file is truncated, altered, or no job file at all."""


class UntrustedFileError(JobFileError):
    """The file is not signed by a key of this user; nothing in it was run."""


class IncompatibleFileError(JobFileError):
    """The file was written by another Python minor version or a newer format, or needs a module that is not here."""


class JobError(JobContainerError):
    """A job did not succeed.

    Attributes:
        job: the id of the job.
        log_tail: the last lines of its log, as one text.
    """

    def __init__(self, message: str, *, job: str = "", log_tail: str = "") -> None:
        """Keep the job's id and the end of its log beside the message."""
        super().__init__(message)
        self.job = job
        self.log_tail = log_tail


class JobFailedError(JobError):
    """``run()`` raised an exception that can't be carried over.

    Attributes:
        error_type: the qualified name of what was raised.
        traceback_text: its traceback, as printed in the job.
    """

    def __init__(
        self, message: str, *, job: str = "", log_tail: str = "", error_type: str = "", traceback_text: str = ""
    ) -> None:
        """Keep what is left of the exception beside the message."""
        super().__init__(message, job=job, log_tail=log_tail)
        self.error_type = error_type
        self.traceback_text = traceback_text


class JobCrashedError(JobError):
    """The job's process died: a signal, or an exit before ``run()`` returned."""


class JobTimeoutError(JobError, TimeoutError):
    """The job ran longer than its ``timeout`` and was ended."""


class JobMemoryError(JobError, MemoryError):
    """The job and its children held more memory than ``memory`` allows, or the kernel's OOM killer came."""


class JobLostError(JobError):
    """The worker's machine, its keeper or the kernel that owned the job went away."""


class JobUpstreamError(JobError):
    """A job that this one needs did not succeed, or its result is gone.

    Attributes:
        upstream: the id of the job at fault, which may be several jobs above; what it raised is the ``__cause__``.
    """

    def __init__(self, message: str, *, job: str = "", log_tail: str = "", upstream: str = "") -> None:
        """Keep the id of the job at fault beside the message."""
        super().__init__(message, job=job, log_tail=log_tail)
        self.upstream = upstream


def warn(message: str) -> None:
    """Warn about something; the line shown is the innermost one outside of this package, or the name of the magic.

    Args:
        message: what happened and what to do next.
    """
    level = 1
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_OWN_FOLDER):
        frame = frame.f_back
        level += 1
    if frame is not None and frame.f_globals.get("__name__", "").startswith("IPython."):  # a line there says nothing
        warnings.warn_explicit(message, UserWarning, "%jobcontainer", 1)
    else:
        warnings.warn(message, UserWarning, stacklevel=level)
