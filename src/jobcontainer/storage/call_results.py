"""What the calls of a chunk returned or raised: a file of records, each written as soon as its call has ended.

So whatever ends the process, the results of the calls before are there: the file is mapped into its memory, and what is
written there stays in the file. A record is whole and signed, or it is none: a signature of 16 bytes, the length of the
content, its kind, the content. The signature (BLAKE2b with a key that is made for this job alone from the user's) is of
the position of the record, too, so that one of another job, or of another call, is not taken for it. What is not signed
is not there, or not yet; it is not unpickled, and nothing behind it is. The first record says which Python has written
the file. While it grows, there is room behind the last record, filled with zeros.

The file begins with the time at which the present call began, on the clock of :func:`time.monotonic`, which all
processes of a machine share; 0 where none is under way. Whoever supervises the job reads it.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
import struct
import traceback
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import CorruptFileError, IncompatibleFileError
from jobcontainer.jobfile import info, signing
from jobcontainer.jobfile.signing import Purpose
from jobcontainer.pickling.diagnosis import explained
from jobcontainer.pickling.pickler import Pickler
from jobcontainer.pickling.unpickler import load
from jobcontainer.storage.own_descriptor import OwnDescriptor
from jobcontainer.storage.regular_file import open_regular, read_part, size_of
from jobcontainer.storage.result import RemoteTraceback, stand_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobcontainer.storage.folder import JobFolder

_HEAD: Final = struct.Struct("<16sQB")  # signature, length of the content, kind
_POSITION: Final = struct.Struct("<QQB")  # what else is signed: number of the record, length, kind
_CLOCK: Final = struct.Struct("<d")
_SIGNATURE_SIZE: Final = 16
_WINDOW, _LARGE_WINDOW = 2**16, 2**20  # bytes of the file that are made and mapped at once
_COUNT: Final = struct.Struct("<I")  # of parts, where a content has several
_AT_ONCE: Final = 4 * 2**20  # bytes that one read takes at the most, unless a single record is longer
_FROM_CODE, _RAISED, _IN_PARTS, _RICH = 1, 2, 4, 8  # kinds: code by value, an exception, with buffers, none of these
_PLAIN: Final = frozenset({int, float, complex, bool, type(None), str, bytes})


class CallWriter:
    """Writes the results of a job's calls, in order.

    Args:
        folder: the job's; results of an earlier attempt are removed.

    Raises:
        OSError: the file can't be written.
        UntrustedFileError: there is no usable key to sign with.
    """

    def __init__(self, folder: JobFolder) -> None:
        path = folder.calls_file
        path.unlink(missing_ok=True)
        made = open_regular(path, os.O_RDWR | os.O_CREAT)
        self._file = OwnDescriptor(made, reopen=lambda: open_regular(path, os.O_RDWR))
        self._sign = _signature_with(signing.sign(Purpose.CALL_RESULTS, folder.id.encode()))
        self._number, self._offset = 0, _CLOCK.size  # of the next record, in the file
        self._start = self._end = 0  # of what is mapped of the file
        self._map = self._first = self._mapped(_WINDOW)
        self._write(0, info.PYTHON.encode())

    def next_call(self, now: float) -> None:
        """Note when the next call begins, on the clock of :func:`time.monotonic`."""
        self._first[: _CLOCK.size] = _CLOCK.pack(now)

    def returned(self, value: object) -> None:
        """Add what a call returned; where that can't be pickled, the error that says so.

        Raises:
            OSError: it can't be written.
        """
        try:
            kind, content = _pickled(value)
        except Exception as error:  # noqa: BLE001 -- a user's own pickling may raise anything
            refusal = explained(value, error, is_result=True)
            self.raised(refusal, str(refusal), "".join(traceback.format_exception(refusal)))
        else:
            self._write(kind, content)

    def raised(self, error: BaseException, message: str, text: str) -> None:
        """Add what a call raised, or its type, message and traceback where it can't be carried.

        Args:
            error: the exception.
            message: its message; its own ``__str__`` is not called.
            text: its traceback as text.

        Raises:
            OSError: it can't be written.
        """
        try:
            kind, content = _pickled((error, text))
            carried = type(_loaded(kind, content)[0]) is type(error)
        except Exception:  # noqa: BLE001 -- an exception's own pickling may raise anything
            carried = False
        if not carried:
            kind, content = _pickled((stand_in(error, message, text), text))
        self._write(kind | _RAISED, content)

    def close(self) -> None:
        """Cut off the room behind the last record, and let go of the file.

        Raises:
            OSError: user code has replaced the file.
        """
        os.ftruncate(self._file.ensured(), self._offset)
        self._file.close()

    def _write(self, kind: int, content: bytes) -> None:
        end = self._offset + _HEAD.size + len(content)
        if end > self._end:
            self._map = self._mapped(end - self._offset)
        position = _POSITION.pack(self._number, len(content), kind)
        record = _HEAD.pack(self._sign(position + content), len(content), kind) + content
        self._map[self._offset - self._start : end - self._start] = record
        self._offset = end
        self._number += 1

    def _mapped(self, size: int) -> mmap.mmap:
        """Make room for so many bytes, and more, behind the last record, and map it.

        It is room on the disk: else a full disk would kill the process where it writes.
        """
        self._start = self._offset - self._offset % mmap.ALLOCATIONGRANULARITY
        size = max(self._offset - self._start + size, _WINDOW if not self._start else _LARGE_WINDOW)
        number = self._file.ensured()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(number, self._start, size)
        else:
            os.ftruncate(number, self._start + size)
        self._end = self._start + size
        return mmap.mmap(number, size, offset=self._start)


class CallReader:
    """Reads the results of a job's calls, while they are written or later.

    Attributes:
        count: how many were read.
        offset: behind the last of them.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._path, self._id = folder.calls_file, folder.id
        self.offset, self._number = _CLOCK.size, 0
        self._signatures: list[Callable[[bytes], bytes]] = []
        self._python = ""

    @property
    def count(self) -> int:
        """How many results were read."""
        return max(0, self._number - 1)

    def has_begun(self) -> bool:
        """Whether the job has begun with its calls, and so has loaded all that it needs for them."""
        return size_of(self._path) > 0

    def skip(self) -> int:
        """Pass over all that is there, unpickle none of it, and return how many results there are."""
        for _ in self._records():
            pass
        return self.count

    def read(self) -> Iterator[tuple[Any, BaseException | None]]:
        """Yield what has come since: for each call its value and None, or None and what it raised.

        Raises:
            IncompatibleFileError: it holds code of another Python version.
        """
        for kind, content in self._records():
            if kind == 0:  # most of them
                yield pickle.loads(content), None  # noqa: S301 -- it is signed
                continue
            try:
                value = self._checked(kind, content)
            except Exception as error:  # noqa: BLE001 -- loading runs code of the user, which may raise anything
                yield None, error
            else:
                yield (None, value) if kind & _RAISED else (value, None)

    def _checked(self, kind: int, content: bytes) -> Any:
        if kind & _FROM_CODE and self._python.split(".")[:2] != info.PYTHON.split(".")[:2]:
            raise IncompatibleFileError(
                f"{self._path} holds code of Python {self._python}, and this is Python {info.PYTHON}: bytecode does "
                "not survive that."
            )
        value = _loaded(kind, content)
        if not kind & _RAISED:
            return value
        error, text = value
        if not isinstance(error, BaseException):
            raise CorruptFileError(f"{self._path} is damaged: it should hold an exception, and holds none.")
        error.__cause__ = RemoteTraceback(text)
        return error

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Yield kind and content of the next records, each checked."""
        size, head = _AT_ONCE, _HEAD.size
        while True:
            data, position, needed = read_part(self._path, self.offset, size), 0, head
            while len(data) - position >= head:
                signature, length, kind = _HEAD.unpack_from(data, position)
                needed = head + length
                content = data[position + head : position + needed]
                if len(content) < length:
                    break
                if not self._is_signed(_POSITION.pack(self._number, length, kind) + content, signature):
                    return
                position += needed
                self.offset += needed
                self._number += 1
                if self._number > 1:
                    yield kind, content
                else:
                    self._python = content.decode()
            if position:
                size = _AT_ONCE
            elif needed <= size or size_of(self._path) < self.offset + needed:
                return  # the next is not there, or not all of it
            else:
                size = needed

    def _is_signed(self, data: bytes, signature: bytes) -> bool:
        if not self._signatures:
            keys = signing.derived_keys(Purpose.CALL_RESULTS, self._id.encode())
            self._signatures = [_signature_with(key) for key in keys]
        for sign in self._signatures:
            if compare_digest(sign(data), signature):
                if len(self._signatures) > 1:
                    self._signatures = [sign]  # the whole file is signed with one key
                return True
        return False


def present_call_began(folder: JobFolder) -> float | None:
    """Return when the present call of a job began, on the clock of :func:`time.monotonic`; None where none has.

    The job has written it: it may be any number.
    """
    data = read_part(folder.calls_file, 0, _CLOCK.size)
    began = _CLOCK.unpack(data)[0] if len(data) == _CLOCK.size else 0.0
    return began if 0.0 < began < math.inf else None


def _signature_with(key: bytes) -> Callable[[bytes], bytes]:
    """Return what signs records with a key."""
    copy = blake2b(key=key, digest_size=_SIGNATURE_SIZE).copy

    def signature(data: bytes) -> bytes:
        this = copy()
        this.update(data)
        return this.digest()

    return signature


def _pickled(value: object) -> tuple[int, bytes]:
    """Return kind and content of a record: by pickle alone where that does, and quickly."""
    if _is_plain(value):
        return 0, pickle.dumps(value, 5)
    file = io.BytesIO()
    pickler = Pickler(file)
    try:
        pickler.dump(value)
        kind = _FROM_CODE if pickler.by_value else 0
        if not pickler.buffers:
            return kind or _RICH, file.getvalue()
        parts = [file.getbuffer(), *pickler.buffers]
        sizes = struct.pack(f"<{len(parts)}Q", *map(len, parts))
        return kind | _IN_PARTS, b"".join([_COUNT.pack(len(parts)), sizes, *parts])
    finally:  # a pickler is part of a cycle; what it has seen shall not wait for the garbage collector
        pickler.clear_memo()
        pickler.buffers.clear()


def _loaded(kind: int, content: bytes) -> Any:
    if not kind & _IN_PARTS:
        return load(content)
    (count,) = _COUNT.unpack_from(content)
    sizes = struct.unpack_from(f"<{count}Q", content, _COUNT.size)
    whole = memoryview(bytearray(content))  # as arrays may be written to
    start = _COUNT.size + 8 * count
    parts = []
    for size in sizes:
        parts.append(whole[start : start + size])
        start += size
    return load(bytes(parts[0]), parts[1:])


def _is_plain(value: object) -> bool:
    """Whether a value is one of the plainest types, or a list, tuple or dict of such."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is list or kind is tuple:
        return _PLAIN.issuperset(map(type, value))  # type: ignore[call-overload]  # it is one of them
    if kind is dict:
        return _PLAIN.issuperset(map(type, value)) and _PLAIN.issuperset(map(type, value.values()))  # type: ignore[attr-defined, call-overload]
    return False
