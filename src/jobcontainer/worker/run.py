"""A job's life in its own process: take an order, load, run, write the result, report, end.

One thread of ours, the main one; while methods of a result are called for its preview, also the watchdog thread of
:mod:`faulthandler`. Everything that a job leaves behind is written from here: the log, the result file and its preview,
progress and displays. How it ended is reported to the keeper as one line of JSON over the channel, and only after the
result file is complete; from then on the job's state is decided, whatever destructors and exit handlers do. A stop
(cancel, timeout) comes as SIGINT, and becomes :class:`JobStopped` in the main thread until the result file is complete;
while the preview is made, it ends only that.
"""

from __future__ import annotations

import builtins
import contextlib
import contextvars
import os
import sys
import time
import types
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NoReturn

from jobcontainer import checkpoint
from jobcontainer.events import JobState
from jobcontainer.jobfile.inputs import resolved_by
from jobcontainer.pickling.job_main import missing_name
from jobcontainer.pickling.package_versions import installed_modules
from jobcontainer.pickling.source_importer import missing_data
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.inputs import InputValues
from jobcontainer.storage.result import size_with_data, write_raised, write_returned
from jobcontainer.worker import (
    environment,
    isolation,
    limits,
    nested_multiprocessing,
    no_terminal,
    process_settings,
    process_tree,
    reused_process,
)
from jobcontainer.worker.call_chunk import CallChunk
from jobcontainer.worker.cpython_internals import run_exit_functions
from jobcontainer.worker.import_guard import modules_since
from jobcontainer.worker.job_imports import load_in_job
from jobcontainer.worker.outcome import EXITED_WITHOUT_ERROR
from jobcontainer.worker.reporting import display, log, preview, progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType, TracebackType

    from jobcontainer.worker.channel import Channel
    from jobcontainer.worker.keeper_protocol import Order

_BUILTINS = dict(vars(builtins))
_calls: list[Callable[[], Any]] = []  # what _from_main() calls: a name that is given to __main__ would be seen there
_CALL = compile(f"__import__({__name__!r}, fromlist=('',))._calls.pop()()", __file__, "eval")
_stopped = False
_NAMES_LENGTH = 40_000  # for the names of modules, in a report of 64 KiB; what is left the next job reports
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
    used, known = _cpu_seconds(), len(sys.modules)

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
        facts: dict[str, Any] = {
            "cpu": _cpu_seconds() - used,
            "peak_memory": process_tree.peak_memory(),
            "stopped": _stopped,
        }
        if order.teaches:
            facts["imported"] = _installed_modules_since(known)
        with contextlib.suppress(OSError):  # user code closed it; the keeper finds the result file
            channel.send_report(facts | end)

    def load(path: Path) -> Any:
        nested_multiprocessing.send_sources_of(str(path))
        checkpoint.take_process()
        process = load_in_job(path, order.identity)
        process_settings.apply_again()
        return process

    try:
        run_process(folder, prepare, report, load, limit=preview.within_time)
    except JobStopped as error:  # it came while an earlier end was being written
        report(_ended_by(error, folder, preview.within_time))


def run_process(
    folder: JobFolder,
    prepare: Callable[[], None],
    report: Callable[[dict[str, Any]], None],
    load: Callable[[Path], Any] = load_in_job,
    *,
    limit: preview.Limit = lambda call: call(),
) -> BaseException | None:
    """Do all of a job: prepare, load, run, write what it returned or raised, report.

    Args:
        folder: the job's folder; no result of an earlier attempt is in it.
        prepare: what must be done before any user code is loaded; it may raise, as ``run()`` may.
        report: receives how it ended, as :class:`~jobcontainer.worker.outcome.ExitFacts` takes it, when the result file
            is complete and before any object of the job is destroyed.
        load: returns the process from its file; the default takes this process for the job's own.
        limit: calls what makes the text of a result or an exception, and interrupts that where this process is the
            job's own.

    Returns:
        What was raised, with its traceback in this process; None for nothing.
    """
    process = value = raised = None
    this = os.getpid()
    try:
        prepare()
        progress.install(folder)
        display.install(folder)
        try:
            with resolved_by(InputValues(folder)):
                process = load(folder.process_file)
            value = _run(process, folder, this, limit)
        finally:
            _leave_if_forked(this)
            vars(builtins).update(_BUILTINS)  # what user code did to them must not keep its result from being written
            display.finish()
        identity = write_returned(folder.result_file, value)
        _leave_if_forked(this)
        preview.preview_result(folder.preview_file, value, size_with_data(folder.result_file), limit)
        _leave_if_forked(this)
        end: dict[str, Any] = {"state": JobState.SUCCEEDED, "result_identity": identity}
    except BaseException as error:  # noqa: BLE001 -- whatever run() raises is its end
        _leave_if_forked(this)
        raised, end = error, _ended_by(error, folder, limit)
    with contextlib.suppress(OSError):  # a full disk
        progress.finish()
    report(end)
    return raised


def _run(process: Any, folder: JobFolder, this: int, limit: preview.Limit) -> Any:
    """Run the process of a job; the results of a chunk of calls are written as they come."""
    with checkpoint.belongs_to(folder, checkpoint.CHUNK if type(process) is CallChunk else ""):
        return _from_main(partial(_run_as_it_is, process, folder, this, limit))


def _run_as_it_is(process: Any, folder: JobFolder, this: int, limit: preview.Limit) -> Any:
    if type(process) is CallChunk:

        def describe(error: BaseException) -> tuple[str, str, str]:
            _hint_for(error, limit)
            return preview.name_of(error), *preview.described(error, limit)

        return process.run_into(folder, _awaited, partial(_leave_if_forked, this), lambda: _stopped, describe)
    return _awaited(process.run())


def _installed_modules_since(known: int) -> list[str]:
    """Return the first modules of installed libraries that were imported after so many, as far as a report has room."""
    with contextlib.suppress(Exception):  # user code may have put anything in the place of sys.modules
        names = modules_since(known)
        installed = set(installed_modules({name.partition(".")[0] for name in names}))
        sizes = accumulate(len(name) + 4 for name in names)
        return [
            name
            for name, size in zip(names, sizes, strict=True)
            if size < _NAMES_LENGTH and name.partition(".")[0] in installed
        ]
    return []


def _from_main(call: Callable[[], Any]) -> Any:
    """Call something from the top level of ``__main__``, as a cell does.

    Some libraries look for names in the local names of all callers, as ``polars.sql("select a from frame")`` does.
    """
    _calls.append(call)
    return types.FunctionType(_CALL, vars(sys.modules["__main__"]))()


def exit_process() -> NoReturn:
    """Run the user's exit handlers, flush every stream, and end without tearing the interpreter down."""
    try:
        run_exit_functions()
    finally:
        log.flush()
        os._exit(0)


def _awaited(value: Any) -> Any:
    """Return what a coroutine returns, any other value as it is; ``async def run`` and functions make one."""
    if not _BUILTINS["issubclass"](type(value), Coroutine):  # user code may have changed that of builtins
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
        code = _exited(error, lambda call: call())["exit_code"]
    elif error is not None:
        error.__traceback__ = _without_our_frames(error.__traceback__)
        sys.stderr.write(preview.described(error, lambda call: call())[1])
        code = 1
    log.flush()
    os._exit(code)


def _ended_by(error: BaseException, folder: JobFolder, limit: preview.Limit) -> dict[str, Any]:
    """Print the traceback, write the exception, and return how the job ended by it."""
    if isinstance(error, JobStopped) and folder.result_file.exists():
        return {"state": JobState.SUCCEEDED}  # the stop came too late
    if isinstance(error, SystemExit):
        return _exited(error, limit)
    error.__traceback__ = _without_our_frames(error.__traceback__)
    hint = _hint_for(error, limit)
    if hint is None and isinstance(error, FileNotFoundError) and not folder.path.exists():
        hint = "The job's folder is not there any more: it was deleted or moved while the job ran."
    message, text = preview.described(error, limit)
    log.write(text)
    if isinstance(error, JobStopped):
        return {"state": JobState.CANCELLED}
    preview.preview_error(folder.preview_file, text)
    try:
        write_raised(folder.result_file, error, message, text)
    except JobStopped:
        raise
    except BaseException as failure:  # noqa: BLE001 -- a full disk, or methods of its class
        log.note(f"the exception itself can't be kept: {preview.name_of(failure)}.")
    return {
        "state": JobState.FAILED,
        "error_type": preview.name_of(error),
        "error_message": _cut(message),
        **({} if hint is None else {"hint": hint}),
    }


def _hint_for(error: BaseException, limit: preview.Limit) -> str | None:
    """Return what to do about what the job lacks, and add it to the traceback; None for other errors."""
    found: list[str] = []

    def search() -> None:
        if (hint := missing_name(error) or no_terminal.hint_for(error) or missing_data(error)) is not None:
            found.append(hint)
            error.add_note(hint)

    with contextlib.suppress(BaseException):  # methods of its class
        limit(search)
    return found[0] if found else None


def _exited(error: SystemExit, limit: preview.Limit) -> dict[str, Any]:
    """Print what ``sys.exit`` was given as the interpreter does, and return it."""
    code, text = error.code, preview.described(error, limit)[0]
    if code is None or isinstance(code, int):
        code = int.__and__(code or 0, 0xFF)
    else:
        log.write(f"{text}\n")  # as the interpreter does it
        code = 1
    if code:
        return {"exit_code": code, "exit_argument": _cut(text), "state": JobState.CRASHED}
    message = EXITED_WITHOUT_ERROR
    ended = {"exit_code": code, "exit_argument": _cut(text)}
    return ended | {"state": JobState.FAILED, "error_type": "SystemExit", "error_message": message}


def _cut(text: str) -> str:
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
