"""Speaking with the host of a store's detached jobs: a line of JSON each way over its socket.

There is no state here but the store's path. A host that is not there is started.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import JobContainerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobcontainer.storage.folder import StoreFolder

_START_SECONDS = 30.0
_ANSWER_SECONDS = 30.0


class HostClient:
    """Speaks with the host of a store.

    Args:
        store: the store.
    """

    def __init__(self, store: StoreFolder) -> None:
        """Name the store; the host is started with the first job."""
        self._store = store

    def cancel(self, job_ids: Sequence[str]) -> set[str]:
        """End jobs of the host; return those that it has, none where there is no host."""
        if job_ids:
            with contextlib.suppress(OSError, ValueError), self._connection() as connection:
                return set(_exchange(connection, {"do": "cancel", "jobs": list(job_ids)})["cancelled"])
        return set()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask the host, starting it where there is none.

        Raises:
            JobContainerError: it can't be started, or refuses.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with self._connection() as connection:
                    answer = _exchange(connection, request)
                break
            except (OSError, ValueError) as error:  # there is no host, or it ended just now
                if time.monotonic() > deadline:
                    raise JobContainerError(
                        f"The host of detached jobs in {self._store.path} does not answer ({error}). "
                        f"What it said is in {self._store.host_log_file}."
                    ) from error
            self._start()
        if "refused" in answer:
            raise JobContainerError(f"The host of detached jobs refused: {answer['refused']}")
        return answer

    def _start(self) -> None:
        """Start a host, unless there is one; return when it listens."""
        with self._store.host_log_file.open("ab") as log:
            subprocess.run(  # noqa: S603 -- this very Python
                [sys.executable, "-m", "jobcontainer.jobs.detached.host", str(self._store.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that an interrupt of the kernel does not reach it
                timeout=_START_SECONDS,
                check=True,
            )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        """Connect through the folder's descriptor: the path itself may be too long for a socket's."""
        folder = os.open(self._store.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_ANSWER_SECONDS)
                connection.connect(f"/proc/self/fd/{folder}/{self._store.host_socket_file.name}")
                yield connection
        finally:
            os.close(folder)


def _exchange(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    connection.sendall(json.dumps(request).encode() + b"\n")
    answer: dict[str, Any] = json.loads(connection.makefile("rb").readline())
    return answer
