"""The engine without processes: a job runs in the caller's own, for a debugger and for tests.

``submit`` returns when the job has ended. What the job prints goes to the log and stays visible here, so that a
debugger's prompt can be used. Nothing is isolated: ``timeout``, ``memory``, ``threads`` and ``grace`` have no effect,
and a crash is a crash of this process.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from jobcontainer.engines.attempt import Attempt
from jobcontainer.events import Started, Usage
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.storage.ending import write_end
from jobcontainer.worker.keeper_protocol import Order
from jobcontainer.worker.outcome import ExitFacts, classify
from jobcontainer.worker.run import run_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from jobcontainer.events import Outcome
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.process import Environment, JobOptions
    from jobcontainer.storage.folder import JobFolder


class InlineEngine:
    """Runs jobs in this process, one at a time."""

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
        """Run the process of a folder, and return a future that has ended."""
        order = Order(os.fspath(folder), options.to_json(), environment, attempt, identity=identity)
        this = Attempt(folder, order)
        begun, cpu = time.time(), time.process_time()
        folder.remove_result()
        folder.append_event(Started(at=begun, pid=os.getpid(), attempt=attempt))
        reported: dict[str, Any] = {}
        log = folder.log_file.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        with log, contextlib.ExitStack() as place:
            place.enter_context(contextlib.redirect_stdout(_Copy(sys.stdout, log)))
            place.enter_context(contextlib.redirect_stderr(_Copy(sys.stderr, log)))
            prepare = partial(place.enter_context, _place(options))
            run_process(folder, prepare, reported.update, load=Serializer.deserialize_from_file)
        usage = Usage(wall=time.time() - begun, cpu=time.process_time() - cpu)
        outcome = classify(ExitFacts(reported=reported, log=str(folder.log_file)), usage, attempt)
        this.future.set_result(write_end(folder, outcome))
        return this.future

    def cancel(self, job_id: str) -> None:
        """Do nothing: when this can be called, every job has ended."""

    def close(self) -> None:
        """Do nothing: there is no process to end."""


class _Copy(io.TextIOBase):
    """A stream that writes to the terminal and to the log."""

    def __init__(self, terminal: TextIO | None, log: TextIO) -> None:
        self._terminal, self._log = terminal, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return len(text) if self._terminal is None else self._terminal.write(text)

    def flush(self) -> None:
        self._log.flush()
        if self._terminal is not None:  # as where it was closed when Python started
            self._terminal.flush()

    def isatty(self) -> bool:
        return self._terminal is not None and self._terminal.isatty()

    def fileno(self) -> int:
        return super().fileno() if self._terminal is None else self._terminal.fileno()


@contextlib.contextmanager
def _place(options: JobOptions) -> Iterator[None]:
    """Set the job's working directory and environment variables, and put the old ones back."""
    cwd, environ = os.getcwd(), dict(os.environ)  # noqa: PTH109 -- a text is what chdir takes back
    try:
        os.environ.update(options.env)
        if options.cwd is not None:
            os.chdir(options.cwd)
        yield
    finally:
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environ)
