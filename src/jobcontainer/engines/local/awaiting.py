"""What an interpreter does that was started ahead: load what a keeper is made of, wait, and become loky's worker.

It ends when the process that started it does. One thread.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from multiprocessing import process
from typing import Any, NoReturn

from jobcontainer.engines.local.lazily import standing_in
from jobcontainer.worker import isolation
from jobcontainer.worker import keeper as keeper  # noqa: PLC0414 -- what the worker will run

with standing_in("psutil", "Process"):  # what loky measures its workers with; a keeper has other means
    from jobcontainer.engines.local import lean

_MOST_DESCRIPTORS = 250  # in one message; the kernel takes 253


def live(number: int) -> NoReturn:
    """Wait for the word of what to be, and be it.

    Args:
        number: the descriptor of the channel to the process that started this one.
    """
    isolation.leave_session()
    os.set_inheritable(number, False)  # noqa: FBT003 -- takes no names
    os.closerange(3, number)
    os.closerange(number + 1, os.sysconf("SC_OPEN_MAX"))
    channel = socket.socket(fileno=number)
    length, lean.handed[:] = _first_word(channel)
    with channel.makefile("rb") as stream:
        environ, preparation, described = pickle.loads(stream.read(length))  # noqa: S301 -- from our parent
    os.environ.clear()
    os.environ.update(environ)
    lean.spawn.prepare(preparation)
    current: Any = process.current_process()
    current._inheriting = True  # noqa: SLF001 -- as in loky's own start of a worker
    try:
        worker = pickle.loads(described)  # noqa: S301 -- as above
    finally:
        del current._inheriting  # noqa: SLF001 -- as above
    code = worker._bootstrap()  # noqa: SLF001 -- as above
    channel.close()  # not before: its end is this worker's
    sys.exit(code)


def _first_word(channel: socket.socket) -> tuple[int, list[int]]:
    """Receive the length of what follows, and the descriptors that come with it."""
    try:
        head, descriptors, *_ = socket.recv_fds(channel, 8, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        os._exit(0)
    if not head:  # the other side has ended
        os._exit(0)
    return int.from_bytes(head, "big"), descriptors
