"""Fresh processes: never used, each waiting for the one job that it will run.

A keeper makes one before it is needed, so that a job does not wait for it. :func:`fork` copies the keeper, in a
millisecond or two, and :func:`fork_warm` a fork server, with all that it has imported. :func:`start` makes a new
interpreter, for systems without fork; that takes a hundred times as long.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jobcontainer.jobfile import signing
from jobcontainer.pickling import source_code
from jobcontainer.worker import TRACE_NUMBER, isolation, limits
from jobcontainer.worker.channel import Channel
from jobcontainer.worker.environment import take_over_early
from jobcontainer.worker.reporting import log
from jobcontainer.worker.run import serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from multiprocessing.process import BaseProcess

    from jobcontainer.process import Environment
    from jobcontainer.worker.fork_server import ForkServer
    from jobcontainer.worker.keeper_protocol import Inherited, Order


_SEES_DESCRIPTORS = Path("/proc/self/fd").exists()


class JobProcess:
    """A job's process, as its keeper sees it; with the handle of :mod:`multiprocessing`, if that started it.

    Attributes:
        inherited: the environment, the number of threads and the keys that it has from its parent; None for nothing.
        server: the fork server that has made it; None where it is its keeper's own child.
        cpu: the CPU seconds that it has used, once it is reaped by a fork server.
        exited: becomes readable when the process has ended.
        starting: whether it has yet to say that it is ready.
    """

    def __init__(
        self,
        pid: int,
        channel: Connection,
        handle: BaseProcess | None = None,
        inherited: Inherited | None = None,
        server: ForkServer | None = None,
    ) -> None:
        self.pid, self.channel, self.inherited, self.server = pid, Channel(channel), inherited, server
        self.cpu = 0.0
        self._handle = handle
        self.starting = handle is not None
        self._watches = handle is None or hasattr(os, "pidfd_open")
        try:
            self.exited: int = os.pidfd_open(pid) if self._watches else handle.sentinel  # type: ignore[union-attr]
        except OSError:  # no descriptors
            self.kill()
            self._watches = False
            self.reap()
            raise

    def send(self, order: Order) -> None:
        """Send it an order; an OSError if it has ended, or if a job before has sent what nobody asked for."""
        if not self.starting and self.channel.has_more():
            self.kill()
            raise BrokenPipeError
        self.channel.send_order(order)

    def interrupt(self) -> None:
        """Ask its whole process group to stop, as Ctrl-C in a terminal does."""
        try:
            os.killpg(self.pid, signal.SIGINT)
        except ProcessLookupError:  # it is so young that it leads no group yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)

    def traces_into(self, log: int) -> bool:
        """Whether :meth:`trace` would write into this file, and not into what user code has opened; True if unknown."""
        if not _SEES_DESCRIPTORS:
            return True
        try:
            return os.path.samestat(Path(f"/proc/{self.pid}/fd/{TRACE_NUMBER}").stat(), os.fstat(log))
        except OSError:  # it is closed
            return False

    def trace(self) -> None:
        """Ask it to write the traceback of every thread into its log."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, log.TRACE_SIGNAL)

    def kill(self) -> None:
        """Kill it; not what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """End one that runs no job."""
        self.kill()
        self.reap()

    def reap(self) -> int | None:
        """Wait for its end, let go of everything that was held for it, and return its exit code, as subprocess does."""
        self.channel.close()
        if self._watches:
            os.close(self.exited)
        if self.server is not None:
            ended, self.cpu = self.server.reap(self.pid)
            return ended
        if self._handle is None:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._handle.join()
        code = self._handle.exitcode
        self._handle.close()
        return code


def fork(inherited: Inherited | None = None) -> JobProcess:
    """Fork a process that waits for an order, and has the environment and threads that its keeper took over.

    Raises:
        OSError: there is no room for another process, or there are no descriptors; nothing is left of it.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keeper, pid = os.getpid(), os.fork()
        if pid == 0:
            live_clean(keeper, theirs.detach())
        isolation.prefer_as_oom_victim(pid)
        return JobProcess(pid, Connection(ours.detach()), inherited=inherited)


def fork_warm(server: ForkServer) -> JobProcess:
    """Have a fork server fork a process that waits for an order, with the environment of the server.

    Raises:
        OSError: it can't, or has ended.
    """
    pid, ours = server.fork()
    isolation.prefer_as_oom_victim(pid)
    return JobProcess(pid, Connection(ours.detach()), inherited=server.given, server=server)


def start(
    environment: Environment | None, preload: Iterable[str], variables: Mapping[str, str] | None = None
) -> JobProcess:
    """Start a new interpreter that waits for an order, which most likely has this environment."""
    ours, theirs = multiprocessing.Pipe()
    arguments = (os.getpid(), theirs, environment, tuple(preload))
    process = multiprocessing.get_context("spawn").Process(target=_begin, args=arguments)
    with _variables_set(variables or {}):
        process.start()
    theirs.close()
    isolation.prefer_as_oom_victim(process.pid or 0)
    return JobProcess(process.pid or 0, ours, process)


@contextlib.contextmanager
def _variables_set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables meanwhile, for a process that is started."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def preload_for_jobs(preload: Iterable[str] = ()) -> None:
    """Do once what every job would have to: import modules, set hooks. Jobs report what can't be done."""
    signing.warm_up()
    for name in preload:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    source_code.let_inspect_find_classes()


def _begin(keeper: int, channel: Connection, environment: Environment | None, preload: tuple[str, ...]) -> None:
    """Be a job's process in a new interpreter."""
    isolation.settle_in()
    log.prepare_streams()
    preload_for_jobs(preload)
    limits.find_thread_pools()
    if environment is not None:
        take_over_early(environment, None, ())
    Channel(channel).send_report({})
    live_clean(keeper, channel.fileno())


def live_clean(keeper: int, channel: int) -> NoReturn:
    """Be a job's process, whatever happens; never return into the keeper's code."""
    leave = os._exit  # user code may change the module
    try:
        serve(Channel(Connection(isolation.become_clean(keeper, channel))))
    finally:
        leave(70)  # EX_SOFTWARE in C's sysexits.h; serve never returns
