"""Jobs inside a process: what stands in a process file for the result of a job, and who takes note of it.

While a process is written, a job in it is pickled as a reference: the job's id, its store, and the signature of its
process file. :class:`Inputs` takes note of each. In the job that has the process, the reference becomes the result
(:mod:`jobcontainer.storage.inputs`). Elsewhere, say where somebody opens the file, it stays an
:class:`InputReference`, which can go into another process.

Threads: what is written, and what is loaded, is known for each thread by itself.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import JobContainerError, JobUpstreamError, SerializationError
from jobcontainer.jobfile import signing
from jobcontainer.jobfile.format import MAGIC, PRELUDE, STREAM_OFFSET, Digest
from jobcontainer.jobfile.open_file import open_file
from jobcontainer.jobfile.reader import FileReader

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MOST_INPUTS: Final = 20_000
"""Jobs inside one process."""

_LONGEST: Final = 5000  # characters of an id or a path


@dataclass(frozen=True, slots=True)
class InputReference:
    """Stands for the result of a job, in a process that is loaded outside of its own job.

    Attributes:
        job: the job's id.
        store: the path of its store, as it was when the process was written.
        signature: of its process file, by which the job is known wherever it lies.
    """

    job: str
    store: str
    signature: str

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str, str]]:
        """Stand for the same job in another process."""
        note(self)
        return input_value, (self.job, self.store, self.signature)

    @property
    def folder(self) -> str:
        """The path of the job's folder, as it was when the process was written."""
        return f"{self.store}{os.sep}{self.job}"


@dataclass(slots=True)
class Inputs:
    """The jobs that a process was found to hold while it was written.

    Attributes:
        references: by the paths of the jobs' folders, in the order in which they were found.
        handles: what stood in the process for them, by these paths.
        refusal: why one can be no input; None where all can.
    """

    references: dict[str, InputReference] = field(default_factory=dict)
    handles: dict[str, Any] = field(default_factory=dict)
    refusal: Exception | None = None

    def fields(self) -> dict[str, Any]:
        """Return what the header of the process file says of them, as plain data.

        Raises:
            JobUpstreamError: a job is gone.
            JobFileError: a job's process file is damaged, or not signed by a key of this user.
            SerializationError: there are too many.
        """
        if self.refusal is not None:
            raise self.refusal
        if len(self.references) > MOST_INPUTS:
            raise SerializationError(
                f"The process holds {len(self.references):,} jobs, and {MOST_INPUTS:,} is the most: submit jobs that "
                "bring some thousand results together each, and give it those."
            )
        listed = [[one.job, one.store, one.signature] for one in self.references.values()]
        return {"inputs": listed} if listed else {}


class _Thread(threading.local):
    found: Inputs | None = None
    resolve: Callable[[InputReference], Any] | None = None


_this = _Thread()


@contextlib.contextmanager
def noted_in(inputs: Inputs | None) -> Iterator[None]:
    """Take note of the jobs in what is pickled within a block, by this thread; None for a block where jobs are none."""
    before, _this.found = _this.found, inputs
    try:
        yield
    finally:
        _this.found = before


@contextlib.contextmanager
def resolved_by(resolve: Callable[[InputReference], Any]) -> Iterator[None]:
    """Have the references in what is loaded within a block, by this thread, become what a function returns."""
    before, _this.resolve = _this.resolve, resolve
    try:
        yield
    finally:
        _this.resolve = before


def is_noting() -> bool:
    """Return whether a process is written just now, by this thread."""
    return _this.found is not None


def note(reference: InputReference, handle: object = None) -> None:
    """Take note of a job, if a process is written just now."""
    if _this.found is not None:
        _this.found.references.setdefault(reference.folder, reference)
        if handle is not None:
            _this.found.handles.setdefault(reference.folder, handle)


def reduced(process_file: Path, handle: object) -> tuple[Callable[..., Any], tuple[str, str, str]] | None:
    """Reduce a job to a reference, and take note of it; None where no process is written just now."""
    found, folder = _this.found, process_file.parent
    if found is None:
        return None
    known = found.references.get(str(folder))
    if known is None:
        try:
            known = InputReference(folder.name, str(folder.parent), _own_signature(process_file))
        except (OSError, JobContainerError) as error:
            found.refusal = found.refusal or _refusal(process_file, error)
            known = InputReference(folder.name, str(folder.parent), "")
        note(known, handle)
    return known.__reduce__()


def input_value(job: str, store: str, signature: str) -> Any:
    """Return what stands for the result of a job; streams call this."""
    reference = InputReference(job, store, signature)
    return reference if _this.resolve is None else _this.resolve(reference)


def signature_of(process_file: str | os.PathLike[str]) -> str:
    """Return what distinguishes a process file from every other one; empty where there is none. Nothing is checked.

    It is the signature in its first bytes; of a plain pickle, which has none there, the digest.

    Raises:
        OSError: it can't be read at the moment.
    """
    try:
        with open_file(process_file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            head = _head(file)
            return head[PRELUDE.size :].hex() if head.startswith(MAGIC) else str(Digest(head).hexdigest())
    except (FileNotFoundError, NotADirectoryError):
        return ""


def head_of(process_file: str | os.PathLike[str]) -> bytes:
    """Return what of a process file decides its signature: the first bytes, or of a plain pickle all.

    Raises:
        OSError: it can't be read.
    """
    with open_file(process_file, os.O_RDONLY) as file:
        return _head(file)


def _head(file: io.FileIO) -> bytes:
    head = file.read(STREAM_OFFSET) or b""
    return head if head.startswith(MAGIC) else head + (file.readall() or b"")


def references_in(listed: Sequence[Any]) -> list[InputReference]:
    """Read the references that a header lists.

    Raises:
        ValueError: they are none.
        TypeError: likewise.
    """
    if len(listed) > MOST_INPUTS:
        raise ValueError("too many inputs")
    references = [InputReference(*(_text(text) for text in one)) for one in listed]
    if any(not is_name(one.job) for one in references):
        raise ValueError("no id")
    return references


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a job's folder, and of nothing outside its store."""
    return text not in {"", ".", ".."} and not {"/", "\0", os.sep} & set(text)


def _own_signature(process_file: Path) -> str:
    """Return the signature of a process file that is this user's own."""
    with FileReader(process_file) as file:
        if file.is_job_file and not signing.is_signed(
            signing.Purpose.JOB_FILE, file.signed, file.signature, by_former_keys=True
        ):
            raise JobUpstreamError(
                f"The job {process_file.parent} is not signed with your key, and neither is its result, so that no job "
                "of yours can have it. Whoever ran it can put the result into a file; `jobcontainer trust FILE` makes "
                "that yours.",
                upstream=process_file.parent.name,
            )
    return signature_of(process_file)


def _refusal(process_file: Path, error: OSError | JobContainerError) -> Exception:
    if not isinstance(error, FileNotFoundError):
        return error
    folder = process_file.parent
    what = f"{process_file if folder.exists() else folder} was deleted"
    return JobUpstreamError(f"The job {folder.name} can be no input: {what}. Run it anew.", upstream=folder.name)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST or "\0" in value:
        raise TypeError("not a short text")
    return value
