"""What the calls of a chunk returned or raised: a file of records, each written as soon as its call has ended.

So whatever ends the process, the results of the calls before are there. A record is whole and signed, or it is none:
a signature of 16 bytes, the length of the content, its kind, the content. The signature (BLAKE2b with a key that is
made for this job alone from the user's) covers also the position of the record, so that one of another job, or of
another call, is not taken for it. A reader stops at the first that is not whole; nothing of it, and nothing behind it,
is unpickled. The first record says which Python has written the file.

The time of the last modification is when the last call ended, which is when the next began.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import traceback
from hashlib import blake2b
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
    from collections.abc import Iterator

    from jobcontainer.storage.folder import JobFolder

_HEAD: Final = struct.Struct("<16sQB")  # signature, length of the content, kind
_POSITION: Final = struct.Struct("<QQB")  # what else is signed: number of the record, length, kind
_SIGNATURE_SIZE: Final = 16
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
        path, flags = folder.calls_file, os.O_WRONLY | os.O_APPEND
        path.unlink(missing_ok=True)
        self._file = OwnDescriptor(open_regular(path, flags | os.O_CREAT), reopen=lambda: open_regular(path, flags))
        self._signature = _signature_with(signing.sign(Purpose.CALL_RESULTS, folder.id.encode()))
        self._number = 0
        self._write(0, info.PYTHON.encode())

    def returned(self, value: object) -> None:
        """Add what a call returned; where that can't be pickled, the error that says so.

        Raises:
            OSError: it can't be written.
        """
        try:
            kind, content = _pickled(value)
        except Exception as error:  # noqa: BLE001 -- a user's own pickling may raise anything
            self.raised(explained(value, error, is_result=True))
        else:
            self._write(kind, content)

    def raised(self, error: BaseException) -> None:
        """Add what a call raised, or its type, message and traceback where it can't be carried.

        Raises:
            OSError: it can't be written.
        """
        text = "".join(traceback.format_exception(error))
        try:
            kind, content = _pickled((error, text))
            carried = type(_loaded(kind, content)[0]) is type(error)
        except Exception:  # noqa: BLE001 -- an exception's own pickling may raise anything
            carried = False
        if not carried:
            kind, content = _pickled((stand_in(error, text), text))
        self._write(kind | _RAISED, content)

    def _write(self, kind: int, content: bytes) -> None:
        self._file.write(
            _HEAD.pack(self._signature(self._number, kind, content), len(content), kind) + content,
        )
        self._number += 1

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class CallReader:
    """Reads the results of a job's calls, while they are written or later.

    Attributes:
        count: how many were read.
        is_damaged: whether there is something that is no record of this job, so that no more will be read.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._path, self._id = folder.calls_file, folder.id
        self._offset, self._number = 0, 0
        self._signatures: list[Any] = []
        self._python = ""
        self.is_damaged = False

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
        size = _AT_ONCE
        while not self.is_damaged:
            data, position = read_part(self._path, self._offset, size), 0
            while (end := self._end_of(data, position)) <= len(data):
                signature, _, kind = _HEAD.unpack_from(data, position)
                content = data[position + _HEAD.size : end]
                if not self._is_signed(kind, content, signature):
                    self.is_damaged = True
                    return
                self._offset += end - position
                self._number += 1
                position = end
                if self._number > 1:
                    yield kind, content
                else:
                    self._python = content.decode()
            if position:
                size = _AT_ONCE
            elif end <= size or size_of(self._path) < self._offset + end:
                return  # the next is not there, or not all of it
            else:
                size = end

    @staticmethod
    def _end_of(data: bytes, start: int) -> int:
        """Return where the record that begins there ends, which may be behind the data."""
        if len(data) < start + _HEAD.size:
            return start + _HEAD.size
        return int(start + _HEAD.size + _HEAD.unpack_from(data, start)[1])

    def _is_signed(self, kind: int, content: bytes, signature: bytes) -> bool:
        if not self._signatures:
            keys = signing.derived_keys(Purpose.CALL_RESULTS, self._id.encode())
            self._signatures = [_signature_with(key) for key in keys]
        for sign in self._signatures:
            if signing.is_same(sign(self._number, kind, content), signature):
                self._signatures = [sign]  # the whole file is signed with one key
                return True
        return False


def _signature_with(key: bytes) -> Any:
    """Return what signs records with a key."""
    begun = blake2b(key=key, digest_size=_SIGNATURE_SIZE)

    def signature(number: int, kind: int, content: bytes) -> bytes:
        this = begun.copy()
        this.update(_POSITION.pack(number, len(content), kind))
        this.update(content)
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
