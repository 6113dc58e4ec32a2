"""The host of a store's detached jobs: how it comes to be, and that there is only one.

Whoever holds the lock on ``host.lock`` is the host. It is started on demand by :mod:`.detached`, takes the lock,
listens on ``host.sock`` (0600), and forks away from its starter into a session of its own. It ends by itself when it
has had nothing to do for a while, and at once, with its jobs, when its store was deleted. Until the fork it has one
thread and no library that might start one.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from typing import TYPE_CHECKING

from jobcontainer.storage.folder import StoreFolder

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Become the host of a store, or leave it to the one there is; return when it takes requests.

    Args:
        arguments: the store's path.
    """
    store = StoreFolder(arguments[0])
    lock = os.open(store.host_lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    listener = _listen(store)
    socket_made = _identity(store)
    if os.fork() > 0:
        os._exit(0)  # the starter goes on: from here on there is somebody to answer
    os.setsid()
    from jobcontainer.jobs.detached.serving import Host  # noqa: PLC0415 -- only now: it loads libraries that start threads

    host = Host(store)
    try:
        host.serve(listener, can_be_reached=lambda: _identity(store) == socket_made)
    finally:
        if _identity(store) == socket_made:  # else the store was deleted, and what stands there is another's
            store.host_socket_file.unlink(missing_ok=True)  # before the lock goes: the next host makes its own
        listener.close()
        host.end()
        os.close(lock)
    return 0


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
    """Tell the socket that stands in the store from others."""
    try:
        found = store.host_socket_file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
