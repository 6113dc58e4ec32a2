"""The part of the engine that lives in a Dask worker: it has keepers, as children of the worker, run the jobs.

Each running job occupies one of the worker's threads, which waits in :func:`run`; everything else is called in the
worker's event loop and returns soon. ``_lock`` guards the registers. The worker has one
:class:`~jobcontainer.engines.local.engine.LokyEngine` for each list of modules to preload, made with the first job; its
keepers end with the worker, however that ends, and when a client leaves while no job runs.

A job whose client is gone, or whose worker closes, is cancelled: :class:`jobcontainer.engines.dask.engine.TaskWatch`
reports both.
"""

from __future__ import annotations

import os
import pickle
import platform
import secrets
import threading
from asyncio import to_thread
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.engines.dask import transfer
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.engines.local.loky_executor import available_cpus
from jobcontainer.errors import UntrustedFileError
from jobcontainer.jobfile import signing
from jobcontainer.pickling import cloudpickle_internals, package_versions
from jobcontainer.pickling.package_versions import Distribution
from jobcontainer.process import Environment, options_from_json
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.owner import host_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from jobcontainer.events import Outcome
    from jobcontainer.worker.keeper_protocol import Order

INSTANCE: Final = secrets.token_hex(8)
"""Distinguishes this process from a later one with the same address."""

KEY_PREFIX: Final = "jobcontainer-"
"""What the keys of our tasks begin with."""

NO_ACCESS: Final = "the worker has no access to the job's folder"
NOT_THE_SAME: Final = "another process has the worker's address now"
CANCELLED: Final = "the task was cancelled before it began"

_lock = threading.Lock()
_engines: dict[tuple[str, ...] | None, LokyEngine] = {}
_begun: dict[str, tuple[LokyEngine, str, Future[Outcome]]] = {}  # by the task's key: engine, job id, end
_cancelled: set[str] = set()  # keys of tasks that are not to begin


@dataclass(frozen=True, slots=True)
class JobTask:
    """What the Dask task of one attempt runs."""

    key: str
    instance: str  # the worker process that it is meant for
    host: str  # the client's machine
    slots: int  # jobs that may run on the worker at the same time
    preload: tuple[str, ...] | None  # modules that keepers import before any job
    is_remote: bool  # whether the worker has no access to the job's folder, and uses a copy of it
    order: Order


async def introduce(challenge: bytes, watch: type[Any], dask_worker: Any) -> dict[str, Any]:
    """Return what a client must know of this worker before it sends a job.

    Args:
        challenge: bytes to sign, as a proof that files signed here and there are accepted by both.
        watch: the worker plugin that reports cancelled tasks; installed with the first call.
        dask_worker: this worker, passed by Dask.
    """
    if watch.name not in dask_worker.plugins:
        await dask_worker.plugin_add(watch(), name=watch.name)
    try:
        signature, problem = signing.sign(signing.Purpose.DASK_WORKER, challenge), ""
    except UntrustedFileError as error:
        signature, problem = b"", str(error)
    return {
        **versions(),
        "instance": INSTANCE,
        "host": host_name(),
        "cpus": available_cpus(),
        "signature": signature,
        "problem": problem,
    }


def versions() -> dict[str, str]:
    """Return the versions that decide whether pickled code works in another process."""
    return {
        "python": platform.python_version(),
        "jobcontainer": metadata.version("jobcontainer"),
        "cloudpickle": cloudpickle_internals.VERSION,
    }


def other_versions(packages: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str | None]]:
    """Return the distributions whose version here is another, or that are missing: version there, version here."""
    return package_versions.other_versions({top: Distribution(*pair) for top, pair in packages.items()})


def run(data: bytes) -> Outcome | str:
    """Run one job to its end; the function of the Dask task.

    Args:
        data: a :class:`JobTask`, pickled, as the scheduler need not be able to read it.

    Returns:
        The outcome; or why nothing was run: :data:`NO_ACCESS`, :data:`NOT_THE_SAME` or :data:`CANCELLED`.
    """
    task: JobTask = pickle.loads(data)  # noqa: S301 -- from the client, which may run anything here
    if task.instance != INSTANCE:
        return NOT_THE_SAME
    folder = JobFolder(task.order.folder)
    if task.is_remote:
        folder = transfer.folders[folder.id]
    if not os.access(folder, os.W_OK):
        return NO_ACCESS
    with _lock:
        if task.key in _cancelled:
            return CANCELLED
        if task.preload not in _engines:
            _engines[task.preload] = LokyEngine(task.slots, preload=task.preload)
        engine = _engines[task.preload]
        options = options_from_json(task.order.options)
        future = engine.submit(folder, options, _environment(task, folder), attempt=task.order.attempt)
        _begun[task.key] = engine, folder.id, future
    return future.result()


def cancel(key: str) -> bool:
    """Cancel the job of a task; return whether it has not begun, and never will. Else the task ends as its job does."""
    with _lock:
        begun = _begun.get(key)
        if begun is None:
            _cancelled.add(key)
            return True
    engine, job_id, _ = begun
    engine.cancel(job_id)
    return False


def forget(key: str) -> None:
    """Remove a task that Dask has forgotten from the registers."""
    with _lock:
        _begun.pop(key, None)
        _cancelled.discard(key)


async def leave(dask_worker: Any) -> None:
    """End the keepers, as a client leaves, unless jobs of another client run; remove large data that no job has."""
    await to_thread(transfer.remove_unused_data, dask_worker)
    with _lock:
        if not all(future.done() for _, _, future in _begun.values()):
            return
        engines = list(_engines.values())
        _engines.clear()
    for engine in engines:
        await to_thread(engine.close)


def _environment(task: JobTask, folder: JobFolder) -> Environment:
    """Return the client's environment on its own machine; elsewhere this worker's, with what only the client has."""
    theirs = task.order.environment
    if theirs is None or not (task.is_remote or task.host != host_name()):
        return theirs or Environment.here()
    here = Environment.here()
    added = (entry for entry in theirs.sys_path if entry not in here.sys_path and Path(entry).exists())
    portable = {  # the others name folders of that machine, the key's among them
        name: value for name, value in theirs.environ.items() if not name.startswith(("JOBCONTAINER_", "XDG_"))
    }
    return Environment(
        cwd=theirs.cwd if Path(theirs.cwd).is_dir() else str(folder.path),
        sys_path=(*here.sys_path, *added),
        environ={**portable, **here.environ},
        log_level=theirs.log_level,
        settings=theirs.settings,
    )
