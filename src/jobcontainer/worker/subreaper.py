"""Subreaper: the process above a keeper, to which the kernel hands whatever outlives the keeper (Linux).

A keeper that is killed can't end what its jobs have started, and neither can a notebook that is killed with it. Those
processes may have left their session, and replaced their environment, so that nothing shows whose they were. But the
kernel makes them children of the nearest subreaper above. So loky's worker is not the keeper: it forks the keeper, and
waits for its end in one system call. It holds no lifeline, imports nothing, and runs no job.

States: *waiting*, for the end of the keeper; *ending*, until nothing is left below; then it is loky's worker again, or
exits where the notebook's process is dead. One thread, which the kernel also ties the keeper to: when this process is
killed, the keeper gets SIGIO, ends all below it and exits. When the notebook's process dies, this one gets SIGCONT, by
which it goes on if it was stopped (SIGSTOP), and kills a keeper that has not ended soon: one that is stopped does not
see the end of its lifeline.

It does not carry Python's name, so that ``pkill -9 python``, by which people end a notebook and all its workers, spares
the one process that ends the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from jobcontainer.worker import isolation, process_tree, shared_memory

if TYPE_CHECKING:
    from collections.abc import Callable

NAME: Final = "jobcontainer"
"""What ``ps`` and ``top`` show of this process."""

_PATIENCE: Final = 0.5  # seconds for a keeper's own end
_PR_SET_NAME = 15  # linux/prctl.h
_ARGUMENTS = slice(45, 47)  # arg_start and arg_end in /proc/PID/stat, counted from its third field; proc(5)


def run_below(live: Callable[[int], None], hand_over: Callable[[], None]) -> None:
    """Run something in a child, and return when it and all below have ended.

    Args:
        live: what the child does; it takes the process id of this process.
        hand_over: lets go, in this process, of what is the child's now.

    Raises:
        RuntimeError: the child was killed, or failed.
    """
    isolation.adopt_orphans()
    notebook, this = os.getppid(), os.getpid()
    gc.collect()
    gc.freeze()  # a collection in the child would copy what both have
    pid = os.fork()
    if pid == 0:
        _be_child(live, this)
    hand_over()
    _rename()
    _kill_with(notebook, pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.setitimer(signal.ITIMER_REAL, 0)
    shared_memory.remove_left_by(process_tree.end_children())
    isolation.die_with(notebook)
    if code:
        names = {number.value: number.name for number in signal.Signals}  # real-time signals have none
        how = f"exit code {code}" if code > 0 else f"signal {-code} ({names.get(-code, 'a real-time signal')})"
        raise RuntimeError(f"its keeper ended with {how}")


def _be_child(live: Callable[[int], None], parent: int) -> NoReturn:
    code = 1
    try:
        live(parent)
        code = 0
    except BaseException:  # noqa: BLE001 -- whatever it is, this process is no worker of loky's
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _kill_with(notebook: int, keeper: int) -> None:
    """Have a keeper killed that has not ended soon after the notebook's process."""

    def wait(*_: object) -> None:
        if os.getppid() != notebook:
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE)

    def kill(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGKILL)

    signal.signal(signal.SIGCONT, wait)
    signal.signal(signal.SIGALRM, kill)
    isolation.die_with(notebook, signal.SIGCONT)  # its thread that started this process lasts until it has ended


def _rename() -> None:
    """Give this process a name of its own, and a command line, which the kernel keeps in its first memory."""
    isolation.prctl(_PR_SET_NAME, NAME.encode(), 0, 0, 0)
    with contextlib.suppress(OSError, ValueError):
        start, end = map(int, Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()[_ARGUMENTS])
        ctypes.memmove(start, NAME.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)
