"""Who cancels, reruns and finds jobs: what a handle calls, whichever process runs its job.

Jobs of this process are cancelled by their scheduler. Those of another are asked to end by a file in their folder,
which that process and its keepers look for; nothing else is sent. A job is run again by the scheduler that it came
from, or, where that is gone or elsewhere, by one that this process keeps for the store.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from jobcontainer.engines import engine_named
from jobcontainer.events import JobState
from jobcontainer.jobs import late_ends
from jobcontainer.jobs.dependents import dependents_of, inputs_of
from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.job import Job
from jobcontainer.jobs.reruns import rerun_all
from jobcontainer.jobs.scheduler import Scheduler, schedulers_here
from jobcontainer.jobs.stored_jobs import StoredJobs
from jobcontainer.jobs.submission import Submitter, discard
from jobcontainer.jobs.watcher import Watcher
from jobcontainer.storage.ending import lost
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.inputs import folder_now
from jobcontainer.storage.journal import Journal, entry_from_folder
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker.cpython_internals import in_background
from jobcontainer.worker.forked_child import renew_in_forked_child
from jobcontainer.worker.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jobcontainer.engines import Engine
    from jobcontainer.jobs.job_queue import Feeder
    from jobcontainer.jobs.needs import Needs
    from jobcontainer.jobs.submission import Submission
    from jobcontainer.storage.journal import JournalEntry

R = TypeVar("R")

_FEW = 200  # jobs whose folders are read sooner than the journal of their store

_watchers: weakref.WeakValueDictionary[Path, Watcher] = weakref.WeakValueDictionary()
_shared: dict[Path, SchedulerControl] = {}
_lock = threading.RLock()


def reopen(path: str) -> Job[Any]:
    """Find a job again from the path of its folder; a pickled handle becomes this call.

    Raises:
        KeyError: there is no such job any more.
    """
    folder = JobFolder(path)
    return StoreControl(StoreFolder(folder.path.parent)).open(folder)


def start_scheduler(engine: Engine, store: StoreFolder) -> SchedulerControl:
    """Return what submits jobs of a store to an engine, which it owns from here on."""
    return SchedulerControl(Scheduler(engine, Submitter(store)))


def shared_control(store: StoreFolder) -> SchedulerControl:
    """Return the one whose scheduler this process keeps for jobs of a store that come without a pool."""
    with _lock:
        if store.path not in _shared:
            store.create()
            _shared[store.path] = start_scheduler(engine_named("loky", None), store)
        return _shared[store.path]


class StoreControl:
    """Finds the jobs of a store, and cancels and reruns them wherever they run."""

    def __init__(self, store: StoreFolder) -> None:
        self.store = store
        self.reopen = reopen
        self._journal = Journal(store)
        with _lock:
            watcher = _watchers.get(store.path) or Watcher(store)
            self._watcher = _watchers[store.path] = watcher

    def cancel(self, jobs: Sequence[Job[Any]]) -> bool:
        """Ask the processes that run these jobs to end each that has not ended; False where all had ended."""
        pending = [job for job in jobs if not job.done()]
        if pending and self.store.path.exists():
            self.store.check_own()
        for job in pending:
            with contextlib.suppress(FileNotFoundError):  # its folder was deleted
                job.folder.ask_to_cancel()
        if pending:
            self.store.cancel_file.touch(mode=0o600)
        return bool(pending)

    def cancel_dependents(self, job: Job[Any]) -> None:
        """End all jobs that need a job, and those that need them: of its store, or that this process has."""
        controls: dict[int, tuple[Any, list[Job[Any]]]] = {}
        for one in dependents_of(job, [*self.unfinished(), *_unfinished_here()]):
            controls.setdefault(id(one._control), (one._control, []))[1].append(one)
        for control, jobs in controls.values():
            control.cancel(jobs)

    def inputs(self, job: Job[Any]) -> JobGroup[Any]:
        """Return the jobs that one needs, as far as they are there; each is read when it is first looked at."""
        folders = [folder_now(one, job.folder) for one in inputs_of(job)]
        paths = [str(folder.path) for folder in folders if folder.record_stamp() is not None]
        return JobGroup(StoredJobs(paths, lambda some: [reopen(path) for path in some]))

    def unfinished(self) -> list[Job[Any]]:
        """Return the jobs of the store that have not ended."""
        return [job for job in self.jobs() if not job.done()]

    def rerun(self, job: Job[R], *, resume: bool = False) -> Job[R]:
        """Run a job again, and first those above it that did not succeed; from their checkpoints, or anew."""
        return rerun_all([job], self, resume=resume)[0]

    def rerun_alone(self, job: Job[R], again: Mapping[str, Job[Any]], *, resume: bool) -> Job[R]:
        """Run the process file of a job, of this store or another, again as a new job with the same options.

        Args:
            job: the job.
            again: the jobs that run some of its inputs again, by the paths of the folders of these.
            resume: whether it goes on from its checkpoint, where it has one.
        """
        return shared_control(self.store).rerun_alone(job, again, resume=resume)

    def jobs(self) -> StoredJobs:
        """Return every job of the store, oldest first; what is known of one is read when it is asked for."""
        return StoredJobs(self.store.job_ids(), self._listed)

    def open(self, folder: JobFolder) -> Job[Any]:
        """Return the handle of one job.

        Raises:
            KeyError: there is no such job.
        """
        if folder.record_stamp() is None:
            raise KeyError(f"There is no job {folder.id!r} in {self.store.path}.")
        return self._handles([entry_from_folder(folder)])[0]

    def _listed(self, ids: Sequence[str]) -> list[Job[Any]]:
        """Return the handles of jobs in a listing; a few are read from their folders sooner than by the journal."""
        folders = [self.store.job(one) for one in ids]
        if len(folders) <= _FEW:
            return self._handles([entry_from_folder(folder) for folder in folders])
        entries = self._journal.entries(folders)
        jobs = self._handles(entries)
        found = zip(entries, jobs, strict=True)
        self._journal.add_ended(
            (job.folder, job.state) for one, job in found if not one.state and one.owner and job.done()
        )
        return jobs

    def _handles(self, entries: Sequence[JournalEntry]) -> list[Job[Any]]:
        """Return handles that are up to date, and watched where their jobs have not ended."""
        live = self._live_jobs()
        found, unknown = [], []
        for entry in entries:
            job = live.get(entry.folder.id)
            if job is None:
                state = JobState.WAITING if entry.waits else JobState.QUEUED
                job = Job(entry.folder, name=entry.name, submitted=entry.submitted, control=self, state=state)
                if entry.state is not None:
                    job._settle_as(entry.state)
                elif (unwritten := late_ends.outcome_of(entry.folder)) is not None:
                    job._settle(unwritten)
                else:
                    unknown.append((job, entry.owner))
            found.append(job)
        uninterrupted(partial(self._watcher.add_jobs, unknown))
        return found

    def _live_jobs(self) -> dict[str, Job[Any]]:
        """Return the jobs of the store that are waiting, queued or running in this process, by id."""
        schedulers = [one for one in schedulers_here() if one.submitter.store.path == self.store.path]
        return {job.id: job for scheduler in schedulers for job in scheduler.unfinished()}


class SchedulerControl(StoreControl):
    """Submits jobs to a scheduler of this process, cancels them there and runs them again there."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler.submitter.store)
        self.scheduler = scheduler
        self.submitter = scheduler.submitter
        scheduler.on_waiting = partial(self._watcher.add_queue, scheduler)

    def submit(self, submissions: Sequence[Submission], feeder: Feeder | None = None) -> list[Job[Any]]:
        """Queue jobs whose folders are ready, and return their handles; refused once the scheduler was shut down."""
        try:
            jobs = [self._handle(one) for one in submissions]
            inputs = {one.folder.id: input_handles(one.needs) for one in submissions if one.needs.inputs}
            self.scheduler.submit(jobs, submissions, feeder, inputs)
        except BaseException:
            no_jobs = [one for one in submissions if one.folder.record_stamp() is None]
            in_background(partial(discard, no_jobs))  # the scheduler, should it write them just now, finds no folder
            raise
        return jobs

    def cancel(self, jobs: Sequence[Job[Any]]) -> bool:
        """End each of these jobs that has not ended; see :meth:`jobcontainer.Job.cancel`."""
        return super().cancel(jobs) if self.scheduler.is_inherited else self.scheduler.cancel(jobs)

    def rerun_alone(self, job: Job[R], again: Mapping[str, Job[Any]], *, resume: bool) -> Job[R]:
        """Run a job's process file again in the same scheduler, or, where it was shut down, in the shared one."""
        if self.scheduler.is_shut or self.scheduler.is_inherited:
            return super().rerun_alone(job, again, resume=resume)
        new = self.submit([self.submitter.of_job(job.folder, again, resume=resume)])[0]
        job.folder.note_rerun()
        return new

    def _handle(self, one: Submission) -> Job[Any]:
        state = JobState.WAITING if one.needs.inputs else JobState.QUEUED
        return Job(one.folder, name=one.name, submitted=one.submitted, control=self, state=state)


def input_handles(needs: Needs) -> list[Job[Any]]:
    """Return the handles of the inputs of a job; of one whose folder is gone, that of a job that is lost."""
    found = []
    for one in needs.inputs:
        try:
            job = needs.handles.get(one.folder) or reopen(one.folder)
        except KeyError:
            folder = JobFolder(one.folder)
            job = Job(folder, name=one.id, submitted=0.0, control=StoreControl(StoreFolder(folder.path.parent)))
            job._settle(lost(folder, "Its folder was deleted."))
        found.append(job)
    return found


def needed_by(unfinished: Sequence[Job[Any]]) -> set[Path]:
    """Return the folders of the jobs that some need which have not ended, or that this process has."""
    jobs = [*unfinished, *_unfinished_here()]
    return {folder_now(one, job.folder).path for job in jobs for one in inputs_of(job)}


def _unfinished_here() -> list[Job[Any]]:
    return [job for scheduler in schedulers_here() for job in scheduler.unfinished()]


def _forget() -> None:
    """Have no pool of the parent's for a store, and none of its threads that watch stores."""
    global _lock  # noqa: PLW0603 -- another thread may have held it at the fork
    _lock = threading.RLock()
    _shared.clear()
    for watcher in list(_watchers.values()):
        watcher.forget()


renew_in_forked_child(_forget)
