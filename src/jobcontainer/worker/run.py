"""A job's life in its own process: take an order, load, run, write the result, report, end.

One thread of ours, the main one. Everything that a job leaves behind is written from here: the log, the result file,
progress and displays. How it ended is reported to the keeper as one line of JSON over the channel, and only after the
result file is complete; from then on the job's state is decided, whatever destructors and exit handlers do. A stop
(cancel, timeout) comes as SIGINT, and becomes :class:`JobStopped` in the main thread until the result file is complete.
"""

from __future__ import annotations

import builtins
import contextlib
import contextvars
import os
import sys
import time
import traceback
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from jobcontainer.events import JobState
from jobcontainer.jobfile.loading import load_in_job
from jobcontainer.pickling.job_main import missing_name
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.result import qualified_name, write_raised, write_returned
from jobcontainer.worker import environment, isolation, limits, nested_multiprocessing, process_tree, reused_process
from jobcontainer.worker.call_chunk import CallChunk
from jobcontainer.worker.cpython_internals import run_exit_functions
from jobcontainer.worker.outcome import EXITED_WITHOUT_ERROR
from jobcontainer.worker.reporting import display, log, progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType, TracebackType

    from jobcontainer.worker.channel import Channel
    from jobcontainer.worker.keeper_protocol import Order

_BUILTINS = dict(vars(builtins))
_stopped = False
_MESSAGE_LENGTH = 4000  # a report fits into the pipe in one piece, also when nobody reads yet


class JobStopped(KeyboardInterrupt):
    """Raised inside ``run()`` when the job is cancelled or out of time; ``finally`` blocks see it."""


def serve(channel: Channel) -> NoReturn:
    """Wait for an order, run its job and end; or wait for the next, where the order says so."""
    state = None
    while True:
        try:
            order = channel.receive_order()
        except (EOFError, OSError):
            os._exit(0)
        if not order.reuses:
            run_order(order, channel)
            exit_process()
        state = state or reused_process.State()
        run_order(order, channel)
        state.restore()


def run_order(order: Order, channel: Channel) -> None:
    """Run the job of an order, with its log as standard output and error, and report its end to the keeper."""
    folder, options = JobFolder(order.folder), order.options
    used = _cpu_seconds()

    def prepare() -> None:
        isolation.accept_stop(_raise_stopped)
        log.redirect(folder.log_file, attempt=order.attempt)
        if order.environment is not None:
            environment.take_over(order.environment, options["threads"], order.keys)
        if options["threads"] is not None:
            limits.cap_threads(options["threads"])
        settings = order.environment.settings if order.environment is not None else order.settings
        environment.set_for_job(options["env"], settings or {})
        if options["cwd"] is not None:
            os.chdir(options["cwd"])

    def report(end: dict[str, Any]) -> None:
        isolation.accept_stop(_ignore)
        facts = {"cpu": _cpu_seconds() - used, "peak_memory": process_tree.peak_memory(), "stopped": _stopped}
        with contextlib.suppress(OSError):  # user code closed it; the keeper finds the result file
            channel.send_report(facts | end)

    def load(path: Path) -> Any:
        nested_multiprocessing.send_sources_of(str(path))
        return load_in_job(path, order.identity)

    try:
        run_process(folder, prepare, report, load)
    except JobStopped as error:  # it came while an earlier end was being written
        report(_ended_by(error, folder))


def run_process(
    folder: JobFolder,
    prepare: Callable[[], None],
    report: Callable[[dict[str, Any]], None],
    load: Callable[[Path], Any] = load_in_job,
) -> None:
    """Do all of a job: prepare, load, run, write what it returned or raised, report.

    Args:
        folder: the job's folder; no result of an earlier attempt is in it.
        prepare: what must be done before any user code is loaded; it may raise, as ``run()`` may.
        report: receives how it ended, as :class:`~jobcontainer.worker.outcome.ExitFacts` takes it, when the result file
            is complete and before any object of the job is destroyed.
        load: returns the process from its file; the default takes this process for the job's own.
    """
    process = value = None
    this = os.getpid()
    try:
        prepare()
        progress.install(folder)
        display.install(folder)
        try:
            process = load(folder.process_file)
            value = _run(process, folder, this)
        finally:
            _leave_if_forked(this)
            vars(builtins).update(_BUILTINS)  # what user code did to them must not keep its result from being written
            display.finish()
        identity = write_returned(folder.result_file, value)
        _leave_if_forked(this)
        end: dict[str, Any] = {"state": JobState.SUCCEEDED, "result_identity": identity}
    except BaseException as error:  # noqa: BLE001 -- whatever run() raises is its end
        _leave_if_forked(this)
        end = _ended_by(error, folder)
    with contextlib.suppress(OSError):  # a full disk
        progress.finish()
    report(end)


def _run(process: Any, folder: JobFolder, this: int) -> Any:
    """Run the process of a job; the results of a chunk of calls are written as they come."""
    if type(process) is CallChunk:
        return process.run_into(folder, _awaited, partial(_leave_if_forked, this), lambda: _stopped)
    return _awaited(process.run())


def exit_process() -> NoReturn:
    """Run the user's exit handlers, flush every stream, and end without tearing the interpreter down."""
    try:
        run_exit_functions()
    finally:
        log.flush()
        os._exit(0)


def _awaited(value: Any) -> Any:
    """Return what a coroutine returns, any other value as it is; ``async def run`` and functions make one."""
    if not _BUILTINS["isinstance"](value, Coroutine):  # user code may have changed that of builtins
        return value
    import asyncio  # noqa: PLC0415 -- it takes as long as a short job

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(value)
    with ThreadPoolExecutor(1) as other:  # inline, in a notebook, whose own loop runs in this thread
        return other.submit(contextvars.copy_context().run, asyncio.run, value).result()


def _leave_if_forked(job: int) -> None:
    """End a child that user code forked, as a child of a script ends; only the job's own process speaks for it.

    Args:
        job: the process id of the job.
    """
    if os.getpid() == job:
        return
    error, code = sys.exception(), 0
    if isinstance(error, SystemExit):
        code = _exited(error)["exit_code"]
    elif error is not None:
        error.__traceback__ = _without_our_frames(error.__traceback__)
        traceback.print_exception(error)
        code = 1
    log.flush()
    os._exit(code)


def _ended_by(error: BaseException, folder: JobFolder) -> dict[str, Any]:
    """Print the traceback, write the exception, and return how the job ended by it."""
    if isinstance(error, JobStopped) and folder.result_file.exists():
        return {"state": JobState.SUCCEEDED}  # the stop came too late
    if isinstance(error, SystemExit):
        return _exited(error)
    error.__traceback__ = _without_our_frames(error.__traceback__)
    hint = missing_name(error)
    if hint is not None:
        error.add_note(hint)
    log.note_exception(error)
    if isinstance(error, JobStopped):
        return {"state": JobState.CANCELLED}
    with contextlib.suppress(Exception):  # a full disk; log and outcome name the exception
        write_raised(folder.result_file, error)
    return {
        "state": JobState.FAILED,
        "error_type": qualified_name(type(error)),
        "error_message": _text_of(error),
        **({} if hint is None else {"hint": hint}),
    }


def _exited(error: SystemExit) -> dict[str, Any]:
    """Print what ``sys.exit`` was given as the interpreter does, and return it."""
    code = error.code
    if code is not None and not isinstance(code, int):
        with contextlib.suppress(Exception):
            log.write(f"{code}\n")  # as the interpreter does it
        code = 1
    ended: dict[str, Any] = {"exit_code": (code or 0) & 0xFF, "exit_argument": _text_of(error)}
    if ended["exit_code"]:
        return ended | {"state": JobState.CRASHED}
    return ended | {"state": JobState.FAILED, "error_type": "SystemExit", "error_message": EXITED_WITHOUT_ERROR}


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 -- user code
        return ""
    return text if len(text) <= _MESSAGE_LENGTH else text[:_MESSAGE_LENGTH] + " ..."


def _without_our_frames(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _raise_stopped(_number: int, _frame: FrameType | None) -> NoReturn:
    """Stop the job, once: what its ``finally`` blocks do is not interrupted again."""
    global _stopped  # noqa: PLW0603 -- a signal handler has nowhere else to put it
    _stopped = True
    isolation.accept_stop(_ignore)
    raise JobStopped


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Pass over SIGINT; unlike SIG_IGN, programs started from here do not inherit it."""
