"""The host of a store's detached jobs: a process that outlives the kernels whose jobs it runs.

Whoever holds the lock on ``host.lock`` is the host, so that there is one for each store. A client starts it on demand.
It takes the lock, listens on ``host.sock`` (0600), and forks away from its starter into a session of its own. Until the
fork it has one thread; the engine, whose libraries start some, is loaded after it. It ends by itself when it has had
nothing to do for a while, and at once, with its jobs, when its store was deleted.

The main thread answers requests, one at a time. The host owns a scheduler with a loky engine, and so its keepers, which
end with it; jobs that were running then are shown as lost by whoever looks next, as the host is their owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from jobcontainer.engines import engine_named
from jobcontainer.jobs.control import start_scheduler
from jobcontainer.jobs.detached.client import receive, send
from jobcontainer.jobs.submission import Submission
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.folder import StoreFolder
from jobcontainer.storage.owner import this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_IDLE_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_REQUEST_SECONDS = 10.0
_CLIENT_ERRORS = OSError, ValueError, TypeError, KeyError  # of one that is gone, or that sends nonsense


def main(arguments: Sequence[str]) -> int:
    """Become the host of the store of this path, or leave it to the one there is; return when it takes requests."""
    store = StoreFolder(arguments[0])
    lock = os.open(store.host_lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        host.serve(listener, can_be_reached=lambda: _identity(store) == socket_made)
    finally:
        if _identity(store) == socket_made:  # else the store was deleted, and the socket there is another's
            store.host_socket_file.unlink(missing_ok=True)  # before the lock goes: the next host makes its own
        listener.close()
        host.end()
        os.close(lock)
    return 0


class Host:
    """Runs the detached jobs of one store."""

    def __init__(self, store: StoreFolder) -> None:
        self._store = store
        self._taken: set[str] = set()
        self._control = start_scheduler(engine_named("loky", None), store)

    def serve(self, listener: socket.socket, can_be_reached: Callable[[], bool]) -> None:
        """Answer requests until there has been nothing to do for a while, or nobody can come any more."""
        listener.settimeout(_LOOK_SECONDS)
        until = time.monotonic() + _IDLE_SECONDS
        while can_be_reached():
            if self._control.scheduler.unfinished():
                until = time.monotonic() + _IDLE_SECONDS
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if time.monotonic() > until:
                    return
                continue
            until = time.monotonic() + _IDLE_SECONDS
            with connection, contextlib.suppress(*_CLIENT_ERRORS):
                connection.settimeout(_REQUEST_SECONDS)
                send(connection, self._answer(receive(connection)))

    def end(self) -> None:
        """End every process of the host."""
        self._control.scheduler.end()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Queue jobs; a request that comes twice, because its answer was lost, counts once."""
        if not request:
            return {"owner": this_process()}
        job_ids, given = request["jobs"], request["environment"]
        environment = Environment(**given | {"sys_path": tuple(given["sys_path"])})
        folders = [self._store.job(job_id) for job_id in job_ids if job_id not in self._taken]
        records = [folder.read_record() for folder in folders]
        if any(record.owner != this_process() for record in records):
            return {"refused": "the jobs were written for an earlier host, which is gone; submit them again."}
        self._taken.update(job_ids)
        self._control.submit(
            [
                Submission(folder, record.name, record.submitted, JobOptions(**record.options), environment)
                for folder, record in zip(folders, records, strict=True)
            ]
        )
        return {"taken": True}


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
