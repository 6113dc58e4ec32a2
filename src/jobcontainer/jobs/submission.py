"""From a process, or the file of one, to a job folder that is ready to run.

A folder is a job's once ``job.json`` is in it. That is written last, and by whoever queues the job
(:func:`write_records`): what is cut off or fails before leaves no job, and at the worst a folder that is none.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import warn
from jobcontainer.events import JobState
from jobcontainer.jobfile.atomic import NOT_WRITABLE
from jobcontainer.jobfile.inputs import Inputs
from jobcontainer.jobfile.loading import check_process
from jobcontainer.jobfile.open_file import TOO_MANY_FILES
from jobcontainer.jobfile.ownership import why_foreign
from jobcontainer.jobfile.serializer import RepeatedFiles, Serializer, trust_file, write_file
from jobcontainer.jobs.needs import NOTHING, Needs, needs_of_file, needs_of_process, needs_of_record
from jobcontainer.pickling.source_code import source_of
from jobcontainer.process import Call, Environment, JobOptions, options_from_json
from jobcontainer.storage.checkpoint import take_checkpoint
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.keys import StoreKeys
from jobcontainer.storage.owner import this_process
from jobcontainer.storage.plain_values import parameters_of
from jobcontainer.storage.record import JobRecord
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker import process_settings
from jobcontainer.worker.call_chunk import CallChunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.jobs.job import Job
    from jobcontainer.process import Process
    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.keys import KeysLock


@dataclass(frozen=True, slots=True)
class Submission:
    """A job folder that is ready to run, and what the job starts with.

    Attributes:
        folder: the folder.
        name: what the job is called.
        submitted: when, in seconds since the epoch.
        options: what is asked for the job.
        environment: of the submitting process.
        identity: of the process file, which this process has written or checked; None where it has not.
        record: what ``job.json`` is to hold; None where it is written already.
        keys_lock: held by who submits it, until ``job.json`` is written; None where it has no key.
        needs: the jobs that must succeed before.
    """

    folder: JobFolder
    name: str
    submitted: float
    options: JobOptions
    environment: Environment
    identity: FileIdentity | None = None
    record: JobRecord | None = None
    keys_lock: KeysLock | None = None
    needs: Needs = NOTHING


class Submitter:
    """Writes job folders into one store.

    Args:
        store: where the folders go.
        owner: who will run the jobs; None for this process.
    """

    def __init__(self, store: StoreFolder, owner: dict[str, Any] | None = None) -> None:
        self.store = store
        self.owner = owner or this_process()
        self._environment: Environment | None = None
        self._has_said_that_it_copies = False

    def here(self) -> Environment:
        """Return the environment of this process; the last ones where nothing has changed since."""
        self._environment = Environment.here(like=self._environment, settings=process_settings.capture())
        return self._environment

    def of_process(
        self,
        process: Process[Any],
        options: JobOptions,
        environment: Environment | None = None,
        data: SharedData | None = None,
        compared: Mapping[str, str] | None = None,
    ) -> Submission:
        """Write the folder of a process.

        Args:
            process: the process.
            options: what is asked for its job.
            environment: in which it runs; None for this process's own.
            data: the store's, where it knows what processes before this one had; None for one that knows nothing.
            compared: the digests of its arguments, where it has a key.

        Raises:
            SerializationError: the process can't go into a file; no folder is left.
            OSError: the store can't be written to; no folder is left.
            JobUpstreamError: an input of it is gone; no folder is left.
        """
        found = Inputs()
        name, data = options.name or name_of(process), data or SharedData(self.store)
        here = environment or self.here()  # first: it says what is wrong where the working directory is gone
        with self._new_folder(name) as folder:
            identity = write_file(process, folder.process_file, kind="process", blobs=data, inputs=found)
            needs = needs_of_process(found, options.after)
            self._say_that_it_copies(data)
            facts: dict[str, dict[str, Any]] = {"parameters": parameters_of(process), "compared": dict(compared or {})}
            submission = self._recorded(folder, name, options, source_of(process), here, **facts)
            return replace(_needing(submission, needs), identity=identity)

    def of_file(self, file: Path, options: JobOptions, *, trusted: bool = False) -> Submission:
        """Write the folder of a process that is in a file already; the file is linked, or copied where it can't be.

        Raises:
            FileNotFoundError: there is no such file.
            JobFileError: the file can't be loaded; no folder is left.
            JobUpstreamError: an input of it is gone; no folder is left.
        """
        name = options.name or Serializer.inspect(file).class_name.rpartition(".")[2] or file.stem
        with self._new_folder(name) as folder:
            self._snapshot(file, folder.process_file)
            if trusted:
                trust_file(folder.process_file)
            identity = check_process(folder.process_file)
            said = Serializer.inspect(folder.process_file)
            needs = needs_of_file(folder, said.inputs, options.after)
            submission = self._recorded(folder, name, options, said.source, self.here())
            return replace(_needing(submission, needs), identity=identity)

    def of_job(
        self, folder: JobFolder, again: Mapping[str, Job[Any]] | None = None, *, resume: bool = False
    ) -> Submission:
        """Write a new folder that runs the process of another job again, with its options and from where it ran.

        Args:
            folder: of that job.
            again: the jobs that run some of its inputs again, by the paths of the folders of these.
            resume: whether it goes on from the checkpoint of that job, where there is one.

        Raises:
            CorruptFileError: the process file, or the checkpoint, is not whole.
            JobUpstreamError: an input of it is gone; no folder is left.
        """
        record = folder.read_record()
        needs = needs_of_record(record, folder, again or {})
        with self._new_folder(record.name) as new:
            self._snapshot(folder.process_file, new.process_file)
            if resume:
                take_checkpoint(folder.checkpoint_file, new.checkpoint_file)
            here = replace(self.here(), cwd=record.cwd, sys_path=record.sys_path)
            options = options_from_json(record.options)
            facts: dict[str, Any] = {"parameters": record.parameters, "compared": record.compared}
            if (ended := folder.turns().ended) is None or ended.state is not JobState.SUCCEEDED:
                facts["stands_for"] = record.stands_for or folder.id
            return _needing(self._recorded(new, record.name, options, record.source, here, **facts), needs)

    def _snapshot(self, file: Path, target: Path) -> None:
        """Keep a file as it is now: job files and blobs are never changed in place, so that a hard link is a copy.

        It is the file that a symbolic link leads to: a link to the link would lead to whatever is there later. One that
        another user can change is copied.
        """
        file = file.resolve()
        data = SharedData(self.store)
        data.take_over(file, target)
        self._say_that_it_copies(data)
        with contextlib.suppress(OSError):
            if not why_foreign(file.stat()):
                target.hardlink_to(file)
                return
        target.touch(0o600)
        shutil.copyfile(file, target)

    def _say_that_it_copies(self, data: SharedData) -> None:
        if data.copies and not self._has_said_that_it_copies:
            self._has_said_that_it_copies = True
            warn(
                f"The file system of {self.store.path} has no hard links, so that each job there keeps a copy of its "
                "large data. Another store saves that: JobPool(store=...), or JOBCONTAINER_HOME."
            )

    @contextlib.contextmanager
    def _new_folder(self, name: str) -> Iterator[JobFolder]:
        try:
            folder = self.store.new_job(name)
        except FileNotFoundError:
            self.store.create()
            folder = self.store.new_job(name)
        try:
            yield folder
        except BaseException as error:
            explained = _explained(error, folder) if isinstance(error, OSError) else None
            _remove([folder])
            if explained is not None:
                raise explained from error
            raise

    def _recorded(
        self,
        folder: JobFolder,
        name: str,
        options: JobOptions,
        source: str,
        environment: Environment,
        **facts: Any,
    ) -> Submission:
        if options.key is not None:
            StoreKeys(self.store).add(options.key, folder)
        record = JobRecord(
            id=folder.id,
            name=name,
            submitted=time.time(),
            options=options.to_json(),
            cwd=environment.cwd,
            sys_path=environment.sys_path,
            source=source,
            owner=self.owner,
            inputs=(),
            **facts,
        )
        return Submission(folder, name, record.submitted, options, environment, record=record)


class Repeated:
    """Writes the folders of jobs that are chunks of calls of one function, which is pickled once.

    Args:
        submitter: writes folders.
        function: the function.
        arguments: how many each call has.
        options: what is asked for the jobs.
    """

    def __init__(self, submitter: Submitter, function: Callable[..., Any], arguments: int, options: JobOptions) -> None:
        call = Call(function, (), {})
        self._submitter, self.arguments = submitter, arguments
        self.name, self._source = options.name or name_of(call), source_of(call)
        self._environment = submitter.here()
        self._files = RepeatedFiles(CallChunk, function)

    def submission(self, columns: Sequence[Sequence[Any]], options: JobOptions) -> Submission:
        """Write the folder of a chunk; see :meth:`Submitter.of_process`.

        Args:
            columns: the first arguments of its calls, their second ones, and so on.
            options: what is asked for its job.
        """
        data = SharedData(self._submitter.store)
        with self._submitter._new_folder(self.name) as folder:
            identity = self._files.write(columns, folder.process_file, data)
            self._submitter._say_that_it_copies(data)
            submission = self._submitter._recorded(folder, self.name, options, self._source, self._environment)
            return replace(submission, identity=identity)

    def close(self) -> None:
        """Let go of the function and what it holds; there will be no other chunk."""
        self._files.close()


def _needing(submission: Submission, needs: Needs) -> Submission:
    """Return a submission with what it needs; ``after=`` is among that, and no option any more."""
    if not needs.inputs or submission.record is None:
        return submission
    options = submission.options.updated(after=()) if submission.options.after else submission.options
    return replace(submission, options=options, record=replace(submission.record, inputs=needs.inputs), needs=needs)


def write_records(submissions: Sequence[Submission]) -> None:
    """Make folders jobs, all of them or none.

    Raises:
        OSError: the store can't be written to; the folders are removed.
    """
    for submission in submissions:
        try:
            if submission.record is not None:
                submission.folder.write_record(submission.record)
        except OSError as error:
            explained = _explained(error, submission.folder)
            discard(submissions)
            if explained is not None:
                raise explained from error
            raise
    for submission in submissions:
        if submission.keys_lock is not None:
            submission.keys_lock.release()


def without_record(submission: Submission) -> Submission:
    """Return what the job starts with, once its record is written: ten thousand queued jobs take little memory."""
    return replace(submission, record=None, needs=NOTHING, keys_lock=None)


def discard(submissions: Iterable[Submission]) -> None:
    """Remove the folders that this process has made for jobs that come to nothing."""
    _remove([submission.folder for submission in submissions if submission.record is not None])


def _remove(folders: Iterable[JobFolder]) -> None:
    """Remove folders, and the large data that only they had: it may be what has filled the disk."""
    for folder in folders:
        shutil.rmtree(folder.path, ignore_errors=True)
    for store in {folder.path.parent for folder in folders}:
        with contextlib.suppress(OSError):  # too many files are open, say; the next prune removes it
            SharedData(StoreFolder(store)).remove_unused()


def _explained(error: OSError, folder: JobFolder) -> OSError | None:
    """Return why a job could not be written, as a sentence; None where it was not the store that failed."""
    if error.errno == errno.EMFILE:
        return OSError(error.errno, TOO_MANY_FILES)
    store = folder.path.parent
    if error.errno in NOT_WRITABLE:
        advice = "Free some space there, or give another store: JobPool(store=...), JOBCONTAINER_HOME."
        return OSError(error.errno, f"The job could not be written to {store} ({error.strerror}). {advice}")
    if not folder.path.exists():
        return FileNotFoundError(
            errno.ENOENT, f"The job's folder was deleted from {store} while it was written. Submit it again."
        )
    return None


def as_process(work: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Process[Any]:
    """Return what is to run as a process.

    Raises:
        TypeError: it is neither, or a process came with arguments; the message says what to do.
    """
    kind = type(work).__name__
    try:
        is_process = callable(getattr(work, "run", None))
    except Exception as error:
        raise TypeError(
            f"run of {kind} can't be read, as that raised {type(error).__name__}. Put that right."
        ) from error
    if is_process and issubclass(type(work), type):
        name = work.__name__  # type: ignore[attr-defined]  # it is one
        raise TypeError(f"{name} is a class: submit an instance of it, {name}(...).")
    if is_process:
        if options := ", ".join(f"{one.name}=..." for one in fields(JobOptions) if one.name in kwargs):
            raise TypeError(f"Options are given to the pool: pool.with_options({options}).submit({kind}(...)).")
        if args or kwargs:
            raise TypeError(
                f"run() takes no arguments: give them to the constructor, {kind}(...), and submit the object alone."
            )
        return work  # type: ignore[return-value]  # it has run(), as was just seen
    if callable(work):
        return Call(work, args, kwargs)
    shown = f"An object of {kind}"
    with contextlib.suppress(Exception):  # user code
        shown = repr(work)
    raise TypeError(f"{shown} has no run() method and is no function: there is nothing to run.")


def name_of(process: object) -> str:
    """Return what a process is called where nobody named it: its class, or the function it calls."""
    if type(process) is Call:
        return getattr(process.function, "__name__", type(process.function).__name__)
    return type(process).__name__
