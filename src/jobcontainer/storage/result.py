"""What ``run()`` returned or raised, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobcontainer.errors import CorruptFileError, JobFailedError, JobFileError
from jobcontainer.events import JobState
from jobcontainer.jobfile.loading import load_result
from jobcontainer.jobfile.reader import FileReader, blobs_of
from jobcontainer.jobfile.serializer import Serializer, write_file
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.regular_file import size_of
from jobcontainer.storage.store_folder import StoreFolder

if TYPE_CHECKING:
    import os

    from jobcontainer.jobfile.identity import FileIdentity


class RemoteTraceback(Exception):  # noqa: N818 -- a traceback, shown as the cause of what was raised
    """The traceback of the job's process, attached as ``__cause__`` to what ``run()`` raised there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """Set the text off from the local traceback that follows it."""
        return f'\n"""\n{self.text}"""'


def write_returned(path: Path, value: object) -> FileIdentity:
    """Put what ``run()`` returned into the result file; return its identity, for those who trust this process.

    Its large data goes into the store of the job's folder.

    Raises:
        SerializationError: it can't go into a file.
        OSError: the file can't be written; the message says so, and why.
    """
    try:
        return write_file(value, path, kind="result", blobs=_data_of(path))
    except OSError as error:
        if error.errno is None or error.strerror is None:  # raised by the value's own pickling
            raise
        reason = f"What run() returned could not be written ({error.strerror})"
        raise OSError(error.errno, reason, error.filename) from error


def write_raised(path: Path, error: BaseException, message: str, text: str) -> None:
    """Put what ``run()`` raised into the result file, or its type, message and traceback where it can't be carried.

    An exception of a library whose constructor takes other arguments than its ``args`` goes into a file and never comes
    out again. So what was written is read back here, where the failure can still be reported.

    Args:
        path: the result file.
        error: the exception.
        message: its message; its own ``__str__`` is not called.
        text: its traceback as text.

    Raises:
        OSError: the file can't be written.
    """
    try:
        write_file((error, text), path, kind="error", blobs=_data_of(path))
        copy, _ = Serializer.deserialize_from_file(path)
        carried = type(copy) is type(error)
    except OSError:
        raise
    except Exception:  # noqa: BLE001 -- an exception's own pickling may raise anything
        carried = False
    if not carried:
        write_file((stand_in(error, message, text), text), path, kind="error")


def read_result(path: str | os.PathLike[str], identity: FileIdentity | None = None) -> tuple[Any, BaseException | None]:
    """Load what ``run()`` returned, or what it raised.

    Args:
        path: the result file.
        identity: what the job reported of the file over its channel; it need not be hashed where it still has that.

    Returns:
        The value and None, or None and the exception, whose ``__cause__`` shows the job's own traceback; a
        :class:`~jobcontainer.errors.JobFailedError` where the exception itself can't be carried.

    Raises:
        FileNotFoundError: there is no result file.
        JobFileError: it can't be loaded, or is a link to some other file.
    """
    _refuse_link(path)
    kind, content = load_result(path, identity)
    if kind != "error":
        return content, None
    match content:
        case (BaseException() as error, str(text)):
            error.__cause__ = RemoteTraceback(text)
            return None, error
    raise CorruptFileError(f"{path} is damaged: it should hold an exception, and holds none.")


def size_with_data(path: Path) -> int:
    """Return the bytes of a result file and of the large data that it refers to; 0 where there is no such file."""
    return size_of(path) + sum(blob.size for blob in blobs_of(path).values())


def decided_state(path: str | os.PathLike[str]) -> JobState | None:
    """Return the end that a complete result file decides, without loading it; None where there is no such file."""
    return {"result": JobState.SUCCEEDED, "error": JobState.FAILED}.get(_kind_of(path))


def _data_of(result_file: Path) -> SharedData:
    return SharedData(StoreFolder(result_file.parent.parent))


def _kind_of(path: str | os.PathLike[str]) -> str:
    try:
        _refuse_link(path)
        with FileReader(path) as file:
            return str(file.header().fields.get("kind", "")) if file.is_job_file else ""
    except (OSError, JobFileError):  # missing, not complete
        return ""


def _refuse_link(path: str | os.PathLike[str]) -> None:
    """Raise where a job has put a link in the place of its result: another job's result is none of this one."""
    if Path(path).is_symlink():
        raise CorruptFileError(f"{path} is a link, and no result of the job. Nothing was loaded.")


def qualified_name(kind: type) -> str:
    """Name a type as a traceback does: built-in types and those of ``__main__`` without their module.

    Example:
        >>> qualified_name(ValueError), qualified_name(JobFailedError)
        ('ValueError', 'jobcontainer.errors.JobFailedError')
    """
    return (
        kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}.{kind.__qualname__}"
    )


def stand_in(error: BaseException, message: str, text: str) -> JobFailedError:
    """Return what is raised in the place of an exception that can't be carried, with its message and traceback."""
    name = qualified_name(type(error))
    return JobFailedError(
        f"{name}: {message}\nThe exception itself can't leave the job's process; its traceback is in the log.",
        error_type=name,
        traceback_text=text,
    )
