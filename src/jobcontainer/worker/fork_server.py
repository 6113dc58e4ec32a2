"""Fork server: a child of a keeper that has imported what jobs import, and forks their processes.

Who owns what: the keeper, which imports nothing for jobs, has at most one fork server, and owns its end of a socket to
it. The fork server imports, forks and reaps when it is asked to, one request at a time, and answers each. Its children
are the jobs' processes; the keeper supervises them by their process ids, which stay theirs until it has them reaped.

States, as the keeper sees them: *importing*, from :meth:`ForkServer.import_modules` until the answer came; *ready*,
able to fork; *failed*, after an import that was refused, and *ended*. One that has failed forks nothing any more, and
the keeper makes another, without that module. No threads: an import that starts some is refused.

Who kills whom: the keeper kills its fork server; the kernel does it where the keeper dies. When a fork server dies, the
kernel kills the processes that it has forked, and the keeper, to which it hands them, reaps them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, Final, NoReturn

from jobcontainer.worker import environment, isolation, limits, process_settings, process_tree
from jobcontainer.worker.cpython_internals import leave_finalizers_to_this_process
from jobcontainer.worker.import_guard import import_guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from jobcontainer.worker.keeper_protocol import Inherited

_PACKET: Final = 1 << 16  # bytes; a name has 30
_NAMES_AT_ONCE: Final = 500
_ALARM_IS_LATE: Final = 1.0  # seconds
_ANSWER_SECONDS: Final = 10.0  # for a fork or to reap: milliseconds, where the machine does not swap


class ForkServer:
    """A fork server, as its keeper sees it.

    Args:
        given: the environment in which modules are imported, and what the jobs that are forked have of it.
        live: what a forked process does; it takes its parent's process id and the descriptor of its channel.
        seconds: how long one import may take.
        most_memory: bytes that the fork server may hold.

    Attributes:
        pid: its process id.
        given: as above.
        asked: the names of the modules that it was asked to import.
        importing: whether it has not imported all of them yet.
        refused: the module that it has failed at, and why; None before.
        memory: bytes that what it forks shares with it.
        exit_code: when it has ended; negative for a signal.

    Raises:
        OSError: no descriptors, no process ids.
    """

    def __init__(
        self,
        given: Inherited,
        live: Callable[[int, int], NoReturn],
        *,
        seconds: float,
        most_memory: int,
    ) -> None:
        self.given, self.asked = given, set[str]()
        self.importing, self.has_ended, self.memory = False, False, 0
        self.refused: tuple[str, str] | None = None
        self.exit_code: int | None = None
        self._channel: socket.socket | None = None  # of the process whose fork it was asked for
        self._forked: Any = None  # the answer, where that has come
        self._seconds, self._now, self._since = seconds, "", 0.0  # what it imports, and since when
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keeper = os.getpid()
        try:
            self.pid = os.fork()
        except OSError:
            ours.close()
            raise
        finally:
            if os.getpid() == keeper:
                theirs.close()
        if self.pid == 0:
            _live(keeper, theirs.detach(), _Server(given, live, seconds, most_memory))
        self._socket = ours

    def fileno(self) -> int:
        """Return the descriptor of the socket to it."""
        return self._socket.fileno()

    def import_modules(self, names: Iterable[str], loaded: Container[str] = ()) -> None:
        """Ask it to import modules in this order; :meth:`receive` takes the answers.

        Args:
            names: the modules.
            loaded: those that the notebook has, so that its settings are what theirs have become.
        """
        new = [name for name in names if name not in self.asked]
        self.asked.update(new)
        if not new:
            return
        self.importing, self._since = True, time.monotonic()
        for first in range(0, len(new), _NAMES_AT_ONCE):
            some = {name: name in loaded for name in new[first : first + _NAMES_AT_ONCE]}
            self._ask("import", some, first + _NAMES_AT_ONCE >= len(new))

    def receive(self) -> None:
        """Take one answer to :meth:`import_modules`; waits for it."""
        match self._answer():
            case ["imports", str(name)]:
                self._now, self._since = name, time.monotonic()
            case ["imported", int(memory)]:
                self.importing, self.memory = False, memory
            case ["refused", str(name), str(reason)]:
                self._fail(name, reason)
            case _:
                self._fail(self._now, "it ends the process, or takes too long")

    @property
    def seconds_left(self) -> float:
        """How long the present import may still take; the alarm in the process, which the module may stop, is first."""
        return self._since + self._seconds + _ALARM_IS_LATE - time.monotonic()

    @property
    def is_forking(self) -> bool:
        """Whether it was asked to fork a process that nobody has taken yet."""
        return self._channel is not None and not self.has_ended

    def give_up(self) -> None:
        """Note that the present import takes too long."""
        self._fail(self._now, "it takes too long")

    def begin_fork(self) -> None:
        """Ask it to fork a process, which :meth:`fork` returns; it does so while the keeper supervises a job.

        Raises:
            OSError: no descriptors.
        """
        if self._channel is None:
            self._channel, theirs = socket.socketpair()
            with theirs:
                self._ask("fork", descriptors=[theirs.fileno()])

    def fork(self) -> tuple[int, socket.socket]:
        """Fork a process; return its id, and the keeper's end of its channel.

        Raises:
            OSError: no process ids, no memory, or it has ended.
        """
        self.begin_fork()
        answer = self._answer_to_fork()
        channel, self._channel, self._forked = self._channel, None, None
        match answer:
            case ["forked", int(pid)] if channel is not None:
                return pid, channel
        if channel is not None:
            channel.close()
        if answer is None:
            self.kill()
        raise OSError(f"the fork server forked nothing: {answer}")

    def _answer_to_fork(self) -> Any:
        if self._channel is not None and self._forked is None:
            self._forked = self._answer(_ANSWER_SECONDS)
        return self._forked

    def reap(self, pid: int) -> tuple[int, float]:
        """Wait for the end of a process that it has forked; return its exit code, and the CPU seconds it has used."""
        self._answer_to_fork()  # which comes first
        self._ask("reap", pid)
        match self._answer(_ANSWER_SECONDS):
            case ["reaped", int(code), float(seconds)]:
                return code, seconds
        self.kill()
        try:
            _, status, used = os.wait4(pid, 0)  # the kernel has handed it to the keeper
        except ChildProcessError:  # which has killed and reaped all that it did not know
            return -signal.SIGKILL, 0.0
        return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime

    def kill(self) -> None:
        """Kill it, with what its imports have started; what it has forked dies with it."""
        if self.has_ended:
            return
        self.has_ended, self.importing = True, False
        strays = process_tree.descendants_of(self.pid)
        process_tree.kill([self.pid])
        self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        process_tree.kill(strays)
        self._socket.close()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _fail(self, name: str, reason: str) -> None:
        self.refused, self.importing = (name, reason), False

    def _ask(self, what: str, *arguments: Any, descriptors: Iterable[int] = ()) -> None:
        with contextlib.suppress(OSError):  # it has ended, and gives no answer
            socket.send_fds(self._socket, [json.dumps([what, *arguments]).encode()], list(descriptors))

    def _answer(self, seconds: float | None = None) -> Any:
        """Wait for an answer; None where it has ended, or gives none in time."""
        looked = select.poll()
        with contextlib.suppress(OSError, ValueError):
            looked.register(self._socket, select.POLLIN)
            if looked.poll(None if seconds is None else seconds * 1000):
                return json.loads(self._socket.recv(_PACKET))
        return None


class _Server:
    """The fork server itself."""

    def __init__(
        self,
        given: Inherited,
        live: Callable[[int, int], NoReturn],
        seconds: float,
        most_memory: int,
    ) -> None:
        (self._environment, self._threads, self._keys), self._live = given, live
        self._seconds, self._most_memory = seconds, most_memory

    def prepare(self) -> None:
        """Be as a job's process is when it imports, but for the threads of libraries, and gather what is printed.

        A library that has threads starts them when it is loaded, so it is given one. A job sets its own number,
        but where nobody has bounded it: then a library that starts some is refused.
        """
        environment.take_over(self._environment, None if self._threads is None else 1, self._keys)
        sink = os.memfd_create("printed")
        for standard in (1, 2):
            os.dup2(sink, standard)
        os.close(sink)
        gc.disable()

    def serve(self, requests: socket.socket) -> None:
        """Do what is asked, until the keeper has gone or an import was refused."""
        self._requests = requests
        while True:
            data, descriptors, _, _ = socket.recv_fds(requests, _PACKET, 1)
            match json.loads(data or "null"):
                case ["import", names, bool(is_last)]:
                    self._import(names)
                    if is_last:
                        self._say("imported", self._finish_imports())
                case ["fork"]:
                    self._fork(descriptors[0])
                case ["reap", int(pid)]:
                    _, status, used = os.wait4(pid, 0)
                    self._say("reaped", os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)
                case _:
                    return

    def _import(self, names: Mapping[str, bool]) -> None:
        before = dict(os.environ)
        with process_settings.warnings_as_in(self._environment.settings):
            for name, is_loaded in names.items():
                if name in sys.modules:
                    continue
                self._say("imports", name)
                filters = list(warnings.filters)
                reason = import_guarded(name, self._seconds, self._most_memory)
                if reason:
                    self._say("refused", name, reason)
                    signal.pause()  # until it is killed: whatever the module has started is found below it
                if not is_loaded:
                    process_settings.keep_filters_since(filters)
        environment.keep_changes_since(before)

    def _finish_imports(self) -> int:
        """Leave to forks what is theirs, and return how much memory they share."""
        if self._threads is not None:
            limits.announce_cap(self._threads)
        limits.find_thread_pools()
        isolation.reseed()  # the first call in a process takes longest, and each fork makes another
        leave_finalizers_to_this_process()
        gc.freeze()  # a collection in a fork would copy all of it
        return process_tree.memory_of([os.getpid()])

    def _fork(self, channel: int) -> None:
        this = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._say("not forked", str(error))
            return
        finally:
            if os.getpid() == this:
                os.close(channel)
        if pid == 0:
            self._live(this, channel)
        self._say("forked", pid)

    def _say(self, what: str, *arguments: Any) -> None:
        self._requests.send(json.dumps([what, *arguments]).encode())


def _live(keeper: int, channel: int, server: _Server) -> NoReturn:
    """Be the fork server, whatever happens; never return into the keeper's code."""
    leave = os._exit  # a module may change it
    try:
        requests = socket.socket(fileno=isolation.become_clean(keeper, channel))
        isolation.adopt_orphans(on=False)  # they go to the keeper, which ends what its jobs leave behind
        server.prepare()
        server.serve(requests)
    finally:
        leave(0)
