"""Reads a job file and trusts nothing in it that has not been checked.

The file is opened once, and everything is read through that descriptor: a file that is put in its place later is not
read. The stream is read into memory of this process before it is checked, so that nobody can change it between check
and use.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import stat
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from jobcontainer.errors import CorruptFileError, IncompatibleFileError, JobFileError
from jobcontainer.jobfile.blobs import blob_path, blobs_beside, load_blob
from jobcontainer.jobfile.format import (
    FORMAT,
    LARGEST_HEADER,
    MAGIC,
    PRELUDE,
    STREAM_OFFSET,
    Digest,
    Header,
    digest_threads,
    joined,
    pieces,
)
from jobcontainer.jobfile.identity import FileIdentity, boot_id
from jobcontainer.jobfile.open_file import open_file
from jobcontainer.jobfile.ownership import why_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jobcontainer.jobfile.format import Buffer

_FIRST_READ: Final = 64 * 2**10  # holds the whole of most files
_COPIED_AT_ONCE: Final = 2**20
_MAPPED_FROM: Final = 2**20  # buffers smaller than this together are read: each mapping holds a descriptor
_MOST_MAPPED: Final = 200  # blobs of one file, for the same reason; the others are read
_NO_FILE: Final = frozenset({errno.ENXIO, errno.EISDIR, errno.ELOOP, errno.ENODEV})  # sockets, links to themselves
# A blocking open of a FIFO would wait for its writer for ever.
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)


class FileReader:
    """One open job file.

    Attributes:
        path: the file.
        status: of the open file.
        identity: the one that the file had when it was opened.
        is_own: whether no other user can change it; if not, nothing of it is mapped, and its identity proves nothing.
        is_job_file: whether it begins as a job file does; if not, only :meth:`read` and :meth:`copy_to` work.
        signed: the bytes that the signature is over.
        signature: as it stands in the file; it is not compared here.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it can't be opened.
        CorruptFileError: it is no regular file, or sizes in it contradict each other.

    Example:
        >>> with FileReader(path) as file:  # doctest: +SKIP
        ...     header = file.header()
        ...     stream = file.stream(header)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.signed = self.signature = b""
        try:
            self._file = open_file(self.path, _FLAGS)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise CorruptFileError(f"{self.path} is no job file: {error.strerror}.") from error
        try:
            self.status, self.identity = os.fstat(self._file.fileno()), FileIdentity.of(self._file.fileno())
            self.is_own = not why_foreign(self.status)
            self._read_head()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return this reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; buffers that were mapped stay."""
        self.close()

    def close(self) -> None:
        """Close the file; buffers that were mapped stay."""
        self._file.close()

    def _read_head(self) -> None:
        if not stat.S_ISREG(self.status.st_mode):
            raise CorruptFileError(f"{self.path} is no job file, not even a regular file.")
        self._head = os.read(self._file.fileno(), _FIRST_READ)
        self.is_job_file = self._head.startswith(MAGIC)
        if not self.is_job_file:
            return
        if len(self._head) < STREAM_OFFSET:
            raise self.corrupt("it ends within its first bytes")
        _, self._format, header_size, self._header_offset, file_size = PRELUDE.unpack_from(self._head)
        if file_size != self.status.st_size:
            raise self.corrupt(f"it has {self.status.st_size} bytes and should have {file_size}")
        if self._format == 0 or header_size > LARGEST_HEADER or self._header_offset + header_size != file_size:
            raise self.corrupt("its first bytes contradict themselves")
        self.signed = self._head[: PRELUDE.size] + self.read(self._header_offset, header_size)
        self.signature = self._head[PRELUDE.size : STREAM_OFFSET]

    def header(self) -> Header:
        """Parse the header, and check that the sizes in it add up to the file.

        Raises:
            CorruptFileError: they do not, or it is no header, or the file is no job file.
            IncompatibleFileError: it is of a newer format.
        """
        if not self.is_job_file:
            raise self.corrupt("it does not begin as a job file does")
        if self._format > FORMAT:
            raise IncompatibleFileError(
                f"{self.path} is of format {self._format}, and this jobcontainer reads up to {FORMAT}. "
                "Upgrade jobcontainer."
            )
        try:
            header = Header.unpacked(self.signed[PRELUDE.size :])
        except ValueError as error:
            raise self.corrupt("its header can't be read") from error
        if header.content_end != self._header_offset:
            raise self.corrupt("the sizes in its header do not add up")
        return header

    def stream(self, header: Header, load: Callable[[Buffer], memoryview]) -> bytes | bytearray:
        """Read the stream into memory of this process, and check its digest.

        Args:
            header: of the file.
            load: returns the content of a blob that belongs into the stream, as :meth:`blob_loader` does.
        """
        stream = self._checked(STREAM_OFFSET, *header.stream)
        if not header.inserted:
            return stream
        whole, end = bytearray(), 0
        for position, blob in header.inserted:
            whole += memoryview(stream)[end:position]
            whole += load(blob)
            end = position
        return whole + memoryview(stream)[end:]

    def sources(self, header: Header) -> bytes | bytearray:
        """Read the sources, and check their digest."""
        return self._checked(header.sources_offset, *header.sources)

    def _checked(self, offset: int, size: int, digest: str) -> bytes | bytearray:
        data = self.read(offset, size)
        if size and Digest(data).hexdigest() != digest:
            raise self.corrupt("its content was altered")
        return data

    def blob_loader(self, header: Header, *, vouched: bool, anew: bool = False) -> Callable[[Buffer], memoryview]:
        """Return what loads and checks the blobs beside the file.

        Args:
            header: of the file.
            vouched: whether the header is signed, so that it can be believed about their identities.
            anew: whether they are hashed in any case.
        """
        vouched = vouched and bool(header.boot) and header.boot == boot_id()
        left = _MOST_MAPPED

        def load(blob: Buffer) -> memoryview:
            nonlocal left
            left -= 1
            return load_blob(self.path, blob, vouched=vouched, anew=anew, mapped=left >= 0)

        return load

    def buffers(self, header: Header, load: Callable[[Buffer], memoryview]) -> list[memoryview]:
        """Map the buffers copy-on-write: they can be written to, and share their pages with every reader of the file.

        Small ones are read. Of those that are in the file nothing is checked here: see :meth:`check_buffers`.

        Args:
            header: of the file.
            load: as for :meth:`stream`.
        """
        inside = iter(self._buffers_inside(header))
        return [next(inside) if buffer.identity is None else load(buffer) for buffer in header.buffers]

    def _buffers_inside(self, header: Header) -> list[memoryview]:
        spans = list(header.buffer_spans())
        if not spans:
            return []
        first = spans[0][1]
        whole: memoryview | None = None
        if self.is_own and self._header_offset - first >= _MAPPED_FROM:
            # Without a descriptor to spare, or on a file system that can't map, reading does as well.
            with contextlib.suppress(OSError):
                mapped = mmap.mmap(self._file.fileno(), self._header_offset, access=mmap.ACCESS_COPY)
                whole = memoryview(mapped)[first:]
        if whole is None:
            whole = memoryview(bytearray(self.read(first, self._header_offset - first)))
        return [whole[start - first : end - first] for _, start, end in spans]

    def check_buffers(self, header: Header, views: Sequence[memoryview]) -> None:
        """Compare the digests of buffers in the file, in several threads, and check the zeros in between.

        Args:
            header: of the file.
            views: what :meth:`buffers` returned.

        Raises:
            CorruptFileError: a buffer was altered.
        """
        inside = [(buffer, view) for buffer, view in zip(header.buffers, views, strict=True) if buffer.identity is None]
        if not inside:
            return
        for gap, start, _ in header.buffer_spans():
            if self.read(gap, start - gap).strip(b"\0"):
                raise self.corrupt("there is something between its buffers")
        with digest_threads(sum(len(view) for _, view in inside)) as digest_later:
            begun = [(buffer, [digest_later(piece) for piece in pieces(view)]) for buffer, view in inside]
            for buffer, digests in begun:
                if joined(digest() for digest in digests) != buffer.digest:
                    raise self.corrupt("a buffer of it was altered")

    def read(self, offset: int, size: int) -> bytes | bytearray:
        """Read bytes of the file, whatever it is.

        Raises:
            CorruptFileError: it ends before that.
        """
        if offset + size <= len(self._head):
            return self._head[offset : offset + size]
        data = bytearray(size)
        filled = 0
        self._file.seek(offset)
        while filled < size:
            count = self._file.readinto(memoryview(data)[filled:])
            if not count:
                raise self.corrupt("it ends before it should")
            filled += count
        return data

    def copy_to(self, target: BinaryIO) -> None:
        """Write the whole file into another one."""
        self._file.seek(0)
        shutil.copyfileobj(self._file, target, _COPIED_AT_ONCE)

    def corrupt(self, what: str) -> CorruptFileError:
        """Return the error that says what is wrong with the file."""
        return CorruptFileError(f"{self.path} is damaged: {what}. Nothing of it was loaded. Make or copy it again.")


def blobs_of(path: str | os.PathLike[str]) -> dict[str, Buffer]:
    """Return the blobs that a job file names, by their digests; none where it can't be read. Nothing is checked."""
    try:
        with FileReader(path) as file:
            return file.header().blobs if file.is_job_file else {}
    except (OSError, JobFileError):
        return {}


def remove_stale_blobs(path: Path) -> None:
    """Remove the blobs beside a job file that it does not refer to; all of them where there is no such file."""
    beside = blobs_beside(path)
    kept = {blob_path(path, digest) for digest in (blobs_of(path) if beside else {})}
    for blob in beside:
        if blob not in kept:
            with contextlib.suppress(OSError):
                blob.unlink()
