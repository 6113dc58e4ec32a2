"""Serializer: object ⇄ file, whole, signed and fast at any size.

A file is loaded only if it is whole and signed by a key of this user: loading runs code, so nothing in a damaged or
foreign file is unpickled. How the bytes lie is told in :mod:`jobcontainer.jobfile.format`, who may be loaded in
:mod:`jobcontainer.jobfile.signing`, how code travels in :mod:`jobcontainer.pickling.pickler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from jobcontainer.errors import UntrustedFileError
from jobcontainer.jobfile import info, signing, verified
from jobcontainer.jobfile.loading import check_content, check_signature, load_file
from jobcontainer.jobfile.plain_pickle import check_plain, sign_plain
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.jobfile.writer import FileWriter, write_signed
from jobcontainer.pickling.diagnosis import explained
from jobcontainer.pickling.pickler import Pickler, unfit_parts
from jobcontainer.pickling.shared_prefix import Shared
from jobcontainer.pickling.size_warning import warn_if_large

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from jobcontainer.jobfile.info import FileFacts
    from jobcontainer.pickling import package_versions
    from jobcontainer.pickling.shared_prefix import Head

__all__ = ["Kind", "Serializer", "packages_of", "trust_file", "write_file"]

Kind = Literal["process", "result", "error", "object"]


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
        is_process = callable(getattr(obj, "run", None)) and not isinstance(obj, type)
        write_file(obj, file_path, kind="process" if is_process else "object")

    @staticmethod
    def deserialize_from_file(file_path: str | os.PathLike[str], *, trusted: bool = False) -> Any:  # noqa: ANN401
        """Get an object back.

        Large arrays are mapped copy-on-write: they are there at once, can be written to, and share their memory with
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
    def inspect(file_path: str | os.PathLike[str]) -> FileFacts:
        """Read what a file tells of itself; none of its content is loaded, and no code in it is run.

        Raises:
            FileNotFoundError: there is no such file.
            CorruptFileError: it is truncated, or no job file and no plain pickle.
            IncompatibleFileError: it is of a newer format.
        """
        with FileReader(file_path) as file:
            if file.is_job_file:
                return info.facts_of(file)
            try:
                check_plain(file)
            except UntrustedFileError:
                return info.FileFacts(kind="pickle", size=file.status.st_size)
            return info.FileFacts(kind="pickle", size=file.status.st_size, signed=True)

    @staticmethod
    def verify(file_path: str | os.PathLike[str]) -> None:
        """Check that a file is whole and signed by this user's key; nothing in it is run.

        Raises:
            FileNotFoundError: there is no such file.
            CorruptFileError: it is truncated, altered, or no job file.
            UntrustedFileError: it is not signed by a key of this user.
            IncompatibleFileError: it is of a newer format.
        """
        with FileReader(file_path) as file:
            if file.is_job_file:
                check_signature(file)
                check_content(file)
            else:
                check_plain(file)


def write_file(obj: object, file_path: str | os.PathLike[str], *, kind: Kind, shared: Shared | None = None) -> None:
    """Put an object into a file and say what it is; see :meth:`Serializer.serialize_to_file`.

    Args:
        obj: what goes in.
        file_path: where to.
        kind: what it is to a job.
        shared: what is known from the files of other objects that are written together with it.
    """
    unfit: dict[str, dict[str, str]] = {}
    pickler, done = _write(
        obj, file_path, kind, unfit, shared or Shared(), head=None if shared is None else shared.head_of(obj)
    )
    if isinstance(done, Exception) and pickler.travelling:
        unfit = unfit_parts(pickler.travelling)
        if unfit:
            pickler, done = _write(obj, file_path, kind, unfit, Shared())
    if isinstance(done, Exception):
        raise explained(obj, done, is_result=kind == "result") from done
    if kind == "process":
        warn_if_large(obj, done, unfit)


def packages_of(file_path: str | os.PathLike[str]) -> Mapping[str, package_versions.Distribution]:
    """Return the distributions that a file refers to, by their top-level packages; empty where it names none.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: it is damaged where they stand.
    """
    with FileReader(file_path) as file:
        return info.packages_of(file, file.header()) if file.is_job_file else {}


def trust_file(file_path: str | os.PathLike[str]) -> None:
    """Sign a file with this user's key, after a person has decided that its maker is to be trusted.

    The content stays as it is; a plain pickle stays one that ``pickle.load`` reads.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: it is truncated, altered, or neither a job file nor a pickle.
        IncompatibleFileError: it is of a newer format.
        UntrustedFileError: there is no usable key to sign with.
        OSError: the file can't be written; it is as it was.
    """
    with FileReader(file_path) as file:
        if file.is_job_file:
            check_content(file)
            write_signed(file, signing.sign(file.signed))
        else:
            sign_plain(file)


def _write(
    obj: object,
    file_path: str | os.PathLike[str],
    kind: Kind,
    left_out: Mapping[str, Mapping[str, str]],
    shared: Shared,
    *,
    head: Head | None = None,
) -> tuple[Pickler, int | Exception]:
    """Write a file, and return its size, or why the object can't be pickled."""
    writer = FileWriter(file_path)
    pickler = Pickler(writer, left_out)
    try:
        try:
            if head is not None:
                head.begin(pickler, writer.write)
            pickler.dump(obj)
        except Exception as error:
            if error is writer.failure or isinstance(error, MemoryError):
                raise
            writer.discard()
            return pickler, error
        said = info.facts_now(obj, kind, by_value=pickler.by_value, modules=pickler.modules)
        text = shared.text_of(head, pickler)
        return pickler, _finish(writer, said, text, pickler.buffers)
    except BaseException:
        writer.discard()
        raise
    finally:  # a pickler is part of a cycle; what it has seen shall not wait for the garbage collector
        pickler.clear_memo()
        pickler.buffers.clear()


def _finish(writer: FileWriter, said: Mapping[str, Any], text: bytes, buffers: Sequence[memoryview]) -> int:
    size = writer.finish(said, text, buffers, signing.sign)
    if writer.written is not None:
        verified.record_written(writer.written)
    return size
