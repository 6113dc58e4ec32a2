"""Resident: what lives in a Dask worker, and has keepers beneath it run the jobs.

One thread of Dask's for each running job waits in :func:`run`; everything else is called in the worker's event loop, by
its clients, and returns soon. ``_lock`` guards the engines and the two registers of jobs. A worker has one
:class:`~jobcontainer.engines.local.engine.LokyEngine` for each list of modules to preload, made with the first job;
its keepers
end with the worker, however that ends, and when a client leaves while no job runs.

A job whose folder can't be seen from here is *far*, see :mod:`jobcontainer.engines.dask.remote_folders`. Where
nobody wants a job any
more (its client is gone, the worker closes), :func:`run` cancels it.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import socket
import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.engines.dask import remote_folders
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.engines.local.slot import available_cpus
from jobcontainer.errors import UntrustedFileError
from jobcontainer.events import JobState, Outcome, event_to_json
from jobcontainer.jobfile import signing
from jobcontainer.pickling import cloudpickle_internals, package_versions
from jobcontainer.pickling.package_versions import Distribution
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.folder import JobFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INSTANCE: Final = secrets.token_hex(8)
"""Tells this process from one that later has the same address."""

_WANTED_SECONDS = 0.1  # between two looks at whether a job is still wanted

_lock = threading.Lock()
_engines: dict[tuple[str, ...], LokyEngine] = {}
_running: dict[str, LokyEngine] = {}
_cancelled: set[str] = set()


@dataclass(frozen=True, slots=True)
class Errand:
    """What a worker is asked to run.

    Attributes:
        key: of its task.
        instance: the process that is meant.
        host: the client's machine.
        folder: the job's folder, as the client sees it.
        options: of the job.
        environment: of the client.
        attempt: 1 for the first.
        slots: how many jobs may run here at the same time.
        preload: modules that keepers import before any job.
        far: whether the folder can't be seen from here.
        content: the process file's, where the job is far; None where it was sent ahead in pieces, or is not there.
    """

    key: str
    instance: str
    host: str
    folder: str
    options: JobOptions
    environment: Environment = field(repr=False)
    attempt: int
    slots: int
    preload: tuple[str, ...]
    far: bool = False
    content: bytes | None = field(default=None, repr=False)


def introduce(challenge: bytes, dask_worker: Any) -> dict[str, Any]:
    """Tell what a client must know of this worker before it sends a job.

    Args:
        challenge: what to sign, as a proof that files signed there will be loaded here.
        dask_worker: this worker.
    """
    remote_folders.settle(dask_worker.local_directory)
    try:
        signature = signing.sign(challenge)
        trouble = ""
    except UntrustedFileError as error:
        signature, trouble = b"", str(error)
    return {
        "instance": INSTANCE,
        "jobcontainer": metadata.version("jobcontainer"),
        "python": platform.python_version(),
        "cloudpickle": cloudpickle_internals.VERSION,
        "host": socket.gethostname(),
        "cpus": available_cpus(),
        "slots": dask_worker.state.nthreads,
        "memory": dask_worker.memory_manager.memory_limit,
        "signature": signature,
        "trouble": trouble,
    }


def other_versions(packages: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str | None]]:
    """Tell which distributions are of another version here, or missing: version there, version here."""
    return package_versions.other_versions({top: Distribution(*pair) for top, pair in packages.items()})


def run(errand: Errand, wanted: Callable[[], bool]) -> dict[str, Any]:
    """Run one job to its end, beneath this worker.

    Args:
        errand: what to run.
        wanted: tells whether anybody still waits for it.

    Returns:
        The outcome as plain data; or why nothing was run, as ``{"refused": "unseen"}`` where the folder can't be seen
        from here, and ``{"refused": "another process has its address now"}`` where another process was meant.
    """
    if errand.instance != INSTANCE:
        return {"refused": "another process has its address now"}
    folder = JobFolder(errand.folder)
    if errand.far:
        folder = remote_folders.take_in(folder.id, errand.content)
    if not os.access(folder, os.W_OK):
        return {"refused": "unseen"}
    with _lock:
        if folder.id in _cancelled:
            _cancelled.discard(folder.id)
            outcome = Outcome(state=JobState.CANCELLED, at=time.time(), reason="It had not started.", attempt=0)
            folder.append_event(outcome)
            return event_to_json(outcome)
        engine = _running[folder.id] = _engine(errand)
        future = engine.submit(folder, errand.options, _environment(errand, folder), attempt=errand.attempt)
    try:
        while not wait([future], _WANTED_SECONDS).done:
            if not wanted():
                engine.cancel(folder.id)
                break
        return event_to_json(future.result())
    finally:
        with _lock:
            del _running[folder.id]


def cancel(job_id: str, key: str, dask_worker: Any) -> bool:
    """End a job, politely first.

    Args:
        job_id: the job.
        key: of its task.
        dask_worker: this worker.

    Returns:
        Whether it has not started, and never will.
    """
    with _lock:
        engine = _running.get(job_id)
        task = dask_worker.state.tasks.get(key)
        if engine is None and (task is None or task.state not in {"memory", "error", "released"}):
            _cancelled.add(job_id)
            return True
    if engine is not None:
        engine.cancel(job_id)
    return False


async def leave() -> None:
    """Note that a client leaves: the keepers end, unless they have work."""
    with _lock:
        if _running:
            return
        engines = list(_engines.values())
        _engines.clear()
    for engine in engines:
        await asyncio.to_thread(engine.close)


def _engine(errand: Errand) -> LokyEngine:
    if errand.preload not in _engines:
        _engines[errand.preload] = LokyEngine(errand.slots, preload=errand.preload)
    return _engines[errand.preload]


_last: tuple[Environment, tuple[bool, str], Environment] | None = None


def _environment(errand: Errand, folder: JobFolder) -> Environment:
    """Return what a job here starts with; the same object while nothing changes, by which keepers are ready for it.

    On the client's own machine it is what the client has. On another, paths and variables of this worker stand, and
    those that only the client has are added.
    """
    global _last  # noqa: PLW0603 -- one worker in a process
    theirs = errand.environment
    is_elsewhere = errand.far or errand.host != socket.gethostname()
    cwd = theirs.cwd if not is_elsewhere or Path(theirs.cwd).is_dir() else str(folder.path)
    if _last is None or _last[:2] != (theirs, (is_elsewhere, cwd)):
        _last = theirs, (is_elsewhere, cwd), _mixed(theirs, cwd) if is_elsewhere else theirs
    return _last[2]


def _mixed(theirs: Environment, cwd: str) -> Environment:
    here = Environment.here()
    known = set(here.sys_path)
    added = tuple(entry for entry in theirs.sys_path if entry not in known and Path(entry).exists())
    portable = {
        name: value for name, value in theirs.environ.items() if not name.startswith(("JOBCONTAINER_", "XDG_"))
    }  # the others name folders of that machine, the key's among them
    return Environment(
        cwd=cwd, sys_path=(*here.sys_path, *added), environ={**portable, **here.environ}, log_level=theirs.log_level
    )
