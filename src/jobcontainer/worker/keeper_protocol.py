"""The order of a job, and the messages between an engine and its keepers; both ends import them from here.

Messages go over the lifeline, a pair of sockets, with :meth:`multiprocessing.connection.Connection.send`. An order
names no environment: it means the one that was sent last, so that each is sent once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobcontainer.events import Outcome
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.process import Environment

Inherited: TypeAlias = "tuple[Environment, int | None, tuple[bytes, ...]]"
"""What a process has from the one that it is forked from: the environment, the number of threads, and the keys."""

_READ_AT_START = ("PYTHON", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "LC_", "LANG")
_READ_LATER = {"PYTHONPATH", "PYTHONBREAKPOINT", "PYTHONSTARTUP", "LANGUAGE"}  # or set by the job itself


class Order(NamedTuple):
    """What a job's process is to do; plain data, so that it goes through any pipe."""

    folder: str
    options: dict[str, Any]  # as JobOptions.to_json returns them
    environment: Environment | None  # of the process that submitted the job; None to a keeper that has it already
    attempt: int = 1
    number: int = 0  # by which a cancel, and the message of the job's end, name it
    identity: FileIdentity | None = None  # of the process file, from the process that wrote it, where that is known
    settings: Mapping[str, Any] | None = None  # where the environment, which has them, is None
    keys: tuple[bytes, ...] = ()  # that the job signs and checks with; they go over the lifeline alone
    teaches: bool = False  # whether the job reports what it has imported

    @property
    def reuses(self) -> bool:
        """Whether the process runs other jobs before and after this one."""
        return bool(self.options["isolation"] == "reuse") and not self.needs_interpreter

    @property
    def imports_all_itself(self) -> bool:
        """Whether what is asked for this job alone may matter to an import."""
        return bool(self.options["env"]) or self.options["cwd"] is not None

    @property
    def needs_interpreter(self) -> bool:
        """Whether ``env=`` has a variable that Python or the dynamic linker reads only when a process starts."""
        return any(name.startswith(_READ_AT_START) and name not in _READ_LATER for name in self.options["env"])


class SetEnvironment(NamedTuple):
    """To the keeper: the orders that follow run in this environment."""

    environment: Environment


class WantModules(NamedTuple):
    """To the keeper: have these modules imported before it makes processes; each message replaces the one before."""

    names: tuple[str, ...]  # in the order in which jobs import them
    loaded: frozenset[str] = frozenset()  # those that the notebook has loaded too
    seconds: float = 20.0  # that one import may take
    idle_seconds: float = 300.0  # after which what is imported is given up, where no job comes
    memory: int | None = None  # bytes that they may take together; None for a share of the machine's


class RunJob(NamedTuple):
    """To the keeper: run a job; the engine sends no other before its end."""

    order: Order


class CancelJob(NamedTuple):
    """To the keeper: cancel the job of the order with this number, unless it has ended."""

    number: int


class Ping(NamedTuple):
    """To the keeper: answer with :class:`Pong`, which one that hangs does not."""


class EndKeeper(NamedTuple):
    """To the keeper: kill what runs, and end."""


class KeeperStarted(NamedTuple):
    """To the engine, first: the process id of the keeper, by which the engine kills one that hangs."""

    pid: int


class Pong(NamedTuple):
    """To the engine: the keeper reads its lifeline; once without a question, when it is ready for jobs."""


class JobEnded(NamedTuple):
    """To the engine: how the job of the order with this number ended; its events say so already."""

    number: int
    outcome: Outcome
    imported: tuple[str, ...] = ()  # the modules that the job has imported and its process had not, where that is asked


class ModuleRefused(NamedTuple):
    """To the engine: jobs must import this module themselves."""

    name: str
    reason: str


class KeeperEnded(NamedTuple):
    """To the engine, after :class:`EndKeeper`: nothing is left but the keeper itself, which exits."""


ToKeeper: TypeAlias = SetEnvironment | WantModules | RunJob | CancelJob | Ping | EndKeeper
ToEngine: TypeAlias = KeeperStarted | Pong | JobEnded | ModuleRefused | KeeperEnded
