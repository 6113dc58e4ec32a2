"""Files of jobs whose worker has no access to their folder: copied there, and back while the job runs.

Both ends are here. On the worker, the functions below keep a folder for each such job, under the worker's local
directory; the client calls them in the worker's event loop. In the client, a :class:`Transfer` serves one attempt.

Files travel in pieces, so that a process or a result of a gigabyte need not fit into the memory of the scheduler, which
passes the messages on. (Nor are Dask's events used: the scheduler would keep the log of every job.) The outcome is
written last: once the job's folder has it, the folder is complete.

Large data travels once to each host: its workers share a ``data`` folder beside their local directories, to which the
folders of jobs link. What no job has any more is removed when a client leaves. Where that place is another user's, as
Dask's folder in ``/tmp`` may be, each worker has a folder of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jobcontainer.events import Outcome, event_from_json
from jobcontainer.jobfile.atomic import temporary_beside, write_whole
from jobcontainer.jobfile.blobs import blob_path
from jobcontainer.jobfile.reader import blobs_of
from jobcontainer.storage.call_results import CallReader
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.jsonl import read_lines
from jobcontainer.storage.preview import preview_bytes
from jobcontainer.storage.regular_file import append, read_part
from jobcontainer.storage.store_folder import StoreFolder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jobcontainer.jobfile.format import Buffer
    from jobcontainer.storage.folder import JobFolder

PIECE = 4 << 20  # bytes of a file in one message, at the most
_POLL_SECONDS = 0.05
_QUIET_SECONDS = 10.0  # after which a request for news is answered although there is none
_PAUSE_SECONDS = 0.1  # between two requests for news

folders: dict[str, JobFolder] = {}
"""On a worker: the copies, by the id of their job."""

_call_readers: dict[str, CallReader] = {}


class News(NamedTuple):
    """What a job has written, from given positions on."""

    log: bytes
    events: list[dict[str, Any]]  # as plain data
    position: int  # where the next events will begin
    progress: bytes  # content of the progress file
    calls: bytes = b""  # results of calls


def create(job_id: str, dask_worker: Any) -> None:
    """Make an empty folder for an attempt, named for its job, which can be cancelled by it; Dask passes its worker.

    It lies in a store of its own, which shares its data with those of other attempts.
    """
    remove(job_id)  # of an earlier attempt
    shared = _shared_store(dask_worker)
    shared.data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = StoreFolder(tempfile.mkdtemp(prefix="jobcontainer-", dir=dask_worker.local_directory))
    store.data_folder.symlink_to(shared.data_folder)
    folder = folders[job_id] = store.job(job_id)
    folder.create()


def remove_unused_data(dask_worker: Any) -> None:
    """Remove the large data on this host that no attempt has any more."""
    SharedData(_shared_store(dask_worker)).remove_unused()


def _shared_store(dask_worker: Any) -> StoreFolder:
    own, name = Path(dask_worker.local_directory), f"jobcontainer-data-{os.getuid()}"
    shared = StoreFolder(own.parent / name)
    with contextlib.suppress(OSError):
        shared.path.mkdir(0o700, exist_ok=True)
    return shared if shared.is_own() else StoreFolder(own / name)


def write_process(job_id: str, piece: bytes) -> None:
    """Write the next piece of the process file."""
    append(folders[job_id].process_file, piece)


async def link_blob(job_id: str, blob: Buffer) -> bool:
    """Give the process a part of its large data that is on this host; return whether it is."""
    process = folders[job_id].process_file
    return await asyncio.to_thread(_data_of(folders[job_id]).link, blob, process) is not None


def write_blob(job_id: str, digest: str, piece: bytes) -> None:
    """Write the next piece of the process's large data."""
    append(_received(folders[job_id].process_file, digest), piece)


async def adopt_blob(job_id: str, digest: str) -> None:
    """Share a part of the process's large data, all pieces of which are written."""
    process = folders[job_id].process_file
    await asyncio.to_thread(_data_of(folders[job_id]).adopt, _received(process, digest), digest, process)


def _received(file: Path, digest: str) -> Path:
    return blob_path(file, digest + ".part")


def _data_of(folder: JobFolder) -> SharedData:
    return SharedData(StoreFolder(folder.path.parent))


async def read_news(
    job_id: str, log_position: int, position: int, progress: bytes, calls_position: int, *, patient: bool
) -> News | None:
    """Read what a job has written beyond what is known: positions in its log and its events, and its progress.

    If there is nothing, None is returned; where the caller is ``patient``, after ten seconds.
    """
    until = time.monotonic() + (_QUIET_SECONDS if patient else 0.0)
    while folder := folders.get(job_id):  # it may be removed while a request waits
        events, position = read_lines(folder.events_file, position)
        current = read_part(folder.progress_file, 0, PIECE)
        calls = _read_calls(folder, calls_position)
        news = News(folder.read_log(log_position, PIECE), events, position, current, calls)
        if news.log or news.events or news.calls or news.progress != progress:
            return news
        if time.monotonic() >= until:
            break
        await asyncio.sleep(_POLL_SECONDS)
    return None


def _read_calls(folder: JobFolder, position: int) -> bytes:
    """Read the next results of calls; only whole ones, as there is room for others behind them."""
    reader = _call_readers.setdefault(folder.id, CallReader(folder))
    reader.skip()
    return read_part(folder.calls_file, position, min(PIECE, reader.offset - position))


def read_result(job_id: str, digest: str, offset: int) -> bytes:
    """Read a piece of the result file, or of its large data; empty at its end, and where there is none."""
    result = folders[job_id].result_file
    return read_part(blob_path(result, digest) if digest else result, offset, PIECE)


def read_preview(job_id: str) -> bytes:
    """Read the preview of a job's end; empty where there is none."""
    try:
        return preview_bytes(folders[job_id].preview_file)
    except OSError:
        return b""


def remove(job_id: str) -> str:
    """Remove a job's folder, and return its path; empty if there is none."""
    folder = folders.pop(job_id, None)
    _call_readers.pop(job_id, None)
    if folder is None:
        return ""
    shutil.rmtree(folder.path.parent, ignore_errors=True)
    return str(folder.path)


class Transfer:
    """Copies the files of one attempt, in the client.

    Args:
        folder: of the job.
        call: calls a function on the worker.
        sending: a lock for each content that may be on its way to the worker's host.
    """

    def __init__(
        self, folder: JobFolder, call: Callable[..., Awaitable[Any]], sending: Mapping[str, asyncio.Lock]
    ) -> None:
        self._folder, self._call, self._sending = folder, call, sending
        self._log_position = self._position = self._calls_position = 0
        self._progress = b""

    async def send(self) -> None:
        """Copy the process file to the worker. If there is none, or not all of it, the job will report it."""
        await self._call(create, self._folder.id)
        process = self._folder.process_file
        with contextlib.suppress(FileNotFoundError):
            await self._send_pieces(process, write_process)
            for digest, blob in blobs_of(process).items():
                async with self._sending[digest]:
                    if not await self._call(link_blob, self._folder.id, blob):
                        await self._send_pieces(blob_path(process, digest), write_blob, digest)
                        await self._call(adopt_blob, self._folder.id, digest)

    async def _send_pieces(self, path: Path, write: Callable[..., None], *names: str) -> None:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                await self._call(write, self._folder.id, *names, piece)

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
        known = self._log_position, self._position, self._progress, self._calls_position
        news: News | None = await self._call(read_news, self._folder.id, *known, patient=patient)
        if news is None:
            return False
        append(self._folder.log_file, news.log)
        if news.calls:
            append(self._folder.calls_file, news.calls)
        if news.progress != self._progress:
            write_whole(self._folder.progress_file, news.progress)
        for event in map(event_from_json, news.events):
            if event is not None and not isinstance(event, Outcome):
                self._folder.append_event(event)
        self._log_position += len(news.log)
        self._calls_position += len(news.calls)
        self._position, self._progress = news.position, news.progress
        return True

    async def _copy_result(self) -> None:
        if preview := await self._call(read_preview, self._folder.id):
            write_whole(self._folder.preview_file, preview)
        result, data = self._folder.result_file, _data_of(self._folder)
        temporary = temporary_beside(result)
        try:
            if await self._receive_pieces(temporary, ""):
                for digest, blob in blobs_of(temporary).items():
                    if not await asyncio.to_thread(data.link, blob, result):
                        received = _received(result, digest)
                        received.unlink(missing_ok=True)
                        await self._receive_pieces(received, digest)
                        await asyncio.to_thread(data.adopt, received, digest, result)
                temporary.replace(result)
        finally:
            temporary.unlink(missing_ok=True)

    async def _receive_pieces(self, path: Path, digest: str) -> int:
        offset = 0
        while piece := await self._call(read_result, self._folder.id, digest, offset):
            append(path, piece)
            offset += len(piece)
        return offset
