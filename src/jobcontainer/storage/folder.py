"""JobFolder and StoreFolder: the only module that knows the names of a job's files.

The folder is the only channel between a job and whoever looks at it. The job's side writes; the handle, the card, the
command line and a restarted kernel read the same files. What is written once appears whole or not at all (a temporary
file in the same folder, then a rename); what grows (``events.jsonl``, ``log.txt``, ``journal.jsonl``) grows by single
appends of whole lines, and a reader passes over a torn last line. What a job has put in the place of a file of its own,
a pipe or a link, is no file to a reader (:mod:`jobcontainer.storage.regular_file`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobcontainer.errors import CorruptFileError
from jobcontainer.events import event_from_json, event_to_json
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.jobfile.reader import remove_stale_blobs
from jobcontainer.process import working_directory
from jobcontainer.storage.jsonl import append_lines, read_lines
from jobcontainer.storage.ownership import why_foreign, why_foreign_folder
from jobcontainer.storage.record import JobRecord, new_job_id
from jobcontainer.storage.regular_file import read_part, size_of, status_of
from jobcontainer.storage.turns import TurnReader, starts_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobcontainer.events import Event, Outcome, Started

_LONGEST_RECORD: Final = 16 * 2**20  # bytes
_TAIL: Final = 64 * 2**10  # bytes of the end of a log that are read for its last lines, at least
_LINE: Final = 2**10  # and for each of them
_CONTINUATION: Final = bytes(range(0x80, 0xC0))  # of a character in UTF-8, all but its first byte
_RECORD: Final = "job.json"
_EVENTS: Final = "events.jsonl"
_CANCEL: Final = "cancel"
_NO_MORE_CALLS: Final = "no-more-calls"
_DATA: Final = "data"


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
    def calls_file(self) -> Path:
        """What the calls of a job returned or raised, where the job is a chunk of calls; see ``call_results.py``."""
        return self.path / "calls"

    @property
    def record_file(self) -> Path:
        """The facts of the job, written once."""
        return self.path / _RECORD

    @property
    def log_file(self) -> Path:
        """Standard output and error of the job, in order."""
        return self.path / "log.txt"

    @property
    def events_file(self) -> Path:
        """What happened, a line each."""
        return self.path / _EVENTS

    @property
    def progress_file(self) -> Path:
        """The bars as they were at the last update."""
        return self.path / "progress"

    @property
    def cancel_file(self) -> Path:
        """Exists once another process asked for the job's end."""
        return self.path / _CANCEL

    def check_own(self) -> None:
        """Raise unless the folder is this user's own, and no link.

        Raises:
            PermissionError: it is not.
            FileNotFoundError: there is no such folder.
        """
        entry = self.path.lstat()
        what = why_foreign(entry) if stat.S_ISDIR(entry.st_mode) else "is no folder, or a link to one"
        if what:
            raise PermissionError(f"The job folder {self.path} {what}: nothing is written to it, or run from it.")

    def ask_to_cancel(self) -> None:
        """Ask whoever runs the job to end it.

        Raises:
            PermissionError: the folder is another user's.
            FileNotFoundError: it was deleted.
        """
        self.check_own()
        self.cancel_file.touch(mode=0o600)

    def is_asked_to_cancel(self) -> bool:
        """Return whether another process asked for the job's end."""
        return os.path.lexists(self.cancel_file)  # raises nothing where the job has locked its folder

    def ask_for_no_more_calls(self) -> None:
        """Ask a job that makes several calls to end after the present one.

        Raises:
            OSError: it can't be written; the folder was deleted, say.
        """
        (self.path / _NO_MORE_CALLS).touch(mode=0o600)

    def is_asked_for_no_more_calls(self) -> bool:
        """Return whether a job that makes several calls is to end after the present one."""
        return os.path.lexists(self.path / _NO_MORE_CALLS)

    def remove_result(self) -> None:
        """Remove the result of an earlier attempt, and its large data."""
        with contextlib.suppress(OSError):
            self.result_file.unlink(missing_ok=True)
        remove_stale_blobs(self.result_file)

    def size(self) -> int:
        """Return the bytes that the folder takes on disk, as ``du`` counts them.

        Large data counts in full, although other jobs may share it; see :meth:`StoreFolder.size`.
        """
        return _size_on_disk(self.path)

    def modified(self) -> float:
        """Return when a file was last added or removed, in seconds since the epoch; 0 where there is no folder."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

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
            CorruptFileError: the job has written over it.
            OSError: it can't be read at the moment.
        """
        if status_of(self.record_file) is None:
            raise FileNotFoundError(errno.ENOENT, "There is no such job", str(self.record_file))
        try:
            return JobRecord.from_json(json.loads(read_part(self.record_file, 0, _LONGEST_RECORD).decode()))
        except (ValueError, RecursionError) as error:
            raise CorruptFileError(
                f"{self.record_file} is damaged: {error}. Most likely its own job has written over it. Its options and "
                "source are gone: submit it again."
            ) from error

    def append_event(self, event: Event) -> None:
        """Add one line to ``events.jsonl``."""
        append_lines(self.events_file, [event_to_json(event)])

    def read_events(self, offset: int = 0) -> tuple[list[Event], int]:
        """Read the next events from a byte offset on, 4 MiB of them at the most.

        Returns:
            The events, and the offset at which the next call goes on: the same where there are no more.
        """
        lines, offset = read_lines(self.events_file, offset)
        events = (event_from_json(line) for line in lines)
        return [event for event in events if event is not None], offset

    def record_stamp(self) -> str | None:
        """Return what changes whenever ``job.json`` does; None where there is no such file."""
        return _stamp(f"{self.path}{os.sep}{_RECORD}")

    def events_stamp(self) -> str | None:
        """Return what changes whenever an event is added; None where there is none yet."""
        return _stamp(f"{self.path}{os.sep}{_EVENTS}")

    def last_turn(self) -> Started | Outcome | None:
        """Return the last event that is the start or the end of an attempt; None where none began."""
        return self.turns().last

    def turns(self) -> TurnReader:
        """Return a reader of the starts and ends of attempts, which has looked once."""
        turns = TurnReader(self.events_file)
        turns.look()
        return turns

    def starts(self, offset: int) -> list[Started]:
        """Return the starts of attempts among the first events from a byte offset on."""
        return starts_from(self.events_file, offset)

    def events_size(self) -> int:
        """Return the bytes of the events; 0 where there are none yet."""
        return size_of(self.events_file)

    def log_size(self) -> int:
        """Return the bytes of the log; 0 where there is none yet."""
        return size_of(self.log_file)

    def read_log(self, offset: int = 0, size: int = -1) -> bytes:
        """Read the log from a byte offset on, so many bytes at the most; empty where there is nothing yet."""
        return read_part(self.log_file, offset, size if size >= 0 else max(0, self.log_size() - offset))

    def tail(self, lines: int) -> list[str]:
        """Return the last lines of the log, so many at the most, whatever the size of the log.

        Only the end of it is read: 64 KiB, or 1 KiB for each line where that is more. What does not fit is left out,
        and of a line that is longer there is the end. Bytes that are not UTF-8 are shown as replacement characters.
        """
        if lines <= 0:
            return []
        room = max(_TAIL, lines * _LINE)
        start = max(0, self.log_size() - room)
        data = read_part(self.log_file, start, room)
        if start:
            data = data[:3].lstrip(_CONTINUATION) + data[3:]  # without what is left of a character that was cut
        kept = data.decode("utf-8", "replace").split("\n")
        if kept[-1] == "":
            kept.pop()
        return kept[-lines:]


class StoreFolder:
    """The folder that holds the job folders, and their journal."""

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()

    @property
    def data_folder(self) -> Path:
        """Where large data is, once for each content; see :mod:`jobcontainer.storage.data`."""
        return self.path / _DATA

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
            PermissionError: it can't be written to, or another user can change it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"The job store {self.path} is a file. Give another path, or set JOBCONTAINER_HOME."
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            why = self.why_foreign()
            ignore = self.path / ".gitignore"
            if not why and not ignore.exists():
                write_whole(ignore, b"*\n")
        except OSError as error:
            raise type(error)(
                error.errno,
                f"The job store {self.path} can't be written to ({error.strerror}). "
                "Give another path, or set JOBCONTAINER_HOME.",
            ) from error
        if why:
            raise PermissionError(why)

    def why_foreign(self) -> str:
        """Return, in a sentence, why the store is not this user's own and what to do; empty where it is.

        A store that is not may be read: its jobs, logs and outputs are data, and a result is loaded only if it is
        signed with a key of this user's.

        Raises:
            OSError: there is no such folder.
        """
        what = why_foreign_folder(self.path)
        if not what:
            return ""
        own = "" if what.startswith("belongs") else f"chmod go-w {self.path} if they have put nothing there, or "
        return (
            f"The job store {self.path} {what}: its jobs can be looked at, but nothing is written to it or run from "
            f"it. To submit, cancel or prune jobs, {own}set JOBCONTAINER_HOME to a folder of your own."
        )

    def check_own(self) -> None:
        """Raise unless the store is this user's own.

        Raises:
            PermissionError: it is not; the message says what to do.
            FileNotFoundError: there is no such folder.
        """
        if why := self.why_foreign():
            raise PermissionError(why)

    def is_own(self) -> bool:
        """Return whether the store is there, and is this user's own."""
        with contextlib.suppress(OSError):
            return not self.why_foreign()
        return False

    def new_job(self, name: str) -> JobFolder:
        """Make the folder of a new job.

        Raises:
            PermissionError: the store is not this user's own; the message says what to do.
            FileNotFoundError: there is no store.
        """
        self.check_own()
        folder = self.job(new_job_id(name))
        folder.create()
        return folder

    def job(self, job_id: str) -> JobFolder:
        """Name the folder of a job; nothing is read or made."""
        return JobFolder(f"{self.path}{os.sep}{job_id}")

    def job_folders(self) -> Iterator[JobFolder]:
        """Go through the folders of jobs, oldest first."""
        return map(self.job, self.job_ids())

    def job_ids(self, prefix: str = "") -> list[str]:
        """Return the ids of the jobs whose ids begin so, oldest first: of the folders that have a record.

        A folder whose name can't be printed is nobody's job.
        """
        try:
            store = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            with os.scandir(store) as entries:
                names = [
                    entry.name
                    for entry in entries
                    if entry.name.startswith(prefix)
                    and entry.name.isprintable()
                    and entry.is_dir(follow_symlinks=False)
                ]
            names.sort()
            # By a path that begins at the store: of a hundred thousand names, whole paths would take twice as long.
            return [name for name in names if status_of(f"{name}{os.sep}{_RECORD}", dir_fd=store) is not None]
        finally:
            os.close(store)

    def size(self) -> int:
        """Return the bytes that the store takes on disk, as ``du`` counts them: what jobs share counts once."""
        return _size_on_disk(self.path)


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


def _stamp(path: str) -> str | None:
    """Return size and modification time of a regular file; None for anything else."""
    found = status_of(path)
    return None if found is None else f"{found.st_size}:{found.st_mtime_ns}"


def _size_on_disk(folder: Path) -> int:
    """Return the bytes of a folder and all that is in it; files of several names count once."""
    found: dict[tuple[int, int], int] = {}
    waiting = [os.fspath(folder)]
    while waiting:
        with contextlib.suppress(OSError):  # deleted meanwhile
            here = waiting.pop()
            status = os.lstat(here)
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
            if stat.S_ISDIR(status.st_mode):
                waiting += [entry.path for entry in os.scandir(here)]
    return sum(found.values())
