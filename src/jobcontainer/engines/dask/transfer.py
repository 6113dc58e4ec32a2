"""Files of jobs whose worker has no access to their folder: copied there, and back while the job runs.

Both ends are here. On the worker, the functions below keep a folder for each such job, under the worker's local
directory; the client calls them in the worker's event loop. In the client, a :class:`Transfer` serves one attempt.

Files travel in pieces, so that a process or a result of a gigabyte need not fit into the memory of the scheduler, which
passes the messages on. (Nor are Dask's events used: the scheduler would keep the log of every job.) The outcome is
written last: once the job's folder has it, the folder is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jobcontainer.events import Outcome, event_from_json
from jobcontainer.jobfile.atomic import temporary_beside, write_whole
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.jsonl import read_lines
from jobcontainer.storage.preview import preview_bytes
from jobcontainer.storage.regular_file import append, read_part

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PIECE = 4 << 20  # bytes of a file in one message, at the most
_POLL_SECONDS = 0.05
_QUIET_SECONDS = 10.0  # after which a request for news is answered although there is none
_PAUSE_SECONDS = 0.1  # between two requests for news

folders: dict[str, JobFolder] = {}
"""On a worker: the copies, by the id of their job."""


class News(NamedTuple):
    """What a job has written, from given positions on."""

    log: bytes
    events: list[dict[str, Any]]  # as plain data
    position: int  # where the next events will begin
    progress: bytes  # content of the progress file


def create(job_id: str, dask_worker: Any) -> None:
    """Make an empty folder for an attempt, named for its job, which can be cancelled by it; Dask passes its worker."""
    remove(job_id)  # of an earlier attempt
    parent = tempfile.mkdtemp(prefix="jobcontainer-", dir=dask_worker.local_directory)
    folder = folders[job_id] = JobFolder(Path(parent, job_id))
    folder.create()


def write_process(job_id: str, piece: bytes) -> None:
    """Write the next piece of the process file."""
    append(folders[job_id].process_file, piece)


async def read_news(job_id: str, log_position: int, position: int, progress: bytes, *, patient: bool) -> News | None:
    """Read what a job has written beyond what is known: positions in its log and its events, and its progress.

    If there is nothing, None is returned; where the caller is ``patient``, after ten seconds.
    """
    until = time.monotonic() + (_QUIET_SECONDS if patient else 0.0)
    while folder := folders.get(job_id):  # it may be removed while a request waits
        events, position = read_lines(folder.events_file, position)
        current = read_part(folder.progress_file, 0, PIECE)
        news = News(folder.read_log(log_position, PIECE), events, position, current)
        if news.log or news.events or news.progress != progress:
            return news
        if time.monotonic() >= until:
            break
        await asyncio.sleep(_POLL_SECONDS)
    return None


def read_result(job_id: str, offset: int) -> bytes:
    """Read a piece of the result file; empty at its end, and where there is none."""
    return read_part(folders[job_id].result_file, offset, PIECE)


def read_preview(job_id: str) -> bytes:
    """Read the preview of a job's end; empty where there is none."""
    try:
        return preview_bytes(folders[job_id].preview_file)
    except OSError:
        return b""


def remove(job_id: str) -> str:
    """Remove a job's folder, and return its path; empty if there is none."""
    folder = folders.pop(job_id, None)
    if folder is None:
        return ""
    shutil.rmtree(folder.path.parent, ignore_errors=True)
    return str(folder.path)


class Transfer:
    """Copies the files of one attempt, in the client; ``call`` calls a function on the worker."""

    def __init__(self, folder: JobFolder, call: Callable[..., Awaitable[Any]]) -> None:
        self._folder, self._call = folder, call
        self._log_position = self._position = 0
        self._progress = b""

    async def send(self) -> None:
        """Copy the process file to the worker. If there is none, the job will report it."""
        await self._call(create, self._folder.id)
        with contextlib.suppress(FileNotFoundError), self._folder.process_file.open("rb") as file:
            while piece := file.read(PIECE):
                await self._call(write_process, self._folder.id, piece)

    async def follow(self) -> None:
        """Copy what the job writes as it comes, until cancelled."""
        with contextlib.suppress(OSError):  # the worker is gone, as whoever waits for the job will notice too
            while True:
                await self._copy_news(patient=True)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def finish(self, outcome: Outcome) -> Outcome:
        """Copy the rest, remove the copy, and write the outcome, with the job's own folder in its reason."""
        while await self._copy_news(patient=False):
            pass
        await self._copy_result()
        path = await self._call(remove, self._folder.id)
        return write_end(self._folder, replace(outcome, reason=outcome.reason.replace(path, str(self._folder.path))))

    async def discard(self) -> None:
        """Remove the copy of a job that did not run."""
        with contextlib.suppress(OSError):
            await self._call(remove, self._folder.id)

    async def _copy_news(self, *, patient: bool) -> bool:
        known = self._log_position, self._position, self._progress
        news: News | None = await self._call(read_news, self._folder.id, *known, patient=patient)
        if news is None:
            return False
        append(self._folder.log_file, news.log)
        if news.progress != self._progress:
            write_whole(self._folder.progress_file, news.progress)
        for event in map(event_from_json, news.events):
            if event is not None and not isinstance(event, Outcome):
                self._folder.append_event(event)
        self._log_position += len(news.log)
        self._position, self._progress = news.position, news.progress
        return True

    async def _copy_result(self) -> None:
        if preview := await self._call(read_preview, self._folder.id):
            write_whole(self._folder.preview_file, preview)
        temporary, offset = temporary_beside(self._folder.result_file), 0
        try:
            while piece := await self._call(read_result, self._folder.id, offset):
                append(temporary, piece)
                offset += len(piece)
            if offset:
                temporary.replace(self._folder.result_file)
        finally:
            temporary.unlink(missing_ok=True)
