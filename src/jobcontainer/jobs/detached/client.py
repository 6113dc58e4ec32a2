"""Detached jobs from the side of the process that submits them: the store's host runs them, this process watches.

Jobs are written for one host, their owner: if it is killed before it takes them, the next one refuses them. A host that
is not there is started. What is sent is in :mod:`jobcontainer.jobs.detached.protocol`; a job is cancelled without a
request, by the file in its folder.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import JobContainerError
from jobcontainer.jobfile.open_file import open_folder
from jobcontainer.jobs.control import StoreControl
from jobcontainer.jobs.detached.protocol import (
    ANOTHER_STORE,
    LARGEST_REQUEST,
    PROTOCOL,
    message_from_line,
    message_line,
    peer_of,
    runtime,
)
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.storage.regular_file import open_regular
from jobcontainer.worker.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.submission import Submission
    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.store_folder import StoreFolder

_START_SECONDS = 30.0
_ANSWER_SECONDS = 30.0


class DetachedJobs:
    """Sends jobs to the host of a store.

    Raises:
        JobContainerError: the host can't be started, or is of another version; the message says what to do.
        PermissionError: the store is another user's.
    """

    def __init__(self, store: StoreFolder) -> None:
        self._store = store
        self._host = ""  # how errors name it
        self.submitter = Submitter(store, owner=self._ask({})["owner"])

    def submit(self, submissions: Sequence[Submission]) -> list[Job[Any]]:
        """Hand job folders over, and return handles that watch them.

        Raises:
            JobContainerError: the host was killed since.
        """
        return uninterrupted(partial(self._submit, submissions))

    def open(self, folder: JobFolder) -> Job[Any]:
        """Return the handle of a job of the store; see :meth:`jobcontainer.jobs.control.StoreControl.open`."""
        return StoreControl(self._store).open(folder)

    def _submit(self, submissions: Sequence[Submission]) -> list[Job[Any]]:
        write_records(submissions)
        if submissions:
            jobs = [submission.folder.id for submission in submissions]
            self._ask({"jobs": jobs, "environment": asdict(submissions[0].environment)})
        control = StoreControl(self._store)
        return [control.open(submission.folder) for submission in submissions]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request to the host, and return its answer; start a host where there is none."""
        deadline = time.monotonic() + _START_SECONDS
        self._host = ""
        while True:
            self._store.check_own()
            try:
                answer = self._answer_to(request)
            except (OSError, ValueError) as error:  # there is no host, or it ended just now, or ends
                if time.monotonic() > deadline:
                    raise JobContainerError(
                        f"The host of detached jobs in {self._store.path}{self._host} does not answer ({error}). Its "
                        f"errors are in {self._store.host_log_file}. One that hangs, or is of an older jobcontainer, "
                        "can be killed: its running jobs are lost then, and can be submitted again."
                    ) from error
            else:
                break
            self._start()
        if answer.get("protocol") != PROTOCOL:
            answer = {"refused": f"it is of another version of jobcontainer. {ANOTHER_STORE}"}
        if "refused" in answer:
            raise JobContainerError(
                f"The host of detached jobs in {self._store.path}{self._host} refused: {answer['refused']}"
            )
        return answer

    def _answer_to(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._connection() as connection:
            pid, foreign = peer_of(connection)
            if foreign:
                raise JobContainerError(
                    f"What listens on {self._store.host_socket_file}, process {pid}, {foreign}: nothing was sent to "
                    "it. Set JOBCONTAINER_HOME to a folder of your own."
                )
            self._host = f", process {pid},"
            connection.sendall(message_line(runtime=runtime(), **request))
            with connection.makefile("rb") as answers:
                answer = message_from_line(answers.readline(LARGEST_REQUEST))
        if "ending" in answer:
            raise ValueError("it makes way for one of this version, environment and key")
        return answer

    def _start(self) -> None:
        """Start a host, unless there is one; return when it listens.

        It does not look for modules in the working directory, where a ``random.py`` may lie.
        """
        with open_regular(self._store.host_log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, own=True) as log:
            try:
                subprocess.run(  # noqa: S603 -- this very Python
                    [sys.executable, "-P", "-m", "jobcontainer.jobs.detached.host", str(self._store.path)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # so that an interrupt of the kernel does not reach it
                    timeout=_START_SECONDS,
                    check=True,
                )
            except subprocess.SubprocessError as error:
                raise JobContainerError(
                    f"The host of detached jobs in {self._store.path} can't be started ({error}). Its errors are in "
                    f"{self._store.host_log_file}."
                ) from error

    @contextlib.contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        """Connect through the folder's descriptor: the path itself may be too long for a socket's."""
        with open_folder(self._store.path) as folder, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(f"/proc/self/fd/{folder}/{self._store.host_socket_file.name}")
            yield connection
