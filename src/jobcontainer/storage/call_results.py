"""What the calls of a chunk returned or raised: a file of records, each written as soon as its call has ended.

So whatever ends the process, the results of the calls before are there: the file is mapped into its memory, and what is
written there stays in the file. A record is whole and signed, or it is none: a signature of 16 bytes, the length of the
content, its kind, the content. The signature (BLAKE2b with a key that is made for this job alone from the user's) is of
the signature of the record before it, too, so that one of another job, or of another call, is not taken for it. What is
not signed is not there, or not yet; it is not loaded, and nothing behind it is. The first record says which Python has
written the file. While it grows, there is room behind the last record, filled with zeros.

Numbers, texts and the like, which most small calls return, go through :mod:`marshal`, in the version of it that every
Python since 3.4 writes and reads: it takes half the time of a pickle.

The file begins with the time at which the present call began, on the clock of :func:`time.monotonic`, which all
processes of a machine share; 0 where none is under way. Whoever supervises the job reads it. Two numbers follow, for
whoever shows the calls: how many have ended, and how many of them raised.
"""

from __future__ import annotations

import io
import marshal
import math
import mmap
import os
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

_KIND: Final = struct.Struct("<QB")  # length of the content, and its kind, between the signature and the content
_CLOCK: Final = struct.Struct("<d")
_BEGINNING: Final = struct.Struct("<dQQ")  # the clock; calls that have ended; those of them that raised
_SIGNATURE_SIZE: Final = 16
_HEAD_SIZE: Final = _SIGNATURE_SIZE + _KIND.size
_BEFORE_ALL: Final = bytes(_SIGNATURE_SIZE)  # what the first record is signed with, as there is none before it
_WINDOW, _LARGE_WINDOW = 2**16, 2**20  # bytes of the file that are made and mapped at once
_COUNT: Final = struct.Struct("<I")  # of parts, where a content has several; of bytes that say what was raised
_AT_ONCE: Final = 4 * 2**20  # bytes that one read takes at the most, unless a single record is longer
_PLAIN_KIND: Final = 0  # of a plain value, by marshal; else bits:
_FROM_CODE, _RAISED, _IN_PARTS, _RICH = 1, 2, 4, 8  # code by value, an exception, with buffers, none of these
_MARSHAL_VERSION: Final = 4
_LONGEST_LINE: Final = 1000  # characters of a message, for those who only show it
_PLAIN: Final = frozenset({int, float, complex, bool, type(None), str, bytes})


class CallWriter:
    """Writes the results of a job's calls, in order.

    Args:
        folder: the job's; results of an earlier attempt are removed.

    Attributes:
        failures: how many calls raised.

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
        self._last, self._offset = _BEFORE_ALL, _BEGINNING.size  # signature of the last record, and where it ends
        self._ended = self.failures = 0
        self._start = self._end = 0  # of what is mapped of the file
        self._map = self._first = self._mapped(_WINDOW)
        self._write(_PLAIN_KIND, info.PYTHON.encode())

    def next_call(self, now: float) -> None:
        """Note when the next call begins, on the clock of :func:`time.monotonic`."""
        self._first[: _BEGINNING.size] = _BEGINNING.pack(now, self._ended, self.failures)

    def returned(self, value: object) -> None:
        """Add what a call returned; where that can't be pickled, the error that says so.

        Raises:
            OSError: it can't be written.
        """
        try:
            kind, content = _pickled(value)
        except Exception as error:  # noqa: BLE001 -- a user's own pickling may raise anything
            refusal = explained(value, error, "result")
            name, text = type(refusal).__name__, "".join(traceback.format_exception(refusal))
            self.raised(refusal, name, str(refusal), text)
        else:
            self._ended += 1
            self._write(kind, content)

    def raised(self, error: BaseException, name: str, message: str, text: str) -> None:
        """Add what a call raised, or its type, message and traceback where it can't be carried.

        Args:
            error: the exception.
            name: that of its type.
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
        line = f"{name}: {message[:_LONGEST_LINE]}".encode("utf-8", "backslashreplace")
        self._ended += 1
        self.failures += 1
        self._write(kind | _RAISED, _COUNT.pack(len(line)) + line + content)

    def close(self) -> None:
        """Cut off the room behind the last record, and let go of the file.

        Raises:
            OSError: user code has replaced the file.
        """
        os.ftruncate(self._file.ensured(), self._offset)
        self._file.close()

    def _write(self, kind: int, content: bytes) -> None:
        signed = _KIND.pack(len(content), kind) + content
        end = self._offset + _SIGNATURE_SIZE + len(signed)
        if end > self._end:
            self._map = self._mapped(end - self._offset)
        self._last = signature = self._sign(self._last, signed)
        self._map[self._offset - self._start : end - self._start] = signature + signed
        self._offset = end

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
        failures: how many of them are of calls that raised.
        offset: behind the last of them.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._path, self._id = folder.calls_file, folder.id
        self.offset, self.count, self.failures = _BEGINNING.size, 0, 0
        self._last = _BEFORE_ALL  # the signature of the last record
        self._sign: Callable[[bytes, bytes], bytes] = self._no_key
        self._python = ""

    def has_begun(self) -> bool:
        """Whether the job has begun with its calls, and so has loaded all that it needs for them."""
        return size_of(self._path) > 0

    def skip(self) -> int:
        """Pass over all that is there, unpickle none of it, and return how many results there are."""
        for _ in self._records():
            pass
        return self.count

    def errors(self) -> Iterator[tuple[int, str]]:
        """Yield which calls raised since, counted from 0, and what: type and message. No code of a user runs."""
        for kind, content in self._records():
            if kind & _RAISED:
                (size,) = _COUNT.unpack_from(content)
                yield self.count - 1, content[_COUNT.size : _COUNT.size + size].decode("utf-8", "replace")

    def read(self) -> Iterator[tuple[Any, BaseException | None]]:
        """Yield what has come since: for each call its value and None, or None and what it raised.

        Raises:
            IncompatibleFileError: it holds code of another Python version.
        """
        for kind, content in self._records():
            if kind == _PLAIN_KIND:  # most of them
                yield marshal.loads(content), None  # noqa: S302 -- it is signed
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
        if not kind & _RAISED:
            return _loaded(kind, content)
        error, text = _loaded(kind, content[_COUNT.size + _COUNT.unpack_from(content)[0] :])
        if not isinstance(error, BaseException):
            raise CorruptFileError(f"{self._path} is damaged: it should hold an exception, and holds none.")
        error.__cause__ = RemoteTraceback(text)
        return error

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Yield kind and content of the next records, each checked."""
        size = _AT_ONCE
        while True:
            data, position, needed = read_part(self._path, self.offset, size), 0, _HEAD_SIZE
            while len(data) - position >= _HEAD_SIZE:
                middle = position + _SIGNATURE_SIZE
                length, kind = _KIND.unpack_from(data, middle)
                needed = _HEAD_SIZE + length
                end = position + needed
                if len(data) < end:
                    break
                signature, signed = data[position:middle], data[middle:end]
                if not compare_digest(self._sign(self._last, signed), signature) and not self._finds_key(
                    signed, signature
                ):
                    return
                self._last, position = signature, end
                self.offset += needed
                if self._python:
                    self.count += 1
                    self.failures += kind & _RAISED == _RAISED
                    yield kind, data[end - length : end]
                else:
                    self._python = data[end - length : end].decode()
            if position:
                size = _AT_ONCE
            elif needed <= size or size_of(self._path) < self.offset + needed:
                return  # the next is not there, or not all of it
            else:
                size = needed

    def _finds_key(self, signed: bytes, signature: bytes) -> bool:
        """Find the key with which the first record is signed; all others are signed with the same."""
        if self._python:
            return False
        for key in signing.derived_keys(Purpose.CALL_RESULTS, self._id.encode()):
            sign = _signature_with(key)
            if compare_digest(sign(self._last, signed), signature):
                self._sign = sign
                return True
        return False

    @staticmethod
    def _no_key(_before: bytes, _data: bytes) -> bytes:
        return b""


def present_call_began(folder: JobFolder) -> float | None:
    """Return when the present call of a job began, on the clock of :func:`time.monotonic`; None where none has.

    The job has written it: it may be any number.
    """
    data = read_part(folder.calls_file, 0, _CLOCK.size)
    began = _CLOCK.unpack(data)[0] if len(data) == _CLOCK.size else 0.0
    return began if 0.0 < began < math.inf else None


def calls_so_far(folder: JobFolder, most: int) -> tuple[int, int]:
    """Return how many of a chunk's calls have ended, and how many of those raised, as its job says.

    Args:
        folder: the job's.
        most: how many calls it has; no number is larger than that, whatever the job has written.
    """
    data = read_part(folder.calls_file, 0, _BEGINNING.size)
    if len(data) < _BEGINNING.size:
        return 0, 0
    _, ended, failures = _BEGINNING.unpack(data)
    return min(ended, most), min(failures, ended, most)


def _signature_with(key: bytes) -> Callable[[bytes, bytes], bytes]:
    """Return what signs a record with a key, given the signature of the one before it."""
    copy = blake2b(key=key, digest_size=_SIGNATURE_SIZE).copy

    def signature(before: bytes, data: bytes) -> bytes:
        this = copy()
        this.update(before)
        this.update(data)
        return this.digest()

    return signature


def _pickled(value: object) -> tuple[int, bytes]:
    """Return kind and content of a record: by pickle alone where that does, and quickly."""
    if _is_plain(value):
        return _PLAIN_KIND, marshal.dumps(value, _MARSHAL_VERSION)  # type: ignore[arg-type]  # it is plain
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
