"""The messages between a store's host and its clients: one line of JSON each way for a connection.

=========  ============================================  =====================================================
request    carries                                       answer
=========  ============================================  =====================================================
`hello`    nothing                                       `owner`: the host, as jobs are to name it
`submit`   `jobs`: ids; `environment`: that of them all  `taken`, or `refused`: why they were not
=========  ============================================  =====================================================

A job is cancelled without a request, by the file in its folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jobcontainer.process import Environment

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

HELLO = {"request": "hello"}


def submit_request(job_ids: Iterable[str], environment: Environment) -> dict[str, Any]:
    """Return the request to run jobs whose folders are ready."""
    return {"request": "submit", "jobs": list(job_ids), "environment": asdict(environment)}


def environment_of(request: dict[str, Any]) -> Environment:
    """Return the environment that a request carries."""
    given = request["environment"]
    return Environment(**given | {"sys_path": tuple(given["sys_path"])})


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send a request or an answer."""
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket) -> dict[str, Any]:
    """Receive a request or an answer.

    Raises:
        OSError: the other end does not send one in time.
        ValueError: what it sent is no JSON, or it closed the connection.
    """
    message: dict[str, Any] = json.loads(connection.makefile("rb").readline())
    return message
