"""The bytes of a job file (``*.job``), for :mod:`~jobcontainer.jobfile.writer` and :mod:`~jobcontainer.jobfile.reader`.

None of the three knows pickle or keys.

Layout, formats 1 and 2. All numbers are unsigned and little-endian; the parts follow each other without gaps except
where zero bytes are named::

    offset  size  what
    0       8     magic: 93 4A 4F 42 0D 0A 1A 0A. The high bit and the line ends betray a transfer as text
    8       4     format: 2 where parts of it are in blobs, else 1
    12      4     size of the header
    16      8     offset of the header
    24      8     size of the file
    32      32    signature: HMAC-SHA256 over "job file", a zero byte, bytes 0 to 31 and the header
    64      ...   stream: one pickle, protocol 5
            ...   sources: JSON object, file name -> text, of the code that travels; may have size 0. Under an empty
                  name the compiled code of the modules among them, in base64
            ...   each out-of-band buffer of the stream in turn, after zeros up to a multiple of 4096
            ...   header: JSON object, the last thing in the file

The header holds ``stream`` = [size, digest], ``sources`` = [size, digest], ``buffers`` = [[size, digest], ...], and the
fields that :mod:`jobcontainer.jobfile.info` describes (kind, class, created, versions). It stands at the end because
its digests are known only then: so a stream of any size is written while it is made, and is never held in memory.

The signature says what it is for: its words "job file" stand in no other signature of that key, and the kind (process,
result, error, object) is in the header, which it covers. Whoever loads a file for a purpose compares the kind.

In a store, large data is not in the file but in *blobs* beside it, see :mod:`jobcontainer.jobfile.blobs`: the file
``NAME.DIGEST`` for the job file ``NAME``. A buffer that is in one has the identity of that file as a third item of its
entry, [size, digest, [device, inode, modified]]. ``inserted`` = [[position, size, digest, [device, ...]], ...] names
what belongs into the stream: the position is an offset in the stream as it is in the file. ``boot`` says on which
machine, and since which start of it, these identities are known.

Digests are BLAKE3, as hex. Those of stream and sources are computed over their bytes; that of a buffer or a blob over
the digests of its pieces of 4 MiB each, so that several threads share the work. GiB/s measured on one core: sha256 1.4,
blake2b 0.7, blake3 3.1, xxh3 16. xxh3 can't carry a signature: whoever may write to the file can make other data with
the same xxh3. blake3's own threads are not used: they outlive the call, and a process that is forked later hangs in
them.

Version rule. A reader refuses a format above its own :data:`FORMAT`. Fields may be added to the header without a new
number, since readers ignore those that they do not know; whatever an old reader would read wrongly needs a new one. The
first 64 bytes mean the same in every version: so the signature distinguishes a newer file from a damaged one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import blake3

from jobcontainer.jobfile.identity import FileIdentity
from jobcontainer.pickling import MOST_BUFFERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

MAGIC: Final = b"\x93JOB\r\n\x1a\n"
FORMAT: Final = 2
FORMAT_WITHOUT_BLOBS: Final = 1
PAGE: Final = 4096
Digest: TypeAlias = blake3.blake3

PRELUDE: Final = struct.Struct("<8sIIQQ")  # magic, format, size and offset of the header, size of the file
SIGNATURE_SIZE: Final = 32
STREAM_OFFSET: Final = PRELUDE.size + SIGNATURE_SIZE
LARGEST_HEADER: Final = 16 * 2**20

_PIECE: Final = 4 * 2**20
_MOST_THREADS: Final = 8
_BLOB_DIGEST: Final = re.compile("[0-9a-f]{64}")


class Buffer(NamedTuple):
    """An out-of-band buffer, or a part of the stream that is not in the file.

    Attributes:
        size: in bytes.
        digest: of its content.
        identity: of the blob that holds it; None where it is in the job file itself.
    """

    size: int
    digest: str
    identity: FileIdentity | None = None

    def packed(self) -> list[Any]:
        """Return it as plain data."""
        known = self.identity
        return [self.size, self.digest, *([[known.device, known.inode, known.modified]] if known is not None else [])]

    @classmethod
    def unpacked(cls, data: Sequence[Any]) -> Buffer:
        """Read what :meth:`packed` returned.

        Raises:
            ValueError: it is nothing of the kind.
            TypeError: likewise.
        """
        size, digest, *known = data
        if not known:
            return cls(int(size), str(digest))
        [[device, inode, modified]] = known
        if not _BLOB_DIGEST.fullmatch(digest):  # it becomes part of a path
            raise ValueError("no digest")
        return cls(int(size), digest, FileIdentity(int(device), int(inode), int(size), int(modified)))


class Header(NamedTuple):
    """The header of a job file.

    Attributes:
        fields: what the writer says of the object, as plain data.
        stream: size and digest of the pickle stream, as far as it is in the file.
        sources: size and digest of the sources; no digest where there are none.
        buffers: the out-of-band buffers.
        inserted: what belongs into the stream and is in blobs, each with its offset in the stream of the file.
        boot: of the machine on which the identities of blobs are known.

    Example:
        >>> header = Header({"kind": "object"}, (10, "ab"), (0, "cd"), (Buffer(4096, "ef"),))
        >>> Header.unpacked(header.packed()) == header
        True
    """

    fields: Mapping[str, Any]
    stream: tuple[int, str]
    sources: tuple[int, str]
    buffers: tuple[Buffer, ...]
    inserted: tuple[tuple[int, Buffer], ...] = ()
    boot: str = ""

    def packed(self) -> bytes:
        """Return the header as bytes."""
        parts: dict[str, Any] = {"stream": self.stream, "sources": self.sources}
        parts["buffers"] = [buffer.packed() for buffer in self.buffers]
        if self.blobs:
            parts["inserted"] = [[position, *buffer.packed()] for position, buffer in self.inserted]
            parts["boot"] = self.boot
        return json.dumps({**self.fields, **parts}, separators=(",", ":")).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> Header:
        """Read a header.

        Raises:
            ValueError: it is not a header.
        """
        try:
            fields = json.loads(data.decode())
            stream, sources = (
                (int(size), str(digest)) for size, digest in (fields.pop("stream"), fields.pop("sources"))
            )
            listed, put_in = fields.pop("buffers"), fields.pop("inserted", [])
            if len(listed) + len(put_in) > MOST_BUFFERS:
                raise ValueError("too many buffers")
            buffers = tuple(map(Buffer.unpacked, listed))
            inserted = tuple((int(position), Buffer.unpacked(rest)) for position, *rest in put_in)
            boot = str(fields.pop("boot", ""))
        except (TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError("no header") from error
        sizes = [stream[0], sources[0], *(buffer.size for buffer in (*buffers, *(blob for _, blob in inserted)))]
        if min(sizes) < 0:
            raise ValueError("a size below zero")
        positions = [0, *(position for position, _ in inserted), stream[0]]
        if positions != sorted(positions) or any(buffer.identity is None for _, buffer in inserted):
            raise ValueError("no place in the stream")
        return cls(fields, stream, sources, buffers, inserted, boot)

    @property
    def blobs(self) -> dict[str, Buffer]:
        """The blobs, by their digests."""
        every = (*self.buffers, *(buffer for _, buffer in self.inserted))
        return {buffer.digest: buffer for buffer in every if buffer.identity is not None}

    @property
    def sources_offset(self) -> int:
        """Where the sources begin."""
        return STREAM_OFFSET + self.stream[0]

    def buffer_spans(self) -> Iterator[tuple[int, int, int]]:
        """Yield for each buffer in the file where the zeros before it begin, where it begins, and where it ends."""
        end = self.sources_offset + self.sources[0]
        for size, _, identity in self.buffers:
            if identity is None:
                gap, start = end, end + padding(end)
                end = start + size
                yield gap, start, end

    @property
    def content_end(self) -> int:
        """Where the last buffer ends, or the sources where there is none."""
        *_, (_, _, end) = (0, 0, self.sources_offset + self.sources[0]), *self.buffer_spans()
        return end


def padding(offset: int) -> int:
    """Return how many zeros stand between an offset and the buffer that follows it.

    Example:
        >>> padding(4097), padding(8192)
        (4095, 0)
    """
    return -offset % PAGE


def pieces(view: memoryview) -> Iterator[memoryview]:
    """Cut a buffer into the pieces that its digest is computed from."""
    return (view[start : start + _PIECE] for start in range(0, len(view), _PIECE))


def digest_of(view: memoryview) -> str:
    """Return the digest of a buffer, computed by several threads where it is large."""
    with digest_threads(len(view)) as digest_later:
        return joined(digest() for digest in [digest_later(piece) for piece in pieces(view)])


def joined(digests: Iterable[bytes]) -> str:
    """Return the digest of a buffer from those of its pieces."""
    return str(Digest(b"".join(digests)).hexdigest())


@contextlib.contextmanager
def digest_threads(size: int, spared: int = 0) -> Iterator[Callable[[memoryview], Callable[[], bytes]]]:
    """Compute digests of pieces in other threads, while this one writes or reads.

    Args:
        size: how many bytes there will be; for few no thread is started.
        spared: how many cores are left to this thread.

    Yields:
        A function that begins to compute the digest of a piece, and returns a function that waits for it.
    """
    if size <= _PIECE:
        yield lambda piece: lambda: _digest(piece)
    else:
        count = max(1, most_digest_threads() - spared)
        with ThreadPoolExecutor(count, "jobcontainer-digest") as pool:
            yield lambda piece: pool.submit(_digest, piece).result


def most_digest_threads() -> int:
    """Return how many threads compute digests at the same time, at the most."""
    return min(_MOST_THREADS, os.cpu_count() or 1)


def _digest(piece: memoryview) -> bytes:
    return bytes(Digest(piece).digest())
