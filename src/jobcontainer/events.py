"""What a job says of itself: its state, its outcome, and the lines of ``events.jsonl``.

Everything here is plain data that goes through JSON and back; nothing here knows files or processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")


class JobState(StrEnum):
    """Where a job is in its life; ``waiting``, ``queued`` and ``running`` are the only states that change."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    LOST = "lost"
    UPSTREAM_FAILED = "upstream_failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen.

        Example:
            >>> JobState.RUNNING.ended, JobState.LOST.ended
            (False, True)
        """
        return self not in {JobState.WAITING, JobState.QUEUED, JobState.RUNNING}

    @property
    def words(self) -> str:
        """The state as a person would say it, for example ``out of memory``."""
        return self.value.replace("_", " ")


_SLOWEST: Final = 1e-9  # steps per second
_LARGEST: Final = 2**63
_LATEST: Final = 1e11  # seconds since the epoch; the local time of a much later moment can't be computed
_TIMES: Final = {"at", "submitted", "started", "updated"}
_TYPES: Final[dict[Any, set[type]]] = {  # by the annotation of a field
    "str": {str},
    "int": {int},
    "float": {float, int},
    "bool": {bool},
    "str | None": {str, type(None)},
    "int | None": {int, type(None)},
    "float | None": {float, int, type(None)},
    "dict[str, Any]": {dict},
}

RETRIED = frozenset({JobState.CRASHED, JobState.FAILED, JobState.LOST})
"""The ends after which a job is tried again, if it may be; never a cancel, nor a limit that it would hit again."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job used.

    Attributes:
        wall: seconds from start to end.
        cpu: CPU seconds of its whole process tree.
        peak_memory: the most anonymous and shared memory its process tree was seen to hold, in bytes.
    """

    wall: float = 0.0
    cpu: float = 0.0
    peak_memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An attempt began.

    Attributes:
        at: seconds since the epoch.
        pid: the job's process.
        attempt: 1 for the first.
        host: the machine's name.
        shared: bytes of memory that the process shares with its keeper; they do not count as the job's.
    """

    event: ClassVar[str] = "started"
    at: float
    pid: int
    attempt: int = 1
    host: str = ""
    shared: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One progress bar of a job.

    Attributes:
        label: what it counts; may be empty.
        done: how many are done.
        total: how many there are; None where it is not known.
        initial: how many were done when the bar began, where a loop goes on from an earlier run.
        started: when the bar began, in seconds since the epoch.
        updated: when it last moved.
        message: a short text beside the bar.
        level: 0 for an outer bar, 1 for one nested in it, and so on.
    """

    label: str = ""
    done: float = 0.0
    total: float | None = None
    initial: float = 0.0
    started: float = 0.0
    updated: float = 0.0
    message: str = ""
    level: int = 0

    @property
    def fraction(self) -> float | None:
        """Between 0 and 1; None where the total is not known."""
        return None if not self.total else min(max(self.done / self.total, 0.0), 1.0)

    @property
    def rate(self) -> float | None:
        """Steps per second so far; None before the first, and where it is slower than any work."""
        seconds, steps = self.updated - self.started, self.done - self.initial
        rate = steps / seconds if seconds > 0 and steps > 0 else 0.0
        return rate if rate > _SLOWEST else None

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None where it can't be known."""
        return (self.total - self.done) / self.rate if self.total and self.rate else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The bars as they stood; written a few times a minute at most, the live ones are in ``progress``."""

    event: ClassVar[str] = "progress"
    at: float
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """A rich output of the job: what ``display()`` or a figure gave.

    Attributes:
        at: seconds since the epoch.
        data: MIME type to content, as in a notebook's ``display_data``.
        metadata: as in ``display_data``.
        display_id: its name, where it has one that later displays update.
        update: whether it replaces what was shown under the same ``display_id``.
        clear: whether all shown so far goes before this is shown, as by ``clear_output``.
    """

    event: ClassVar[str] = "display"
    at: float
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    display_id: str | None = None
    update: bool = False
    clear: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a job has saved to go on from.

    Attributes:
        at: when, in seconds since the epoch.
        size: in bytes, large data included, though other jobs may share it.
    """

    at: float
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended; the last line an attempt writes into ``events.jsonl``.

    Attributes:
        state: one of the ended states.
        at: seconds since the epoch.
        reason: what happened and what to do next, for a person; empty for success.
        error_type: the qualified name of the exception that ``run()`` raised.
        error_message: its text.
        exit_code: of the process; negative for a signal, as in :mod:`subprocess`; None where not known.
        usage: what it used.
        attempt: 1 for the first.
        result_identity: device, inode, size and time of the result file, from the job that wrote it; it is passed on
            between processes and never written down, as nothing on disk vouches for a file.
        unwritten: why this could not be written when it came, ``No space left on device`` say; mostly empty.
        upstream: of a job that could not begin, the path of the folder of the job at fault; else empty.
    """

    event: ClassVar[str] = "ended"
    state: JobState
    at: float
    reason: str = ""
    error_type: str = ""
    error_message: str = ""
    exit_code: int | None = None
    usage: Usage = field(default_factory=Usage)
    attempt: int = 1
    result_identity: tuple[int, int, int, int] | None = field(default=None, compare=False, repr=False)
    unwritten: str = ""
    upstream: str = ""


def folded(events: Iterable[Event]) -> list[Display]:
    """Return the outputs of the last attempt that stand after all of these, in their places.

    An output with a ``display_id`` replaces those shown under it before, where they stand; an update of what is not
    shown is passed over, as a notebook does.

    Args:
        events: of a job, oldest first; those that are no displays may be among them.

    Example:
        >>> shown = [Display(at=1.0, data={"text/plain": text}, display_id="loss") for text in ("0.9",)]
        >>> shown.append(Display(at=2.0, data={"text/plain": "0.1"}, display_id="loss", update=True))
        >>> [output.data for output in folded(shown)]
        [{'text/plain': '0.1'}]
    """
    standing: list[Display] = []
    for event in events:
        if isinstance(event, Started):
            standing = []
        elif isinstance(event, Display):
            standing = fold(standing, event)
    return [output for output in standing if output.data]


def fold(standing: list[Display], display: Display) -> list[Display]:
    """Return the outputs that stand, those without content included, after one more; :func:`folded` step by step."""
    standing = [] if display.clear else standing
    shown = replace(display, update=False, clear=False)
    if display.display_id is not None:
        standing = [shown if output.display_id == display.display_id else output for output in standing]
    is_place = bool(display.data) or display.display_id is not None  # else it only cleared
    return [*standing, shown] if is_place and not display.update else standing


Event: TypeAlias = Started | Progress | Display | Outcome


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the event as plain data, its kind under ``event``."""
    data = {"event": event.event} | asdict(event)
    data.pop("result_identity", None)
    for name in ("unwritten", "upstream"):
        if not data.get(name, True):  # as versions without it know the event
            del data[name]
    return data


def event_from_json(data: Mapping[str, Any]) -> Event | None:
    """Return the event that ``data`` holds; None for one of a kind or a shape that this version does not know.

    Anybody may have written it: a newer version, whose fields that are not known here are passed over, or the job
    itself. An end of a kind that a newer version has is an end, the only one that is known to have no other.

    Example:
        >>> event_from_json(event_to_json(Started(at=1.0, pid=7)) | {"new": "in a later version"})
        Started(at=1.0, pid=7, attempt=1, host='', shared=0)
        >>> event_from_json({"event": "started", "at": "noon", "pid": 7}) is None
        True
    """
    try:
        match data.get("event"):
            case "started":
                return checked(Started, data)
            case "progress":
                return replace(checked(Progress, data), bars=tuple(checked(Bar, bar) for bar in data["bars"]))
            case "display":
                display = checked(Display, data)
                return replace(display, data={kind: form for kind, form in display.data.items() if _fits(kind, form)})
            case "ended":
                return _outcome_from_json(data)
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    return None


def checked(kind: type[T], data: Mapping[str, Any], **made: Any) -> T:
    """Make an object of a dataclass from plain data that anybody may have written, and fields that are made already.

    Fields of the data that the class does not have are passed over, and so are those of the class that never come from
    plain data. Numbers are finite, and times lie in a few thousand years of now, so that views can show them.

    Raises:
        TypeError: a field is missing.
        ValueError: one has another type, or is out of range.

    Example:
        >>> checked(Usage, {"cpu": 1.5, "gpu": 7})
        Usage(wall=0.0, cpu=1.5, peak_memory=0)
    """
    values = {}
    for one in fields(kind):  # type: ignore[arg-type]  # a dataclass, which has no name as a type
        if one.name in data and one.type in _TYPES:
            value, allowed = data[one.name], _TYPES[one.type]
            if type(value) not in allowed:
                raise ValueError(f"{one.name} is a {type(value).__name__}")
            most = _LATEST if one.name in _TIMES else _LARGEST
            if isinstance(value, int | float) and not -most <= value <= most:  # nor is it no number at all
                raise ValueError(f"{one.name} is out of range")
            values[one.name] = value
    return kind(**values | made)


def _outcome_from_json(data: Mapping[str, Any]) -> Outcome:
    """Return an end; of a state that only a newer version knows, the one that says as little."""
    try:
        state, unknown = JobState(data["state"]), ""
    except ValueError:
        state, unknown = JobState.LOST, data["state"]
    if not state.ended or not isinstance(unknown, str):
        raise ValueError("no end")
    outcome = checked(Outcome, data, state=state, usage=checked(Usage, data.get("usage", {})))
    if not unknown:
        return outcome
    return replace(outcome, reason=f"It ended as {unknown[:40]!r}, which a newer jobcontainer knows: upgrade this one.")


def _fits(kind: str, form: object) -> bool:
    """Return whether this may be the content of a MIME type: a text, or where the type says so, any JSON."""
    return isinstance(form, str) or kind.endswith("json")
