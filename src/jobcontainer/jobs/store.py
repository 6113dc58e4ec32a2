"""JobStore: every job that a folder holds, found again and cleaned up."""

from __future__ import annotations

import os
import shutil
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from jobcontainer.events import JobState
from jobcontainer.jobs.at_exit import live_jobs
from jobcontainer.jobs.detached.client import HostClient
from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.job import Job
from jobcontainer.jobs.pool import shared_pool, store_folder
from jobcontainer.jobs.watcher import Watch
from jobcontainer.storage.jsonl import append_lines, read_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.record import JobRecord

R = TypeVar("R")

LARGE = 5_000_000_000
"""Bytes on disk from which a store's size is told."""

_NAMES_IN_ERRORS = 5


class JobStore:
    """The jobs of a folder, whoever ran them.

    Args:
        path: the folder; None for ``JOBCONTAINER_HOME``, or ``.jobcontainer`` in the working directory.

    Example:
        >>> JobStore().jobs().summary()                          # doctest: +SKIP
        {<JobState.SUCCEEDED: 'succeeded'>: 20, <JobState.LOST: 'lost'>: 2}
        >>> JobStore().open("20261122-1830").result()            # doctest: +SKIP
        42
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Name the folder; it need not exist yet."""
        self._folder = store_folder(path)
        self._watch = _watch(self._folder.journal_file)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    def __fspath__(self) -> str:
        """Let the store stand wherever its path may."""
        return str(self.path)

    def __repr__(self) -> str:
        """Show the path."""
        return f"JobStore({str(self.path)!r})"

    def jobs(self) -> JobGroup[Any]:
        """Return every job of the store, oldest first.

        Jobs that another live process runs are watched; those whose process is gone are told as lost.
        """
        if not self.path.is_dir():
            return JobGroup([])
        journal, live = self._journal(), live_jobs(self.path)
        return JobGroup(
            live.get(folder.id) or self._handle(folder, journal.get(folder.id, {}))
            for folder in self._folder.job_folders(known=journal)
        )

    def open(self, job_id: str) -> Job[Any]:
        """Find one job.

        Args:
            job_id: its id, or the beginning of it if that is the only one which begins so.

        Raises:
            KeyError: there is no such job, or several; the message lists some that there are.
        """
        folder = self._folder.job(job_id)
        if os.sep in job_id or not folder.record_file.exists():
            folder = self._by_prefix(job_id)
        return live_jobs(self.path).get(folder.id) or self._handle(folder, self._journal().get(folder.id, {}))

    def prune(
        self,
        *,
        older_than: float | None = None,
        keep: int | None = None,
        states: Collection[JobState | str] | None = None,
        larger_than: int | None = None,
    ) -> list[str]:
        """Delete the folders of jobs that have ended and meet every condition given.

        Args:
            older_than: seconds since they were submitted.
            keep: how many of the newest are kept in any case.
            states: how they ended.
            larger_than: bytes that their folder takes on disk.

        Returns:
            The ids of the jobs that are gone.

        Raises:
            ValueError: no condition was given, or one is out of range.

        Example:
            >>> JobStore().prune(older_than=7 * 24 * 3600, states={"succeeded"})     # doctest: +SKIP
        """
        if older_than is None and keep is None and states is None and larger_than is None:
            raise ValueError("prune() deletes nothing unasked: give older_than, keep, states or larger_than.")
        wanted = None if states is None else {JobState(state) for state in states}
        jobs = list(self.jobs())
        if keep is not None:
            jobs = jobs[: max(0, len(jobs) - keep)]
        gone = [
            job.folder
            for job in jobs
            if job.done()
            and (older_than is None or time.time() - job.submitted > older_than)
            and (wanted is None or job.state in wanted)
            and (larger_than is None or job.folder.size() > larger_than)
        ]
        for folder in gone:
            shutil.rmtree(folder.path, ignore_errors=True)
        append_lines(self._folder.journal_file, ({"event": "pruned", "id": folder.id} for folder in gone))
        return [folder.id for folder in gone]

    def size(self) -> int:
        """Return the bytes that all jobs take on disk."""
        return sum(folder.size() for folder in self._folder.job_folders()) if self.path.is_dir() else 0

    def advice(self) -> str:
        """Tell that the store has grown large, and how to prune it; empty while it has not."""
        size = self.size()
        if size < LARGE:
            return ""
        return (
            f"The jobs in {self.path} take {size / 1e9:.1f} GB on disk. Nothing is deleted unasked: "
            "`jobcontainer prune --older-than 7`, or JobStore().prune(keep=100), deletes old ones."
        )

    def cancel(self, job: Job[Any]) -> bool:
        """End a job that was found here; see :meth:`Job.cancel`."""
        live = live_jobs(self.path).get(job.id)
        if live is not None:
            return live.cancel()
        if job.done():
            return job.cancelled()
        self._cancel_elsewhere([job])
        return True

    def cancel_all(self, jobs: Sequence[Job[Any]]) -> None:
        """End jobs that were found here."""
        here = live_jobs(self.path)
        JobGroup(here[job.id] for job in jobs if job.id in here).cancel()
        self._cancel_elsewhere([job for job in jobs if job.id not in here and not job.done()])

    def _cancel_elsewhere(self, jobs: Sequence[Job[Any]]) -> None:
        """Ask whoever owns them: the host of detached jobs, or another kernel, whose keepers look for a file."""
        by_host = HostClient(self._folder).cancel([job.id for job in jobs])
        for job in jobs:
            if job.id not in by_host:
                job.folder.ask_to_cancel()

    def rerun(self, job: Job[R]) -> Job[R]:
        """Run a job that was found here again; see :meth:`Job.rerun`."""
        return shared_pool(self.path).rerun(job)

    def _journal(self) -> dict[str, dict[str, Any]]:
        """Read the index: of each job what its lines say, the later over the earlier."""
        facts: dict[str, dict[str, Any]] = {}
        for line in read_lines(self._folder.journal_file)[0]:
            facts.setdefault(str(line.get("id")), {}).update(line)
        return facts

    def _handle(self, folder: JobFolder, facts: dict[str, Any]) -> Job[Any]:
        if not {"name", "submitted", "owner"} <= facts.keys():  # the journal was deleted, or does not know the job
            facts = facts | _facts(folder.read_record())
        job: Job[Any] = Job(folder, name=facts["name"], submitted=facts["submitted"], control=self)
        if "state" in facts:
            job._settle_as(JobState(facts["state"]))
        else:
            self._watch.add(job, facts["owner"])
        return job

    def _by_prefix(self, prefix: str) -> JobFolder:
        folders = list(self._folder.job_folders()) if self.path.is_dir() else []
        matching = [folder for folder in folders if folder.id.startswith(prefix)]
        if len(matching) == 1:
            return matching[0]
        some = ", ".join(folder.id for folder in (matching or folders)[-_NAMES_IN_ERRORS:])
        if matching:
            raise KeyError(f"{len(matching)} jobs begin with {prefix!r}; give more of the id: {some}")
        raise KeyError(f"There is no job {prefix!r} in {self.path}. " + (f"The newest are: {some}" if some else ""))


def _facts(record: JobRecord) -> dict[str, Any]:
    return {"name": record.name, "submitted": record.submitted, "owner": record.owner}


_watches: weakref.WeakValueDictionary[Path, Watch] = weakref.WeakValueDictionary()


def _watch(journal: Path) -> Watch:
    """Share one watch per journal, as a store is made anew for every look."""
    watch = _watches.get(journal)
    if watch is None:
        watch = _watches[journal] = Watch(journal)
    return watch
