"""Files of jobs whose worker has no access to their folder: copied there, and back while the job runs.

Both ends are here. On the worker, the functions below keep a folder for each such job, under the worker's local
directory; the client calls them in the worker's event loop. In the client, a :class:`Transfer` serves one attempt.

Files travel in pieces, so that a process or a result of a gigabyte need not fit into the memory of the scheduler, which
passes the messages on. (Nor are Dask's events used: the scheduler would keep the log of every job.) The outcome is
written last: once the job's folder has it, the folder is complete.

So are the results that a job needs: each lies beside its copy, under the id by which the process names it.

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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from jobcontainer.errors import CorruptFileError
from jobcontainer.events import Outcome, event_from_json
from jobcontainer.jobfile.atomic import temporary_beside, write_whole
from jobcontainer.jobfile.blobs import blob_path
from jobcontainer.jobfile.inputs import head_of
from jobcontainer.jobfile.reader import blobs_of
from jobcontainer.storage.call_results import CallReader
from jobcontainer.storage.checkpoint import remove_checkpoint, replacing_checkpoint, take_checkpoint
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.inputs import beside, results_needed
from jobcontainer.storage.jsonl import read_lines
from jobcontainer.storage.preview import preview_bytes
from jobcontainer.storage.regular_file import append, open_regular, read_part, status_of
from jobcontainer.storage.store_folder import StoreFolder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jobcontainer.jobfile.format import Buffer
    from jobcontainer.storage.folder import JobFolder

PIECE = 4 << 20  # bytes of a file in one message, at the most
_POLL_SECONDS = 0.05
_QUIET_SECONDS = 10.0  # after which a request for news is answered although there is none
_PAUSE_SECONDS = 0.1  # between two requests for news

Kind: TypeAlias = Literal["process", "result", "checkpoint", "held checkpoint"]
"""The job files that travel."""

_INPUT = "result of "  # before the id of an input: its result, beside the copy of the job

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


def create_input(job_id: str, input_id: str, process_head: bytes) -> None:
    """Make the folder of an input beside that of its job; the job knows the input by its process file."""
    folder = beside(folders[job_id], input_id)
    folder.create()
    append(folder.process_file, process_head)


def write_piece(job_id: str, kind: Kind | str, piece: bytes) -> None:
    """Write the next piece of a file."""
    append(_file(folders[job_id], kind), piece)


async def link_blob(job_id: str, kind: Kind | str, blob: Buffer) -> bool:
    """Give a file a part of its large data that is on this host; return whether it is."""
    file = _file(folders[job_id], kind)
    return await asyncio.to_thread(_data_of(folders[job_id]).link, blob, file) is not None


def write_blob(job_id: str, kind: Kind | str, digest: str, piece: bytes) -> None:
    """Write the next piece of a file's large data."""
    append(_received(_file(folders[job_id], kind), digest), piece)


async def adopt_blob(job_id: str, kind: Kind | str, digest: str) -> None:
    """Share a part of a file's large data, all pieces of which are written."""
    file = _file(folders[job_id], kind)
    await asyncio.to_thread(_data_of(folders[job_id]).adopt, _received(file, digest), digest, file)


def checkpoint_stamp(job_id: str) -> str:
    """Return what is another for each checkpoint that a job saves; empty where it has none."""
    found = status_of(folders[job_id].checkpoint_file)
    return "" if found is None else f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


async def hold_checkpoint(job_id: str, known: str, *, patient: bool) -> str:
    """Keep a checkpoint while it is read, whatever the job saves meanwhile; :func:`release_checkpoint` lets it go.

    Args:
        job_id: the job.
        known: the stamp of the one that is known.
        patient: whether to wait ten seconds for another one.

    Returns:
        The stamp of the one that is held, or of an older one; empty where there is none but the one that is known.
    """
    until = time.monotonic() + (_QUIET_SECONDS if patient else 0.0)
    while folder := folders.get(job_id):
        stamp = checkpoint_stamp(job_id)
        if stamp and stamp != known:
            is_there = take_checkpoint(folder.checkpoint_file, folder.held_checkpoint_file)
            return stamp if is_there else ""
        if time.monotonic() >= until:
            break
        await asyncio.sleep(_POLL_SECONDS)
    return ""


def release_checkpoint(job_id: str) -> None:
    """Remove what :func:`hold_checkpoint` has kept."""
    if folder := folders.get(job_id):
        remove_checkpoint(folder.held_checkpoint_file)


def _file(folder: JobFolder, kind: Kind | str) -> Path:
    match kind:
        case "process":
            return folder.process_file
        case "result":
            return folder.result_file
        case "checkpoint":
            return folder.checkpoint_file
        case "held checkpoint":
            return folder.held_checkpoint_file
        case _:
            return beside(folder, kind.removeprefix(_INPUT)).result_file


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


def read_piece(job_id: str, kind: Kind, digest: str, offset: int) -> bytes:
    """Read a piece of a file, or of its large data; empty at its end, and where there is none."""
    file = _file(folders[job_id], kind)
    return read_part(blob_path(file, digest) if digest else file, offset, PIECE)


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
        self._checkpoint = ""  # the stamp of the one that both have

    async def send(self) -> None:
        """Copy the process and the checkpoint to the worker, and the results that the process needs.

        What is not there, or not whole, the job reports.
        """
        await self._call(create, self._folder.id)
        await self._send("process")
        await self._send("checkpoint")
        for input_id, folder in results_needed(self._folder):
            await self._call(create_input, self._folder.id, input_id, head_of(folder.process_file))
            await self._send(f"{_INPUT}{input_id}", folder.result_file)
        self._checkpoint = await self._call(checkpoint_stamp, self._folder.id)

    async def _send(self, kind: Kind | str, file: Path | None = None) -> None:
        file = file or _file(self._folder, kind)
        with contextlib.suppress(FileNotFoundError):
            await self._send_pieces(file, write_piece, kind)
            for digest, blob in blobs_of(file).items():
                async with self._sending[digest]:
                    if not await self._call(link_blob, self._folder.id, kind, blob):
                        await self._send_pieces(blob_path(file, digest), write_blob, kind, digest)
                        await self._call(adopt_blob, self._folder.id, kind, digest)

    async def _send_pieces(self, path: Path, write: Callable[..., None], *names: str) -> None:
        with open_regular(path) as file:
            while piece := file.read(PIECE):
                await self._call(write, self._folder.id, *names, piece)

    async def follow(self) -> None:
        """Copy what the job writes as it comes, until cancelled."""
        with contextlib.suppress(OSError):  # the worker is gone, as whoever waits for the job will notice too
            while True:
                await self._copy_news(patient=True)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def follow_checkpoints(self) -> None:
        """Copy what the job saves to go on from, the newest each time, until cancelled; another worker may need it."""
        with contextlib.suppress(OSError, CorruptFileError):
            while True:
                await self._copy_checkpoint(patient=True)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def finish(self, outcome: Outcome) -> Outcome:
        """Copy the rest, remove the copy, and write the outcome, with the job's own folder in its reason."""
        while await self._copy_news(patient=False):
            pass
        with contextlib.suppress(OSError, CorruptFileError):  # the result matters more
            await self._copy_checkpoint(patient=False)
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
        await self._receive("result", self._folder.result_file, _data_of(self._folder))

    async def _copy_checkpoint(self, *, patient: bool) -> None:
        stamp = await self._call(hold_checkpoint, self._folder.id, self._checkpoint, patient=patient)
        if stamp:
            with replacing_checkpoint(self._folder.checkpoint_file) as data:
                await self._receive("held checkpoint", self._folder.checkpoint_file, data)
            self._checkpoint = stamp
            await self._call(release_checkpoint, self._folder.id)

    async def _receive(self, kind: Kind, target: Path, data: SharedData) -> None:
        """Copy a file of the worker, if it is there, with its large data; it appears when it is whole."""
        temporary = temporary_beside(target)
        try:
            if await self._receive_pieces(temporary, kind, ""):
                for digest, blob in blobs_of(temporary).items():
                    if not await asyncio.to_thread(data.link, blob, target):
                        received = _received(target, digest)
                        received.unlink(missing_ok=True)
                        await self._receive_pieces(received, kind, digest)
                        await asyncio.to_thread(data.adopt, received, digest, target)
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    async def _receive_pieces(self, path: Path, kind: Kind, digest: str) -> int:
        offset = 0
        while piece := await self._call(read_piece, self._folder.id, kind, digest, offset):
            append(path, piece)
            offset += len(piece)
        return offset
