"""The messages between an engine and its keepers; both ends import them from here.

They go over the lifeline, a pair of sockets, with :meth:`multiprocessing.connection.Connection.send`. An order names no
environment: it means the one that was sent last, so that each is sent once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from jobcontainer.events import Outcome
    from jobcontainer.process import Environment
    from jobcontainer.worker.order import Order


class SetEnvironment(NamedTuple):
    """To the keeper: the orders that follow run in this environment."""

    environment: Environment


class RunJob(NamedTuple):
    """To the keeper: run a job; the engine sends no other before its end."""

    order: Order


class CancelJob(NamedTuple):
    """To the keeper: cancel the job of the order with this number, unless it has ended."""

    number: int


class EndKeeper(NamedTuple):
    """To the keeper: kill what runs, and end."""


class JobEnded(NamedTuple):
    """To the engine: how the job of the order with this number ended; its events say so already."""

    number: int
    outcome: Outcome


class KeeperEnded(NamedTuple):
    """To the engine, after :class:`EndKeeper`: nothing is left but the keeper itself, which ends with its executor."""


ToKeeper: TypeAlias = SetEnvironment | RunJob | CancelJob | EndKeeper
ToEngine: TypeAlias = JobEnded | KeeperEnded
