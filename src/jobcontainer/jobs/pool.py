"""JobPool: the executor whose every call has a process of its own."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, overload

from jobcontainer.engines import AUTO, engine_named
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.jobs.call_feeder import Target, Wishes
from jobcontainer.jobs.control import shared_control, start_scheduler
from jobcontainer.jobs.detached.client import DetachedJobs
from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.keyed import KeyedWork, keyed_process, submit_keyed
from jobcontainer.jobs.mapping import MapResults, map_calls
from jobcontainer.jobs.submission import as_process, discard
from jobcontainer.process import AFTER, JobOptions, has_run
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.store_folder import store_folder
from jobcontainer.worker.cpython_internals import in_background
from jobcontainer.worker.interrupts import uninterrupted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from jobcontainer.engines import Engine
    from jobcontainer.jobs.control import SchedulerControl
    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.scheduler import Scheduler
    from jobcontainer.jobs.submission import Submission
    from jobcontainer.process import Process

P = ParamSpec("P")
R = TypeVar("R")
After: TypeAlias = "Job[Any] | JobGroup[Any] | Sequence[Job[Any] | JobGroup[Any]]"


class JobPool(Executor):
    """An executor that runs each job in a process of its own, with its files in a folder of its own.

    It is a :class:`concurrent.futures.Executor`, and its jobs are futures, with these differences, each on purpose:
    ``cancel()`` ends a running job too; a job that dies takes no other with it; what is submitted may be an object with
    ``run()``; when an interactive session (a kernel, a prompt) exits, jobs end, while a script waits for them.

    Args:
        max_workers: how many jobs run at the same time; None for the CPUs that are really available.
        engine: ``"loky"`` (this machine), ``"inline"`` (this process, for a debugger), ``"dask"`` (the cluster of the
            running Dask client), the address of a Dask scheduler, or an engine object.
        store: the folder for the jobs' files, or a :class:`JobStore`; None for ``JOBCONTAINER_HOME``, or
            ``.jobcontainer`` in the working directory.
        preload: ``"auto"``, to load the installed libraries that jobs import before they are forked, where that is
            safe; names of modules for these as well; None to load nothing ahead.
        **options: the options of every job, see :class:`jobcontainer.process.JobOptions`.

    Raises:
        ValueError: an argument is out of range.
        TypeError: there is no such option.
        OSError: the store can't be written to.

    Example:
        >>> with JobPool(max_workers=2, timeout=60) as pool:      # doctest: +SKIP
        ...     pool.submit(Train()).result()
        42
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        engine: str | Engine = "loky",
        store: str | os.PathLike[str] | None = None,
        preload: str | Sequence[str] | None = AUTO,
        **options: Any,
    ) -> None:
        if max_workers is not None and (not isinstance(max_workers, int) or max_workers < 1):
            raise ValueError(f"max_workers={max_workers!r}: it takes a whole number from 1 up, or None for all CPUs.")
        self._options, folder = JobOptions().updated(**options), store_folder(store)
        folder.create()
        made = engine_named(engine, max_workers, preload) if isinstance(engine, str) else engine
        self._control = start_scheduler(made, folder)
        self._whole: JobPool | None = None  # what a view keeps alive; else a pool would wait for the collector
        self._may_detach = engine == "loky"
        weakref.finalize(self, _shut_down_soon, self._control.scheduler).atexit = False

    @property
    def store(self) -> Path:
        """The folder in which the jobs' folders lie."""
        return self._control.store.path

    @overload
    def submit(self, work: Process[R], /, *, after: After = ()) -> Job[R]: ...
    @overload
    def submit(self, work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Send off a job; it returns at once.

        A job, or a group of jobs, inside of ``work`` or among the arguments is an input: the new job waits for it, and
        has its result in that place, or the list of the group's results.

        Args:
            work: an object with ``run()``, or a function.
            *args: the function's arguments.
            **kwargs: the function's keyword arguments; beside an object with ``run()`` only ``after``: a job, a group
                or a list of jobs that must succeed before (of a function: ``with_options(after=...)``).

        Raises:
            SerializationError: it can't go into a file; ``.culprits`` says why, and nothing was submitted.
            TypeError: it is neither a process nor a function.
            RuntimeError: the pool was shut down.
            OSError: the store can't be written to; nothing was submitted.
            JobUpstreamError: an input of it was deleted; nothing was submitted.

        Example:
            >>> pool.submit(pow, 2, 10).result()      # doctest: +SKIP
            1024
        """
        options = self._for_jobs()
        if kwargs.keys() == {AFTER} and not args and has_run(work) and not isinstance(work, type):
            options = options.updated(after=(*options.after, kwargs.pop(AFTER)))
        process = as_process(work, args, kwargs)
        sender = self._sender()
        if options.key is not None:
            return submit_keyed(sender, [keyed_process(sender.submitter, process, options)], self._options)[0]
        return sender.submit([sender.submitter.of_process(process, options)])[0]

    def submit_all(
        self,
        processes: Iterable[Process[R]] | Mapping[Any, Process[R]],
        *,
        key: str | None = None,
        after: After = (),
    ) -> JobGroup[R]:
        """Send off several processes: all of them, or, where one can't go into a file, none.

        Args:
            processes: objects with ``run()``; the keys of a dict of them name the jobs.
            key: what work this is, see :attr:`jobcontainer.process.JobOptions.key`. Each process adds its own
                arguments, so that of a sweep that has grown by one value one job runs.
            after: a job, a group or a list of jobs that must succeed before each of them.

        Returns:
            The jobs, in the same order.

        Raises:
            SerializationError: one of them can't go into a file.
            ValueError: with a key, an argument of one can't be compared.
        """
        sender, options = self._sender(), self._for_jobs() if key is None else self._for_jobs().updated(key=key)
        options = options.updated(after=(*options.after, after)) if after else options
        if options.key is not None:
            named = [(as_process(one, (), {}), own) for one, own in _with_names(processes, options)]
            here, data = sender.submitter.here(), SharedData(sender.submitter.store, remembers=True)  # all are made
            work = [keyed_process(sender.submitter, one, own, here, data, in_group=True) for one, own in named]
            return JobGroup(submit_keyed(sender, work, self._options))
        submissions: list[Submission] = []
        try:
            here = sender.submitter.here()
            # Code of a generator may change an array that the process before has too.
            data = SharedData(sender.submitter.store, remembers=type(processes) in {list, tuple, dict})
            for one, own in _with_names(processes, options):
                submissions.append(sender.submitter.of_process(as_process(one, (), {}), own, here, data))
                data.next_process()
        except BaseException:
            discard(submissions)
            raise
        return JobGroup(sender.submit(submissions))

    def map(
        self,
        fn: Callable[..., R],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> MapResults[R]:
        """Call a function with each item of an iterable, or of several side by side; it returns at once.

        Many calls share a fresh process, a chunk of them, so that a million small ones are quick. A call that ends its
        process raises :class:`JobCrashedError` (or that it was out of time, or of memory) at its place, costs no other
        call its result, and those behind it are made in another process. Of the pool's options, ``timeout`` is for
        each call, ``memory`` for a chunk's process, and ``retries`` for calls that ended their process.

        Args:
            fn: the function; it is pickled once.
            *iterables: its arguments; the shortest one ends the calls. All are gone through at once, but with
                ``buffersize``.
            timeout: seconds from this call on, after which waiting for a result raises ``TimeoutError``.
            chunksize: how many calls share a process; None for as many as take 0.2 s to 1 s, fewer at the end.
            buffersize: how many calls may be under way whose results were not taken yet; then the iterables may be
                endless. None for all. Its calls share few processes: give some thousands where calls are quick.

        Returns:
            An iterator over the results, in order, as they come; ``.jobs`` are its chunks, ``close()`` cancels the
            calls that have not begun.

        Raises:
            SerializationError: the function can't go into a file.
            TypeError: it is no function.
            ValueError: ``chunksize`` or ``buffersize`` is no whole number from 1 up; or the jobs are detached, have a
                key, or come ``after`` others.
            RuntimeError: the pool was shut down.

        Example:
            >>> list(pool.map(pow, range(5), range(5)))      # doctest: +SKIP
            [1, 1, 4, 27, 256]
        """
        if not callable(fn):
            raise TypeError(f"{fn!r} is no function: there is nothing to call.")
        self._control.scheduler.refuse_if_shut()
        if self._options.key is not None:
            raise ValueError(
                "key: the calls of map() have no key of their own. Submit a process that makes the calls in its run(), "
                "or submit_all(..., key=...)."
            )
        if self._options.detach:
            raise ValueError(
                "detach=True: the calls of map() end with this process, which submits them bit by bit and has their "
                "results. Submit a process that makes the calls in its run(), or with_options(detach=False)."
            )
        if self._options.after:
            raise ValueError("after= does not go with map(): submit_all() takes it, with one process for each call.")
        wishes = Wishes(timeout, chunksize, buffersize)
        results = map_calls(fn, self._for_jobs(), Target(self._control), iterables, wishes)
        results.pool = self._whole or self
        return results

    def submit_file(self, file: str | os.PathLike[str], *, trusted: bool = False) -> Job[Any]:
        """Send off a process that is in a file already.

        Args:
            file: the file; it is kept as it is now.
            trusted: whether to load it though it is not signed by a key of yours.

        Raises:
            FileNotFoundError: there is no such file.
            JobFileError: it can't be loaded.
        """
        sender, options = self._sender(), self._for_jobs()
        make = partial(sender.submitter.of_file, Path(file), options, trusted=trusted)
        if options.key is not None:
            work = KeyedWork(options, Serializer.inspect(file).source, None, make)
            return submit_keyed(sender, [work], self._options)[0]
        return sender.submit([make()])[0]

    def with_options(self, **options: Any) -> JobPool:
        """Return a view on this pool: the same slots and queue, other options for its jobs.

        Raises:
            ValueError: an option is out of range.
            TypeError: there is no such option.

        Example:
            >>> pool.with_options(timeout=5).submit(Quick())      # doctest: +SKIP
        """
        view = _view(self._control, self._options.updated(**options))
        view._whole = self._whole or self
        view._may_detach = self._may_detach
        return view

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 -- as in Executor
        """Take no more jobs; end the workers once the last job has ended.

        Args:
            wait: whether to return only then.
            cancel_futures: whether jobs that have not started are cancelled.
        """
        self._control.scheduler.shutdown(wait=wait, cancel_queued=cancel_futures)

    def rerun(self, job: Job[R], *, resume: bool = False) -> Job[R]:
        """Run the process file of any job again in this pool, as a new job with the same options.

        Args:
            job: a job of this store or another.
            resume: go on from the checkpoint of that job, where there is one.
        """
        return self._control.rerun(job, resume=resume)

    def position(self, job: Job[Any]) -> int | None:
        """Return how many queued jobs start before this one; None where it is not queued here."""
        return self._control.scheduler.position(job)

    def __repr__(self) -> str:
        """Show the slots and the store."""
        return f"<JobPool of {self._control.scheduler.engine.slots} slots, store {self.store}>"

    def _sender(self) -> SchedulerControl | DetachedJobs:
        """Return where jobs go: to this pool's scheduler, or to the host of detached ones."""
        self._control.scheduler.refuse_if_shut()
        if not self._options.detach:
            return self._control
        if not self._may_detach:
            raise ValueError("detach=True: detached jobs run on this machine, by the store's host; leave engine out.")
        return DetachedJobs(self._control.store)

    def _for_jobs(self) -> JobOptions:
        """Share the CPUs among the slots where nobody said how many threads a job may have."""
        if self._options.threads is not None:
            return self._options
        return self._options.updated(threads=self._control.scheduler.engine.threads)


def _with_names(
    processes: Iterable[Process[R]] | Mapping[Any, Process[R]], options: JobOptions
) -> Iterator[tuple[Process[R], JobOptions]]:
    """Go through processes with the options of each: the keys of a dict of them name the jobs."""
    if not isinstance(processes, Mapping):
        yield from ((one, options) for one in processes)
        return
    for key, one in processes.items():
        yield one, options.updated(name=str(key) or repr(key))


def warm_up() -> None:
    """Import loky, and start a worker in the background for the first pool that is made."""
    from jobcontainer.engines.local.worker_slots import start_spare_keeper  # noqa: PLC0415 -- joblib takes its time

    uninterrupted(start_spare_keeper)


def shared_pool() -> JobPool:
    """Return this process's own pool for the default store; for jobs that come without a pool."""
    return _view(shared_control(store_folder(None)), JobOptions())


def _view(control: SchedulerControl, options: JobOptions) -> JobPool:
    """Return a pool over a scheduler that somebody else shuts down."""
    pool = object.__new__(JobPool)
    pool._control, pool._options = control, options
    pool._whole, pool._may_detach = None, True
    return pool


def _shut_down_soon(scheduler: Scheduler) -> None:
    """Shut down when a pool was collected: in a thread, as the collector may run under any lock of ours."""
    in_background(partial(scheduler.shutdown, wait=False))
