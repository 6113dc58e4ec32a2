"""Every private name of CPython that a worker or an engine needs, and why no public one does.

The rest of the package imports functions from here. The tests that run on the newest Python show where a name is gone.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import importlib
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

# Typed as Any, as type checkers know none of these names.
_logging: Any = logging
_process: Any = importlib.import_module("multiprocessing.process")
_tracker: Any = importlib.import_module("multiprocessing.resource_tracker")
_util: Any = importlib.import_module("multiprocessing.util")

_exit_calls: list[tuple[int, Callable[[], object]]] = []
_exit_calls_began = threading.Event()


def formatter_arguments(formatter: logging.Formatter) -> dict[str, Any] | None:
    """Return what makes a formatter of logging again, as plain data; None where that is not all of it.

    There is no public way to ask it for its texts.
    """
    found: Any = formatter
    styles = [name for name, (kind, _) in _logging._STYLES.items() if type(found._style) is kind]
    if type(formatter) is not logging.Formatter or not styles or getattr(found._style, "_defaults", None):
        return None
    return {"fmt": found._fmt, "datefmt": found.datefmt, "style": styles[0]}


def call_at_exit(call: Callable[[], object], *, last: bool = False) -> None:
    """Have something called when this process exits, before its threads are joined; once, however often it is asked.

    Functions of :mod:`atexit` are called too late: the interpreter has joined loky's threads by then, which last as
    long as keepers do. A forked child does not make the calls of its parent. The last call comes after the others.
    """
    if (os.getpid(), call) not in _exit_calls:
        _exit_calls.insert(len(_exit_calls) if last else 0, (os.getpid(), call))
        come_first_at_exit()


def come_first_at_exit() -> bool:
    """Have the calls of :func:`call_at_exit` made before what others have registered so far.

    What was registered last is called first, and loky registers its own function anew with every executor.

    Returns:
        False where it is too late for that, as the interpreter exits already.
    """
    try:
        getattr(threading, "_register_atexit", atexit.register)(_make_exit_calls)
    except RuntimeError:
        return False
    return True


def exit_waits_for_others() -> bool:
    """Whether the interpreter exits, and what others registered after us has not returned yet.

    Where user code makes an executor of loky after ours, loky's function comes first. It joins the threads of all its
    executors, which last as long as their keepers do, and there is no public way to come before it.
    """
    return bool(getattr(threading, "_SHUTTING_DOWN", False)) and not _exit_calls_began.is_set()


def _make_exit_calls() -> None:
    _exit_calls_began.set()
    for pid, call in _exit_calls:
        if pid == os.getpid():
            call()


def in_background(call: Callable[[], object]) -> bool:
    """Start a call that raises nothing, in a thread of its own; return whether one can be had.

    A thread of :mod:`threading` shares a lock with the thread that starts it. An interrupt of that one could leave the
    lock taken, and the new thread would never begin. A thread of :mod:`_thread` shares nothing; but where it, a logger
    say, asks which one it is, :mod:`threading` keeps an entry for it for ever (up to Python 3.12), and has no way to
    take it out.
    """

    def run() -> None:
        try:
            call()
        finally:
            known: dict[int, Any] = getattr(threading, "_active", {})
            known.pop(_thread.get_ident(), None)

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:
        return False
    return True


def complete_future(future: Future[Any], complete: Callable[[], object]) -> None:
    """Complete a future, and never wait for those who wait for it with functions of :mod:`concurrent.futures`.

    They take the locks of their futures in Python code, where an interrupt can cut them off and leave a lock taken for
    ever. So where there are such, a thread of its own completes the future, and may wait in vain.

    Args:
        future: the future.
        complete: what completes it.
    """
    waits: Any = future
    if waits._condition.acquire(blocking=False):
        try:
            if not waits._waiters:
                complete()
                return
        finally:
            waits._condition.release()
    if not in_background(complete):
        complete()


def run_exit_functions() -> None:
    """Run what user code and the libraries it uses registered for the interpreter's exit.

    Thread pools are left out: they registered to wait for their threads, and threads do not hold a job.
    """
    registered: list[Callable[[], object]] = list(getattr(threading, "_threading_atexits", ()))
    for function in reversed(registered):
        target = getattr(function, "func", function)  # the standard library registers partial objects
        if getattr(target, "__module__", "") != "concurrent.futures.thread":
            function()
    atexit._run_exitfuncs()  # as a job leaves without the finalization of its interpreter


@contextlib.contextmanager
def children_allowed() -> Iterator[None]:
    """Let a daemonic process start a keeper: a Dask worker under its nanny is one.

    :mod:`multiprocessing` forbids it, as nobody ends the children of a process that is simply terminated. Keepers end
    by themselves.
    """
    config = _process.current_process()._config
    before = config.get("daemon", False)
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = before


def forget_siblings() -> None:
    """In a forked child: have multiprocessing not wait for its parent's children when it exits, which fails."""
    _process._children = set()


def leave_finalizers_to_this_process() -> None:
    """Have no finalizer that is there already called at the exit of processes that are forked from here.

    A library may make thousands when it is imported, of which each costs memory pages of every fork.
    """
    finalize: Any = weakref.finalize
    for finalizer in list(finalize._registry):
        finalizer.atexit = False


def tracker_descriptor() -> int | None:
    """Return the descriptor through which this process reaches multiprocessing's resource tracker, if it has one."""
    descriptor: int | None = _tracker._resource_tracker._fd
    return descriptor


def become_main_process() -> None:
    """Make this a main process in multiprocessing's eyes, so that it works inside ``run()`` as in a script.

    What this process has inherited of its parents, their children, finalizers and resource tracker, is not its own.
    """
    _util._finalizer_registry.clear()
    current = _process.current_process()
    current.name, current._identity, current._parent_pid = "MainProcess", (), None
    current._config = {"authkey": current.authkey, "semprefix": "/mp"}  # as a main process has it
    _process._parent_process, _process._children = None, set()
    _tracker._resource_tracker._fd = _tracker._resource_tracker._pid = None
