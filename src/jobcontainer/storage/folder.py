"""JobFolder: the only module that knows the names of a job's files.

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
import shutil
import stat
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobcontainer.errors import CorruptFileError
from jobcontainer.events import event_from_json, event_to_json
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.jobfile.ownership import why_foreign
from jobcontainer.jobfile.reader import remove_stale_blobs
from jobcontainer.storage.jsonl import append_lines, read_lines
from jobcontainer.storage.record import JobRecord
from jobcontainer.storage.regular_file import read_part, size_of, status_of
from jobcontainer.storage.turns import TurnReader, starts_from

if TYPE_CHECKING:
    from jobcontainer.events import Event, Outcome, Started

_LONGEST_RECORD: Final = 16 * 2**20  # bytes
_TAIL: Final = 64 * 2**10  # bytes of the end of a log that are read for its last lines, at least
_LINE: Final = 2**10  # and for each of them
_CONTINUATION: Final = bytes(range(0x80, 0xC0))  # of a character in UTF-8, all but its first byte
RECORD_NAME: Final = "job.json"
_EVENTS: Final = "events.jsonl"
_CANCEL: Final = "cancel"
_NO_MORE_CALLS: Final = "no-more-calls"
_RERUN: Final = "rerun"


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
    def checkpoint_file(self) -> Path:
        """What the job saved last, to go on from; see ``checkpoint.py``."""
        return self.path / "checkpoint.job"

    @property
    def held_checkpoint_file(self) -> Path:
        """A checkpoint while it travels to another machine, whatever the job saves meanwhile."""
        return self.path / "checkpoint.held.job"

    @property
    def calls_file(self) -> Path:
        """What the calls of a job returned or raised, where the job is a chunk of calls; see ``call_results.py``."""
        return self.path / "calls"

    @property
    def preview_file(self) -> Path:
        """What cards show of the result or exception without loading it."""
        return self.path / "preview.json"

    @property
    def record_file(self) -> Path:
        """The facts of the job, written once."""
        return self.path / RECORD_NAME

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

    def note_rerun(self) -> None:
        """Note that the job was run again, as another one."""
        with contextlib.suppress(OSError):  # it was deleted, say: then nobody resumes it either
            self.check_own()
            (self.path / _RERUN).touch(mode=0o600)

    def was_rerun(self) -> bool:
        """Return whether the job was run again, as another one."""
        return os.path.lexists(self.path / _RERUN)

    def remove_result(self) -> None:
        """Remove the result of an earlier attempt, and its large data."""
        with contextlib.suppress(OSError):
            self.result_file.unlink(missing_ok=True)
        remove_stale_blobs(self.result_file)

    def size(self) -> int:
        """Return the bytes that the folder takes on disk, as ``du`` counts them.

        Large data counts in full, although other jobs may share it; the size of the store counts it once.
        """
        return size_on_disk(self.path)

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

    def delete(self) -> bool:
        """Delete the folder, and return whether it is gone; the record goes first, so that a part is no job."""
        with contextlib.suppress(OSError):
            self.record_file.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        return not os.path.lexists(self.path)

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
        return _stamp(f"{self.path}{os.sep}{RECORD_NAME}")

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


def _stamp(path: str) -> str | None:
    """Return size and modification time of a regular file; None for anything else."""
    found = status_of(path)
    return None if found is None else f"{found.st_size}:{found.st_mtime_ns}"


def size_on_disk(folder: Path) -> int:
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
