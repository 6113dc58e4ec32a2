"""Job folders on a worker that has no access to the client's: files come in, and what the job writes is read from here.

They lie below the worker's local directory, each under a name of its own, so that an attempt finds no files of an
earlier one. The client calls these functions in the worker's event loop, see
:mod:`jobcontainer.engines.dask.transfer`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.jsonl import read_lines

PIECE: Final = 4 << 20
"""The largest part of a file that one message carries, in bytes."""

_POLL_SECONDS = 0.05
_QUIET_SECONDS = 10.0  # after which a request for news is answered although there is none

_folders: dict[str, JobFolder] = {}


class News(NamedTuple):
    """What a job has written since the last request.

    Attributes:
        log: printed bytes.
        events: lines of the events file, as plain data.
        position: where to go on reading the events.
        progress: content of the progress file; empty if it has not changed.
    """

    log: bytes
    events: list[dict[str, Any]]
    position: int
    progress: bytes

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written."""
        return not (self.log or self.events or self.progress)


def create(job_id: str, dask_worker: Any) -> None:
    """Make an empty folder for an attempt; one that an earlier attempt left is removed.

    Args:
        job_id: the job; the folder has the same name, so that the job can be cancelled by it.
        dask_worker: this worker, passed by Dask.
    """
    remove(job_id)
    parent = tempfile.mkdtemp(prefix="jobcontainer-", dir=dask_worker.local_directory)
    folder = _folders[job_id] = JobFolder(Path(parent, job_id))
    folder.create()


def folder_of(job_id: str) -> JobFolder:
    """Return the folder of a job that :func:`create` was called for."""
    return _folders[job_id]


def append(job_id: str, piece: bytes) -> None:
    """Write the next part of the process file."""
    with _folders[job_id].process_file.open("ab") as file:
        file.write(piece)


async def read_news(job_id: str, log_position: int, position: int, progress: bytes, *, long_poll: bool) -> News:
    """Read what a job has written.

    Args:
        job_id: the job.
        log_position: how many bytes of the log the client has.
        position: how many bytes of the events the client has.
        progress: the progress file as the client has it.
        long_poll: whether to answer only when there is something, or after ten seconds.
    """
    until = time.monotonic() + (_QUIET_SECONDS if long_poll else 0.0)
    while True:
        news = _read_news(job_id, log_position, position, progress)
        if not news.is_empty or time.monotonic() >= until:
            return news
        await asyncio.sleep(_POLL_SECONDS)


def read_result(job_id: str, offset: int) -> bytes:
    """Read a part of the result file; empty at its end, and where there is none."""
    try:
        with _folders[job_id].result_file.open("rb") as file:
            file.seek(offset)
            return file.read(PIECE)
    except FileNotFoundError:
        return b""


def remove(job_id: str) -> str:
    """Remove a job's folder and return its path; empty if there is none."""
    folder = _folders.pop(job_id, None)
    if folder is None:
        return ""
    shutil.rmtree(folder.path.parent, ignore_errors=True)
    return str(folder.path)


def _read_news(job_id: str, log_position: int, position: int, progress: bytes) -> News:
    folder = _folders.get(job_id)
    if folder is None:
        return News(b"", [], position, b"")
    events, position = read_lines(folder.events_file, position)
    try:
        current = folder.progress_file.read_bytes()
    except FileNotFoundError:
        current = b""
    log = folder.read_log(log_position, PIECE)
    return News(log, events, position, b"" if current == progress else current)
