"""Transfer: copies a job's files to a worker that has no access to its folder, and back while the job runs.

One for each such attempt, in the engine's event loop. Files travel in pieces, so that a process or result of a gigabyte
never has to fit into a message, or into the memory of the scheduler, which passes the messages on. The log, the events
and the progress are fetched while the job runs, the result at its end. The outcome is written last: once the folder has
it, the folder is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcontainer.engines.dask import remote_folders
from jobcontainer.events import Outcome, event_from_json
from jobcontainer.jobfile.atomic import temporary_beside, write_whole
from jobcontainer.storage.ending import write_end
from jobcontainer.storage.jsonl import append

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobcontainer.engines.dask.remote_folders import News
    from jobcontainer.storage.folder import JobFolder

_PAUSE_SECONDS = 0.1  # between two requests for news


class Transfer:
    """Copies the files of one attempt.

    Args:
        folder: the job's folder here.
        call: calls a function in the worker's event loop.
    """

    def __init__(self, folder: JobFolder, call: Callable[..., Awaitable[Any]]) -> None:
        """Copy nothing yet."""
        self._folder, self._call = folder, call
        self._log_position = self._position = 0
        self._progress = b""

    async def send(self) -> None:
        """Copy the process file to the worker. If there is none, the job will report it.

        Raises:
            OSError: the file can't be read, or the worker can't be reached.
        """
        await self._call(remote_folders.create, self._folder.id)
        with contextlib.suppress(FileNotFoundError), self._folder.process_file.open("rb") as file:
            while piece := file.read(remote_folders.PIECE):
                await self._call(remote_folders.append, self._folder.id, piece)

    async def follow(self) -> None:
        """Copy what the job writes while it writes it, until cancelled."""
        with contextlib.suppress(OSError):  # the worker is gone, which whoever waits for the job notices too
            while True:
                await self._fetch_news(long_poll=True)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def finish(self, outcome: Outcome) -> Outcome:
        """Copy the rest, remove the folder on the worker, and write the outcome.

        Args:
            outcome: how the job ended on the worker.

        Returns:
            The outcome, with the paths of this machine.

        Raises:
            OSError: the worker can't be reached, or a file can't be written.
        """
        while await self._fetch_news(long_poll=False):
            pass
        await self._fetch_result()
        path = await self._call(remote_folders.remove, self._folder.id)
        if path:
            outcome = replace(outcome, reason=outcome.reason.replace(path, str(self._folder.path)))
        return write_end(self._folder, outcome)

    async def discard(self) -> None:
        """Remove the folder on the worker, of a job that did not start or whose outcome never arrived."""
        with contextlib.suppress(OSError):
            await self._call(remote_folders.remove, self._folder.id)

    async def _fetch_news(self, *, long_poll: bool) -> bool:
        news: News = await self._call(
            remote_folders.read_news,
            self._folder.id,
            self._log_position,
            self._position,
            self._progress,
            long_poll=long_poll,
        )
        if news.log:
            append(self._folder.log_file, news.log)
            self._log_position += len(news.log)
        if news.progress:
            write_whole(self._folder.progress_file, news.progress)
            self._progress = news.progress
        for line in news.events:
            event = event_from_json(line)
            if event is not None and not isinstance(event, Outcome):
                self._folder.append_event(event)
        self._position = news.position
        return not news.is_empty

    async def _fetch_result(self) -> None:
        target = self._folder.result_file
        temporary = Path(temporary_beside(str(target)))
        offset = 0
        try:
            while piece := await self._call(remote_folders.read_result, self._folder.id, offset):
                append(temporary, piece)
                offset += len(piece)
            if offset:
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
