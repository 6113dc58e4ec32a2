"""From a file to its object: everything is checked first, then the stream is unpickled.

Hashing a gigabyte takes as long as everything else, so the large buffers of one content are hashed once. Whoever wrote
a file vouches for its identity (device, inode, size, time of modification) and need not hash it, nor need those that
receive the identity over a channel of the writer. Everybody else hashes it, once in each process.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobcontainer.errors import IncompatibleFileError, UntrustedFileError
from jobcontainer.jobfile import info, signing
from jobcontainer.jobfile.plain_pickle import check_plain, load_plain
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.pickling import job_main, package_versions, source_code, source_importer
from jobcontainer.pickling.unpickler import load

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from jobcontainer.jobfile.format import Header
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.pickling.package_versions import Distribution
    from jobcontainer.pickling.source_importer import LocalModule

_REMEMBERED_FROM: Final = 2**20  # bytes; smaller files are hashed each time, in less than a millisecond
_MOST_REMEMBERED: Final = 1000

_whole: set[tuple[FileIdentity, bytes]] = set()  # identity and signature


class _Content(NamedTuple):
    """What a file holds, checked."""

    stream: bytes | bytearray
    sources: bytes | bytearray
    buffers: list[memoryview]
    packages: Mapping[str, Distribution]
    modules: list[LocalModule]


def load_file(file_path: str | os.PathLike[str], *, trusted: bool = False, identity: FileIdentity | None = None) -> Any:
    """Load an object; see :meth:`jobcontainer.Serializer.deserialize_from_file`.

    Args:
        file_path: the file.
        trusted: load it although it is not signed by this user's key.
        identity: what the writer of the file vouches for; large buffers of a file that has it are not hashed.
    """
    return _load(file_path, trusted=trusted, identity=identity, own_process=False)


def load_in_job(file_path: str | os.PathLike[str], identity: FileIdentity | None = None) -> Any:
    """Load a process in the process that is its own.

    Unlike :meth:`jobcontainer.Serializer.deserialize_from_file`, classes are made as they were when the file was
    written, and are in ``__main__``; ``import`` finds the sources that travelled, tracebacks show them, and
    ``inspect.getsource`` finds classes.

    Args:
        file_path: the file.
        identity: what the writer of the file vouches for; large buffers of a file that has it are not hashed.
    """
    return _load(file_path, trusted=False, identity=identity, own_process=True)


def import_sources(file_path: str | os.PathLike[str]) -> None:
    """Let ``import`` find the sources that a process file carries, in a process that its job has started.

    Raises:
        OSError: it can't be opened.
        JobFileError: it is damaged, or not signed by a key of this user.
    """
    with FileReader(file_path) as file:
        check_signature(file)
        header = file.header()
        source_importer.install(info.local_modules_in(file, header), source_code.texts_in(file.sources(header)))


def check_file(file_path: str | os.PathLike[str]) -> FileIdentity:
    """Check that a file is whole and signed by this user's key, as a load does; nothing in it is run.

    Unlike :meth:`jobcontainer.Serializer.verify`, it does not hash large buffers again that this process has checked.

    Returns:
        The identity of the file that was checked.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: it is truncated, altered, or no job file.
        UntrustedFileError: it is not signed by a key of this user.
        IncompatibleFileError: it is of a newer format.
    """
    with FileReader(file_path) as file:
        if file.is_job_file:
            check_signature(file)
            _read(file, file.header(), identity=None)
        else:
            check_plain(file)
        return file.identity


def check_signature(file: FileReader) -> None:
    """Check that a job file is signed by this user's key.

    Raises:
        UntrustedFileError: it is not.
    """
    if not signing.is_signed(file.signed, file.signature):
        raise UntrustedFileError(
            f"{file.path} is not signed with your key {signing.key_file()}, or was altered, and loading it would run "
            "code that is in it. If you trust who made it: deserialize_from_file(..., trusted=True), or once "
            f"`jobcontainer trust {file.path}`."
        )


def check_content(file: FileReader) -> None:
    """Check every byte of a job file but its signature.

    Raises:
        CorruptFileError: it was altered.
    """
    header = file.header()
    file.stream(header)
    file.sources(header)
    file.check_buffers(header, file.buffers(header))


def remember_whole(identity: FileIdentity, signature: bytes) -> None:
    """Note that this process has written or checked every byte of a file.

    Args:
        identity: of the file.
        signature: as it stands in the file; it covers the digests of all content.
    """
    if identity.size >= _REMEMBERED_FROM:
        if len(_whole) >= _MOST_REMEMBERED:
            _whole.clear()
        _whole.add((identity, signature))


def _load(file_path: str | os.PathLike[str], *, trusted: bool, identity: FileIdentity | None, own_process: bool) -> Any:
    with FileReader(file_path) as file:
        if not file.is_job_file:
            return load_plain(file, trusted=trusted)
        if not trusted:
            check_signature(file)
        header = file.header()
        _check_python(file, header)
        content = _read(file, header, identity)
    source_code.remember(content.sources, own_process=own_process)
    main = None
    if own_process:
        source_importer.install(content.modules, source_code.texts_in(content.sources))
        main = job_main.prepare(header.fields.get("main", {}))
    try:
        obj = load(content.stream, content.buffers, anew=own_process, main=main)
    except Exception as error:
        if not own_process and isinstance(error, (ImportError, AttributeError)):
            _check_modules(file.path, content.modules)
        error.add_note(f"Raised while {file.path} was loaded, which is whole and signed.")
        raise
    package_versions.compare(file.path, content.packages)
    return obj


def _check_modules(path: str, modules: Iterable[LocalModule]) -> None:
    """Check that the modules beside the notebook that a file names are here.

    Raises:
        IncompatibleFileError: one is not.
    """
    for module in modules:
        place = module.file or ", ".join(module.path or ())
        root = Path(place).parents[module.name.count(".") + (Path(place).stem == "__init__")] if place else ""
        try:
            here = getattr(importlib.import_module(module.name), "__file__", None)
        except Exception as error:
            raise IncompatibleFileError(
                f"{path} needs the module {module.name}, which was {place} when it was written and can't be imported "
                f"here ({type(error).__name__}: {error}). If that folder is here, put it on the path: "
                f"sys.path.append({str(root)!r})."
            ) from error
        if module.file and here != module.file:
            raise IncompatibleFileError(
                f"{path} needs the module {module.name}, which was {place} when it was written and is {here} here, "
                "where something that it needs is missing."
            )


def _read(file: FileReader, header: Header, identity: FileIdentity | None) -> _Content:
    """Read and check the content of a file; buffers only if nobody has vouched for them."""
    stream, sources, buffers = file.stream(header), file.sources(header), file.buffers(header)
    if file.identity != identity and (file.identity, file.signature) not in _whole:
        file.check_buffers(header, buffers)
        remember_whole(file.identity, file.signature)
    return _Content(stream, sources, buffers, info.packages_in(file, header), info.local_modules_in(file, header))


def _check_python(file: FileReader, header: Header) -> None:
    written = str(header.fields.get("python"))
    if header.fields.get("by_value") and written.split(".")[:2] != info.PYTHON.split(".")[:2]:
        raise IncompatibleFileError(
            f"{file.path} holds code of Python {written}, and this is Python {info.PYTHON}: bytecode does not survive "
            "that. Load it there, or put the object into a new file from here."
        )
