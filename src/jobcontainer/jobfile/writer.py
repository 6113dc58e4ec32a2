"""Writes a job file: the stream while it is made, then everything else. The file appears only when it is complete.

The bytes go to a temporary file in the same folder, which then replaces the old one. An existing file is never changed
in place: other processes may have it mapped, and a shorter file would kill them with SIGBUS. Digests are computed in
other threads meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
from jobcontainer.jobfile.identity import FileIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobcontainer.jobfile.reader import FileReader

_HELD: Final = 2**20  # up to this size, everything is written in one call
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class FileWriter:
    """Takes the stream of one job file, then everything else.

    The object that is written must not change meanwhile: its memory is hashed and written at the same time.

    Args:
        path: where the file will be; an older file there stays as it is until the new one replaces it.

    Attributes:
        failure: why the file can't be written, once that is known; a pickler may raise it among other errors.

    Raises:
        OSError: the path exists and is not a regular file.

    Example:
        >>> writer = FileWriter(path)  # doctest: +SKIP
        >>> pickle.Pickler(writer, 5, buffer_callback=...).dump(obj)  # doctest: +SKIP
        >>> writer.finish({"kind": "object"}, b"", buffers, sign)  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Check the path; nothing is written yet."""
        self._path = Path(path)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise OSError(f"{path} exists and is not a regular file. Give another path.")
        self._temporary = temporary_beside(self._path)
        self._descriptor = -1
        self._held = bytearray(STREAM_OFFSET)
        self._written = 0
        self._stream_size = 0
        self._digest = Digest()
        self.failure: OSError | None = None

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
        fields: Mapping[str, Any],
        sources: bytes,
        buffers: Sequence[memoryview],
        sign: Callable[[bytes], bytes],
    ) -> tuple[FileIdentity, bytes]:
        """Write the rest and rename the file to its path.

        Args:
            fields: what the header says of the object, as plain data.
            sources: the sources part.
            buffers: the out-of-band buffers, as flat bytes.
            sign: returns the 32 bytes of signature for some bytes.

        Returns:
            The identity of the file, and its signature.

        Raises:
            OSError: it can't be written, for example because the disk is full; :meth:`discard` leaves nothing behind.
        """
        self._put(memoryview(sources))
        header = Header(
            fields,
            stream=(self._stream_size, self._digest.hexdigest()),
            sources=(len(sources), Digest(sources).hexdigest() if sources else ""),
            buffers=self._put_buffers(buffers) if buffers else (),
        ).packed()
        offset = self._position
        self._put(memoryview(header))
        prelude = PRELUDE.pack(MAGIC, FORMAT, len(header), offset, self._position)
        signature = sign(prelude + header)
        self._put_at_start(prelude + signature)
        return self._rename(), signature

    def discard(self) -> None:
        """Give the file up; whatever was at the path is still there."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._temporary.unlink()

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
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._temporary, _FLAGS, 0o600)
            while view:
                count = os.write(self._descriptor, view)
                self._written += count
                view = view[count:]
        except OSError as error:
            self.failure = error
            raise

    def _put_buffers(self, buffers: Sequence[memoryview]) -> tuple[tuple[int, str], ...]:
        with digest_threads(sum(map(len, buffers)), spared=1) as digest_later:
            begun = []
            for view in buffers:
                self._put(memoryview(bytes(padding(self._position))))
                digests = []
                for piece in pieces(view):
                    digests.append(digest_later(piece))
                    self._put(piece)
                begun.append((len(view), digests))
            return tuple((size, joined(digest() for digest in digests)) for size, digests in begun)

    def _put_at_start(self, start: bytes) -> None:
        if self._descriptor < 0:
            self._held[: len(start)] = start
            self._flush()
        else:
            self._flush()
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self._write_out(memoryview(start))

    def _rename(self) -> FileIdentity:
        descriptor, self._descriptor = self._descriptor, -1
        try:
            identity = FileIdentity.of(descriptor)
            os.close(descriptor)
            self._temporary.replace(self._path)
        except BaseException:
            self._temporary.unlink()
            raise
        return identity


def write_signed(file: FileReader, signature: bytes) -> None:
    """Replace a job file by a copy with another signature, whole or not at all.

    Raises:
        OSError: it can't be written; the old file is as it was.
    """
    temporary = temporary_beside(Path(file.path))
    descriptor = os.open(temporary, _FLAGS, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            file.copy_to(target)
            target.seek(PRELUDE.size)
            target.write(signature)
        temporary.replace(file.path)
    except BaseException:
        temporary.unlink()
        raise
