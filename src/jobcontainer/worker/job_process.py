"""Fresh processes: never used, waiting for the one job that each will run.

A keeper makes one ahead of time, so that a job does not wait for it. :func:`fork` copies the keeper, with all that it
has imported, in a millisecond or two. :func:`start` makes a new interpreter, for systems where a fork is not to be had;
that takes a hundred times as long.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import socket
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NoReturn

from jobcontainer.errors import UntrustedFileError
from jobcontainer.jobfile import signing
from jobcontainer.pickling import source_code
from jobcontainer.worker import isolation, limits
from jobcontainer.worker.environment import were_taken_over
from jobcontainer.worker.reporting import log
from jobcontainer.worker.run import live

if TYPE_CHECKING:
    from collections.abc import Iterable
    from multiprocessing.process import BaseProcess

    from jobcontainer.process import Environment
    from jobcontainer.worker.order import Order


READY = b"{}"
"""What a process that was started anew tells before it waits for an order."""


class JobProcess:
    """A job's process, as its keeper sees it.

    Args:
        pid: its process id.
        channel: the keeper's end of the channel.
        told: the environment that it knows already.
        handle: what :mod:`multiprocessing` holds of it, if that started it.

    Attributes:
        exited: becomes readable when the process has ended.
        starting: whether it has yet to tell that it is ready.
    """

    def __init__(
        self, pid: int, channel: Connection, told: Environment | None, handle: BaseProcess | None = None
    ) -> None:
        """Watch for its end."""
        self.pid, self.channel, self.told = pid, channel, told
        self._handle = handle
        self.starting = handle is not None
        self._watches = handle is None or hasattr(os, "pidfd_open")
        self.exited: int = os.pidfd_open(pid) if self._watches else handle.sentinel  # type: ignore[union-attr]

    def give(self, order: Order) -> None:
        """Send it an order.

        Raises:
            OSError: it has ended.
        """
        self.channel.send_bytes(order.packed())
        self.told = order.environment or self.told

    def interrupt(self) -> None:
        """Ask its whole process group to stop, as Ctrl-C in a terminal does."""
        try:
            os.killpg(self.pid, signal.SIGINT)
        except ProcessLookupError:  # it is so young that it leads no group yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)

    def trace(self) -> None:
        """Ask it to write the traceback of every thread into its log."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, log.TRACE_SIGNAL)

    def kill(self) -> None:
        """Kill it; not what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> int | None:
        """Wait for its end, and let go of everything that was held for it.

        Returns:
            Its exit code; negative for a signal.
        """
        self.channel.close()
        if self._watches:
            os.close(self.exited)
        if self._handle is None:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._handle.join()
        code = self._handle.exitcode
        self._handle.close()
        return code


def fork(environment: Environment | None) -> JobProcess:
    """Fork a process that waits for an order.

    Args:
        environment: what the order will mean if it names none; the keeper has taken them over where it could.
    """
    ours, theirs = (end.detach() for end in socket.socketpair())
    keeper, pid = os.getpid(), os.fork()
    if pid == 0:
        _live_clean(keeper, theirs, environment)
    os.close(theirs)
    isolation.volunteer(pid)
    return JobProcess(pid, Connection(ours), environment)


def start(environment: Environment | None, preload: Iterable[str]) -> JobProcess:
    """Start a new interpreter that waits for an order.

    Args:
        environment: what the order will most likely name.
        preload: the modules that it imports meanwhile.
    """
    ours, theirs = multiprocessing.Pipe()
    arguments = (os.getpid(), theirs, environment, tuple(preload))
    process = multiprocessing.get_context("spawn").Process(target=_begin, args=arguments)
    process.start()
    theirs.close()
    isolation.volunteer(process.pid or 0)
    return JobProcess(process.pid or 0, ours, environment, process)


def load_ahead(preload: Iterable[str]) -> None:
    """Do what every job would have to: read the key, import modules, set hooks. What can't be done, a job will tell."""
    with contextlib.suppress(UntrustedFileError):
        signing.sign(b"")
    for name in preload:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    source_code.let_inspect_find_classes()


def _begin(keeper: int, channel: Connection, environment: Environment | None, preload: tuple[str, ...]) -> None:
    """Live in a new interpreter."""
    isolation.settle_in(forks=True)
    log.prepare_streams()
    load_ahead(preload)
    limits.find_thread_pools()
    if environment is not None:
        were_taken_over(environment, None)
    channel.send_bytes(READY)
    _live_clean(keeper, channel.fileno(), environment)


def _live_clean(keeper: int, channel: int, environment: Environment | None) -> NoReturn:
    """Be a job's process, whatever happens; never return into the keeper's code."""
    leave = os._exit  # user code may change the module
    try:
        live(Connection(isolation.become_clean(keeper, channel)), environment)
    finally:
        leave(70)  # EX_SOFTWARE in C's sysexits.h; live never returns
