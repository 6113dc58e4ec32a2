"""The journal of a store: an index that saves a listing from reading every job folder.

It is never believed over them. A line carries the size and modification time of the file that it repeats
(``job.json`` or ``events.jsonl``), and counts only while that file is the same; else the folder is read. So a journal
that is torn, old or deleted costs the next listing some time, which then writes what was missing. Nothing is written
into the journal of another user's store.

Any number of processes append to it at the same time, and none of them ever waits for another. It is written anew,
with one line for each job that is there, when jobs were pruned and when it has grown far beyond its jobs. Whoever does
that holds a lock (``flock``) on the old file, so that there is one of them; another one leaves it at that. What is
appended to the old file meanwhile is copied by the holder, or by whoever appended, who sees that it was replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import CorruptFileError
from jobcontainer.events import JobState, checked
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.storage.jsonl import all_lines, append_lines
from jobcontainer.storage.regular_file import append, open_regular, status_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.store_folder import StoreFolder

_RECORD: Final = "record"
_EVENTS: Final = "events"
_LINES_PER_JOB: Final = 4  # twice what a job needs
_FEW_LINES: Final = 1000
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What is known of a job without reading its events."""

    folder: JobFolder
    name: str
    submitted: float
    owner: dict[str, Any]  # empty where it is not known
    state: JobState | None = None  # how it ended; None where only its events can say whether it has
    waits: bool = False  # whether it needs other jobs


class Journal:
    """The index of a store's jobs."""

    def __init__(self, store: StoreFolder) -> None:
        self._store = store

    def entries(self, folders: Sequence[JobFolder]) -> list[JournalEntry]:
        """Return what is known of these jobs; what the journal lacks is read from the folders and added."""
        known, count = self._lines()
        entries, missing = [], []
        for folder in folders:
            line = known.get(folder.id, {})
            entry = _entry(folder, line) if line.get(_RECORD) == folder.record_stamp() is not None else None
            if entry is None:
                entry = entry_from_folder(folder)
                missing += [entry] if entry.owner else []
            entries.append(entry)
        self.add_submitted(missing)
        if count > _FEW_LINES + _LINES_PER_JOB * min(len(known), len(os.listdir(self._store.path))):  # noqa: PTH208 -- the number is all that is wanted
            self.shrink()
        return entries

    def add_submitted(self, entries: Collection[JournalEntry]) -> None:
        """Add jobs whose ``job.json`` is written."""
        self._append(
            {
                "event": "submitted",
                "id": entry.folder.id,
                "name": entry.name,
                "submitted": entry.submitted,
                "owner": entry.owner,
                **({"waits": True} if entry.waits else {}),
                _RECORD: entry.folder.record_stamp(),
            }
            for entry in entries
        )

    def add_ended(self, ends: Iterable[tuple[JobFolder, JobState]]) -> None:
        """Add how jobs ended, as their events say."""
        self._append(
            {"event": "ended", "id": folder.id, "state": state, _EVENTS: folder.events_stamp()}
            for folder, state in ends
        )

    def shrink(self) -> None:
        """Write the journal anew, with one line for each job that is there; not at all where it can't be."""
        path = self._store.journal_file
        if not self._store.is_own():
            return
        with contextlib.suppress(OSError), _locked(path) as old:
            begun = os.fstat(old).st_size
            known, _ = self._lines()
            there = set(self._store.job_ids())  # after the lines: a job has its folder before its line
            lines = [json.dumps(line) + "\n" for job_id, line in known.items() if job_id in there]
            write_whole(path, "".join(lines).encode())
            append(path, b"\n" + os.pread(old, os.fstat(old).st_size - begun, begun))  # what was added meanwhile

    def _lines(self) -> tuple[dict[str, dict[str, Any]], int]:
        """Return what the lines say of each job, the later over the earlier, and how many lines there are."""
        known: dict[str, dict[str, Any]] = {}
        count = 0
        with contextlib.suppress(OSError):
            for line in all_lines(self._store.journal_file):
                job_id = str(line.get("id"))
                if (earlier := known.get(job_id)) is None:
                    known[job_id] = line
                else:
                    earlier.update(line)
                count += 1
        return known, count

    def _append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Append, again where the file was replaced meanwhile; what fails, the next listing adds."""
        if not (records := list(lines)) or not self._store.is_own():
            return
        with contextlib.suppress(OSError):  # a full disk, a deleted store
            for _ in range(_TRIES):
                if append_lines(self._store.journal_file, records) == _inode(self._store.journal_file):
                    break


def entry_from_folder(folder: JobFolder) -> JournalEntry:
    """Read what is known of a job from its record; where that was written over, from its id, and without an owner."""
    try:
        record = folder.read_record()
    except (FileNotFoundError, CorruptFileError):
        name = folder.id.split("-", 2)[-1].rpartition("-")[0] or folder.id
        return JournalEntry(folder, name, folder.modified(), {})
    return JournalEntry(folder, record.name, record.submitted, record.owner, waits=bool(record.inputs))


def _entry(folder: JobFolder, line: dict[str, Any]) -> JournalEntry | None:
    """Return what a line says of a job; None where it is no such line."""
    try:
        state = JobState(line["state"]) if line.get(_EVENTS) == folder.events_stamp() is not None else None
        return checked(JournalEntry, line, folder=folder, state=state if state and state.ended else None)
    except (KeyError, ValueError, TypeError):
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the lock on the journal that is there now, and give its descriptor.

    Raises:
        OSError: somebody else holds it, or it was replaced just now.
    """
    with open_regular(path, os.O_RDWR) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_ino != _inode(path):
            raise BlockingIOError(f"{path} was replaced.")
        yield file.fileno()


def _inode(path: Path) -> int | None:
    found = status_of(path)
    return None if found is None else found.st_ino
