"""Writes a job file: the stream while it is made, then everything else. The file appears only when it is complete.

The bytes go to a temporary file in the same folder, which then replaces the old one. An existing file is never changed
in place: other processes may have it mapped, and a shorter file would kill them with SIGBUS. Digests are computed in
other threads meanwhile. Where there is a store for them, large data goes into blobs beside the file: out-of-band
buffers, and what the pickler writes into the stream in one large piece.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.jobfile.atomic import temporary_beside
from jobcontainer.jobfile.blobs import BLOB_FROM
from jobcontainer.jobfile.format import (
    FORMAT,
    FORMAT_WITHOUT_BLOBS,
    MAGIC,
    PRELUDE,
    STREAM_OFFSET,
    Buffer,
    Digest,
    Header,
    digest_threads,
    joined,
    padding,
    pieces,
)
from jobcontainer.jobfile.identity import FileIdentity, boot_id
from jobcontainer.jobfile.open_file import open_file
from jobcontainer.jobfile.reader import remove_stale_blobs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jobcontainer.jobfile.blobs import BlobStore

_HELD: Final = 2**20  # bytes that are collected before they are written


class FileWriter:
    """Takes the stream of one job file, then everything else.

    The object that is written must not change meanwhile: its memory is hashed and written at the same time.

    Args:
        path: where the file will be; an older file there stays as it is until the new one replaces it.
        blobs: where large data goes; None for a file that holds everything itself.

    Attributes:
        failure: why the file can't be written, once that is known; a pickler may raise it among other errors.

    Raises:
        OSError: the path exists and is not a regular file.

    Example:
        >>> writer = FileWriter(path)  # doctest: +SKIP
        >>> pickle.Pickler(writer, 5, buffer_callback=...).dump(obj)  # doctest: +SKIP
        >>> writer.finish({"kind": "object"}, b"", buffers, sign)  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str], blobs: BlobStore | None = None) -> None:
        self._path, self._blobs = Path(path), blobs
        self._inserted: list[tuple[int, Buffer]] = []
        self._replaces = False
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise OSError(f"{path} exists and is not a regular file. Give another path.")
            self._replaces = True
        self._temporary = temporary_beside(self._path)
        self._maker = os.getpid()
        self._file = io.BufferedWriter(open_file(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), _HELD)
        self._file.seek(STREAM_OFFSET)
        self._stream_size = 0
        self._digest = Digest()
        self.failure: OSError | None = None
        _unfinished.add(self)

    def write(self, data: bytes | memoryview) -> int:
        """Add bytes to the stream; a pickler calls this."""
        view = memoryview(data).cast("B")
        try:
            if self._blobs is not None and len(view) >= BLOB_FROM:
                self._inserted.append((self._stream_size, self._blobs.add(view, self._path)))
                return len(view)
            self._stream_size += len(view)
            if len(view) <= _HELD:
                self._digest.update(view)
                self._file.write(view)
            else:
                with ThreadPoolExecutor(1, "jobcontainer-digest") as other:
                    digested = other.submit(self._digest.update, view)
                    self._file.write(view)
                digested.result()
        except OSError as error:
            self.failure = error
            raise
        return len(view)

    def forget_addresses(self) -> None:
        """Note that code of the user runs, which may change data that was written before."""
        if self._blobs is not None:
            self._blobs.forget_addresses()

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
        self._file.write(sources)
        header = Header(
            fields,
            stream=(self._stream_size, self._digest.hexdigest()),
            sources=(len(sources), Digest(sources).hexdigest() if sources else ""),
            buffers=self._put_buffers(buffers) if buffers else (),
            inserted=tuple(self._inserted),
            boot=boot_id(),
        )
        version = FORMAT if header.blobs else FORMAT_WITHOUT_BLOBS
        data, offset = header.packed(), self._file.tell()
        self._file.write(data)
        prelude = PRELUDE.pack(MAGIC, version, len(data), offset, self._file.tell())
        signature = sign(prelude + data)
        self._file.seek(0)
        self._file.write(prelude + signature)
        self._file.flush()
        identity = FileIdentity.of(self._file.fileno())
        self._file.close()
        _unfinished.discard(self)
        self._temporary.replace(self._path)
        if self._replaces:
            remove_stale_blobs(self._path)
        return identity, signature

    def discard(self) -> None:
        """Give the file up; whatever was at the path is still there."""
        self._file.raw.close()  # what is collected is not written any more
        if self._maker == os.getpid():
            self._temporary.unlink(missing_ok=True)
            if self._blobs is not None:
                remove_stale_blobs(self._path)

    def _put_buffers(self, buffers: Sequence[memoryview]) -> tuple[Buffer, ...]:
        """Put large buffers into blobs, and write the others."""
        put = [
            self._blobs.add(view, self._path) if self._blobs is not None and len(view) >= BLOB_FROM else None
            for view in buffers
        ]
        written = iter(self._write_buffers([view for view, blob in zip(buffers, put, strict=True) if blob is None]))
        return tuple(blob or next(written) for blob in put)

    def _write_buffers(self, buffers: Sequence[memoryview]) -> list[Buffer]:
        with digest_threads(sum(map(len, buffers)), spared=1) as digest_later:
            begun = []
            for view in buffers:
                self._file.write(bytes(padding(self._file.tell())))
                digests = []
                for piece in pieces(view):
                    digests.append(digest_later(piece))
                    self._file.write(piece)
                begun.append((len(view), digests))
            return [Buffer(size, joined(digest() for digest in digests)) for size, digests in begun]


_unfinished: weakref.WeakSet[FileWriter] = weakref.WeakSet()


def _let_go() -> None:
    """In a child that was forked meanwhile, by an object's own pickling say: write nothing into the parent's file."""
    for writer in list(_unfinished):
        writer.discard()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
