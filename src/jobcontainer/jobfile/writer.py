"""Writes a job file: the stream while it is made, then everything else. The file appears only when it is complete.

The bytes go to a temporary file in the same folder, which then replaces the old one. An existing file is never changed
in place: other processes may have it mapped, and a shorter file would kill them with SIGBUS. Digests are computed in
other threads meanwhile.
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

_HELD: Final = 2**20  # bytes that are collected before they are written


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
        self._path = Path(path)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise OSError(f"{path} exists and is not a regular file. Give another path.")
        self._temporary = temporary_beside(self._path)
        self._maker = os.getpid()
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = io.BufferedWriter(io.FileIO(descriptor, "w"), _HELD)
        self._file.seek(STREAM_OFFSET)
        self._stream_size = 0
        self._digest = Digest()
        self.failure: OSError | None = None
        _unfinished.add(self)

    def write(self, data: bytes | memoryview) -> int:
        """Add bytes to the stream; a pickler calls this."""
        view = memoryview(data).cast("B")
        self._stream_size += len(view)
        try:
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
        ).packed()
        offset = self._file.tell()
        self._file.write(header)
        prelude = PRELUDE.pack(MAGIC, FORMAT, len(header), offset, self._file.tell())
        signature = sign(prelude + header)
        self._file.seek(0)
        self._file.write(prelude + signature)
        self._file.flush()
        identity = FileIdentity.of(self._file.fileno())
        self._file.close()
        _unfinished.discard(self)
        self._temporary.replace(self._path)
        return identity, signature

    def discard(self) -> None:
        """Give the file up; whatever was at the path is still there."""
        self._file.raw.close()  # what is collected is not written any more
        if self._maker == os.getpid():
            self._temporary.unlink(missing_ok=True)

    def _put_buffers(self, buffers: Sequence[memoryview]) -> tuple[tuple[int, str], ...]:
        with digest_threads(sum(map(len, buffers)), spared=1) as digest_later:
            begun = []
            for view in buffers:
                self._file.write(bytes(padding(self._file.tell())))
                digests = []
                for piece in pieces(view):
                    digests.append(digest_later(piece))
                    self._file.write(piece)
                begun.append((len(view), digests))
            return tuple((size, joined(digest() for digest in digests)) for size, digests in begun)


_unfinished: weakref.WeakSet[FileWriter] = weakref.WeakSet()


def _let_go() -> None:
    """In a child that was forked meanwhile, by an object's own pickling say: write nothing into the parent's file."""
    for writer in list(_unfinished):
        writer.discard()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
