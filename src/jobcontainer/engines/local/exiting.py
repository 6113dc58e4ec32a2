"""The interpreter's exit, in its order: jobs are waited for, or ended; then engines are closed; then loky may go.

Functions of ``atexit`` run too late for it, when threads have been joined. Those that ``concurrent.futures`` and loky
register with :mod:`threading` run before, the latest first. As loky registers its own anew with every executor, and
joins threads there that last as long as keepers do, ours is registered anew after each.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_jobs: list[Callable[[], object]] = []
_engines: list[Callable[[], object]] = []


def finish_jobs(call: Callable[[], object]) -> None:
    """Have something called at exit that waits for jobs, or ends them; every time anew where it returns."""
    _jobs.append(call)
    be_first()


def close_engines(call: Callable[[], object]) -> None:
    """Have something called at exit that closes engines, when jobs are finished."""
    _engines.append(call)
    be_first()


def be_first() -> None:
    """See to it that all this comes before whatever was registered so far."""
    with contextlib.suppress(RuntimeError):  # the interpreter exits already
        getattr(threading, "_register_atexit", atexit.register)(_exit)


def _exit() -> None:
    for call in (*_jobs, *_engines):
        call()
