"""Where workers come from. An engine runs jobs that lie in their folders; it knows nothing of queues or retries.

Three engines stand behind one protocol, and one contract suite runs over them all: ``inline`` (this process), ``loky``
(this machine, a keeper per slot), ``dask`` (a cluster).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol, cast, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from jobcontainer.events import Outcome
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.process import Environment, JobOptions
    from jobcontainer.storage.folder import JobFolder


AUTO: Final = "auto"
"""``preload`` where nobody said otherwise."""


class Engine(Protocol):
    """Runs jobs from their folders."""

    @property
    def slots(self) -> int:
        """How many jobs run at the same time; whoever submits more at once waits in the engine's own order."""

    @property
    def threads(self) -> int | None:
        """How many BLAS and OpenMP threads a job gets where nobody said; None leaves them as they are."""

    def submit(
        self,
        folder: JobFolder,
        options: JobOptions,
        environment: Environment,
        *,
        attempt: int = 1,
        identity: FileIdentity | None = None,
    ) -> Future[Outcome]:
        """Run the process of a folder.

        Args:
            folder: the job's folder.
            options: what is asked for the job.
            environment: of the process that submitted it.
            attempt: 1 for the first.
            identity: of the process file, from the process that wrote it, so that the job need not check it again.

        Returns:
            A future that always ends, and never with an exception: a crash of whatever runs the job is an outcome
            too. Before it ends, the outcome stands in the folder's events.
        """

    def cancel(self, job_id: str) -> None:
        """End a job, politely first; it returns at once, and the job's future completes when it has ended.

        A job that is not here, or has ended, is passed over.
        """

    def close(self) -> None:
        """Cancel what runs, end every process, and return when nothing is left."""


@runtime_checkable
class Growing(Protocol):
    """An engine whose slots may become more while jobs wait for them."""

    def on_growth(self, call: Callable[[], object]) -> None:
        """Have something called, from any thread, when there are more slots than there were."""


@runtime_checkable
class StartsInBackground(Protocol):
    """An engine whose workers start in the background."""

    def warm_up(self) -> None:
        """Start the first worker before there is a job, and return at once."""

    def wait_until_started(self) -> None:
        """Return when the workers of the jobs that were submitted have been started, or could not be.

        A script may end when its jobs have been submitted, and no process can be started while the interpreter exits.
        """


@runtime_checkable
class RunsInCaller(Protocol):
    """An engine without workers: its jobs run in the thread that submits them."""

    def run_submitted(self) -> None:
        """Run what was submitted and has not begun, until nothing is left, and return.

        ``submit`` itself runs nothing, as it is called in a thread that can't be interrupted.
        """


def engine_named(name: str, max_workers: int | None, preload: str | Sequence[str] | None = AUTO) -> Engine:
    """Make an engine by its name. Only then is it imported: listing jobs, say, needs none, and joblib takes its time.

    Args:
        name: ``"loky"``, ``"inline"``, ``"dask"`` for the Dask client of this process, or the address of a Dask
            scheduler, ``"tcp://host:8786"``.
        max_workers: how many jobs run at the same time; None for the CPUs that are really available.
        preload: ``"auto"``, to load what jobs import before they are forked; names of modules for these as well; None
            to load nothing ahead.

    Raises:
        ValueError: there is no such engine, or no Dask client, or ``preload`` is none of these.
        ModuleNotFoundError: the engine needs a package that is not installed.
        ConnectionError: nobody answers at the address.
    """
    kind = "dask" if "://" in name else name
    if kind not in _NAMED:
        raise ValueError(f"engine={name!r}: it takes {', '.join(map(repr, _NAMED))}, an address, or an engine object.")
    modules = _modules_of(preload)
    module, make = _NAMED[kind]
    made = getattr(importlib.import_module(f"jobcontainer.engines.{module}"), make)
    match kind:
        case "inline":
            engine = made()
        case "dask":
            engine = made(None if name == kind else name, preload=modules, most=max_workers)
        case _:
            engine = made(max_workers, preload=modules)
    return cast("Engine", engine)


def _modules_of(preload: object) -> tuple[str, ...] | None:
    """Return the modules to load beside those that jobs are seen to import; None to load nothing ahead."""
    if preload is None or preload == AUTO:
        return None if preload is None else ()
    names = () if isinstance(preload, str) or not isinstance(preload, Iterable) else tuple(preload)
    if not names or not all(isinstance(name, str) for name in names):
        if isinstance(preload, list | tuple) and not preload:
            return ()
        raise ValueError(f'preload={preload!r}: it takes "auto", a list of names of modules, or None.')
    return names


_NAMED = {
    "loky": ("local.engine", "LokyEngine"),
    "inline": ("inline", "InlineEngine"),
    "dask": ("dask.engine", "DaskEngine"),
}
