"""What a process is and what can be asked for it: all that a user must know.

A process is any object with ``run()``. :class:`JobOptions` are the words that every door understands
(``JobPool(...)``, ``with_options``, ``JobContainer(...)``, the magic's flags, the command line's).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

R_co = TypeVar("R_co", covariant=True)

_MEMORY = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?i?b?)\s*", re.IGNORECASE)
AFTER = "after"
LONGEST_KEY = 200
"""Characters of the key of a job."""

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@runtime_checkable
class Process(Protocol[R_co]):
    """Anything with a ``run()`` method; no base class is needed. ``async def run`` is awaited.

    Example:
        >>> class Answer:
        ...     def run(self):
        ...         return 42
        >>> isinstance(Answer(), Process)
        True
    """

    def run(self) -> R_co:
        """Do the work; what it returns is the job's result."""


def has_run(thing: object) -> bool:
    """Return whether something has a ``run()``; an attribute that can't be read is none.

    Example:
        >>> has_run(Call(pow, (2, 10), {})), has_run(pow)
        (True, False)
    """
    with contextlib.suppress(Exception):  # user code
        return callable(getattr(thing, "run", None))
    return False


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments, as a process.

    Example:
        >>> Call(pow, (2, 10), {}).run()
        1024
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self) -> Any:
        """Call the function."""
        return self.function(*self.args, **self.kwargs)


def memory_in_bytes(text: str | float) -> int:
    """Read an amount of memory, and return its bytes.

    Args:
        text: bytes as a number, or a text such as ``"2GB"`` (10⁹ bytes each) or ``"512 MiB"`` (2²⁰ bytes each).

    Raises:
        ValueError: it is not an amount, or not above zero.

    Example:
        >>> memory_in_bytes("2GB"), memory_in_bytes("1KiB")
        (2000000000, 1024)
    """
    match = None if isinstance(text, bool) else _MEMORY.fullmatch(str(text))
    if match:
        unit = match["unit"].lower().removesuffix("b")
        base = 1024 if unit.endswith("i") else 1000
        amount = int(float(match["number"]) * base ** _POWERS[unit.removesuffix("i")])
        if amount > 0:
            return amount
    raise ValueError(f'memory={text!r}: give bytes as a number above 0, or a text such as "2GB" or "512MiB".')


def memory_text(amount: float) -> str:
    """Write an amount of memory with three figures, in powers of ten as in the options.

    Example:
        >>> [memory_text(amount) for amount in (812, 53_400_000, 2_000_000_000)]
        ['812 B', '53.4 MB', '2 GB']
    """
    units = ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.5 and len(units) > 1:  # noqa: PLR2004 -- what rounds to a thousand
        amount /= 1000
        del units[0]
    return f"{amount:.3g} {units[0]}"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What can be asked for a job; the same words at every door.

    Attributes:
        timeout: seconds that an attempt may run; None for no limit.
        memory: bytes (or a text such as ``"2GB"``) that the job's whole process tree may hold; None for no limit.
        retries: how often a job that crashed, was lost or failed is tried again.
        env: environment variables set in the job before any user code is imported.
        cwd: the job's working directory; None for the one at submit.
        name: what the job is called; None for the class's or function's name.
        threads: BLAS/OpenMP threads of the job; None for CPUs // max_workers.
        grace: seconds between the polite stop and the kill.
        isolation: ``"fresh"``, a never-used process for each job, or ``"reuse"``, the slot's own process.
        detach: whether the job outlives the kernel.
        priority: jobs of a higher number start first; equal ones in the order they were submitted.
        after: a job, a group, or several, that must succeed before; kept as inputs of the job, not as an option.
        key: what work this is, in the user's words: of one key, a store runs a job once, and returns that. After one
            that did not succeed it makes a new one, from the last one's checkpoint. Where source, arguments or options
            differ from those of the job that is returned, a warning says in what.
        rerun: whether a job of that key runs anew, from the beginning, whatever the store holds.

    Raises:
        ValueError: an option is out of range; the message names it and what is allowed.
    """

    timeout: float | None = None
    memory: int | str | None = None
    retries: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    name: str | None = None
    threads: int | None = None
    grace: float = 2.0
    isolation: Literal["fresh", "reuse"] = "fresh"
    detach: bool = False
    priority: int = 0
    after: Any = ()
    key: str | None = None
    rerun: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't be meant, so that no job starts with it."""
        if self.memory is not None:
            object.__setattr__(self, "memory", memory_in_bytes(self.memory))
        if self.cwd is not None:
            object.__setattr__(self, "cwd", os.path.abspath(self.cwd))  # noqa: PTH100 -- Path.resolve would follow links
        object.__setattr__(self, "after", _jobs_in(self.after))
        self._check(self.timeout is None or _is_number(self.timeout, above=0), "timeout", "seconds above 0, or None")
        self._check(_is_whole(self.retries, least=0), "retries", "a whole number from 0 up")
        self._check(self.threads is None or _is_whole(self.threads, least=1), "threads", "a whole number from 1 up")
        self._check(_is_number(self.grace, above=-1e-9), "grace", "seconds from 0 up")
        self._check(self.isolation in {"fresh", "reuse"}, "isolation", '"fresh" or "reuse"')
        self._check(isinstance(self.detach, bool), "detach", "True or False")
        self._check(_is_whole(self.priority, least=-sys.maxsize), "priority", "a whole number")
        self._check(_is_environment(self.env), "env", "a dict of texts, with no '=' or NUL in a name")
        self._check(self.name is None or (isinstance(self.name, str) and self.name != ""), "name", "a text, or None")
        self._check(isinstance(self.rerun, bool), "rerun", "True or False")
        if not (self.key is None or is_key(self.key)):
            allowed = f"a text of 1 to {LONGEST_KEY} printable characters, with no space at its ends"
            raise ValueError(f"key={_cut(repr(self.key))}: it takes {allowed}.")
        if self.rerun and self.key is None:
            raise ValueError("rerun=True: it is for jobs that have a key, key=...; others always run anew.")

    def _check(self, holds: bool, option: str, allowed: str) -> None:  # noqa: FBT001 -- an assertion with a sentence
        if not holds:
            raise ValueError(f"{option}={getattr(self, option)!r}: it takes {allowed}.")

    def updated(self, **changes: Any) -> JobOptions:
        """Return these options with some changed.

        Raises:
            TypeError: there is no such option; the message lists those there are.
            ValueError: an option is out of range.

        Example:
            >>> JobOptions(timeout=5).updated(retries=1).retries
            1
        """
        known = [option.name for option in fields(self)]
        for option in changes:
            if option not in known:
                raise TypeError(f"There is no option {option!r}. The options of a job are: {', '.join(known)}.")
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the options as plain data, for ``job.json``."""
        named = {option.name: getattr(self, option.name) for option in fields(self) if option.name != AFTER}
        return named | {"env": {str.__str__(name): str.__str__(value) for name, value in self.env.items()}}


@dataclass(frozen=True, kw_only=True)
class ChunkOptions(JobOptions):
    """The options of a job that makes several calls of a function, one after another.

    Attributes:
        calls: how many; ``timeout`` is for each of them.
    """

    calls: int = 1


def options_from_json(data: Mapping[str, Any]) -> JobOptions:
    """Return the options that :meth:`JobOptions.to_json` made plain data of.

    Raises:
        TypeError: there is an option that no job has.
        ValueError: one is out of range.

    Example:
        >>> options_from_json(ChunkOptions(calls=3, timeout=5).to_json()).timeout
        5
    """
    return (ChunkOptions if "calls" in data else JobOptions)(**data)


_changing = threading.Lock()  # held while a thread changes variables for a moment, and while they are read


@contextlib.contextmanager
def variables_changed(changes: Mapping[str, str]) -> Iterator[None]:
    """Have other environment variables for a moment, in which no :class:`Environment` is read.

    Args:
        changes: names and values.

    Example:
        >>> with variables_changed({"FOR_A_MOMENT": "1"}):
        ...     os.environ["FOR_A_MOMENT"]
        '1'
        >>> "FOR_A_MOMENT" in Environment.here().environ
        False
    """
    with _changing:
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _variables() -> dict[str, str]:
    with _changing:
        return dict(os.environ)


def _renew_lock() -> None:
    global _changing  # noqa: PLW0603 -- another thread may have held it at the fork
    _changing = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment of the process that submits a job, which the job's own process takes over.

    Attributes:
        cwd: the working directory.
        sys_path: ``sys.path``, relative entries made absolute; without entries that Python passes over, as a ``Path``.
        environ: the environment variables; never written to disk, they may hold secrets.
        log_level: the level of the root logger.
        settings: what code set by calls, by module; see :mod:`jobcontainer.worker.process_settings`.
    """

    cwd: str
    sys_path: tuple[str, ...]
    environ: Mapping[str, str]
    log_level: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls, like: Environment | None = None, settings: Mapping[str, Any] | None = None) -> Environment:
        """Return the environment of this process as it is now.

        Args:
            like: an earlier one, which is returned where nothing has changed, so that a thousand queued jobs share
                one copy.
            settings: those of this process, which are read elsewhere.

        Raises:
            FileNotFoundError: the working directory was deleted.
        """
        cwd = working_directory()
        now = cls(
            cwd=cwd,
            sys_path=tuple(str.__str__(os.path.join(cwd, one)) for one in sys.path if isinstance(one, str)),  # noqa: PTH118 -- "" must become cwd
            environ=_variables(),
            log_level=logging.getLogger().level,
            settings=settings or {},
        )
        return like if like == now else now

    @classmethod
    def from_json(cls, data: object) -> Environment:
        """Return the environment that plain data holds, from another process.

        Raises:
            ValueError: it holds none; a field of another type, or one that no process can have.
        """
        if not isinstance(data, dict) or not data.keys() <= {option.name for option in fields(cls)}:
            raise ValueError("The environment is none.")
        found = {"settings": {}, **data}
        paths = found.get("sys_path")
        if not (
            isinstance(found.get("cwd"), str)
            and isinstance(paths, list | tuple)
            and all(isinstance(entry, str) for entry in paths)
            and _is_environment(found.get("environ"))
            and _is_whole(found.get("log_level"), least=0)
            and isinstance(found["settings"], dict)
        ):
            raise ValueError("The environment is none: a field of it is missing, or of another type.")
        return cls(**found | {"sys_path": tuple(paths)})

    @cached_property
    def digest(self) -> str:
        """Name the content: two environments with the same digest are equal.

        Example:
            >>> Environment.here().digest == Environment.here().digest
            True
        """
        content = (self.cwd, tuple(self.sys_path), sorted(self.environ.items()), self.log_level, self.settings)
        return hashlib.blake2b(repr(content).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def working_directory() -> str:
    """Return the working directory of this process.

    Raises:
        FileNotFoundError: it was deleted; the message says what to do.
    """
    try:
        return os.getcwd()  # noqa: PTH109 -- a text is what is stored
    except FileNotFoundError:
        raise FileNotFoundError(
            "The working directory of this process was deleted. Go to one that is there first: os.chdir(...), or %cd "
            "in a notebook."
        ) from None


def _jobs_in(after: Any) -> tuple[Any, ...]:
    """Return the jobs of a job, a group, or several of these."""
    if hasattr(after, "add_done_callback") and hasattr(after, "folder"):
        return (after,)
    if after is None:
        return ()
    if isinstance(after, Sequence) and not isinstance(after, str | bytes):
        return tuple(job for one in after for job in _jobs_in(one))
    raise ValueError(f"after={after!r}: it takes a job, a group of jobs, or a list of them.")


def is_key(key: object) -> bool:
    """Return whether something can be the key of a job.

    Example:
        >>> is_key("train-v3"), is_key(" train")
        (True, False)
    """
    return isinstance(key, str) and 0 < len(key) <= LONGEST_KEY and key.isprintable() and key == key.strip()


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_KEY else text[:LONGEST_KEY] + " ..."


def _is_number(value: object, *, above: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and above < value < float("inf")


def _is_whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_environment(env: object) -> bool:
    return isinstance(env, Mapping) and all(
        isinstance(name, str) and isinstance(value, str) and name and not set(name) & {"=", "\0"} and "\0" not in value
        for name, value in env.items()
    )
