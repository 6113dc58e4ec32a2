"""Ends of jobs that could not be written when they came: a full disk, no descriptors, a limit on the size of files.

The handle knows the end already, and other processes see the job as running for as long as this one lives. So each is
tried again about once a second until it is written or its folder is gone, and a last time when a pool is shut down.
The event then says why it is late, so that every listing can.

Threads: one for the process, while an end waits to be written. ``_unwritten`` is changed by single operations of a
dict, and who has taken an end out of it writes it.
"""

from __future__ import annotations

import _thread
import time
from typing import TYPE_CHECKING, Final

from jobcontainer.storage.ending import write_end
from jobcontainer.storage.journal import Journal
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker.cpython_internals import in_background
from jobcontainer.worker.forked_child import renew_in_forked_child

if TYPE_CHECKING:
    from jobcontainer.events import Outcome
    from jobcontainer.storage.folder import JobFolder

_PAUSE_SECONDS: Final = 1.0

_unwritten: dict[str, tuple[JobFolder, Outcome]] = {}
_thread_runs = _thread.allocate_lock()


def add(folder: JobFolder, outcome: Outcome) -> None:
    """Have an end written as soon as it can be; called in a thread in which no interrupt is raised."""
    if not _is_settled(folder, outcome):
        _unwritten[str(folder.path)] = folder, outcome
        _start()


def outcome_of(folder: JobFolder) -> Outcome | None:
    """Return how a job of this process ended, where that could not be written yet."""
    found = _unwritten.get(str(folder.path))
    return None if found is None else found[1]


def write() -> None:
    """Try to write what waits, once."""
    for path in list(_unwritten):
        if (found := _unwritten.pop(path, None)) is not None and not _is_settled(*found):
            _unwritten[path] = found


def _is_settled(folder: JobFolder, outcome: Outcome) -> bool:
    """Try to write an end; return whether nothing is left to do, as it is written, or its folder is gone."""
    if not folder.path.is_dir():
        return True
    if write_end(folder, outcome) is not outcome:  # it says anew why it could not be written
        return False
    Journal(StoreFolder(folder.path.parent)).add_ended([(folder, outcome.state)])
    return True


def _start() -> None:
    """Start the thread, unless there is one; where none can be had, the next end or shutdown tries again."""
    if _thread_runs.acquire(blocking=False) and not in_background(_run):
        _thread_runs.release()


def _run() -> None:
    while _unwritten:
        time.sleep(_PAUSE_SECONDS)
        write()
    _thread_runs.release()
    if _unwritten:  # one came just now
        _start()


def _forget() -> None:
    """Leave to the parent what is the parent's."""
    global _thread_runs  # noqa: PLW0603 -- its thread did not come along
    _unwritten.clear()
    _thread_runs = _thread.allocate_lock()


renew_in_forked_child(_forget)
