"""The engine without processes: a job runs in the caller's own, for a debugger and for tests.

A pool's ``submit`` returns when the job has ended. What the job prints goes to the log and stays visible here, so that
a debugger's prompt can be used. Nothing is isolated: ``timeout``, ``memory``, ``threads`` and ``grace`` have no effect,
and a crash is a crash of this process.

Threads: a job runs in that of its submitter, in which interrupts are raised. So it stays the first of ``_attempts``
until its end is known, and only the thread in ``_runners`` runs it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from jobcontainer.engines.attempt import Attempt, keep_traceback
from jobcontainer.events import Started, Usage
from jobcontainer.jobfile.loading import load_process
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.regular_file import open_regular
from jobcontainer.worker.interrupts import uninterrupted
from jobcontainer.worker.keeper_protocol import Order
from jobcontainer.worker.outcome import ExitFacts, classify
from jobcontainer.worker.run import run_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from jobcontainer.events import Outcome
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.process import Environment, JobOptions
    from jobcontainer.storage.folder import JobFolder


class InlineEngine:
    """Runs jobs in this process, one at a time."""

    def __init__(self) -> None:
        self._attempts: deque[Attempt] = deque()
        self._runners: weakref.WeakKeyDictionary[Attempt, object] = weakref.WeakKeyDictionary()

    @property
    def slots(self) -> int:
        """One: the caller waits for it."""
        return 1

    @property
    def threads(self) -> None:
        """As many as this process has."""
        return None

    def submit(
        self,
        folder: JobFolder,
        options: JobOptions,
        environment: Environment,
        *,
        attempt: int = 1,
        identity: FileIdentity | None = None,
    ) -> Future[Outcome]:
        """Take a job, for the next call of :meth:`run_submitted`."""
        order = Order(os.fspath(folder), options.to_json(), environment, attempt, identity=identity)
        this = Attempt(folder, order)
        self._attempts.append(this)
        return this.future

    def run_submitted(self) -> None:
        """See :class:`jobcontainer.engines.RunsInCaller`; an interrupt that is not the job's own ends it as lost."""
        while self._attempts:
            attempt, me = self._attempts[0], object()  # no thread's number: a job may submit others from within run()
            try:
                if self._runners.setdefault(attempt, me) is not me:
                    return  # who runs it, or ends it, goes on with the next
                uninterrupted(partial(self._end, attempt, _run(attempt)))
            except BaseException as error:
                if self._runners.get(attempt) is me:
                    reason = f"It could not be run, or was interrupted: {error!r}. Submit it again."
                    uninterrupted(lambda: self._end(attempt, attempt.end_lost(reason)))  # noqa: B023 -- called at once
                if not isinstance(error, Exception):
                    raise

    def cancel(self, job_id: str) -> None:
        """End a job that has not begun; the thread that runs one is the only one that can end it."""
        for attempt in list(self._attempts):
            me = object()
            if attempt.folder.id == job_id and self._runners.setdefault(attempt, me) is me:
                self._end(attempt, attempt.end_unstarted())

    def close(self) -> None:
        """Do nothing: there is no process to end."""

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        with contextlib.suppress(ValueError):  # it has ended: its future is completed once
            self._attempts.remove(attempt)
            attempt.future.set_result(outcome)


def _run(attempt: Attempt) -> Outcome:
    """Run the process of an attempt's folder here and now."""
    folder, options = attempt.folder, attempt.order.options
    begun, cpu = time.time(), time.process_time()
    folder.remove_result()
    folder.append_event(Started(at=begun, pid=os.getpid(), attempt=attempt.number))
    reported: dict[str, Any] = {}
    opened = io.BufferedWriter(open_regular(folder.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    log = io.TextIOWrapper(opened, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    with log, contextlib.ExitStack() as place:
        place.enter_context(contextlib.redirect_stdout(_Copy(sys.stdout, log)))
        place.enter_context(contextlib.redirect_stderr(_Copy(sys.stderr, log)))
        prepare = partial(place.enter_context, _place(options))
        raised = run_process(folder, prepare, reported.update, load=load_process)
    if raised is not None and raised.__traceback__ is not None:
        keep_traceback(folder.id, raised.__traceback__)
    usage = Usage(wall=time.time() - begun, cpu=time.process_time() - cpu)
    return write_end(folder, classify(ExitFacts(reported=reported, log=str(folder.log_file)), usage, attempt.number))


class _Copy(io.TextIOBase):
    """A stream that writes to the terminal and to the log."""

    def __init__(self, terminal: TextIO | None, log: TextIO) -> None:
        self._terminal, self._log = terminal, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return len(text) if self._terminal is None else self._terminal.write(text)

    def flush(self) -> None:
        if not self._log.closed:  # it is, when the job has ended and somebody still has this stream
            self._log.flush()
        if self._terminal is not None:  # as where it was closed when Python started
            self._terminal.flush()

    def isatty(self) -> bool:
        return self._terminal is not None and self._terminal.isatty()

    def fileno(self) -> int:
        return super().fileno() if self._terminal is None else self._terminal.fileno()


@contextlib.contextmanager
def _place(options: Mapping[str, Any]) -> Iterator[None]:
    """Set the job's working directory and environment variables, and put the old ones back."""
    cwd, environ = os.getcwd(), dict(os.environ)  # noqa: PTH109 -- a text is what chdir takes back
    try:
        os.environ.update(options["env"])
        if options["cwd"] is not None:
            os.chdir(options["cwd"])
        yield
    finally:
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environ)
