"""Detached jobs from the side of the process that submits them: the store's host runs them, this process watches.

Jobs are written for one host, their owner: if it is killed before it takes them, the next one refuses them. A host that
is not there is started.

Host and client exchange one line of JSON each way for a connection. ``{}`` is answered with the host as ``owner``. A
request with ``jobs`` (ids) and the ``environment`` of them all is answered with ``taken``, or with ``refused`` and why.
A job is cancelled without a request, by the file in its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import JobContainerError
from jobcontainer.jobs.control import StoreControl
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.worker.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.submission import Submission
    from jobcontainer.storage.folder import StoreFolder

_START_SECONDS = 30.0
_ANSWER_SECONDS = 30.0


class DetachedJobs:
    """Sends jobs to the host of a store.

    Raises:
        JobContainerError: the host can't be started.
    """

    def __init__(self, store: StoreFolder) -> None:
        self._store = store
        self.submitter = Submitter(store, owner=self._ask({})["owner"])

    def submit(self, submissions: Sequence[Submission]) -> list[Job[Any]]:
        """Hand job folders over, and return handles that watch them.

        Raises:
            JobContainerError: the host was killed since.
        """
        return uninterrupted(partial(self._submit, submissions))

    def _submit(self, submissions: Sequence[Submission]) -> list[Job[Any]]:
        write_records(submissions)
        if submissions:
            jobs = [submission.folder.id for submission in submissions]
            self._ask({"jobs": jobs, "environment": asdict(submissions[0].environment)})
        control = StoreControl(self._store)
        return [control.open(submission.folder) for submission in submissions]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with self._connection() as connection:
                    send(connection, request)
                    answer = receive(connection)
                break
            except (OSError, ValueError) as error:  # there is no host, or it ended just now
                if time.monotonic() > deadline:
                    raise JobContainerError(
                        f"The host of detached jobs in {self._store.path} does not answer ({error}). "
                        f"Its errors are in {self._store.host_log_file}."
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


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send a request or an answer."""
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket) -> dict[str, Any]:
    """Receive a request or an answer; ValueError where the other end closed the connection or sent no JSON."""
    message: dict[str, Any] = json.loads(connection.makefile("rb").readline())
    return message
