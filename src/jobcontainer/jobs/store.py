"""JobStore: every job that a folder holds, found again and cleaned up."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from jobcontainer.events import JobState, Started
from jobcontainer.jobs.control import StoreControl, needed_by
from jobcontainer.jobs.group import JobGroup
from jobcontainer.process import memory_text
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.journal import Journal
from jobcontainer.storage.keys import StoreKeys
from jobcontainer.storage.store_folder import store_folder

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from jobcontainer.jobs.job import Job
    from jobcontainer.storage.folder import JobFolder

LARGE = 5_000_000_000
"""Bytes on disk from which on a listing advises to prune the store."""

_NAMES_IN_ERRORS = 5
_SAMPLE = 1000  # jobs
_CUT_OFF_SECONDS = 24 * 3600.0  # after which nobody writes a job any more


class JobStore:
    """The jobs of a folder, whoever ran them.

    The store of another user can be read, as far as its files can; nothing is written there.

    Args:
        path: the folder; None for ``JOBCONTAINER_HOME``, or ``.jobcontainer`` in the working directory.

    Example:
        >>> JobStore().jobs().summary()                          # doctest: +SKIP
        {'succeeded': 20, 'lost': 2}
        >>> JobStore().open("20261122-1830").result()            # doctest: +SKIP
        42
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._folder = store_folder(path)
        self._control = StoreControl(self._folder)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    def __fspath__(self) -> str:
        """Return the path, so that a store can be passed where a path can."""
        return str(self.path)

    def __repr__(self) -> str:
        """Show the path."""
        return f"JobStore({str(self.path)!r})"

    def jobs(self) -> JobGroup[Any]:
        """Return every job of the store, oldest first; each is read when it is first looked at.

        Jobs that another live process runs are watched; those whose process is gone are shown as lost.
        """
        return JobGroup(self._control.jobs())

    def open(self, job_id: str) -> Job[Any]:
        """Find one job.

        Args:
            job_id: its id, or the beginning of it if that is the only one which begins so.

        Raises:
            KeyError: there is no such job, or several; the message lists some that there are.
        """
        folder = self._folder.job(job_id)
        if os.sep in job_id or folder.record_stamp() is None:
            folder = self._by_prefix(job_id)
        return self._control.open(folder)

    def prune(
        self,
        *,
        older_than: float | None = None,
        keep: int | None = None,
        states: Collection[JobState | str] | None = None,
        larger_than: int | None = None,
    ) -> list[str]:
        """Delete the folders of jobs that have ended and meet every condition given.

        Large data goes with the last job that has it. What an unfinished job needs, of this store or of this process,
        is kept.

        Args:
            older_than: seconds since they were submitted.
            keep: how many of the newest are kept in any case.
            states: how they ended.
            larger_than: bytes that their folder takes on disk.

        Returns:
            The ids of the jobs that are gone.

        Raises:
            ValueError: no condition was given, or one is out of range.
            PermissionError: the store is not this user's own; the message says what to do.

        Example:
            >>> JobStore().prune(older_than=7 * 24 * 3600, states={"succeeded"})     # doctest: +SKIP
        """
        if older_than is None and keep is None and states is None and larger_than is None:
            raise ValueError("prune() deletes nothing unasked: give older_than, keep, states or larger_than.")
        for name, value in (("older_than", older_than), ("keep", keep), ("larger_than", larger_than)):
            if value is not None and not value >= 0:  # neither a number that is none
                raise ValueError(f"{name}={value!r}: it takes a number from 0 up. Nothing was deleted.")
        if self._folder.path.exists():
            self._folder.check_own()
        wanted = None if states is None else {JobState(state) for state in states}
        jobs = list(self.jobs())
        needed = needed_by([job for job in jobs if not job.done()])
        if keep is not None:
            jobs = jobs[: max(0, len(jobs) - keep)]
        gone = [
            job.folder
            for job in jobs
            if job.done()
            and job.folder.path not in needed
            and (older_than is None or time.time() - job.submitted > older_than)
            and (wanted is None or job.state in wanted)
            and (larger_than is None or job.folder.size() > larger_than)
        ]
        ids = [folder.id for folder in gone if folder.delete()]
        self._delete_cut_off()
        SharedData(self._folder).remove_unused()
        StoreKeys(self._folder).remove_unused()
        if ids:
            Journal(self._folder).shrink()
        return ids

    def _delete_cut_off(self) -> None:
        """Delete what is left of submissions, and of earlier prunes, that were cut off: folders without a record.

        A job that runs may have deleted its own; its folder stays.
        """
        for folder in self._folder.folders():
            is_old = folder.record_stamp() is None and time.time() - folder.modified() > _CUT_OFF_SECONDS
            if is_old and not isinstance(folder.last_turn(), Started):
                folder.delete()

    def size(self) -> int:
        """Return the bytes that the store takes on disk; what jobs share counts once."""
        return self._folder.size()

    def advice(self) -> str:
        """Return a sentence that says whose the store is, or how to prune one that has grown large; mostly empty.

        Of many jobs a sample is looked at, so that it takes no longer than of a thousand.
        """
        if self._folder.path.exists() and (why := self._folder.why_foreign()):
            return why
        ids = self._folder.job_ids()
        sample = ids[:: len(ids) // _SAMPLE + 1]
        size = sum(self._folder.job(job_id).size() for job_id in sample) * len(ids) / max(1, len(sample))
        if size < LARGE:
            return ""
        return (
            f"The jobs in {self.path} take about {memory_text(size)} on disk. Nothing is deleted unasked: "
            "`jobcontainer prune --older-than 7`, or JobStore().prune(keep=100), deletes old ones."
        )

    def _by_prefix(self, prefix: str) -> JobFolder:
        matching = self._folder.job_ids(prefix)
        if len(matching) == 1:
            return self._folder.job(matching[0])
        some = ", ".join((matching or self._folder.job_ids())[-_NAMES_IN_ERRORS:])
        if matching:
            raise KeyError(f"{len(matching)} jobs begin with {prefix!r}; give more of the id: {some}")
        raise KeyError(f"There is no job {prefix!r} in {self.path}. " + (f"The newest are: {some}" if some else ""))
