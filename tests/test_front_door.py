"""The public names, and what importing them costs."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import jobcontainer
from jobcontainer import errors

PUBLIC = {
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
}


def test_the_public_names_are_these():
    """A name is added or taken away on purpose only."""
    assert set(jobcontainer.__all__) == PUBLIC
    assert set(dir(jobcontainer)) >= PUBLIC


def test_every_public_name_leads_to_its_object():
    """The list holds no name that is not there."""
    for name in PUBLIC:
        assert getattr(jobcontainer, name).__name__.removeprefix("jobcontainer.") == name


def test_importing_the_package_loads_no_heavy_library():
    """``import jobcontainer`` loads a list of names: joblib, IPython and ipywidgets wait for their first use."""
    code = "import sys, jobcontainer; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "jobcontainer" in loaded
    assert not {
        "joblib",
        "IPython",
        "ipywidgets",
        "numpy",
        "cloudpickle",
        "asyncio",
        "rich",
        "importlib.metadata",
    } & set(loaded)


def test_the_version_is_that_of_the_installed_package():
    """``jobcontainer.__version__`` is there as in other packages, and is written down once, in ``pyproject.toml``."""
    assert jobcontainer.__version__ == importlib.metadata.version("jobcontainer")


def test_the_errors_form_the_promised_tree():
    """Who catches the standard error catches ours."""
    assert issubclass(errors.JobTimeoutError, TimeoutError)
    assert issubclass(errors.JobMemoryError, MemoryError)
    for name in PUBLIC:
        if name.endswith("Error"):
            assert issubclass(getattr(jobcontainer, name), jobcontainer.JobContainerError)
    for job_error in ("JobFailedError", "JobCrashedError", "JobTimeoutError", "JobMemoryError", "JobLostError"):
        assert issubclass(getattr(jobcontainer, job_error), jobcontainer.JobError)
    for file_error in ("CorruptFileError", "UntrustedFileError", "IncompatibleFileError"):
        assert issubclass(getattr(jobcontainer, file_error), jobcontainer.JobFileError)
