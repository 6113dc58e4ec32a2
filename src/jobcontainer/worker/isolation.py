"""What a job's process may not have from others, and what ties it to its keeper.

A process that was forked by a keeper, or started by one, becomes a job's here: a session of its own, no descriptor
but the standard three and the channel, no trace of loky or of the keeper in :mod:`multiprocessing`, the keeper's death
is its death, and whatever it starts stays in sight.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

from jobcontainer.worker import MARK as MARK  # noqa: PLC0414 -- others know it from here
from jobcontainer.worker.nested_multiprocessing import teach_multiprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

# Typed as Any: what makes a process a child of its parent in multiprocessing's eyes is private to it. And ``signal``
# makes enums of all numbers that go through it, for which every new process would copy some hundred pages.
signals: Any = importlib.import_module("_signal")
process: Any = importlib.import_module("multiprocessing.process")
tracker: Any = importlib.import_module("multiprocessing.resource_tracker")
util: Any = importlib.import_module("multiprocessing.util")

_LINUX = sys.platform == "linux"
_SIGINT = {signal.SIGINT}
_prctl: Any = ctypes.CDLL(None).prctl if _LINUX else None
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_MOST_DESCRIPTORS = os.sysconf("SC_OPEN_MAX")
_CHANNEL_NUMBER = 60  # above what programs close by hand, below where the kernel must enlarge the table


def leave_session() -> None:
    """Stand apart from the notebook: an interrupt of its cells, sent to its process group, does not come here.

    SIGINT is blocked as well, rather than ignored, so that a process that is made here keeps one that comes at its
    birth.
    """
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    signals.pthread_sigmask(signals.SIG_BLOCK, _SIGINT)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none gets out of sight (Linux)."""
    if _LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux).

    It must be a child of the parent's main thread: the kernel takes the end of that thread for the parent's.

    Args:
        parent: the parent's process id, to notice a parent that died before the kernel was asked.
    """
    if _LINUX:
        _prctl(_PR_SET_PDEATHSIG, signals.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def settle_in(*, forks: bool) -> None:
    """Prepare a keeper: what each of its jobs would have to do, it does once, and they inherit it.

    Args:
        forks: whether it forks its jobs.
    """
    leave_session()
    adopt_orphans()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # standard error stays, for what Python says of a keeper that fails
    os.close(null)
    sys.modules["__main__"] = types.ModuleType("__main__")  # a job that is started anew would load loky's
    multiprocessing.set_start_method(None, force=True)  # loky's own is not known in a process that is started anew
    if forks:
        _forget_multiprocessing()
        teach_multiprocessing()
    executor: Any = sys.modules.get("joblib.externals.loky.process_executor")
    if executor is not None:
        executor._MEMORY_LEAK_CHECK_DELAY = float("inf")  # it would swap the keeper for another


def own_trackers() -> set[int]:
    """Tell the process that multiprocessing started to track what new interpreters share, if it started one here."""
    return {tracker._resource_tracker._pid} - {None}


def become_clean(keeper: int, channel: int) -> int:
    """Make this process one that has never been anything but a job's; it was made by a keeper that settled in.

    SIGINT is blocked, so that a stop that comes early is not lost; :func:`accept_stop` lets it in.

    Args:
        keeper: the process id of its keeper.
        channel: the descriptor of its channel to the keeper.

    Returns:
        The channel's new descriptor.
    """
    leave_session()
    die_with(keeper)
    adopt_orphans()
    signals.signal(signals.SIGIO, signals.SIG_DFL)
    os.dup2(0, 2)
    os.dup2(channel, _CHANNEL_NUMBER, inheritable=False)
    if _LINUX:  # elsewhere the parent waits for the end of a pipe that must stay open
        os.closerange(3, _CHANNEL_NUMBER)
        os.closerange(_CHANNEL_NUMBER + 1, _MOST_DESCRIPTORS)
    sys.pycache_prefix = None  # the keeper's; what the user has compiled is found
    sys.dont_write_bytecode = True  # an edit of the same size within a second would go unnoticed by the next job
    reseed()
    gc.enable()
    return _CHANNEL_NUMBER


def accept_stop(handler: Callable[..., object]) -> None:
    """Let SIGINT in, one that waits included, and handle it."""
    signals.signal(signals.SIGINT, handler)
    signals.pthread_sigmask(signals.SIG_UNBLOCK, _SIGINT)


def reseed() -> None:
    """Give the global random generators a seed that no other process has; Python's own does it after a fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def run_exit_functions() -> None:
    """Run what user code and the libraries it uses registered for the interpreter's exit.

    Thread pools are left out: to wait for their threads is what they registered, and threads do not hold a job.
    """
    registered: list[Callable[[], object]] = list(getattr(threading, "_threading_atexits", ()))
    for function in reversed(registered):
        target = getattr(function, "func", function)  # the standard library registers partial objects
        if getattr(target, "__module__", "") != "concurrent.futures.thread":
            function()
    atexit._run_exitfuncs()


def volunteer(pid: int) -> None:
    """Have the kernel's OOM killer take a job rather than its keeper or the notebook."""
    with contextlib.suppress(OSError):  # not on Linux, not permitted, or it has ended
        score = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)
        os.write(score, b"800")
        os.close(score)


def _end_multiprocessing() -> None:
    """Do what multiprocessing does at exit, where it was used."""
    if util._finalizer_registry or process._children:
        util._exit_function()


def _forget_multiprocessing() -> None:
    """Make this a main process, so that pools, managers and joblib work inside ``run()`` as in a script."""
    atexit._clear()  # loky's handlers are not the job's
    util._finalizer_registry.clear()
    current: Any = multiprocessing.current_process()
    current.name, current._identity, current._parent_pid = "MainProcess", (), None
    current._config = {"authkey": current.authkey, "semprefix": "/mp"}  # as a main process has it
    process._parent_process, process._children = None, set()
    tracker._resource_tracker._fd = tracker._resource_tracker._pid = None
    loky_tracker: Any = sys.modules.get("joblib.externals.loky.backend.resource_tracker")
    if loky_tracker is not None:
        loky_tracker._resource_tracker._fd = loky_tracker._resource_tracker._pid = None
    atexit.register(logging.shutdown)
    atexit.register(_end_multiprocessing)
