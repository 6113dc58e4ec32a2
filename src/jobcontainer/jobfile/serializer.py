"""Serializer: object to file and back, whole, signed and fast at any size.

A file is loaded only if it is whole and signed by a key of this user: loading runs code, so nothing in a damaged or
foreign file is unpickled. :mod:`jobcontainer.jobfile.format` describes the bytes, :mod:`jobcontainer.jobfile.signing`
the key, :mod:`jobcontainer.pickling.pickler` how code travels.
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from jobcontainer.errors import SerializationError, UntrustedFileError
from jobcontainer.jobfile import info, signing
from jobcontainer.jobfile.atomic import replacing
from jobcontainer.jobfile.blobs import BLOB_FROM
from jobcontainer.jobfile.format import PRELUDE
from jobcontainer.jobfile.inputs import Inputs, noted_in
from jobcontainer.jobfile.loading import check_file, checked_content, load_file, remember_whole
from jobcontainer.jobfile.plain_pickle import sign_plain, signed_content
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.jobfile.repeated_blobs import RepeatedBlobs
from jobcontainer.jobfile.signing import Purpose
from jobcontainer.jobfile.writer import FileWriter
from jobcontainer.pickling import source_importer
from jobcontainer.pickling.diagnosis import explained
from jobcontainer.pickling.local_sources import Sources, local_modules, with_imports
from jobcontainer.pickling.pickler import Pickler
from jobcontainer.pickling.repeated import RepeatedPickler
from jobcontainer.pickling.size_warning import warn_if_large
from jobcontainer.pickling.source_code import carried_sources
from jobcontainer.pickling.source_importer import packed_together
from jobcontainer.process import has_run

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from jobcontainer.jobfile.blobs import BlobStore
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.jobfile.info import FileInfo
    from jobcontainer.pickling.package_versions import Distribution

_sign = partial(signing.sign, Purpose.JOB_FILE)

Kind = Literal["process", "result", "error", "checkpoint", "object"]


class Serializer:
    """Puts an object into a file and gets it back.

    Example:
        >>> Serializer.serialize_to_file({"answer": 42}, path)  # doctest: +SKIP
        >>> Serializer.deserialize_from_file(path)  # doctest: +SKIP
        {'answer': 42}
    """

    @staticmethod
    def serialize_to_file(obj: object, file_path: str | os.PathLike[str]) -> None:
        """Put an object into a file, which appears whole or not at all.

        Args:
            obj: anything that cloudpickle takes: notebook classes, closures, arrays. It must not change meanwhile.
            file_path: where to; an older file is replaced only when the new one is whole.

        Raises:
            SerializationError: the object can't go into a file; ``culprits`` says which parts and why.
            UntrustedFileError: there is no usable key to sign with.
            OSError: the file can't be written; an older one is as it was.
        """
        is_process = has_run(obj) and not issubclass(type(obj), type)
        write_file(obj, file_path, kind="process" if is_process else "object")

    @staticmethod
    def deserialize_from_file(file_path: str | os.PathLike[str], *, trusted: bool = False) -> Any:
        """Get an object back.

        Large arrays are mapped copy-on-write: they load at once, can be written to, and share their memory with
        other processes that read the file. Classes that are alive in this process are left as they are.

        Args:
            file_path: a file that :meth:`serialize_to_file` wrote.
            trusted: load it although it is not signed by this user's key, or is a plain pickle. Loading runs code that
                is in the file: say so only of a file whose maker you trust.

        Raises:
            FileNotFoundError: there is no such file.
            CorruptFileError: it is truncated, altered, or no job file.
            UntrustedFileError: it is not signed by a key of this user.
            IncompatibleFileError: it holds code of another Python version, or is of a newer format.
        """
        return load_file(file_path, trusted=trusted)

    @staticmethod
    def inspect(file_path: str | os.PathLike[str]) -> FileInfo:
        """Read what a file says of itself; none of its content is loaded, and no code in it is run.

        Raises:
            FileNotFoundError: there is no such file.
            CorruptFileError: it is truncated, or no job file and no plain pickle.
            IncompatibleFileError: it is of a newer format.
        """
        with FileReader(file_path) as file:
            if file.is_job_file:
                return info.read_info(file)
            try:
                signed = bool(signed_content(file))
            except UntrustedFileError:
                signed = False
            return info.FileInfo(kind="pickle", size=file.status.st_size, signed=signed)

    @staticmethod
    def verify(file_path: str | os.PathLike[str]) -> None:
        """Check that a file is whole and signed by this user's key; nothing in it is run.

        Raises:
            FileNotFoundError: there is no such file.
            CorruptFileError: it is truncated, altered, or no job file.
            UntrustedFileError: it is not signed by a key of this user.
            IncompatibleFileError: it is of a newer format.
        """
        check_file(file_path, anew=True)


def write_file(
    obj: object,
    file_path: str | os.PathLike[str],
    *,
    kind: Kind,
    blobs: BlobStore | None = None,
    inputs: Inputs | None = None,
    more: Mapping[str, Any] | None = None,
) -> FileIdentity:
    """Put an object into a file and say what it is; see :meth:`Serializer.serialize_to_file`.

    Args:
        obj: the object.
        file_path: the file.
        kind: what it is.
        blobs: where its large data goes; None for a file that holds everything itself.
        inputs: takes note of the jobs in a process; elsewhere they are handles.
        more: what its header says beside what that of each file does, as plain data.

    Returns:
        The identity of the file, for those who trust this process that it is whole.
    """
    found = (inputs or Inputs()) if kind == "process" else None
    if kind == "process":
        _refuse_while_importing()
    before = blobs.written if blobs is not None else 0
    done = _write(obj, FileWriter(file_path, blobs), kind, more or {}, found)
    if isinstance(done, Exception):
        raise explained(obj, done, kind if kind in {"result", "checkpoint"} else "") from done
    if kind == "process":
        shared = (BLOB_FROM, blobs.written - before) if blobs is not None else None
        warn_if_large(obj, done.size, shared)
    return done


class RepeatedFiles:
    """Writes process files that hold the same object and another one each; the former is pickled once.

    Its large data is hashed once, with the first file, and is in all of them what it was then.

    Args:
        make: what makes a process of the two when it is loaded: a class or function of an installed module.
        shared: the object that all of them hold. It must not change until the first file is written.

    Raises:
        SerializationError: it can't go into a file; ``culprits`` says which parts and why.
    """

    def __init__(self, make: Callable[[Any, Any], Any], shared: object) -> None:
        _refuse_while_importing()
        self._shared = shared
        try:
            self._inputs = Inputs()
            with noted_in(self._inputs):
                self._pickler = RepeatedPickler(make, shared)
        except Exception as error:
            raise explained(shared, error) from error
        self._blobs, self._is_kept = RepeatedBlobs(), False

    def write(self, own: object, file_path: str | os.PathLike[str], blobs: BlobStore | None = None) -> FileIdentity:
        """Put the shared object and another one into a file; see :func:`write_file`.

        Raises:
            SerializationError: the other one can't go into a file.
            OSError: the file can't be written.
        """
        pickler, before = self._pickler, blobs.written if blobs is not None else 0
        try:
            with noted_in(self._inputs):
                own_part = pickler.own_part(own)
        except MemoryError:
            raise
        except Exception as error:
            raise explained(own, error) from error
        if self._inputs.references:
            raise SerializationError(
                "A job can be no argument of map(): submit_all() takes one process for each call, and jobs in them."
            )
        self._blobs.blobs = blobs
        writer = FileWriter(file_path, self._blobs if blobs is not None else None)
        try:
            writer.write(pickler.beginning)
            writer.write(own_part)
            identity = _finish(writer, pickler, self._shared, "process")
        except BaseException:
            writer.discard()
            raise
        if not self._is_kept:
            self._is_kept = True
            pickler.shared_buffers = self._blobs.keep(pickler.shared_buffers, file_path)
            self._blobs.keep_constant(pickler.beginning)
            shared = (BLOB_FROM, blobs.written - before) if blobs is not None else None
            warn_if_large(self._shared, identity.size, shared)
        return identity

    def close(self) -> None:
        """Let go of what was pickled; nothing can be written any more."""
        self._pickler.close()


def _refuse_while_importing() -> None:
    importing = source_importer.module_being_imported()
    if importing:
        raise SerializationError(
            f"The module {importing} submits a job when it is imported, and so would each of its jobs, which import it."
            f' Put that part of {importing} under `if __name__ == "__main__":`.'
        )


def packages_of(file_path: str | os.PathLike[str]) -> Mapping[str, Distribution]:
    """Return the distributions that a file refers to, by their top-level packages; empty where it names none."""
    with FileReader(file_path) as file:
        return info.packages_in(file, file.header()) if file.is_job_file else {}


def trust_file(file_path: str | os.PathLike[str]) -> Path:
    """Sign a file with this user's key, after a person has decided that its maker is to be trusted.

    The content stays as it is; a plain pickle stays one that ``pickle.load`` reads. Where the path is a symbolic link,
    the file that it leads to is signed, and the link stays.

    Returns:
        The path of the file that is signed, without any link.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: it is truncated, altered, or neither a job file nor a pickle.
        IncompatibleFileError: it is of a newer format.
        UntrustedFileError: there is no usable key to sign with.
        OSError: the file can't be written; it is as it was.
    """
    path = Path(file_path)
    with contextlib.suppress(RuntimeError, OSError):  # links in a circle, which the reader refuses
        path = path.resolve()
    with FileReader(path) as file:
        if file.is_job_file:
            checked_content(file, file.header(), anew=True)
            with replacing(file.path) as target:
                file.copy_to(target)
                target.seek(PRELUDE.size)
                target.write(signing.sign(Purpose.JOB_FILE, file.signed))
        else:
            sign_plain(file)
    return path


def _write(
    obj: object, writer: FileWriter, kind: Kind, more: Mapping[str, Any], inputs: Inputs | None
) -> FileIdentity | Exception:
    """Write a file, and return its identity, or why the object can't be pickled."""
    pickler = None
    try:
        pickler = Pickler(writer, before_own_code=writer.forget_addresses)
        try:
            with noted_in(inputs):
                pickler.dump(obj)
        except Exception as error:
            if error is writer.failure or isinstance(error, MemoryError):
                raise
            writer.discard()
            return error
        return _finish(writer, pickler, obj, kind, {**more, **(inputs.fields() if inputs is not None else {})})
    except BaseException:
        writer.discard()
        raise
    finally:  # a pickler is part of a cycle; what it has seen shall not wait for the garbage collector
        if pickler is not None:
            pickler.clear_memo()
            pickler.buffers.clear()


def _finish(
    writer: FileWriter, pickler: Pickler, obj: object, kind: Kind, more: Mapping[str, Any] = MappingProxyType({})
) -> FileIdentity:
    """Write what comes after the stream, and return the identity of the file."""
    beside = _sources(pickler, kind)
    compiled = packed_together(beside.code) if kind == "process" else b""
    sources = carried_sources(pickler.files, pickler.classes, beside.texts, compiled)
    fields = info.header_fields(
        obj,
        kind,
        by_value=pickler.by_value,
        modules=pickler.modules | beside.imports,
        local_modules=beside.modules,
    )
    identity, signature = writer.finish({**more, **fields}, sources, pickler.buffers, _sign)
    remember_whole(identity, signature)
    return identity


def _sources(pickler: Pickler, kind: Kind) -> Sources:
    """Return the modules beside the notebook that a stream needs, and the sources that go with it.

    A result is opened where its classes are; so it names its modules and has no sources of them.
    """
    modules = local_modules(pickler.modules | pickler.unimported)
    return with_imports(modules) if kind in {"process", "object"} else Sources(modules, {}, {}, set())
