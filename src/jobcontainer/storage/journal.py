"""The journal of a store: an index that saves a listing from reading every job folder.

It is never believed over the folders. A line carries the size and modification time of the file that it repeats
(``job.json`` or ``events.jsonl``), and counts only while that file is the same; else the folder is read. So a journal
that is torn, old or deleted costs the next listing some time, which then writes what was missing. Nothing is written
into the journal of another user's store.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobcontainer.events import JobState
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.storage.jsonl import append_lines, read_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from jobcontainer.storage.folder import JobFolder, StoreFolder

_RECORD = "record"
_EVENTS = "events"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What is known of a job without reading its events."""

    folder: JobFolder
    name: str
    submitted: float
    owner: dict[str, Any]
    state: JobState | None = None  # how it ended; None where only its events can say whether it has


class Journal:
    """The index of a store's jobs."""

    def __init__(self, store: StoreFolder) -> None:
        self._store = store

    def entries(self) -> list[JournalEntry]:
        """Return every job of the store, oldest first; what the journal lacks is read from the folders and added."""
        known = self._lines()
        entries, missing = [], []
        for folder in self._store.folders():
            stamp = folder.record_stamp()
            if stamp is None:
                continue
            line = known.get(folder.id, {})
            entry = _entry(folder, line) if line.get(_RECORD) == stamp else None
            if entry is None:
                entry = _entry_from_folder(folder)
                missing += [entry] if entry is not None else []
            if entry is not None:
                entries.append(entry)
        self.add_submitted(missing)
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

    def forget(self, job_ids: Collection[str]) -> None:
        """Leave out jobs that were deleted; a line that another process adds meanwhile may be lost until a listing."""
        if not self._store.is_own():
            return
        with contextlib.suppress(OSError):
            lines = [line for line in read_lines(self._store.journal_file)[0] if line.get("id") not in job_ids]
            write_whole(self._store.journal_file, "".join([json.dumps(line) + "\n" for line in lines]).encode())

    def _lines(self) -> dict[str, dict[str, Any]]:
        """Return what the lines say of each job, the later over the earlier."""
        known: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError):
            for line in read_lines(self._store.journal_file)[0]:
                known.setdefault(str(line.get("id")), {}).update(line)
        return known

    def _append(self, lines: Iterable[dict[str, Any]]) -> None:
        if not self._store.is_own():
            return
        with contextlib.suppress(OSError):  # a full disk, a deleted store: the next listing adds what is missing
            append_lines(self._store.journal_file, lines)


def _entry(folder: JobFolder, line: dict[str, Any]) -> JournalEntry | None:
    try:
        state = JobState(line["state"]) if line.get(_EVENTS) == folder.events_stamp() is not None else None
        return JournalEntry(folder, line["name"], line["submitted"], line["owner"], state)
    except (KeyError, ValueError):
        return None


def _entry_from_folder(folder: JobFolder) -> JournalEntry | None:
    try:
        record = folder.read_record()
    except (OSError, ValueError, TypeError, KeyError):  # deleted just now, or overwritten by its own job
        return None
    return JournalEntry(folder, record.name, record.submitted, record.owner)
