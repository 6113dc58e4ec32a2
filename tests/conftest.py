"""What every test of the suite is under: nothing may be left behind."""

from __future__ import annotations

import collections
import compileall
import contextlib
import gc
import os
import py_compile
import secrets
import signal
import sys
import tempfile
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from joblib.externals.loky import ProcessPoolExecutor

import jobcontainer
from jobcontainer.worker import process_tree

pytest_plugins = ["job_files"]

PATIENCE = 3.0
"""Seconds in which what is on its way out must be gone."""

SHARED = "/dev/shm"  # noqa: S108 -- where semaphores and joblib's arrays are

SESSION = f"JOBCONTAINER_TEST_SESSION={secrets.token_hex(8)}"
"""In the environment of every process that a test starts, its grandchildren included."""


def pytest_addoption(parser):
    """What the searches of ``searches/`` take; pytest asks only this file for options."""
    seconds = 20.0 if "CI" in os.environ else 0.0
    parser.addoption("--search-seconds", type=float, default=seconds, help="how long each search goes on; 0 for none")
    parser.addoption("--search-seed", type=int, default=None, help="the number that a search printed, to run it again")


def pytest_configure(config):
    """Keep what pytest makes of the asserts, in containers too; let the fast suite try a fifth of the examples."""
    sys.dont_write_bytecode = False  # to write them anew takes ten seconds
    from hypothesis import settings  # noqa: PLC0415 -- pytest rewrites its asserts as well

    few = {"max_examples": 20} if "not slow" in config.option.markexpr else {}
    settings.register_profile("this run", deadline=None, **few)  # what an example takes depends on who else runs here
    settings.load_profile("this run")


def pytest_sessionstart():
    """Compile the package, as pip does with what it installs: tests start hundreds of interpreters that import it."""
    check_content = py_compile.PycInvalidationMode.CHECKED_HASH  # an edit of the same size within a second counts too
    for folder in jobcontainer.__path__:
        compileall.compile_dir(folder, quiet=2, invalidation_mode=check_content)


@pytest.hookimpl(tryfirst=True)  # before the slow ones are left out
def pytest_collection_modifyitems(items):
    """Mark the cases of a test as slow that come after those that its ``fast_cases`` leaves in the fast suite."""
    cases = collections.Counter()
    for item in items:
        marker = item.get_closest_marker("fast_cases")
        test = item.nodeid.partition("[")[0]
        cases[test] += 1
        if marker is not None and cases[test] > marker.args[0]:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """Leave what was collected, a million objects that stay, out of every garbage collection that follows."""
    gc.collect()
    gc.freeze()


def leftovers(before):
    """What is there now, and was not before."""
    return {kind: sorted(map(str, now - before[kind])) for kind, now in present().items() if now - before[kind]}


def present():
    """Processes, threads, descriptors and files of this session, and an exception that this thread still handles."""
    return {
        "processes": set(process_tree.children_of(os.getpid())),
        "threads": {thread for thread in threading.enumerate() if thread.is_alive()},
        "descriptors": descriptors(),
        "files": {*files_in(tempfile.gettempdir()), *files_in(SHARED, str(os.getpid()))},
        "exceptions": {sys.exc_info()[1]} - {None},  # an interrupt that cuts an ``except`` off leaves one
    }


def descriptors():
    """Numbers and files; by the calls of ``os``, as all this is done twice for each test."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 -- see above
        with contextlib.suppress(OSError):  # that of the listing itself
            found.add((int(number), os.readlink(f"/proc/self/fd/{number}")))  # noqa: PTH115 -- see above
    return found


def files_in(folder, mark=""):
    return {os.path.join(folder, name) for name in os.listdir(folder) if mark in name}  # noqa: PTH118, PTH208 -- as above


def wait_until_gone(find):
    """Call until nothing is found, or the patience is over; return what was found last."""
    until = time.monotonic() + PATIENCE
    found = find()
    while found and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)
        found = find()
    return found


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory):
    """Give the session a folder for temporary files and a mark of its own, and start what lives as long as it does."""
    name, token = SESSION.split("=")
    os.environ[name] = token
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # or whatever is started here would ignore it too
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("tmp"))
    os.environ["TMPDIR"] = tempfile.tempdir
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("torch"))  # or it would make one in TMPDIR
    start_trackers()
    yield
    tempfile.tempdir = before


def start_trackers():
    """Have both resource trackers run: multiprocessing's, and loky's, which comes with an executor's semaphores."""
    resource_tracker.ensure_running()
    ProcessPoolExecutor(1).shutdown()


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_by_a_module(_session):
    """When a module's fixtures are gone, so is all that they held, and every process, wherever it hangs."""
    before, strangers = present(), {os.getpid(), *process_tree.marked_with(SESSION)}
    yield
    left = wait_until_gone(lambda: leftovers(before))
    assert not left, f"left behind: {left}"
    left = wait_until_gone(lambda: set(process_tree.marked_with(SESSION)) - strangers)
    assert not left, [Path(f"/proc/{pid}/{name}").read_text() for pid in left for name in ("stat", "cmdline")]


@pytest.fixture(autouse=True)
def _nothing_is_left(request, _nothing_is_left_by_a_module):
    """After each test no process, thread, descriptor or file is there that was not before it.

    A test that uses something that lives longer, an engine of its module, is looked at together with its module.
    """
    if shares_something(request):
        yield
        return
    before = present()
    yield
    end_shared_pools()
    left = wait_until_gone(lambda: leftovers(before))
    assert not left, f"left behind: {left}"


def end_shared_pools():
    """Shut down the schedulers of jobs that have no pool of their own; they live as long as the process."""
    control = sys.modules.get("jobcontainer.jobs.control")
    while control is not None and control._shared:
        control._shared.popitem()[1].scheduler.shutdown()


@pytest.fixture(autouse=True)
def _a_store_for_each_test(monkeypatch):
    """A session settles its store at its first use; each test is a session of its own."""
    monkeypatch.setattr("jobcontainer.storage.store_folder._session_store", None)


def shares_something(request):
    """Whether a test uses a fixture of the suite, other than these, that outlives it."""
    definitions = (found[-1] for found in request.node._fixtureinfo.name2fixturedefs.values())
    return any(
        found.scope != "function" and found.func.__module__ != __name__ and "pytest" not in found.func.__module__
        for found in definitions
    )
