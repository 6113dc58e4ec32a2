"""The same work once: of one key, a store runs a job once.

A key is the user's word for what work this is. Where the store holds a job of that key that waits, is queued, runs or
has succeeded, that is the job, whichever process submitted it; else a new one is made, which goes on from the
checkpoint of the last one, if that has one. Nothing is guessed from what the process is: where its source, its
arguments or its options differ from those of that job, a warning says what.

Finding a job and making one are one step between processes: whoever submits holds the lock of the store's keys
(:mod:`jobcontainer.storage.keys`) from before it looks until the record of the new job is written, which
:func:`~jobcontainer.jobs.submission.write_records` does wherever the job will run. It is not held while a job runs.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobcontainer.errors import warn
from jobcontainer.events import JobState
from jobcontainer.jobs.submission import Submitter, discard
from jobcontainer.pickling.source_code import definition_of, source_of
from jobcontainer.process import LONGEST_KEY, Call
from jobcontainer.storage.argument_digests import argument_digests
from jobcontainer.storage.checkpoint import take_checkpoint
from jobcontainer.storage.keys import StoreKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.submission import Submission
    from jobcontainer.process import Environment, JobOptions, Process
    from jobcontainer.storage.data import SharedData
    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.record import JobRecord

_MOST_LINES: Final = 20  # of a comparison of sources
_COMPARED_OPTIONS: Final = ("timeout", "memory", "retries", "env", "cwd", "threads", "grace", "isolation")


class Sender(Protocol):
    """Where jobs go: a scheduler of this process, or the host of detached ones."""

    submitter: Submitter

    def submit(self, submissions: Sequence[Submission], /) -> list[Job[Any]]:
        """Write the records of jobs, and queue them."""

    def open(self, folder: JobFolder) -> Job[Any]:
        """Return the handle of a job of the store."""


@dataclass(frozen=True, slots=True)
class KeyedWork:
    """What is to run once.

    Attributes:
        options: with its key.
        source: of its class or function.
        compared: the digests of its arguments; None where they are not known, as of a file.
        make: writes its folder.
    """

    options: JobOptions
    source: str
    compared: Mapping[str, str] | None
    make: Callable[[], Submission]

    @property
    def key(self) -> str:
        """The key."""
        return self.options.key or ""


def keyed_process(
    submitter: Submitter,
    process: Process[Any],
    options: JobOptions,
    environment: Environment | None = None,
    data: SharedData | None = None,
    *,
    in_group: bool = False,
) -> KeyedWork:
    """Return a process as work that is to run once.

    Args:
        submitter: writes its folder.
        process: the process.
        options: with its key.
        environment: see :meth:`Submitter.of_process`.
        data: likewise.
        in_group: whether the key is that of several processes, each of which adds its arguments to it.

    Raises:
        ValueError: in a group, an argument can't be compared.
    """
    compared = argument_digests(process)
    if in_group:
        options = options.updated(key=_with_arguments(options.key or "", process, compared))

    def make() -> Submission:
        made = submitter.of_process(process, options, environment, data, compared)
        if data is not None:
            data.next_process()
        return made

    return KeyedWork(options, source_of(process), compared, make)


def submit_keyed(sender: Sender, work: Sequence[KeyedWork], given: JobOptions) -> list[Job[Any]]:
    """Return the jobs of some work, those that the store holds and new ones.

    Args:
        sender: where new ones go.
        work: what they do.
        given: the options as the user gave them.
    """
    submitter, differing = sender.submitter, []
    submitter.store.create()
    keys = StoreKeys(submitter.store)
    jobs: dict[str, Job[Any]] = {}
    new: dict[str, Submission] = {}
    with keys.locked() as lock:
        try:
            for one in work:
                if one.key in jobs or one.key in new:
                    continue
                found = None if one.options.rerun else _found(sender, keys, one.key)
                if found is None:
                    new[one.key] = replace(_made(one, keys), keys_lock=lock)
                else:
                    jobs[one.key], record = found
                    differing += list(_warnings(jobs[one.key], record, one, given))
        except BaseException:
            discard(new.values())
            raise
        if new:
            jobs |= zip(new, sender.submit(list(new.values())), strict=True)
    for words in differing:
        warn(words)
    return [jobs[one.key] for one in work]


def _made(work: KeyedWork, keys: StoreKeys) -> Submission:
    """Write the folder of a new job, which goes on from the checkpoint of the last one of its key, if that has one.

    Raises:
        CorruptFileError: the checkpoint is not whole; with ``rerun`` the work begins anew.
    """
    last = None if work.options.rerun else next(keys.jobs_of(work.key), None)
    made = work.make()
    if last is not None:
        try:
            take_checkpoint(last[0].checkpoint_file, made.folder.checkpoint_file)
        except BaseException:
            discard([made])
            raise
    return made


def _found(sender: Sender, keys: StoreKeys, key: str) -> tuple[Job[Any], JobRecord] | None:
    """Return the newest job of a key that has not ended, or has succeeded and has its result."""
    for folder, record in keys.jobs_of(key):
        job = sender.open(folder)
        if not job.done() or (job.state is JobState.SUCCEEDED and os.path.lexists(folder.result_file)):
            return job, record
    return None


def _warnings(job: Job[Any], record: JobRecord, work: KeyedWork, given: JobOptions) -> Iterator[str]:
    """Say in what a job of the key differs from the work; nothing where it does not."""
    found = [*_other_arguments(record, work), *_other_options(record, given), *_other_source(record, work)]
    if found:
        yield (
            f"The job of the key {work.key!r}, {job.id} ({job.state.words}), is not quite what you submit now, "
            "and was returned as it is. What differs: "
            + "; ".join(found)
            + "\nTo run it anew: --rerun, or with_options(key=..., rerun=True)."
        )


def _other_arguments(record: JobRecord, work: KeyedWork) -> Iterator[str]:
    if work.compared is None or not (work.compared or record.compared):
        return
    names = dict.fromkeys([*record.compared, *work.compared])
    unknown = [name for name in names if "" in {record.compared.get(name), work.compared.get(name)}]
    other = [name for name in names if name not in unknown and record.compared.get(name) != work.compared.get(name)]
    if other:
        yield f"arguments {', '.join(other)}"
    if unknown:
        yield f"arguments that can't be compared, {', '.join(unknown)}"


def _other_options(record: JobRecord, given: JobOptions) -> Iterator[str]:
    now = given.to_json()
    for name in _COMPARED_OPTIONS:
        before = record.options.get(name)
        if now[name] != before and not (name == "threads" and given.threads is None):
            yield f"{name}={now[name]!r}, before {before!r}"


def _other_source(record: JobRecord, work: KeyedWork) -> Iterator[str]:
    if record.source != work.source:
        before, now = (text.splitlines() for text in (record.source, work.source))
        lines = [line for line in difflib.unified_diff(before, now, lineterm="", n=0) if not line.startswith("@@")][2:]
        more = [] if len(lines) <= _MOST_LINES else [f"... and {len(lines) - _MOST_LINES} lines more"]
        yield "\n    ".join(["the source", *islice(lines, _MOST_LINES), *more])


def _with_arguments(key: str, process: Process[Any], compared: Mapping[str, str]) -> str:
    """Return the key of one process of several."""
    defined = definition_of(process)
    unknown = [name for name, digest in compared.items() if not digest]
    if unknown:
        raise ValueError(
            f"key={key!r}: {defined.__qualname__} has arguments that can't be compared, {', '.join(unknown)}, so that "
            "its job and the others of this key can't be kept apart. Make them in run(), or submit each process by "
            "itself with a key of its own, with_options(key=...)."
        )
    kind = f"{type(process) is Call}:{defined.__module__}.{defined.__qualname__}"
    content = hashlib.blake2b("\0".join([kind, *(f"{name}={compared[name]}" for name in sorted(compared))]).encode())
    own = f"/{content.hexdigest()[:32]}"
    if len(key) + len(own) > LONGEST_KEY:
        raise ValueError(f"key={key!r}: for several processes it has {LONGEST_KEY - len(own)} characters at most.")
    return key + own
