"""From a file to its object: first everything is checked, then the stream is unpickled.

The two may be apart: a keeper, which has all that is needed for it at hand, checks a small file for the job that it
starts, and hands over what it has read. So a new process need not find its way through keys, digests and headers first.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobcontainer.errors import IncompatibleFileError, JobFileError, UntrustedFileError
from jobcontainer.jobfile import info, signing, verified
from jobcontainer.jobfile.plain_pickle import check_plain, load_plain
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.pickling import package_versions, source_code
from jobcontainer.pickling.unpickler import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobcontainer.jobfile.format import Header
    from jobcontainer.pickling.package_versions import Distribution

_HANDED_OVER: Final = 64 * 2**10  # bytes of the largest file that is read for another process


class Content(NamedTuple):
    """What a file holds, whole and of this user.

    Attributes:
        stream: the pickle.
        text: the sources.
        packages: the packages that it needs.
        buffers: the out-of-band buffers.
    """

    stream: bytes | bytearray
    text: bytes | bytearray
    packages: Mapping[str, Distribution]
    buffers: tuple[memoryview, ...] = ()


def load_file(file_path: str | os.PathLike[str], *, trusted: bool = False) -> Any:  # noqa: ANN401 -- what was put in
    """Load an object; see :meth:`jobcontainer.Serializer.deserialize_from_file`."""
    with FileReader(file_path) as file:
        if not file.is_job_file:
            return load_plain(file, trusted=trusted)
        content = _checked(file, trusted=trusted)
    return _loaded(file.path, content, own_process=False)


def load_in_job(file_path: str | os.PathLike[str], content: Content | None = None) -> Any:  # noqa: ANN401 -- as above
    """Load a process in the process that is its own.

    Unlike :meth:`jobcontainer.Serializer.deserialize_from_file`, classes are made as they were when the file was
    written, modules that travelled are what ``import`` finds, tracebacks show their source, and ``inspect.getsource``
    finds classes.

    Args:
        file_path: the file.
        content: what :func:`read_ahead` gave for it.
    """
    if content is None:
        with FileReader(file_path) as file:
            if not file.is_job_file:
                return load_plain(file, trusted=False)
            content = _checked(file)
    return _loaded(os.fspath(file_path), content, own_process=True)


def read_ahead(file_path: str | os.PathLike[str]) -> Content | None:
    """Read and check a file for the process that will load it; no code in it is run.

    Returns:
        The content; None where it is large, or something is wrong with it, which that process is to tell.
    """
    try:
        with FileReader(file_path) as file:
            if not file.is_job_file or file.status.st_size > _HANDED_OVER:
                return None
            content = _checked(file)
    except (OSError, JobFileError):
        return None
    return None if content.buffers else content


def check_file(file_path: str | os.PathLike[str]) -> None:
    """Check that a file is whole and signed by this user's key, as a load would; nothing in it is run.

    Unlike :meth:`jobcontainer.Serializer.verify`, it believes the record of large buffers that were checked before.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: it is truncated, altered, or no job file.
        UntrustedFileError: it is not signed by a key of this user.
        IncompatibleFileError: it is of a newer format.
    """
    with FileReader(file_path) as file:
        if file.is_job_file:
            check_signature(file)
            _read(file, file.header())
        else:
            check_plain(file)


def check_signature(file: FileReader) -> None:
    """Check that a job file is signed by this user's key.

    Raises:
        UntrustedFileError: it is not.
    """
    if not signing.is_signed(file.signed, file.signature):
        raise UntrustedFileError(
            f"{file.path} is not signed with your key {signing.key_file()}, or was altered, and loading it would run "
            "code that is in it. If you trust who made it: deserialize_from_file(..., trusted=True), or once "
            f"`jobcontainer trust {file.path}`."
        )


def check_content(file: FileReader) -> None:
    """Check every byte of a job file but its signature.

    Raises:
        CorruptFileError: it was altered.
    """
    header = file.header()
    file.stream(header)
    file.sources(header)
    file.check_buffers(header, file.buffers(header))


def _checked(file: FileReader, *, trusted: bool = False) -> Content:
    if not trusted:
        check_signature(file)
    header = file.header()
    _check_python(file, header)
    return _read(file, header)


def _read(file: FileReader, header: Header) -> Content:
    """Read the stream, the sources and the buffers, and check them."""
    stream, text = file.stream(header), file.sources(header)
    buffers = file.buffers(header)
    if buffers:
        verified.check_buffers_once(file, header, buffers)
    return Content(stream, text, info.packages_of(file, header), tuple(buffers))


def _loaded(path: str, content: Content, *, own_process: bool) -> Any:  # noqa: ANN401 -- as above
    package_versions.learn(content.packages)
    source_code.learn(content.text, own_process=own_process)
    try:
        obj = load(content.stream, content.buffers, anew=own_process)
    except Exception as error:
        error.add_note(f"Raised while {path} was loaded, which is whole and signed.")
        raise
    package_versions.warn_of_other_versions(path, content.packages)
    return obj


def _check_python(file: FileReader, header: Header) -> None:
    written = str(header.facts.get("python"))
    if header.facts.get("by_value") and written.split(".")[:2] != info.PYTHON.split(".")[:2]:
        raise IncompatibleFileError(
            f"{file.path} holds code of Python {written}, and this is Python {info.PYTHON}: bytecode does not survive "
            "that. Load it there, or put the object into a new file from here."
        )
