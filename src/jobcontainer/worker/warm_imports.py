"""Warm imports: what jobs import anyway is loaded before their processes are forked, where that is safe.

The engine says which modules are wanted (:mod:`jobcontainer.engines.local.wanted_modules`); a keeper has them imported
by a fork server (:mod:`jobcontainer.worker.fork_server`), which then forks the processes of jobs. The keeper itself
imports none of them: it forks those jobs whose ``env=`` or ``cwd=`` may matter to an import, as they import everything
themselves, and its fork server can be ended and made anew at any time.

States of a keeper, as to this: *cold*, without a fork server, as nothing is wanted, or nobody has asked for a job for
some minutes; *importing*; *warm*. A job waits while the fork server imports, as the job would have to import that
itself, and at most as long as one import may take. A module that is refused costs the fork server: the next one, made
at once, imports the others.

A fork server has one environment: variables, working directory and paths, all of which may matter to an import. The
first job in another one imports everything itself; where the next one has that too, there is a new fork server for it.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

from jobcontainer.worker import MARK, limits
from jobcontainer.worker.fork_server import ForkServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from jobcontainer.worker.keeper_protocol import Inherited, WantModules

_OF_KEEPERS: Final = {"KMP_INIT_AT_FORK", MARK, *limits.THREAD_VARIABLES}
"""Variables that no import depends on: joblib sets the first when it is imported, and keepers and jobs the others."""

_SHARE: Final = 4  # a fork server may hold this part of a CPU's share of the memory


class WarmImports:
    """The fork server of one keeper, and what it is to import.

    Args:
        live: what a forked process does.
        drop_forks: ends the processes that the present fork server has forked, of which none runs a job.
        tell_refused: takes the name of a module that was refused, and why.
    """

    def __init__(
        self,
        live: Callable[[int, int], NoReturn],
        drop_forks: Callable[[], None],
        tell_refused: Callable[[str, str], None],
    ) -> None:
        self._server: ForkServer | None = None
        self._live, self._drop_forks, self._tell_refused = live, drop_forks, tell_refused
        self._wanted: WantModules | None = None
        self._refused: set[str] = set()
        self._last_place: object = None  # where the last job was
        self._failed_place: object = None  # where no fork server can live
        self._used = time.monotonic()
        self._is_idle = False  # for so long that there is no fork server until the next job

    @property
    def server(self) -> ForkServer | None:
        """The fork server; None where there is none."""
        return None if self._server is None or self._server.has_ended else self._server

    def want(self, wanted: WantModules) -> None:
        """Take what the engine wants from here on."""
        self._wanted = wanted

    def prepare(self, given: Inherited | None) -> None:
        """Begin to import what is wanted and not there yet, unless the fork server is of another environment."""
        if given is None or self._wanted is None or self._is_idle or _place(given) == self._failed_place:
            return
        server = self.server or self._start(given, self._wanted)
        if server is not None and _place(given) == _place(server.given) and not server.importing:
            new = [name for name in self._missing() if name not in server.asked]
            if new:
                self._drop_forks()
                server.import_modules(new, self._wanted.loaded)

    def _start(self, given: Inherited, wanted: WantModules) -> ForkServer | None:
        """Start a fork server, where there is something to import."""
        if not any(self._missing()):
            return None
        try:
            self._server = ForkServer(
                given, self._live, seconds=wanted.seconds, most_memory=wanted.memory or _share_of_memory()
            )
        except OSError:  # no process ids, no descriptors: jobs import for themselves
            return None
        self._used = time.monotonic()
        return self._server

    def prepare_for_job(self, given: Inherited | None) -> None:
        """Do the same for a job that comes now, and end a fork server of another environment where it is not needed."""
        self.note_use()
        place, before = _place(given), self._last_place
        self._last_place = place
        if self.server is not None and _place(self.server.given) != place and place == before:
            self.end()
        self.prepare(given)

    def note_use(self) -> None:
        """Begin to count anew how long no job was there."""
        self._used, self._is_idle = time.monotonic(), False

    def server_for(self, given: Inherited | None) -> ForkServer | None:
        """Return the fork server that can fork a process in this environment; None where there is none now."""
        server = self.server
        if given is None or server is None or server.importing:
            return None
        return server if _place(server.given) == _place(given) else None

    @property
    def is_importing(self) -> bool:
        """Whether the fork server has not imported yet what it was asked to."""
        return self.server is not None and self.server.importing

    @property
    def seconds_left(self) -> float | None:
        """How long nothing is to be done but to receive; None for ever."""
        if self.server is None or self._wanted is None:
            return None
        if self.server.importing:
            return max(0.0, self.server.seconds_left)
        return max(0.0, self._used + self._wanted.idle_seconds - time.monotonic())

    def receive(self) -> None:
        """Take an answer of the fork server."""
        if self.server is not None and self.server.importing:
            self.server.receive()
            self._replace_failed()
        else:  # it says what nobody asked for: it has ended
            self.end()

    def keep_time(self) -> None:
        """End an import that takes too long, and a fork server that was idle for long."""
        if self.server is None or (self.seconds_left or 0.0) > 0:
            return
        if self.server.importing:
            self.server.give_up()
            self._replace_failed()
        else:
            self.end()
            self._is_idle = True

    def end(self) -> None:
        """End the fork server, and give its memory back."""
        if self.server is not None:
            self._drop_forks()
            self.server.kill()
            self._server = None

    def _replace_failed(self) -> None:
        if self.server is None or self.server.refused is None:
            return
        given, (name, reason) = self.server.given, self.server.refused
        self.end()
        if name:
            self._refused.add(name)
            self._tell_refused(name, reason)
        else:
            self._failed_place = _place(given)
        self.prepare(given)

    def _missing(self) -> Iterator[str]:
        """Yield what is wanted, was not refused, and is not there in any process."""
        for name in self._wanted.names if self._wanted else ():
            if name not in sys.modules and not any(_is_part(name, of) for of in self._refused):
                yield name


def _is_part(name: str, of: str) -> bool:
    return name == of or name.startswith(f"{of}.")


def _place(given: Inherited | None) -> object:
    """Return what of an environment may matter to an import."""
    if given is None:
        return None
    environment, threads, _ = given
    variables = {name: value for name, value in environment.environ.items() if name not in _OF_KEEPERS}
    return variables, environment.cwd, environment.sys_path, threads is None


def _share_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (os.cpu_count() or 1) // _SHARE
