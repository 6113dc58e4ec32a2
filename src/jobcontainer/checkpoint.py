"""Save how far ``run()`` is, and go on from there after a crash, a restart, or a stop.

Example::

    from jobcontainer import checkpoint

    class Train:
        def run(self):
            state = checkpoint.load(default={"epoch": 0, "model": None})
            for epoch in range(state["epoch"], 100):
                ...
                checkpoint.save({"epoch": epoch + 1, "model": model})

A checkpoint belongs to one job. Its retries go on from it (``retries=``), and so do reruns that are to: those of
``job.rerun(resume=True)``, ``jobcontainer rerun ID --resume`` and ``%jobs resume``. No other job sees it, and a plain
``job.rerun()`` begins anew. One that is saved in a ``finally`` block, when the job is stopped, counts.

Outside of a job, in a notebook's own cells say, the same code runs, and what is saved stays in memory: for the object
whose ``run()`` saves it, so that another ``Train().run()`` begins anew; code that no ``run()`` calls shares one, until
the process ends.

Threads of a job may save and load as the job does, one save after another. Its child processes can't: whatever they
save would be taken for the whole job's. A program that a job starts, a script of its own say, is outside of the job.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import sys
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.diagnosis import explained
from jobcontainer.pickling.pickler import Pickler
from jobcontainer.pickling.unpickler import load as unpickled
from jobcontainer.storage.checkpoint import read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobcontainer.storage.folder import JobFolder

__all__ = ["load", "save"]

CHUNK: Final = (
    "The calls of pool.map() have no checkpoint: many of them share a process, and the result of each is kept as soon "
    "as it is there. What is to go on from where it was is a job of its own: pool.submit()."
)
_CHILD: Final = (
    "This is a child process of a job, and the checkpoint is the whole job's: hand what is to be saved over to the "
    "job's own process, and save or load it there."
)


class _Running:
    """A job that runs in this process."""

    def __init__(self, folder: JobFolder, refusal: str) -> None:
        self.folder, self.refusal = folder, refusal
        self.lock = threading.RLock()


class _Process:
    """What is known of this process: whether it is a job's own, and why there are no checkpoints in it."""

    is_own = False
    refusal = ""


class _Kept:
    """What was saved outside of a job, by the ``id()`` of the object whose ``run()`` did; each goes with its object."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, bytes, list[bytearray]]] = {}

    def keep(self, owner: object, obj: object) -> None:
        stream = io.BytesIO()
        pickler = Pickler(stream)
        try:
            pickler.dump(obj)
        except Exception as error:
            raise explained(obj, error, "checkpoint") from error
        key = id(owner)
        try:  # the reference, or where there can be none the object itself, keeps the id() from being another's
            reference: Any = weakref.ref(owner, lambda _: self._kept.pop(key, None))
        except TypeError:
            reference = owner
        self._kept[key] = reference, stream.getvalue(), [bytearray(view) for view in pickler.buffers]

    def load(self, owner: object, default: object) -> Any:
        if id(owner) not in self._kept:
            return default
        _, stream, buffers = self._kept[id(owner)]
        return unpickled(stream, [memoryview(bytearray(one)) for one in buffers])


_here: ContextVar[_Running | None] = ContextVar("jobcontainer_checkpoint", default=None)
_running: list[_Running] = []  # several where jobs run inline, in several threads or within one another
_kept = _Kept()
_process = _Process()


def save(obj: object) -> None:
    """Save an object to go on from; :func:`load` returns it after a crash, in a retry or a rerun that resumes.

    It appears whole or not at all: a kill at any instant leaves this one or the one before, which is kept too where
    this fails. Large arrays that have not changed are not written again.

    Args:
        obj: anything that can go into a file. It must not change meanwhile.

    Raises:
        SerializationError: it can't go into a file; ``culprits`` says which parts and why.
        OSError: it can't be written, on a full disk say. The job may go on, and save again.
        RuntimeError: this is a child process of a job, or a call of ``pool.map()``.

    Example:
        >>> from jobcontainer import checkpoint
        >>> checkpoint.save({"epoch": 3})
        >>> checkpoint.load()
        {'epoch': 3}
    """
    job = _job()
    if job is None:
        _kept.keep(_caller(), obj)
        return
    with job.lock:
        write_checkpoint(job.folder, obj)


def load(default: Any = None) -> Any:
    """Return what the job saved last, in this attempt or an earlier one, or what the job that it resumes had saved.

    Args:
        default: what is returned where nothing was saved.

    Raises:
        JobFileError: it can't be loaded: it was damaged, or another minor version of Python wrote it. It is for you to
            decide whether to begin anew.
        RuntimeError: this is a child process of a job, or a call of ``pool.map()``.
    """
    job = _job()
    if job is None:
        return _kept.load(_caller(), default)
    if not os.path.lexists(job.folder.checkpoint_file):
        return default
    return read_checkpoint(job.folder, vars(sys.modules["__main__"]) if _process.is_own else None)


@contextlib.contextmanager
def belongs_to(folder: JobFolder, refusal: str = "") -> Iterator[None]:
    """Let code that runs in the block have the checkpoint of a job.

    Args:
        folder: of the job.
        refusal: why it has none, a sentence; mostly empty.
    """
    job, outer = _Running(folder, refusal), _here.get()
    _here.set(job)
    _running.append(job)
    try:
        yield
    finally:
        _here.set(outer)
        with contextlib.suppress(ValueError):  # in a child that was forked in the block
            _running.remove(job)


def take_process() -> None:
    """Note that this process is a job's own: what is loaded may define names in ``__main__``."""
    _process.is_own = True


def leave_to_the_job() -> None:
    """Note that this process is a child of a job's."""
    _process.refusal = _CHILD


def _job() -> _Running | None:
    """Return the job whose code calls; None outside of any.

    Raises:
        RuntimeError: it has no checkpoint here.
    """
    job = _here.get()
    if job is None and _running:  # a thread that the job has started
        if len(_running) > 1:
            raise RuntimeError(
                "Several jobs run in this process, and this thread may be of any: save in the one that runs the job."
            )
        job = _running[0]
    if refusal := _process.refusal if job is None else job.refusal:
        raise RuntimeError(refusal)
    return job


def _caller() -> object:
    """Return the object whose ``run()`` has called a function here, however far up; None where there is none."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "run" and code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            if callable(getattr(type(first), "run", None)):
                return first
        frame = frame.f_back
    return None


def _forget() -> None:
    """In a child that is forked from a job's process: the job is none of its own."""
    if _running:
        _running.clear()
        _here.set(None)
        leave_to_the_job()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
