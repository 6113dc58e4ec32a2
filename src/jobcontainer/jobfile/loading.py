"""From a file to its object: everything is checked first, then the stream is unpickled.

Hashing a gigabyte takes as long as everything else, so the large buffers of one content are hashed once. Whoever wrote
a file vouches for its identity (device, inode, size, time of modification) and need not hash it, nor need those that
receive the identity over a channel of the writer. Everybody else hashes it, once in each process.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import IncompatibleFileError, UntrustedFileError
from jobcontainer.jobfile import info, signing
from jobcontainer.jobfile.plain_pickle import load_plain, signed_content
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.pickling import job_main, package_versions, source_code, source_importer
from jobcontainer.pickling.unpickler import load

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from jobcontainer.jobfile.format import Header
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.pickling.source_importer import LocalModule

_REMEMBERED_FROM: Final = 2**20  # bytes; smaller files are hashed each time, in less than a millisecond
_MOST_REMEMBERED: Final = 1000

_whole: set[tuple[FileIdentity, bytes]] = set()  # identity and signature


def load_file(
    file_path: str | os.PathLike[str],
    *,
    trusted: bool = False,
    identity: FileIdentity | None = None,
    own_process: bool = False,
) -> Any:
    """Load an object; see :meth:`jobcontainer.Serializer.deserialize_from_file`.

    Args:
        file_path: the file.
        trusted: load it although it is not signed by this user's key.
        identity: what the writer of the file vouches for; large buffers of a file that has it are not hashed.
        own_process: whether this process is the job's own. There classes are made as they were when the file was
            written, in ``__main__``; ``import`` finds the sources that travelled, tracebacks show them, and
            ``inspect.getsource`` finds classes.
    """
    with FileReader(file_path) as file:
        if not file.is_job_file:
            return load_plain(file, trusted=trusted)
        if not trusted:
            _check_signature(file)
        header = file.header()
        _check_python(file, header)
        stream, sources, buffers = checked_content(file, header, identity)
        packages, modules = info.packages_in(file, header), info.local_modules_in(file, header)
    texts, main = source_code.texts_in(sources), None
    source_code.remember(texts, own_process=own_process)
    if own_process:
        source_importer.install(modules, texts)
        main = job_main.prepare(header.fields.get("main", {}))
    try:
        obj = load(stream, buffers, anew=own_process, main=main)
    except Exception as error:
        if not own_process and isinstance(error, (ImportError, AttributeError)):
            _check_modules(file.path, modules)
        error.add_note(f"Raised while {file.path} was loaded, which is whole and signed.")
        raise
    package_versions.compare(file.path, packages)
    return obj


def load_in_job(file_path: str | os.PathLike[str], identity: FileIdentity | None = None) -> Any:
    """Load a process in the process that is its own; see :func:`load_file`."""
    return load_file(file_path, identity=identity, own_process=True)


def import_sources(file_path: str | os.PathLike[str]) -> None:
    """Let ``import`` find the sources that a process file carries, in a process that its job has started.

    Raises:
        OSError: it can't be opened.
        JobFileError: it is damaged, or not signed by a key of this user.
    """
    with FileReader(file_path) as file:
        _check_signature(file)
        header = file.header()
        source_importer.install(info.local_modules_in(file, header), source_code.texts_in(file.sources(header)))


def check_file(file_path: str | os.PathLike[str], *, anew: bool = False) -> FileIdentity:
    """Check that a file is whole and signed by this user's key, as a load does; nothing in it is run.

    Args:
        file_path: the file.
        anew: whether large buffers are hashed although this process has checked them before.

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
            _check_signature(file)
            checked_content(file, file.header(), anew=anew)
        else:
            signed_content(file)
        return file.identity


def checked_content(
    file: FileReader, header: Header, identity: FileIdentity | None = None, *, anew: bool = False
) -> tuple[bytes | bytearray, bytes | bytearray, list[memoryview]]:
    """Read stream, sources and buffers of a job file, and check all but its signature.

    Args:
        file: the file.
        header: its header.
        identity: what the writer of the file vouches for.
        anew: whether large buffers are hashed although somebody vouches for them.

    Raises:
        CorruptFileError: it was altered.
    """
    stream, sources, buffers = file.stream(header), file.sources(header), file.buffers(header)
    if anew or (file.identity != identity and (file.identity, file.signature) not in _whole):
        file.check_buffers(header, buffers)
        remember_whole(file.identity, file.signature)
    return stream, sources, buffers


def remember_whole(identity: FileIdentity, signature: bytes) -> None:
    """Note that this process has written or checked every byte of a file."""
    if identity.size >= _REMEMBERED_FROM:
        if len(_whole) >= _MOST_REMEMBERED:
            _whole.clear()
        _whole.add((identity, signature))


def _check_signature(file: FileReader) -> None:
    if not signing.is_signed(file.signed, file.signature):
        raise UntrustedFileError(
            f"{file.path} is not signed with your key {signing.key_file()}, or was altered, and loading it would run "
            "code that is in it. If you trust who made it: deserialize_from_file(..., trusted=True), or once "
            f"`jobcontainer trust {file.path}`."
        )


def _check_python(file: FileReader, header: Header) -> None:
    written = str(header.fields.get("python"))
    if header.fields.get("by_value") and written.split(".")[:2] != info.PYTHON.split(".")[:2]:
        raise IncompatibleFileError(
            f"{file.path} holds code of Python {written}, and this is Python {info.PYTHON}: bytecode does not survive "
            "that. Load it there, or put the object into a new file from here."
        )


def _check_modules(path: str, modules: Iterable[LocalModule]) -> None:
    """Check that the modules beside the notebook that a file names are here."""
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
