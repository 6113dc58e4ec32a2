"""What a client and the host of detached jobs send each other; both ends import it.

A connection is for one request and its answer, a line of JSON each. A request without ``jobs`` is answered with the
host as ``owner``; one with ``jobs`` (ids) and the ``environment`` of them all with ``taken``. Either may be answered
with ``refused``, a sentence for the user, or with ``ending``: the host ends now, and the client starts another.

Each request and answer carries the ``protocol``, and each request the ``runtime`` of its client. A host outlives
upgrades of the package, and a store is used from several environments. Its keepers would then load another version than
itself, and its jobs run in the wrong environment or with a key that the client lacks; so it works for clients of its
own runtime only. The key is compared by a signature that is of no use for anything else.

Both ends ask the kernel which user the other one is, as a path can lead to anybody's socket.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

from jobcontainer.errors import UntrustedFileError
from jobcontainer.jobfile import signing
from jobcontainer.jobfile.inputs import is_name
from jobcontainer.jobfile.ownership import this_user, user_name
from jobcontainer.process import Environment

PROTOCOL: Final = 1

ANOTHER_STORE: Final = "Wait for its jobs, cancel them, or use another store, by JOBCONTAINER_HOME."

LARGEST_REQUEST: Final = 32 * 2**20
"""Bytes; those of some hundred thousand jobs."""

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_WORDS: Final = {
    "jobcontainer": "jobcontainer {}",
    "python": "Python {}",
    "prefix": "the Python environment {}",
    "key": "another key",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for.

    Attributes:
        runtime: of the client.
        jobs: the ids of jobs that the host shall run; none where the client only wants to know the host.
        environment: what they start with.
    """

    runtime: dict[str, str]
    jobs: tuple[str, ...] = ()
    environment: Environment | None = None

    @classmethod
    def from_line(cls, line: bytes) -> Request:
        """Read a request.

        Raises:
            ValueError: it is none, or one of another protocol; the message says what to do.
        """
        message = message_from_line(line)
        if message.get("protocol") != PROTOCOL:
            raise ValueError(f"it is of another version of jobcontainer. {ANOTHER_STORE}")
        jobs, given, theirs = message.get("jobs", []), message.get("environment"), message.get("runtime")
        if not isinstance(jobs, list) or not all(map(_is_id, jobs)):
            raise ValueError("the request is none.")
        environment = None if given is None else Environment.from_json(given)
        if jobs and environment is None:
            raise ValueError("the request has jobs and no environment.")
        if not isinstance(theirs, dict) or not all(isinstance(theirs.get(name), str) for name in _WORDS):
            raise ValueError("the request does not say what its client is.")
        return cls(theirs, tuple(dict.fromkeys(jobs)), environment)


def message_line(**content: Any) -> bytes:
    """Return a request or an answer as a line."""
    return json.dumps({"protocol": PROTOCOL, **content}).encode() + b"\n"


def message_from_line(line: bytes) -> dict[str, Any]:
    """Read a request or an answer.

    Raises:
        ValueError: it is none.
    """
    try:
        message = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply.") from error
    if not isinstance(message, dict):
        raise ValueError("it is no JSON object.")  # noqa: TRY004 -- of text, which has no types
    return message


def runtime() -> dict[str, str]:
    """Return what must be the same in a host and its client: versions, environment and key."""
    try:
        key = signing.sign(signing.Purpose.HOST, b"").hex()
    except UntrustedFileError as error:
        key = str(error)
    return {
        "jobcontainer": metadata.version("jobcontainer"),
        "python": ".".join(map(str, sys.version_info[:3])),
        "prefix": sys.prefix,
        "key": key,
    }


def differences(host: dict[str, str], client: dict[str, str]) -> str:
    """Return in what a host's runtime differs from a client's, in a sentence; empty where it does not.

    Example:
        >>> differences({"python": "3.11.7"}, {"python": "3.12.1"})
        'It has Python 3.11.7, and this is Python 3.12.1.'
    """
    names = [name for name in _WORDS if host.get(name) != client.get(name)]
    if not names:
        return ""
    has = ", ".join(_WORDS[name].format(host.get(name)) for name in names)
    here = ", ".join(_WORDS[name].format(client.get(name)) for name in names if name != "key")
    return f"It has {has}" + (f", and this is {here}." if here else ".")


def peer_of(connection: socket.socket) -> tuple[int, str]:
    """Return the pid of the process at the other end, and why it is not this user's; the latter empty where it is.

    Of a socket that was listened on, it is the process that did so first.
    """
    pid, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, "" if user == this_user() else f"belongs to {user_name(user)}"


def _is_id(job_id: object) -> bool:
    """Whether something can be the name of a job's folder, and of nothing outside the store."""
    return isinstance(job_id, str) and is_name(job_id)
