"""Courier: carries a job's files to a worker that can't see its folder, and back from there while it runs.

It runs in the event loop of the Dask client, one for each attempt. The process file goes as it is, in pieces where it
is large, so that no more than a piece of it is in memory; log, events and progress are fetched as they come; the result
file is fetched in pieces at the end. The outcome is written last: when it stands in the folder, everything else does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobcontainer.engines.dask import remote_folders
from jobcontainer.events import Outcome, event_from_json
from jobcontainer.jobfile.atomic import write_whole

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from jobcontainer.engines.dask.remote_folders import News
    from jobcontainer.storage.folder import JobFolder

_PIECE = 4 << 20
_INLINE = 1 << 20
_PAUSE_SECONDS = 0.1  # between two requests for news


class Courier:
    """Carries the files of one attempt.

    Args:
        folder: the job's folder here.
        call: calls a function in the worker.
    """

    def __init__(self, folder: JobFolder, call: Callable[..., Awaitable[Any]]) -> None:
        """Carry nothing yet."""
        self._folder, self._call = folder, call
        self._log_position = self._position = 0
        self._bars = b""

    async def send(self) -> bytes | None:
        """Bring the process file there.

        Returns:
            Its content, where it is small enough to go with the errand; else None: it is there now, or there is none,
            of which the job will tell.

        Raises:
            OSError: it can't be read, or the worker can't be reached.
        """
        self._folder.result_file.unlink(missing_ok=True)  # of an earlier attempt
        await self._call(remote_folders.drop, self._folder.id)
        if not self._folder.process_file.exists():
            return None
        with self._folder.process_file.open("rb") as file:
            if os.fstat(file.fileno()).st_size <= _INLINE:
                return file.read()
            offset = 0
            while piece := file.read(_PIECE):
                await self._call(remote_folders.put, self._folder.id, offset, piece)
                offset += len(piece)
        return None

    async def follow(self) -> None:
        """Fetch what the job writes as it comes, until cancelled."""
        while True:
            try:
                await self._fetch_news(patient=True)
            except OSError:  # the worker is going; whoever waits for the job will know
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def bring_home(self, outcome: Outcome) -> Outcome:
        """Fetch the rest, and write the outcome.

        Args:
            outcome: as the worker told it.

        Returns:
            The outcome, its log named as it is called here.

        Raises:
            OSError: the worker can't be reached, or a file can't be written.
        """
        while await self._fetch_news(patient=False):
            pass
        await self._fetch_result()
        folder = await self._call(remote_folders.drop, self._folder.id)
        if folder:
            outcome = replace(outcome, reason=outcome.reason.replace(folder, str(self._folder.path)))
        self._folder.append_event(outcome)
        return outcome

    async def abandon(self) -> None:
        """Leave nothing there of a job that did not start, or whose end is not to be had."""
        with contextlib.suppress(OSError):
            await self._call(remote_folders.drop, self._folder.id)

    async def _fetch_news(self, *, patient: bool) -> bool:
        news: News = await self._call(
            remote_folders.news, self._folder.id, self._log_position, self._position, self._bars, patient=patient
        )
        if news.log:
            _append(self._folder.log_file, news.log)
            self._log_position += len(news.log)
        if news.bars:
            write_whole(self._folder.progress_file, news.bars)
            self._bars = news.bars
        for data in news.events:
            event = event_from_json(data)
            if event is not None and not isinstance(event, Outcome):
                self._folder.append_event(event)
        self._position = news.position
        return bool(news)

    async def _fetch_result(self) -> None:
        target = self._folder.result_file
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        offset = 0
        try:
            while piece := await self._call(remote_folders.fetch, self._folder.id, offset):
                _append(temporary, piece)
                offset += len(piece)
            if offset:
                temporary.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def _append(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
