"""JobContainer: one process file, one isolated run."""

from __future__ import annotations

import codecs
import concurrent.futures
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcontainer.jobs.cancel_on_interrupt import InterruptCancels
from jobcontainer.jobs.pool import shared_pool
from jobcontainer.process import JobOptions

if TYPE_CHECKING:
    import os

    from jobcontainer.jobs.job import Job

_COPY_SECONDS = 0.05


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

    def __init__(
        self,
        process_file_path: str | os.PathLike[str],
        *,
        trusted: bool = False,
        **options: Any,
    ) -> None:
        """Check that there is such a file."""
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
        copy = LogCopy(job)
        try:
            with InterruptCancels(job) as interrupt:
                while concurrent.futures.wait([job], timeout=_COPY_SECONDS).not_done:
                    copy.step()
            copy.step()
        except BaseException:
            job.cancel()
            raise
        if interrupt.came:
            raise KeyboardInterrupt
        return job.result()


class LogCopy:
    """Copies what is new in a job's log to standard output, a step at a time.

    Args:
        job: the job.
    """

    def __init__(self, job: Job[Any]) -> None:
        """Start at the log's beginning."""
        self._folder = job.folder
        self._position = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def step(self) -> None:
        """Copy what has come since the last step."""
        data = self._folder.read_log(self._position)
        self._position += len(data)
        if sys.stdout is not None:  # it was not closed when Python started
            sys.stdout.write(self._decoder.decode(data))
            sys.stdout.flush()
