"""JobFolder and StoreFolder: the only module that knows the names of a job's files.

The folder is the only channel between a job and whoever looks at it. The job's side writes; the handle, the card, the
command line and a restarted kernel read the same files. What is written once appears whole or not at all (a temporary
file in the same folder, then a rename); what grows (``events.jsonl``, ``log.txt``, ``journal.jsonl``) grows by single
appends of whole lines, and a reader passes over a torn last line.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobcontainer.events import Outcome, Started, event_from_json, event_to_json
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.process import working_directory
from jobcontainer.storage.jsonl import append_lines, read_lines
from jobcontainer.storage.record import JobRecord, new_job_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobcontainer.events import Event

_TAIL_BLOCK = 64 * 1024

_CANCEL: Final = "cancel"


class JobFolder:
    """The folder of one job, which need not exist yet.

    Example:
        >>> JobFolder("/tmp/store/20261122-120000.000000-Train-a1b2c3").id
        '20261122-120000.000000-Train-a1b2c3'
    """

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        """Return the path, so that a folder can be passed where a path can."""
        return str(self.path)

    def __repr__(self) -> str:
        """Show the path."""
        return f"JobFolder({str(self.path)!r})"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.path.name

    @property
    def process_file(self) -> Path:
        """The process, as Serializer wrote it."""
        return self.path / "process.job"

    @property
    def result_file(self) -> Path:
        """What ``run()`` returned or raised; exists only once it did."""
        return self.path / "result.job"

    @property
    def preview_file(self) -> Path:
        """What cards show of the result or exception without loading it."""
        return self.path / "preview.json"

    @property
    def record_file(self) -> Path:
        """The facts of the job, written once."""
        return self.path / "job.json"

    @property
    def log_file(self) -> Path:
        """Standard output and error of the job, in order."""
        return self.path / "log.txt"

    @property
    def events_file(self) -> Path:
        """What happened, a line each."""
        return self.path / "events.jsonl"

    @property
    def progress_file(self) -> Path:
        """The bars as they were at the last update."""
        return self.path / "progress"

    @property
    def cancel_file(self) -> Path:
        """Exists once another process asked for the job's end."""
        return self.path / _CANCEL

    def ask_to_cancel(self) -> None:
        """Ask whoever runs the job to end it."""
        self.cancel_file.touch(mode=0o600)

    def is_asked_to_cancel(self) -> bool:
        """Return whether another process asked for the job's end."""
        return self.cancel_file.exists()

    def size(self) -> int:
        """Return the bytes that the job's files take on disk; files shared by hard links count in each folder."""
        try:
            return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in os.scandir(self.path))
        except FileNotFoundError:
            return 0

    def create(self) -> None:
        """Make the folder, for its owner alone.

        Raises:
            FileExistsError: there is such a folder already.
            OSError: the store can't be written to.
        """
        self.path.mkdir(0o700)

    def write_record(self, record: JobRecord) -> None:
        """Write ``job.json``, whole or not at all."""
        write_whole(self.record_file, json.dumps(asdict(record)).encode())

    def read_record(self) -> JobRecord:
        """Read ``job.json``.

        Raises:
            FileNotFoundError: there is no such job.
        """
        return JobRecord.from_json(json.loads(self.record_file.read_bytes()))

    def append_event(self, event: Event) -> None:
        """Add one line to ``events.jsonl``."""
        append_lines(self.events_file, [event_to_json(event)])

    def read_events(self, offset: int = 0) -> tuple[list[Event], int]:
        """Read the events from a byte offset on; return them, and the offset at which the next call goes on."""
        lines, offset = read_lines(self.events_file, offset)
        events = (event_from_json(line) for line in lines)
        return [event for event in events if event is not None], offset

    def record_stamp(self) -> str | None:
        """Return what changes whenever ``job.json`` does; None where there is no such file."""
        return _stamp(self.record_file)

    def events_stamp(self) -> str | None:
        """Return what changes whenever an event is added; None where there is none yet."""
        return _stamp(self.events_file)

    def last_turn(self) -> Started | Outcome | None:
        """Return the last event that is the start or the end of an attempt; None where none began."""
        turns = [event for event in self.read_events()[0] if isinstance(event, Started | Outcome)]
        return turns[-1] if turns else None

    def read_log(self, offset: int = 0, size: int = -1) -> bytes:
        """Read the log from a byte offset on, so many bytes at the most; empty where there is nothing yet."""
        try:
            with self.log_file.open("rb") as log:
                log.seek(offset)
                return log.read(size)
        except FileNotFoundError:
            return b""

    def tail(self, lines: int) -> list[str]:
        """Read the last lines of the log, so many at the most, without reading all of it.

        Bytes that are not UTF-8 are shown as replacement characters.
        """
        try:
            with self.log_file.open("rb") as log:
                log.seek(0, os.SEEK_END)
                position, data = log.tell(), b""
                while position > 0 and data.count(b"\n") <= lines:
                    step = min(_TAIL_BLOCK, position)
                    position -= step
                    log.seek(position)
                    data = log.read(step) + data
        except FileNotFoundError:
            return []
        kept = data.decode("utf-8", "replace").split("\n")
        if kept[-1] == "":
            kept.pop()
        return kept[-lines:] if lines > 0 else []


class StoreFolder:
    """The folder that holds the job folders, and their journal."""

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()

    @property
    def journal_file(self) -> Path:
        """The index: a line for each job submitted and each that ended."""
        return self.path / "journal.jsonl"

    @property
    def cancel_file(self) -> Path:
        """Touched whenever a process asks for the end of another's job, so that one look finds all requests."""
        return self.path / _CANCEL

    @property
    def host_lock_file(self) -> Path:
        """Locked by the host of the detached jobs."""
        return self.path / "host.lock"

    @property
    def host_socket_file(self) -> Path:
        """Where the host takes requests."""
        return self.path / "host.sock"

    @property
    def host_log_file(self) -> Path:
        """What the host has to complain of."""
        return self.path / "host.log"

    def create(self) -> None:
        """Make the folder for its owner alone, kept out of version control, if it is not there.

        Raises:
            NotADirectoryError: the path is a file.
            PermissionError: it can't be written to.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"The job store {self.path} is a file. Give another path, or set JOBCONTAINER_HOME."
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                write_whole(ignore, b"*\n")
        except OSError as error:
            raise type(error)(
                error.errno,
                f"The job store {self.path} can't be written to ({error.strerror}). "
                "Give another path, or set JOBCONTAINER_HOME.",
            ) from error

    def new_job(self, name: str) -> JobFolder:
        """Make the folder of a new job."""
        folder = self.job(new_job_id(name))
        folder.create()
        return folder

    def job(self, job_id: str) -> JobFolder:
        """Name the folder of a job; nothing is read or made."""
        return JobFolder(self.path / job_id)

    def job_folders(self) -> Iterator[JobFolder]:
        """Go through the folders of jobs, oldest first."""
        return (folder for folder in self.folders() if folder.record_stamp() is not None)

    def folders(self) -> Iterator[JobFolder]:
        """Go through all folders in the store, whether they hold a job or not, sorted by name."""
        if not self.path.is_dir():
            return iter(())
        with os.scandir(self.path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        return map(self.job, names)


def store_folder(store: str | os.PathLike[str] | None) -> StoreFolder:
    """Name the store: the one given, else the session's own.

    That is ``JOBCONTAINER_HOME``, or else ``.jobcontainer`` in the working directory, as they are when it is first
    asked for: a later ``cd`` moves no store.

    Raises:
        FileNotFoundError: the working directory was deleted.
    """
    global _session_store  # noqa: PLW0603 -- the process has one
    if store is not None:
        return _store_at(store)
    if _session_store is None:
        _session_store = _store_at(os.environ.get("JOBCONTAINER_HOME") or ".jobcontainer")
    return _session_store


def _store_at(path: str | os.PathLike[str]) -> StoreFolder:
    expanded = Path(path).expanduser()
    return StoreFolder(expanded if expanded.is_absolute() else Path(working_directory(), expanded))


_session_store: StoreFolder | None = None


def _stamp(path: Path) -> str | None:
    """Return size and modification time of a regular file; None for anything else."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return f"{found.st_size}:{found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else None
