"""Far: the folders of jobs that run in a worker which can't see their own, and what the client takes from there.

The folders lie below the worker's, each under a name of its own, so that another attempt finds nothing of the last. All
of it is called in the worker's event loop, but for :func:`take_in`, which the task calls before its job starts; the
client asks for no news of a job before that.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobcontainer.events import event_to_json
from jobcontainer.storage.folder import JobFolder

_NEWS_SECONDS = 0.05
_QUIET_SECONDS = 10.0  # after which a client that waits for news is told that there is none
_PIECE = 4 << 20

_folders: dict[str, JobFolder] = {}
_place = ""


@dataclass(frozen=True, slots=True)
class News:
    """What a far job has written since the last time.

    Attributes:
        log: what was printed.
        events: as :func:`jobcontainer.events.event_to_json` gives them.
        position: up to where the events were read.
        bars: the progress record; empty if it is as it was.
    """

    log: bytes = field(repr=False)
    events: list[dict[str, Any]]
    position: int
    bars: bytes = field(repr=False)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.log or self.events or self.bars)


def settle(place: str) -> None:
    """Say where the folders go."""
    global _place  # noqa: PLW0603 -- one worker in a process
    _place = place


def take_in(job_id: str, content: bytes | None) -> JobFolder:
    """Return the folder of a job.

    Args:
        job_id: the job.
        content: of its process file; None where it was sent ahead in pieces, or is not there.
    """
    folder = _folders.get(job_id) or _new(job_id)
    if content is not None:
        folder.process_file.write_bytes(content)
    return folder


def put(job_id: str, offset: int, piece: bytes) -> None:
    """Take a piece of a far job's process file; the pieces come in their order."""
    folder = _new(job_id) if offset == 0 else _folders[job_id]
    with folder.process_file.open("ab") as file:
        file.write(piece)


async def news(job_id: str, log_position: int, position: int, bars: bytes, *, patient: bool) -> News:
    """Tell what a far job has written.

    Args:
        job_id: the job.
        log_position: up to where its log is known.
        position: up to where its events are known.
        bars: the progress record as it is known.
        patient: whether to wait until there is something to tell.
    """
    until = time.monotonic() + (_QUIET_SECONDS if patient else 0.0)
    while True:
        found = _news(job_id, log_position, position, bars)
        if found or time.monotonic() >= until:
            return found
        await asyncio.sleep(_NEWS_SECONDS)


def fetch(job_id: str, offset: int) -> bytes:
    """Return a piece of a far job's result file; empty at its end, and where there is none."""
    try:
        with _folders[job_id].result_file.open("rb") as file:
            file.seek(offset)
            return file.read(_PIECE)
    except FileNotFoundError:
        return b""


def drop(job_id: str) -> str:
    """Remove what is left of a far job, and return where it was; empty where there is nothing."""
    folder = _folders.pop(job_id, None)
    if folder is None:
        return ""
    shutil.rmtree(folder.path.parent, ignore_errors=True)
    return str(folder.path)


def _news(job_id: str, log_position: int, position: int, bars: bytes) -> News:
    folder = _folders.get(job_id)
    if folder is None:
        return News(b"", [], position, b"")
    events, position = folder.read_events(position)
    try:
        now = folder.progress_file.read_bytes()
    except FileNotFoundError:
        now = b""
    log = folder.read_log(log_position, _PIECE)
    return News(log, [event_to_json(event) for event in events], position, b"" if now == bars else now)


def _new(job_id: str) -> JobFolder:
    """Make a folder for a far job; its name within is the job's id, by which it is cancelled."""
    drop(job_id)
    folder = JobFolder(Path(tempfile.mkdtemp(prefix="jobcontainer-", dir=_place), job_id))
    folder.create()
    _folders[job_id] = folder
    return folder
