"""What a job's process may not have from others, and what ties it to its keeper.

A process that was forked by a keeper, or started by one, becomes a job's here: a session of its own, no descriptor
but the standard three and the channel, no trace of loky or of the keeper in :mod:`multiprocessing`, the keeper's death
is its death, and whatever it starts stays in sight.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import random
import secrets
import signal
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.worker import CHANNEL_NUMBER
from jobcontainer.worker.cpython_internals import become_main_process
from jobcontainer.worker.nested_multiprocessing import teach_multiprocessing
from jobcontainer.worker.no_terminal import refuse_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import ModuleType

_LINUX = sys.platform == "linux"
ADOPTS: Final = _LINUX
"""Whether a process can become the parent of every descendant whose own parent ends."""

_SIGINT = {signal.SIGINT}
prctl: Any = ctypes.CDLL(None).prctl if _LINUX else None
"""The system call by which a process sets what it is to the kernel (Linux)."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_MOST_DESCRIPTORS = os.sysconf("SC_OPEN_MAX")


def leave_session() -> None:
    """Stand apart from the notebook: an interrupt of its cells, sent to its process group, does not come here.

    SIGINT is blocked as well, rather than ignored, so that a process that is made here keeps one that comes in its
    first moment.
    """
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGINT)


def adopt_orphans(*, on: bool = True) -> None:
    """Become, or not, the parent of every descendant whose own parent ends, so that none gets out of sight (Linux)."""
    if _LINUX:
        prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def die_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies, or died before the kernel was asked (Linux).

    The kernel takes the end of the parent's thread that made this process for the parent's own.
    """
    if _LINUX:
        prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), by)


def close_descriptors_but(kept: Collection[int | None]) -> None:
    """Close every descriptor but the standard three and a few others."""
    first = 3
    for descriptor in sorted(number for number in kept if number is not None and number >= first):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, _MOST_DESCRIPTORS)


def settle_in() -> None:
    """Prepare a keeper, or a new interpreter that will be a job's: no terminal, no main module of others."""
    leave_session()
    adopt_orphans()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # standard error stays, for what Python says of a keeper that fails
    if null > 1:  # else standard input or output was closed, and this is it now
        os.close(null)
    sys.modules["__main__"] = types.ModuleType("__main__")  # a new interpreter would load loky's
    multiprocessing.set_start_method(None, force=True)  # a new interpreter does not know loky's own


def take_out_joblib() -> dict[str, ModuleType]:
    """Take joblib out of the modules of a keeper, so that what its jobs import was never part of a loky worker.

    A worker's loky refuses to nest deeply, and uses the resource tracker of the process that started it. The modules
    are returned, for :data:`sys.modules` once more before the keeper ends as loky's worker.
    """
    names = [name for name in sys.modules if name.partition(".")[0] == "joblib"]
    return {name: sys.modules.pop(name) for name in names}


def become_clean(keeper: int, channel: int) -> int:
    """Make this process one that has never been anything but a job's; it was made by a keeper that settled in.

    SIGINT is blocked, so that a stop that comes early is not lost; :func:`accept_stop` lets it in. The channel's new
    descriptor is returned.
    """
    leave_session()
    die_with(keeper)
    adopt_orphans()
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    os.dup2(0, 2)
    os.dup2(channel, CHANNEL_NUMBER, inheritable=False)
    if _LINUX:  # elsewhere the parent waits for the end of a pipe that must stay open
        close_descriptors_but({CHANNEL_NUMBER})
    become_main_process()
    teach_multiprocessing()
    refuse_prompts()
    sys.dont_write_bytecode = True  # an edit of the same size within a second would go unnoticed by the next job
    reseed()
    gc.enable()
    return CHANNEL_NUMBER


def accept_stop(handler: Callable[..., object]) -> None:
    """Let SIGINT in, one that waits included, and handle it."""
    signal.signal(signal.SIGINT, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGINT)


def reseed() -> None:
    """Give every global random generator that is loaded a seed that no other process has.

    Each of them is a copy of the keeper's, or was used by the job before.
    """
    random.seed()
    for name, seed in _SEEDS.items():
        module = sys.modules.get(name)
        if module is not None:
            with contextlib.suppress(Exception):  # a library that is half imported, or of another version
                seed(module)


_SEEDS: dict[str, Callable[[Any], object]] = {
    "numpy.random": lambda module: module.seed(),
    "torch": lambda module: module.seed(),  # of the CPU, and of GPUs once they are used
    "tensorflow": lambda module: module.random.set_seed(secrets.randbits(63)),
}
"""How each library seeds its generators, by the module that shows that it is loaded."""


def prefer_as_oom_victim(pid: int) -> None:
    """Raise the ``oom_score_adj`` of a job, so that the kernel's OOM killer picks it before its keeper."""
    with contextlib.suppress(OSError):  # not on Linux, not permitted, or it has ended
        Path(f"/proc/{pid}/oom_score_adj").write_text("800")
