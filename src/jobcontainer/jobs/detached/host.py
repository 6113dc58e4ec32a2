"""The host of a store's detached jobs: a process that outlives the kernels whose jobs it runs.

Whoever holds the lock on ``host.lock`` is the host, so that there is one for each store. A client starts it on demand.
It takes the lock, listens on ``host.sock`` (0600), and forks away from its starter into a session of its own. Until the
fork it has one thread; the engine, whose libraries start some, is loaded after it. It ends by itself when it has had
nothing to do for a while, and at once, with its jobs, when its store was deleted.

The main thread runs an event loop, in which it answers requests; nothing that a client sends, or does not send, ends it
or keeps others waiting. The host owns a scheduler with a loky engine, and so its keepers, which end with it; jobs that
were running then are shown as lost by whoever looks next, as the host is their owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING

from jobcontainer.engines import engine_named
from jobcontainer.jobs.control import start_scheduler
from jobcontainer.jobs.detached.protocol import (
    ANOTHER_STORE,
    LARGEST_REQUEST,
    Request,
    differences,
    message_line,
    peer_of,
    runtime,
)
from jobcontainer.jobs.needs import Needs
from jobcontainer.jobs.submission import Submission
from jobcontainer.process import options_from_json
from jobcontainer.storage.owner import this_process
from jobcontainer.storage.regular_file import open_regular
from jobcontainer.storage.store_folder import StoreFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_IDLE_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_REQUEST_SECONDS = 10.0
_MOST_CLIENTS = 32  # at the same time; with one more, whoever has waited longest is cut off


def main(arguments: Sequence[str]) -> int:
    """Become the host of the store of this path, or leave it to the one there is; return when it takes requests."""
    store = StoreFolder(arguments[0])
    store.check_own()
    lock = open_regular(store.host_lock_file, os.O_RDWR | os.O_CREAT, own=True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    listener = _listen(store)
    socket_made = _identity(store)
    if os.fork() > 0:
        os._exit(0)  # the starter goes on: from here on requests are answered
    os.setsid()
    host = Host(store)
    try:
        asyncio.run(host.serve(listener, can_be_reached=lambda: _identity(store) == socket_made))
    finally:
        if _identity(store) == socket_made:  # else the store was deleted, and the socket there is another's
            store.host_socket_file.unlink(missing_ok=True)  # before the lock goes: the next host makes its own
        listener.close()
        host.end()
        lock.close()
    return 0


class Host:
    """Runs the detached jobs of one store."""

    def __init__(self, store: StoreFolder) -> None:
        self._store = store
        self._taken: set[str] = set()
        self._control = start_scheduler(engine_named("loky", None), store)
        self._runtime = runtime()  # what it has loaded; an upgrade changes the files alone
        self._clients: dict[int, asyncio.StreamWriter] = {}  # those that have no answer yet, the oldest first
        self._is_to_end = asyncio.Event()

    async def serve(self, listener: socket.socket, can_be_reached: Callable[[], bool]) -> None:
        """Answer requests until there has been nothing to do for a while, or nobody can come any more."""
        server = await asyncio.start_unix_server(self._meet, sock=listener, limit=LARGEST_REQUEST)
        until = time.monotonic() + _IDLE_SECONDS
        while can_be_reached() and time.monotonic() < until and not self._is_to_end.is_set():
            if self._control.scheduler.unfinished() or self._clients:
                until = time.monotonic() + _IDLE_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_to_end.wait(), _LOOK_SECONDS)
        server.close()

    def end(self) -> None:
        """End every process of the host."""
        self._control.scheduler.end()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client; one that sends nothing for too long, or too much, gets no answer."""
        self._clients[id(writer)] = writer
        if len(self._clients) > _MOST_CLIENTS:
            next(iter(self._clients.values())).transport.abort()
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                if not peer_of(writer.get_extra_info("socket"))[1]:
                    line = await reader.readline()
                    writer.write(self._answer(line) if line else b"")
                    await writer.drain()
        except (OSError, ValueError):  # it is gone, or too slow, or its request too long
            pass
        finally:
            del self._clients[id(writer)]
            writer.close()

    def _answer(self, line: bytes) -> bytes:
        """Return the answer to a request, whatever it holds."""
        try:
            request = Request.from_line(line)
            if differing := differences(self._runtime | {"key": runtime()["key"]}, request.runtime):
                return self._answer_to_other(differing)
            refused = self._take(request)
        except (ValueError, TypeError, KeyError, OSError) as error:  # nonsense, there or in the folder of a job
            refused = str(error)
        except Exception:  # noqa: BLE001 -- whatever it is, the jobs of others go on
            traceback.print_exc()
            refused = f"it failed. Please report what is at the end of {self._store.host_log_file}."
        return message_line(refused=refused) if refused else message_line(owner=this_process(), taken=True)

    def _answer_to_other(self, differing: str) -> bytes:
        """Make way for a host of a client's version and environment, unless jobs run."""
        if unfinished := len(self._control.scheduler.unfinished()):
            return message_line(refused=f"{differing} Its jobs that have not ended: {unfinished}. {ANOTHER_STORE}")
        self._is_to_end.set()
        return message_line(ending=True)

    def _take(self, request: Request) -> str:
        """Queue jobs, and return why not; a request that comes twice, because its answer was lost, counts once."""
        if request.environment is None:
            return ""
        folders = [self._store.job(job_id) for job_id in request.jobs if job_id not in self._taken]
        for folder in folders:
            folder.check_own()
        records = [folder.read_record() for folder in folders]
        if any(record.owner != this_process() for record in records):
            return "the jobs were written for an earlier host, which is gone; submit them again."
        submissions = [
            Submission(
                folder,
                record.name,
                record.submitted,
                options_from_json(record.options),
                request.environment,
                needs=Needs(record.inputs),
            )
            for folder, record in zip(folders, records, strict=True)
        ]
        self._taken.update(request.jobs)
        self._control.submit(submissions)
        return ""


def _listen(store: StoreFolder) -> socket.socket:
    """Listen on the store's socket, by a path relative to it: those of sockets are limited to 107 bytes."""
    listener = socket.socket(socket.AF_UNIX)
    store.host_socket_file.unlink(missing_ok=True)  # of a host that was killed
    os.chdir(store.path)
    umask = os.umask(0o177)
    listener.bind(store.host_socket_file.name)
    os.umask(umask)
    listener.listen(64)
    return listener


def _identity(store: StoreFolder) -> tuple[int, int] | None:
    """Return device and inode of the socket in the store; None where there is none."""
    try:
        found = store.host_socket_file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
