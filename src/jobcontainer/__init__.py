"""Run notebook code outside the notebook.

Write a class with a ``run()`` method, and run it in a process of its own::

    class Train:
        def run(self):
            print("Task is running")
            return 42

    from jobcontainer import JobPool

    with JobPool() as pool:
        print(pool.submit(Train()).result())

In a notebook, ``%load_ext jobcontainer`` and put ``%%jobcontainer`` above the class.

The names below are everything that is public. They are looked up on first use, so that importing the package loads
neither joblib, IPython nor ipywidgets. ``__version__`` is the version that is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__docformat__ = "google"  # for the API reference: pip install ".[docs]" && pdoc jobcontainer

if TYPE_CHECKING:
    from jobcontainer import checkpoint
    from jobcontainer.errors import (
        CorruptFileError,
        IncompatibleFileError,
        JobContainerError,
        JobCrashedError,
        JobError,
        JobFailedError,
        JobFileError,
        JobLostError,
        JobMemoryError,
        JobTimeoutError,
        JobUpstreamError,
        SerializationError,
        UntrustedFileError,
    )
    from jobcontainer.events import JobState
    from jobcontainer.jobfile.serializer import Serializer
    from jobcontainer.jobs.container import JobContainer
    from jobcontainer.jobs.group import JobGroup
    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.pool import JobPool
    from jobcontainer.jobs.store import JobStore
    from jobcontainer.pickling.diagnosis import diagnose
    from jobcontainer.process import Process
    from jobcontainer.worker.reporting.progress import progress, report

    __version__: str

_MODULES = {
    "CorruptFileError": "errors",
    "IncompatibleFileError": "errors",
    "Job": "jobs.job",
    "JobContainer": "jobs.container",
    "JobContainerError": "errors",
    "JobCrashedError": "errors",
    "JobError": "errors",
    "JobFailedError": "errors",
    "JobFileError": "errors",
    "JobGroup": "jobs.group",
    "JobLostError": "errors",
    "JobMemoryError": "errors",
    "JobPool": "jobs.pool",
    "JobState": "events",
    "JobStore": "jobs.store",
    "JobTimeoutError": "errors",
    "JobUpstreamError": "errors",
    "Process": "process",
    "SerializationError": "errors",
    "Serializer": "jobfile.serializer",
    "UntrustedFileError": "errors",
    "diagnose": "pickling.diagnosis",
    "progress": "worker.reporting.progress",
    "report": "worker.reporting.progress",
}

__all__ = [
    "CorruptFileError",
    "IncompatibleFileError",
    "Job",
    "JobContainer",
    "JobContainerError",
    "JobCrashedError",
    "JobError",
    "JobFailedError",
    "JobFileError",
    "JobGroup",
    "JobLostError",
    "JobMemoryError",
    "JobPool",
    "JobState",
    "JobStore",
    "JobTimeoutError",
    "JobUpstreamError",
    "Process",
    "SerializationError",
    "Serializer",
    "UntrustedFileError",
    "checkpoint",
    "diagnose",
    "progress",
    "report",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module, once."""
    if name == "__version__":
        value = importlib.import_module("importlib.metadata").version("jobcontainer")
    elif name == "checkpoint":  # a module
        value = importlib.import_module("jobcontainer.checkpoint")
    elif name in _MODULES:
        value = getattr(importlib.import_module(f"jobcontainer.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module 'jobcontainer' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: Any) -> None:
    """Register the magics; called by ``%load_ext jobcontainer``."""
    importlib.import_module("jobcontainer.notebook.magics").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Remove the magics; called by ``%unload_ext jobcontainer``."""
    importlib.import_module("jobcontainer.notebook.magics").unload(shell)
