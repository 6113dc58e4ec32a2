"""JobContainer: one process file, one isolated run."""

from __future__ import annotations

import codecs
import contextlib
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcontainer.jobs.pool import shared_pool
from jobcontainer.process import JobOptions
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.views.escaping import escaped
from jobcontainer.worker.cpython_internals import in_background

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from jobcontainer.jobs.job import Job

_COPY_SECONDS = 0.05
_COPIED_AT_ONCE = 2**20  # bytes


class JobContainer:
    """Runs the process of a file in isolation.

    Args:
        process_file_path: a file written by :class:`Serializer`.
        trusted: whether to load it though it is not signed by a key of yours. It can run any code.
        **options: see :class:`jobcontainer.process.JobOptions`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an option is out of range.
        TypeError: there is no such option.

    Example:
        >>> Serializer.serialize_to_file(MyProcess(), "my.job")      # doctest: +SKIP
        >>> JobContainer("my.job").execute()                         # doctest: +SKIP
        Task is running
    """

    def __init__(self, process_file_path: str | os.PathLike[str], *, trusted: bool = False, **options: Any) -> None:
        JobOptions().updated(**options)  # a wrong option is reported before a file that is not there
        self.path = Path(process_file_path)
        if not self.path.exists():
            raise FileNotFoundError(
                f"There is no process file {self.path}. Serializer.serialize_to_file(process, path) writes one."
            )
        self._trusted = trusted
        self._pool = shared_pool().with_options(**options)

    def submit(self) -> Job[Any]:
        """Send the process off; it returns at once. The file is kept as it is now: later changes do not matter.

        Raises:
            JobFileError: the file is damaged, not signed by a key of yours, or of another Python version.
        """
        return self._pool.submit_file(self.path, trusted=self._trusted)

    def execute(self) -> Any:
        """Run the process, copy its log to this process's standard output as it comes, and return its result.

        An interrupt ends the job, as it would end a function that was called.

        Returns:
            What ``run()`` returned.

        Raises:
            Exception: what ``run()`` raised, or a :class:`JobError` that says how else the job ended.
        """
        job = self.submit()
        try:
            with interrupt_cancels(job) as interrupts:
                LogCopy(job).follow()
        except BaseException:
            job.cancel()
            raise
        if interrupts:
            raise KeyboardInterrupt
        return job.result()


class LogCopy:
    """Copies what is new in a job's log to standard output, a step at a time.

    Control characters of one's own job act on the terminal, as if it had printed there; those of another user's job are
    shown.
    """

    def __init__(self, job: Job[Any]) -> None:
        self._job = job
        self._position = 0
        self._is_own = StoreFolder(job.folder.path.parent).is_own()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def step(self) -> None:
        """Copy what has come since the last step."""
        while data := self._job.folder.read_log(self._position, _COPIED_AT_ONCE):
            self._position += len(data)
            if sys.stdout is not None:  # it was not closed when Python started
                text = self._decoder.decode(data)
                sys.stdout.write(text if self._is_own else escaped(text))
                sys.stdout.flush()

    def follow(self) -> None:
        """Copy until the job has ended."""
        while not self._job._wait(_COPY_SECONDS):
            self.step()
        self.step()


@contextlib.contextmanager
def interrupt_cancels(job: Job[Any]) -> Iterator[list[int]]:
    """Have an interrupt (Ctrl-C) of this process cancel a job, within a ``with`` block; a second one raises as usual.

    The first raises nothing: whoever waits for the job, and copies its log, does so until it has ended. The job is
    cancelled by a thread of its own, as the main thread may be anywhere. Outside the main thread, and where somebody
    else handles interrupts, nothing is changed.

    Yields:
        The signals that have cancelled the job: none or one.
    """
    interrupts: list[int] = []

    def cancel(signal_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupts.append(signal_number)
        in_background(job.cancel)

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield interrupts
        return
    signal.signal(signal.SIGINT, cancel)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
