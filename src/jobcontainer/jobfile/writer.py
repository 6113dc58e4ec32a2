"""Writes a job file: the stream as it is made, then all the rest. Nothing of it is seen before it is whole.

The bytes go to a temporary file in the same folder, which then takes the place of the old one. A file that is there is
never changed: other processes may have it mapped, and a shorter file would kill them with SIGBUS.

Digests are taken in other threads meanwhile. Those of large buffers are taken of the file itself, mapped, where that is
as good as memory of this process: on a file system of this machine, whose cache nobody else writes to, and of a file
that is this user's alone. So they hold for what was written, even if the object is changed under the writer's hands.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.jobfile.atomic import temporary_beside
from jobcontainer.jobfile.format import (
    FORMAT,
    MAGIC,
    PRELUDE,
    STREAM_OFFSET,
    Digest,
    Header,
    digest_threads,
    joined,
    padding,
    pieces,
)
from jobcontainer.jobfile.mapped import MappedFile
from jobcontainer.jobfile.mounts import file_system
from jobcontainer.jobfile.stillness import Written, clock, times_tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jobcontainer.jobfile.reader import FileReader

_HELD: Final = 2**20  # up to this size, everything is written in one call
_MAPPED_FROM: Final = 64 * 2**20
_NEVER_RESERVED: Final = frozenset({"btrfs"})  # what is reserved goes without compression there
_CAN_NOT_RESERVE: Final = frozenset({errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP})
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class FileWriter:
    """Takes the stream of one job file, then the rest.

    The object that is written must not change meanwhile: digests are taken while its memory is written.

    Args:
        path: where the file will be; an older file there stays as it is until the new one takes its place.

    Attributes:
        failure: why the file can't be written, once that is known; a pickler hands it on among other errors.
        written: the file, once it is where it belongs; None unless its digests were taken of what lies in it.

    Raises:
        OSError: what is at the path is a folder, a device or something else that is no regular file.

    Example:
        >>> writer = FileWriter(path)  # doctest: +SKIP
        >>> pickle.Pickler(writer, 5, buffer_callback=...).dump(obj)  # doctest: +SKIP
        >>> writer.finish({"kind": "object"}, b"", buffers, sign)  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the file; nothing is written yet."""
        self._path = os.fspath(path)
        self._temporary = temporary_beside(self._path)
        self._descriptor = -1
        self._held = bytearray(STREAM_OFFSET)
        self._written = 0
        self._stream_size = 0
        self._reserves = False
        self._mapped: MappedFile | None = None
        self.failure: OSError | None = None
        self.written: Written | None = None
        self._digest = Digest()
        try:
            status = os.stat(self._path)  # noqa: PTH116 -- a text is what is held
        except FileNotFoundError:
            return
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{self._path} is there already, and no regular file. Give another path.")

    def write(self, data: bytes | memoryview) -> int:
        """Add bytes to the stream; a pickler calls this."""
        view = memoryview(data).cast("B")
        self._stream_size += len(view)
        if len(view) <= _HELD:
            self._digest.update(view)
            self._put(view)
        else:
            with ThreadPoolExecutor(1, "jobcontainer-digest") as other:
                digested = other.submit(self._digest.update, view)
                self._put(view)
            digested.result()
        return len(view)

    def finish(
        self,
        facts: Mapping[str, Any],
        sources: bytes,
        buffers: Sequence[memoryview],
        sign: Callable[[bytes], bytes],
    ) -> int:
        """Write the rest and put the file where it belongs.

        Args:
            facts: what the header shall say, as plain data.
            sources: the sources part.
            buffers: the out-of-band buffers, as flat bytes.
            sign: gives the 32 bytes of signature for what is to be signed.

        Returns:
            The size of the file in bytes.

        Raises:
            OSError: it can't be written, for example as the disk is full; :meth:`discard` leaves nothing behind.
        """
        self._put(memoryview(sources))
        header = Header(
            facts,
            stream=(self._stream_size, self._digest.hexdigest()),
            sources=(len(sources), Digest(sources).hexdigest() if sources else ""),
            buffers=self._put_buffers(buffers) if buffers else (),
        ).packed()
        offset = self._position
        self._reserve(offset, len(header))
        self._put(memoryview(header))
        prelude = PRELUDE.pack(MAGIC, FORMAT, len(header), offset, self._position)
        signature = sign(prelude + header)
        self._put_at_start(prelude + signature)
        self._place(signature)
        return offset + len(header)

    def discard(self) -> None:
        """Give the file up; whatever was at the path is still there."""
        self._mapped = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            os.unlink(self._temporary)  # noqa: PTH108 -- a text is what is held

    @property
    def _position(self) -> int:
        return self._written + len(self._held)

    def _put(self, view: memoryview) -> None:
        if len(self._held) + len(view) > _HELD:
            self._flush()
        if len(view) > _HELD:
            self._write_out(view)
        else:
            self._held += view

    def _flush(self) -> None:
        held, self._held = self._held, bytearray()
        self._write_out(memoryview(held))

    def _write_out(self, view: memoryview) -> None:
        with self._failing():
            self._open()
            while view:
                count = os.write(self._descriptor, view)
                self._written += count
                view = view[count:]

    def _open(self) -> None:
        if self._descriptor < 0:
            self._descriptor = os.open(self._temporary, _FLAGS, 0o600)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise

    def _put_buffers(self, buffers: Sequence[memoryview]) -> tuple[tuple[int, str], ...]:
        size = sum(map(len, buffers))
        if size >= _MAPPED_FROM:
            self._prepare_for(buffers)
        with digest_threads(size, spared=1) as digest_later:
            begun = []
            for view in buffers:
                self._put(memoryview(bytes(padding(self._position))))
                digests = [self._put_piece(piece, digest_later) for piece in pieces(view)]
                begun.append((len(view), digests))
            return tuple((size, joined(digest() for digest in digests)) for size, digests in begun)

    def _prepare_for(self, buffers: Sequence[memoryview]) -> None:
        """Have room reserved, and let digests be taken of the file, where its file system is one of this machine."""
        end = self._position
        for view in buffers:
            end += padding(end) + len(view)
        with self._failing():
            self._open()
            if not times_tell(self._descriptor):
                return
        self._reserves = file_system(self._descriptor) not in _NEVER_RESERVED
        self._reserve(0, end)
        self._mapped = MappedFile(self._descriptor)

    def _reserve(self, start: int, size: int) -> None:
        """Have the file system settle where bytes will lie, if it is one that gains by it.

        On ext4 pages are then written in two thirds of the time. And one page whose place is not known yet makes a
        rename over an older file wait until every page is on its way to the disk.
        """
        if not self._reserves:
            return
        try:
            os.posix_fallocate(self._descriptor, start, size)
        except OSError as error:
            if error.errno not in _CAN_NOT_RESERVE:
                self.failure = error
                raise
            self._reserves = False

    def _put_piece(
        self, piece: memoryview, digest_later: Callable[[memoryview], Callable[[], bytes]]
    ) -> Callable[[], bytes]:
        """Write a piece of a buffer, and begin to take its digest."""
        if self._mapped is None:
            digest = digest_later(piece)
            self._put(piece)
            return digest
        start = self._position
        if len(piece) <= _HELD:  # it is not in the file yet
            piece = memoryview(bytes(piece))
        self._put(piece)
        if len(piece) > _HELD:
            try:
                return self._mapped.digest_later(start, self._position, digest_later)
            except OSError:  # no descriptor to spare
                self._mapped = None
        return digest_later(piece)

    def _put_at_start(self, start: bytes) -> None:
        if self._descriptor < 0:
            self._held[: len(start)] = start
            self._flush()
        else:
            self._flush()
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self._write_out(memoryview(start))

    def _place(self, signature: bytes) -> None:
        mapped, self._mapped = self._mapped is not None, None
        descriptor, self._descriptor = self._descriptor, -1
        try:
            status = os.fstat(descriptor)
            os.close(descriptor)
            since = clock()
            os.replace(self._temporary, self._path)  # noqa: PTH105 -- a text is what is held
        except BaseException:
            os.unlink(self._temporary)  # noqa: PTH108 -- a text is what is held
            raise
        if mapped:
            self.written = Written(self._path, status, since, signature)


def write_signed(file: FileReader, signature: bytes) -> None:
    """Put a copy of a job file with another signature in its place, whole or not at all.

    Raises:
        OSError: it can't be written; the old file is as it was.
    """
    temporary = temporary_beside(file.path)
    descriptor = os.open(temporary, _FLAGS, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            file.copy_to(target)
            target.seek(PRELUDE.size)
            target.write(signature)
        os.replace(temporary, file.path)  # noqa: PTH105 -- a text is what is held
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108 -- a text is what is held
        raise
