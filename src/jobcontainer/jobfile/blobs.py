"""Blobs: large data of job files, in files of their own that any number of job files share.

The data of a job file ``NAME`` that is not in it lies beside it, as ``NAME.DIGEST``, one file for each content. Where a
store keeps it, that is a hard link: the bytes are on disk once, and whoever maps them shares the memory too. A folder
that is copied or moved with these files is whole. :mod:`jobcontainer.storage.data` makes and removes the links.

A blob is never changed in place, and its mode is 0400. What is in it is known by its identity (device, inode, size,
time of modification; a link changes the time of the last status change, which is therefore no part of it), and believed
in two cases: this process has written or hashed the file itself, or the signed header of a job file names the identity,
since the machine was started last. A power failure may leave zeros where a file of the right size was, so that nothing
counts that was written before. A blob of any other identity is hashed, once in each process; its name is no proof.
One that another user can change is read into memory and hashed each time, and no job file is linked to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from jobcontainer.errors import CorruptFileError
from jobcontainer.jobfile.format import Digest, digest_of, joined, most_digest_threads, pieces
from jobcontainer.jobfile.identity import FileIdentity
from jobcontainer.jobfile.open_file import open_file
from jobcontainer.jobfile.ownership import why_foreign

if TYPE_CHECKING:
    import io

    from jobcontainer.jobfile.format import Buffer

BLOB_FROM: Final = 256 * 2**10
"""Bytes from which on data goes into a blob. Its links, temporary file and mapping cost as much as to write 100 KiB."""

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK  # a FIFO would wait for its writer for ever
_NAME: Final = re.compile(r"\.[0-9a-f]{64}")
_MOST_KNOWN: Final = 10_000

_known: dict[FileIdentity, str] = {}  # digests of files that this process has written or hashed


class BlobStore(Protocol):
    """Where a writer of job files puts large data."""

    @property
    def written(self) -> int:
        """How many bytes were written so far, and not found to be there."""

    def add(self, view: memoryview, file: Path) -> Buffer:
        """See that a blob with this content lies beside a file that is about to be written.

        Raises:
            OSError: it can't be written.
        """

    def link(self, blob: Buffer, file: Path) -> Buffer | None:
        """Link a blob beside a job file; return what its header is to say of it, or None where it is not there."""

    def forget_addresses(self) -> None:
        """From now on, take no data for the same because it is at the same address: code runs that may change it."""


def blob_path(file: str | os.PathLike[str], digest: str) -> Path:
    """Return where a blob of a job file lies.

    Example:
        >>> str(blob_path("result.job", "ab"))
        'result.job.ab'
    """
    return Path(f"{os.fspath(file)}.{digest}")


def blobs_beside(file: Path) -> list[Path]:
    """Return the blobs that lie beside a job file, whether it refers to them or not, and whether it is there or not."""
    with contextlib.suppress(FileNotFoundError), os.scandir(file.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(file.name)]
        return [file.with_name(name) for name in names if _NAME.fullmatch(name, len(file.name))]
    return []


def write_blob(descriptor: int, view: memoryview) -> str:
    """Write data into an empty file, by several threads, and return the digest of what is in the file then.

    Each piece is copied first: if the data changes meanwhile, the digest is still that of the file.
    """

    def write(start_and_piece: tuple[int, memoryview]) -> bytes:
        start, piece = start_and_piece[0], bytes(start_and_piece[1])
        written = 0
        while written < len(piece):
            written += os.pwrite(descriptor, memoryview(piece)[written:], start + written)
        return bytes(Digest(piece).digest())

    starts, start = [], 0
    for piece in pieces(view):
        starts.append((start, piece))
        start += len(piece)
    if len(starts) == 1:
        return joined(map(write, starts))
    with ThreadPoolExecutor(most_digest_threads(), "jobcontainer-blob") as pool:
        return joined(pool.map(write, starts))


def remember_blob(identity: FileIdentity, digest: str) -> None:
    """Note that this process has written or hashed a file."""
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[identity] = digest


def is_whole(path: Path, digest: str) -> FileIdentity | None:
    """Return the identity of a blob whose content has this digest, and keeps it; None for anything else."""
    try:
        file = open_file(path, _FLAGS)
    except OSError:
        return None
    with file:
        status, identity = os.fstat(file.fileno()), FileIdentity.of(file.fileno())
        if not stat.S_ISREG(status.st_mode) or why_foreign(status):
            return None
        if identity not in _known:
            remember_blob(identity, digest_of(_mapped(file, status.st_size)))
        return identity if _known[identity] == digest else None


def load_blob(file: str, blob: Buffer, *, vouched: bool, anew: bool = False, mapped: bool = True) -> memoryview:
    """Return the content of a blob of a job file, which can be written to without changing the blob.

    Args:
        file: the job file.
        blob: what its header says of the blob.
        vouched: whether the header can be believed about its identity.
        anew: whether it is hashed in any case.
        mapped: whether to map it copy-on-write rather than to read it.

    Raises:
        CorruptFileError: it is missing, or has another content.
    """
    path = blob_path(file, blob.digest)
    try:
        opened = open_file(path, _FLAGS)
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        raise CorruptFileError(
            f"{file} is not whole: a part of its data, {path}, can't be read ({error.strerror}). Nothing of it was "
            "loaded. Copy or move the whole folder, not the file alone."
        ) from error
    with opened:
        status, identity = os.fstat(opened.fileno()), FileIdentity.of(opened.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size != blob.size:
            raise _altered(path)
        is_own = not why_foreign(status)
        view = _mapped(opened, blob.size) if mapped and is_own else _read(opened, blob.size)
    if anew or not is_own or not (_known.get(identity) == blob.digest or (vouched and identity == blob.identity)):
        if digest_of(view) != blob.digest:
            raise _altered(path)
        if is_own:
            remember_blob(identity, blob.digest)
    return view


def address_of(view: memoryview) -> int:
    """Return where in memory a buffer begins."""
    found = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(found), 0)
    try:
        return int(found.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(found))


class _PyBuffer(ctypes.Structure):
    """``Py_buffer`` of the stable ABI: the one way to the address of a read-only buffer."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("format", "shape", "strides", "suboffsets", "internal")),
    )


def _mapped(file: io.FileIO, size: int) -> memoryview:
    """Map a file copy-on-write; read it where there is no descriptor to spare, or the file system can't map."""
    if size:
        with contextlib.suppress(OSError):
            return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY))
    return _read(file, size)


def _read(file: io.FileIO, size: int) -> memoryview:
    data = bytearray(size)
    filled = 0
    while filled < size and (count := file.readinto(memoryview(data)[filled:])):
        filled += count
    return memoryview(data)


def _altered(path: Path) -> CorruptFileError:
    return CorruptFileError(
        f"{path} is damaged: its content is not the one that it was written with. Nothing was loaded. Submit the "
        "process again, or copy the file again from where it is whole."
    )
