"""A job's whole life in its own process: take the order, load, run, write, end.

One thread of ours, the main one. Everything that a job leaves behind is written from here: the log, the result file,
the rich displays. How it ended goes to the keeper as one line of JSON over the channel, and only after the result file
stands; from then on the job's state is decided, whatever destructors and exit handlers do. A stop (cancel, timeout)
comes as SIGINT, and becomes :class:`JobStopped` in the main thread until the result file stands.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from jobcontainer.events import JobState, Usage
from jobcontainer.jobfile.loading import load_in_job
from jobcontainer.pickling.job_main import missing_name
from jobcontainer.storage.folder import LOG, PROCESS, RESULT, JobFolder
from jobcontainer.storage.result import qualified_name, write_raised, write_returned
from jobcontainer.worker import isolation, limits, nested_multiprocessing, process_tree, reused_process
from jobcontainer.worker.environment import take_over
from jobcontainer.worker.order import Order
from jobcontainer.worker.reporting import display, log, progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from types import FrameType, TracebackType

    from jobcontainer.process import Environment

_BUILTINS = dict(vars(builtins))
_stopped = False
_MESSAGE_LENGTH = 4000  # what is told goes into the pipe in one piece, also when nobody reads yet


class JobStopped(KeyboardInterrupt):
    """Raised inside ``run()`` when the job is cancelled or out of time; ``finally`` blocks see it."""


def live(channel: Connection, environment: Environment | None) -> NoReturn:
    """Wait for an order, carry it out, tell how it ended, and end; or go on, where orders say so.

    Args:
        channel: to the keeper; its end while no order has come is the end of this process.
        environment: what the order means if it names none.
    """
    state = None
    while True:
        try:
            order = Order.unpacked(channel.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        environment = order.environment or environment
        if not order.reuses:
            run_order(order, environment, channel)
            end()
        state = state or reused_process.State()
        reused_process.begin(order)
        run_order(order, environment, channel)
        state.restore()


def run_order(order: Order, environment: Environment | None, channel: Connection) -> None:
    """Carry one order out, with the log as standard output and error.

    Args:
        order: what to do.
        environment: what to take over first, where it is not done yet.
        channel: where to tell how it ended.
    """
    folder, options = JobFolder(order.folder), order.options
    used, begun = _cpu_seconds(), time.monotonic()

    def prepare() -> None:
        isolation.accept_stop(_raise_stopped)
        log.redirect(folder.file(LOG), attempt=order.attempt)
        if environment is not None:
            take_over(environment, options["threads"])
        if options["threads"] is not None:
            limits.cap_threads(options["threads"])
        if options["env"]:
            os.environ.update(options["env"])
        if options["cwd"] is not None:
            os.chdir(options["cwd"])

    def tell(ending: dict[str, Any]) -> None:
        isolation.accept_stop(_ignore)
        usage = Usage(time.monotonic() - begun, _cpu_seconds() - used, process_tree.peak_memory())
        told = reused_process.told_by_itself(order, ending, usage) if order.reuses and not _stopped else None
        if told is None:
            facts = {"cpu": usage.cpu, "peak_memory": usage.peak_memory, "stopped": _stopped}
            told = json.dumps(facts | ending).encode()
        with contextlib.suppress(OSError):  # user code closed it; the keeper finds the result file
            channel.send_bytes(told)

    def load(path: str) -> Any:
        nested_multiprocessing.send_sources_of(path)
        return load_in_job(path, order.identity)

    try:
        carry_out(folder, prepare, tell, load)
    except JobStopped as error:  # it came while an earlier end was being written
        tell(_ending(folder, error))


def carry_out(
    folder: JobFolder,
    prepare: Callable[[], None],
    tell: Callable[[dict[str, Any]], None],
    load: Callable[[str], Any] = load_in_job,
) -> None:
    """Load the process, run it, and write what it returned or raised.

    Args:
        folder: the job's folder; no result of an earlier attempt is in it.
        prepare: what must be done before any user code is loaded; it may raise, as ``run()`` may.
        tell: takes the end, as fields of an :class:`~jobcontainer.events.Outcome`, when the result file stands and
            before anything of the job is thrown away.
        load: gets the process out of its file; the default takes this process for the job's own.
    """
    process = value = None
    try:
        prepare()
        progress.install(folder)
        display.install(folder)
        try:
            process = load(folder.file(PROCESS))
            value = process.run()
        finally:
            vars(builtins).update(_BUILTINS)  # what user code did to them shall not keep its result from being written
            display.finish()
        write_returned(folder.file(RESULT), value)
        ending: dict[str, Any] = {"state": JobState.SUCCEEDED}
    except BaseException as error:  # noqa: BLE001 -- whatever run() raises is its end
        ending = _ending(folder, error)
    with contextlib.suppress(OSError):  # a full disk
        progress.finish()
    tell(ending)


def end() -> NoReturn:
    """Run the user's exit handlers, flush every stream, and leave without tearing the interpreter down."""
    try:
        isolation.run_exit_functions()
    finally:
        log.flush()
        os._exit(0)


def _ending(folder: JobFolder, error: BaseException) -> dict[str, Any]:
    """Print the traceback, keep the exception, and tell what it makes of the job."""
    if isinstance(error, JobStopped) and folder.result_file.exists():
        return {"state": JobState.SUCCEEDED}  # the stop came too late
    if isinstance(error, SystemExit):
        return _exited(error)
    error.__traceback__ = _without_our_frames(error.__traceback__)
    hint = missing_name(error)
    if hint is not None:
        error.add_note(hint)
    with contextlib.suppress(Exception):  # an exception that can't be shown, a closed stream
        traceback.print_exception(error)
    if isinstance(error, JobStopped):
        return {"state": JobState.CANCELLED}
    with contextlib.suppress(Exception):  # a full disk; the log and the outcome tell of it
        write_raised(folder.file(RESULT), error)
    return {
        "state": JobState.FAILED,
        "error_type": qualified_name(type(error)),
        "error_message": _text_of(error),
        **({} if hint is None else {"hint": hint}),
    }


def _exited(error: SystemExit) -> dict[str, Any]:
    """Tell of ``sys.exit``, which ends the process before ``run()`` has returned."""
    code = error.code
    if code is not None and not isinstance(code, int):
        with contextlib.suppress(Exception):
            print(code, file=sys.stderr)  # noqa: T201 -- as the interpreter does it
        code = 1
    return {"state": JobState.CRASHED, "exit_code": (code or 0) & 0xFF, "exit_argument": _text_of(error)}


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
