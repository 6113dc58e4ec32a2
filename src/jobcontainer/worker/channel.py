"""Channel: a pair of sockets between a keeper and the process of a job. Orders go down it, and reports come up.

A report is one line of JSON: ``{}`` from a new interpreter that waits for an order, then how the job ended. The job's
code has the same descriptor, and may close it, give its number to a file, or send what it likes. So the keeper never
waits for a line to be whole, takes no more than 64 KiB, and looks at each field; one who sent nonsense is not listened
to again. And the job's end is used only while it is the socket that it was.
"""

from __future__ import annotations

import json
import math
import socket
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.events import JobState
from jobcontainer.storage.own_descriptor import OwnDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

    from jobcontainer.worker.keeper_protocol import Order

_MOST_BYTES: Final = 1 << 16  # of a report, which takes some thousands
_ENDS: Final = {JobState.SUCCEEDED, JobState.FAILED, JobState.CRASHED, JobState.CANCELLED}
_MOST: Final = 2**63  # numbers from here on are nonsense


class Channel:
    """One end of the channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received = b""
        self._own = OwnDescriptor(connection.fileno())

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._connection.fileno()

    def close(self) -> None:
        """Close this end."""
        self._connection.close()

    # --- the keeper's end -------------------------------------------------------------------------------------------

    def send_order(self, order: Order) -> None:
        """Send an order to a process that waits for one; an OSError if it has ended."""
        self._connection.send(order)

    def receive_report(self) -> dict[str, Any] | None:
        """Return a report that has come, as :func:`checked` does; None where it is not there yet. Never waits.

        Raises:
            EOFError: nothing more will come, or it is nonsense.
        """
        end = socket.socket(fileno=self.fileno())
        try:
            data = end.recv(_MOST_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        finally:
            end.detach()
        line, newline, rest = (self._received + data).partition(b"\n")
        if newline:
            self._received = rest
            return checked(line)
        self._received = line
        if not data or len(line) >= _MOST_BYTES:
            raise EOFError
        return None

    def has_more(self) -> bool:
        """Whether something has come that nobody asked for."""
        return bool(self._received) or self._connection.poll()

    # --- the job's end ----------------------------------------------------------------------------------------------

    def receive_order(self) -> Order:
        """Wait for an order.

        Raises:
            EOFError: there is no keeper any more, or no channel.
            OSError: as above.
        """
        if not self._own.is_there():
            raise EOFError
        order: Order = self._connection.recv()
        return order

    def send_report(self, report: Mapping[str, Any]) -> None:
        """Send a report.

        Raises:
            OSError: user code has closed the channel; the keeper will find the result file.
        """
        self._own.write(json.dumps(report).encode() + b"\n")


def checked(line: bytes) -> dict[str, Any]:
    r"""Return what a job has reported, without fields that mean nothing.

    Raises:
        EOFError: it is no report.

    Example:
        >>> checked(b'{"state": "succeeded", "cpu": 0.1, "odd": 1}')
        {'state': 'succeeded', 'cpu': 0.1}
    """
    try:
        given = json.loads(line)
        if not isinstance(given, dict) or not all(_FIELDS[name](given[name]) for name in _FIELDS.keys() & given.keys()):
            raise EOFError
    except (ValueError, RecursionError) as error:
        raise EOFError from error
    if given and "state" not in given:
        raise EOFError
    return {name: value for name, value in given.items() if name in _FIELDS}


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value) and 0 <= value < _MOST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_identity(value: Any) -> bool:
    identity = 4  # numbers; see FileIdentity
    return value is None or (
        isinstance(value, list) and len(value) == identity and all(type(one) is int for one in value)
    )


_FIELDS: Final[dict[str, Callable[[Any], bool]]] = {
    "state": lambda value: _is_text(value) and value in _ENDS,
    "stopped": lambda value: isinstance(value, bool),
    "cpu": _is_number,
    "peak_memory": lambda value: _is_number(value) and isinstance(value, int),
    "error_type": _is_text,
    "error_message": _is_text,
    "hint": _is_text,
    "exit_code": lambda value: _is_number(value) and isinstance(value, int),
    "exit_argument": _is_text,
    "result_identity": _is_identity,
    "imported": lambda value: isinstance(value, list) and all(map(_is_text, value)),
}
"""What each field of a report may be."""
