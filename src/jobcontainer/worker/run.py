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
import logging
import os
import pickle
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from jobcontainer.errors import UntrustedFileError
from jobcontainer.events import JobState
from jobcontainer.files import trust
from jobcontainer.files.folder import LOG, PROCESS, RESULT, JobFolder
from jobcontainer.files.result import qualified_name, write_raised, write_returned
from jobcontainer.files.serializer import load_in_job
from jobcontainer.worker import capture, display, limits, progress, reuse, shield, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from types import FrameType, TracebackType

    from jobcontainer.process import Surroundings

_BUILTINS = dict(vars(builtins))
_stopped = False
_MESSAGE_LENGTH = 4000  # what is told goes into the pipe in one piece, also when nobody reads yet


class Order(NamedTuple):
    """What a job's process is told to do; plain data, so that it goes through any pipe.

    Attributes:
        folder: the job's folder.
        options: as :meth:`jobcontainer.process.JobOptions.to_json` gives them.
        surroundings: what follows the job from where it was submitted; None for those that were told last.
        attempt: 1 for the first.
        number: what a cancel of it, and the word of its end, call it.
    """

    folder: str
    options: dict[str, Any]
    surroundings: Surroundings | None
    attempt: int = 1
    number: int = 0

    def packed(self) -> bytes:
        """Return it as bytes; :meth:`unpacked` in another process gets it back."""
        return pickle.dumps((*self,), pickle.HIGHEST_PROTOCOL)

    @classmethod
    def unpacked(cls, data: bytes) -> Order:
        """Get an order from bytes that came over a channel of ours."""
        return cls(*pickle.loads(data))  # noqa: S301 -- nobody else has the channel's other end

    @property
    def reuses(self) -> bool:
        """Whether the process runs other jobs before and after this one."""
        return bool(self.options["isolation"] == "reuse")


class JobStopped(KeyboardInterrupt):
    """Raised inside ``run()`` when the job is cancelled or out of time; ``finally`` blocks see it."""


def live(channel: Connection, surroundings: Surroundings | None, *, ready: bool) -> NoReturn:
    """Wait for an order, carry it out, tell how it ended, and end.

    Args:
        channel: to the keeper; its end while no order has come is the end of this process.
        surroundings: what the order means if it names none.
        ready: whether this process has taken them over.
    """
    state = None
    while True:
        try:
            order = Order.unpacked(channel.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        if order.reuses and state is None:
            state = reuse.State()
        if order.surroundings is not None:
            surroundings, ready = order.surroundings, False
        if order.options["threads"] is None and limits.is_capped():  # for the sake of others
            ready = False
        run_order(order, None if ready else surroundings, channel)
        if state is None:
            end()
        state.restore()
        ready = False


def run_order(order: Order, surroundings: Surroundings | None, channel: Connection) -> None:
    """Carry one order out, with the log as standard output and error.

    Args:
        order: what to do.
        surroundings: what to take over first; None if this process has.
        channel: where to tell how it ended.
    """
    folder, options = JobFolder(order.folder), order.options
    used = _cpu_seconds()

    def prepare() -> None:
        shield.accept_stop(_raise_stopped)
        capture.redirect(folder.file(LOG), attempt=order.attempt)
        if surroundings is not None:
            take_surroundings(surroundings)
        if options["threads"] is not None:
            limits.cap_threads(options["threads"])
        if options["env"]:
            os.environ.update(options["env"])
        if options["cwd"] is not None:
            os.chdir(options["cwd"])

    def tell(ending: dict[str, Any]) -> None:
        shield.accept_stop(_ignore)
        facts = {"cpu": _cpu_seconds() - used, "peak_memory": tree.peak_memory(), "stopped": _stopped}
        with contextlib.suppress(OSError):  # user code closed it; the keeper finds the result file
            channel.send_bytes(json.dumps(facts | ending).encode())

    try:
        carry_out(folder, prepare, tell)
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
        shield.run_exit_functions()
    finally:
        capture.flush()
        os._exit(0)


def take_surroundings(surroundings: Surroundings) -> None:
    """Make this process look like the place where the job was submitted.

    Raises:
        UntrustedFileError: there is no usable key.
        OSError: the working directory is not there.
    """
    environ = {**surroundings.environ, shield.MARK: os.environ.get(shield.MARK, "")}
    os.environ.clear()
    os.environ.update(environ)
    limits.forget_cap()
    sys.path[:] = surroundings.sys_path
    logging.getLogger().setLevel(surroundings.log_level)
    if logging.lastResort is not None:  # what prints while user code has set no handler
        logging.lastResort.setLevel(surroundings.log_level)
    trust.hold_key()  # a job that sets HOME shall not sign its result with another key
    os.chdir(surroundings.cwd)


def took_surroundings(surroundings: Surroundings) -> bool:
    """Take them over ahead of the job; whether it worked, else the job is to tell of it."""
    try:
        take_surroundings(surroundings)
    except (OSError, UntrustedFileError):
        return False
    return True


def _ending(folder: JobFolder, error: BaseException) -> dict[str, Any]:
    """Print the traceback, keep the exception, and tell what it makes of the job."""
    if isinstance(error, JobStopped) and folder.result_file.exists():
        return {"state": JobState.SUCCEEDED}  # the stop came too late
    if isinstance(error, SystemExit):
        return _exited(error)
    error.__traceback__ = _without_our_frames(error.__traceback__)
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
    }


def _exited(error: SystemExit) -> dict[str, Any]:
    """Tell of ``sys.exit``, which ends the process before ``run()`` has returned."""
    code = error.code
    if code is not None and not isinstance(code, int):
        with contextlib.suppress(Exception):
            print(code, file=sys.stderr)  # noqa: T201 -- as the interpreter does it
        code = 1
    reason = f"It called sys.exit({_text_of(error)}) before run() returned."
    return {"state": JobState.CRASHED, "exit_code": (code or 0) & 0xFF, "reason": reason}


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
    shield.accept_stop(_ignore)
    raise JobStopped


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Pass over SIGINT; unlike SIG_IGN, programs started from here do not inherit it."""
