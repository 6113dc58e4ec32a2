"""From a file to its object: everything is checked first, then the stream is unpickled.

Hashing a gigabyte takes as long as everything else, so the large buffers of one content are hashed once. Whoever wrote
a file vouches for its identity (device, inode, size, time of modification) and need not hash it, nor need those that
receive the identity over a channel of the writer. Everybody else hashes it, once in each process. For blobs, the
signed header of the file beside them vouches, see :mod:`jobcontainer.jobfile.blobs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import IncompatibleFileError, UntrustedFileError
from jobcontainer.jobfile import info, signing
from jobcontainer.jobfile.plain_pickle import load_plain, signed_content
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.pickling import package_versions, source_code
from jobcontainer.pickling.unpickler import load

if TYPE_CHECKING:
    import os

    from jobcontainer.jobfile.format import Header
    from jobcontainer.jobfile.identity import FileIdentity

_REMEMBERED_FROM: Final = 2**20  # bytes; smaller files are hashed each time, in less than a millisecond
_MOST_REMEMBERED: Final = 1000

_whole: set[tuple[FileIdentity, bytes]] = set()  # identity and signature


def load_file(
    file_path: str | os.PathLike[str],
    *,
    trusted: bool = False,
    identity: FileIdentity | None = None,
    own_process: bool = False,
) -> Any:
    """Load an object; see :meth:`jobcontainer.Serializer.deserialize_from_file`.

    Args:
        file_path: the file.
        trusted: load it although it is not signed by this user's key.
        identity: what the writer of the file vouches for; large buffers of a file that has it are not hashed.
        own_process: whether this process is the job's own. There classes are made as they were when the file was
            written, ``import`` finds the modules that travelled, tracebacks show their source, and
            ``inspect.getsource`` finds classes.
    """
    with FileReader(file_path) as file:
        if not file.is_job_file:
            return load_plain(file, trusted=trusted)
        if not trusted:
            _check_signature(file)
        header = file.header()
        _check_python(file, header)
        stream, sources, buffers = checked_content(file, header, identity, signed=not trusted)
        packages = info.packages_in(file, header)
    source_code.remember(sources, own_process=own_process)
    try:
        obj = load(stream, buffers, anew=own_process)
    except Exception as error:
        error.add_note(f"Raised while {file.path} was loaded, which is whole and signed.")
        raise
    package_versions.compare(file.path, packages)
    return obj


def load_in_job(file_path: str | os.PathLike[str], identity: FileIdentity | None = None) -> Any:
    """Load a process in the process that is its own; see :func:`load_file`."""
    return load_file(file_path, identity=identity, own_process=True)


def check_file(file_path: str | os.PathLike[str], *, anew: bool = False) -> FileIdentity:
    """Check that a file is whole and signed by this user's key, as a load does; nothing in it is run.

    Args:
        file_path: the file.
        anew: whether large buffers are hashed although this process has checked them before.

    Returns:
        The identity of the file that was checked.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: it is truncated, altered, or no job file.
        UntrustedFileError: it is not signed by a key of this user.
        IncompatibleFileError: it is of a newer format.
    """
    with FileReader(file_path) as file:
        if file.is_job_file:
            _check_signature(file)
            checked_content(file, file.header(), signed=True, anew=anew)
        else:
            signed_content(file)
        return file.identity


def checked_content(
    file: FileReader, header: Header, identity: FileIdentity | None = None, *, signed: bool = False, anew: bool = False
) -> tuple[bytes | bytearray, bytes | bytearray, list[memoryview]]:
    """Read stream, sources and buffers of a job file, and check all but its signature.

    Args:
        file: the file.
        header: its header.
        identity: what the writer of the file vouches for.
        signed: whether the signature was checked, so that the header vouches for the blobs beside the file.
        anew: whether large buffers are hashed although somebody vouches for them.

    Raises:
        CorruptFileError: it was altered, or a blob is missing.
    """
    load_blob = file.blob_loader(header, vouched=signed, anew=anew)
    stream, sources, buffers = file.stream(header, load_blob), file.sources(header), file.buffers(header, load_blob)
    if anew or (file.identity != identity and (file.identity, file.signature) not in _whole):
        file.check_buffers(header, buffers)
        remember_whole(file.identity, file.signature)
    return stream, sources, buffers


def remember_whole(identity: FileIdentity, signature: bytes) -> None:
    """Note that this process has written or checked every byte of a file."""
    if identity.size >= _REMEMBERED_FROM:
        if len(_whole) >= _MOST_REMEMBERED:
            _whole.clear()
        _whole.add((identity, signature))


def _check_signature(file: FileReader) -> None:
    if not signing.is_signed(file.signed, file.signature):
        raise UntrustedFileError(
            f"{file.path} is not signed with your key {signing.key_file()}, or was altered, and loading it would run "
            "code that is in it. If you trust who made it: deserialize_from_file(..., trusted=True), or once "
            f"`jobcontainer trust {file.path}`."
        )


def _check_python(file: FileReader, header: Header) -> None:
    written = str(header.fields.get("python"))
    if header.fields.get("by_value") and written.split(".")[:2] != info.PYTHON.split(".")[:2]:
        raise IncompatibleFileError(
            f"{file.path} holds code of Python {written}, and this is Python {info.PYTHON}: bytecode does not survive "
            "that. Load it there, or put the object into a new file from here."
        )
