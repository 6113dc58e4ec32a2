"""From a file to its object: everything is checked first, then the stream is unpickled.

Hashing a gigabyte takes as long as everything else, so the large buffers of one content are hashed once. Whoever wrote
a file vouches for its identity (device, inode, size, time of modification) and need not hash it, nor need those that
receive the identity over a channel of the writer. Everybody else hashes it, once in each process. For blobs, the
signed header of the file beside them vouches, see :mod:`jobcontainer.jobfile.blobs`. Nobody vouches for a file that
another user can change: it is read and hashed each time.

The header of a file, which its signature covers, names its kind. A file in the place of a process or of a result is
loaded only if it is of that kind: else a job could put its result in the place of what is run again.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import IncompatibleFileError, UntrustedFileError
from jobcontainer.jobfile import info, signing
from jobcontainer.jobfile.plain_pickle import load_plain, signed_content
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.jobfile.signing import Purpose
from jobcontainer.pickling import job_main, package_versions, source_code, source_importer
from jobcontainer.pickling.unpickler import load

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from jobcontainer.jobfile.format import Header
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.pickling.source_importer import AddFinder, LocalModule

_REMEMBERED_FROM: Final = 2**20  # bytes; smaller files are hashed each time, in less than a millisecond
_MOST_REMEMBERED: Final = 1000
_PICKLE: Final = "pickle"
_PROCESSES: Final = frozenset({"process", _PICKLE})  # a plain pickle does not say what it holds; a person has signed it
_RESULTS: Final = frozenset({"result", "error"})
_CHECKPOINTS: Final = frozenset({"checkpoint"})

_whole: set[tuple[FileIdentity, bytes]] = set()  # identity and signature


def load_file(
    file_path: str | os.PathLike[str],
    *,
    trusted: bool = False,
    identity: FileIdentity | None = None,
    add_finder: AddFinder | None = None,
) -> Any:
    """Load an object; see :meth:`jobcontainer.Serializer.deserialize_from_file`.

    Args:
        file_path: the file.
        trusted: load it although it is not signed by this user's key.
        identity: what the writer of the file vouches for; large buffers of a file that has it are not hashed.
        add_finder: given where this process is the job's own: what lets ``import`` find the sources that travelled.
            There classes are made as they were when the file was written, in ``__main__``; tracebacks show the sources,
            and ``inspect.getsource`` finds classes.
    """
    return _load(file_path, trusted=trusted, identity=identity, add_finder=add_finder)[1]


def load_process(
    file_path: str | os.PathLike[str], identity: FileIdentity | None = None, *, add_finder: AddFinder | None = None
) -> Any:
    """Load the process of a job; see :func:`load_file`.

    Raises:
        UntrustedFileError: the file is signed, but is no process, or it is not signed.
    """
    return _load(file_path, identity=identity, add_finder=add_finder, kinds=_PROCESSES)[1]


def load_result(file_path: str | os.PathLike[str], identity: FileIdentity | None = None) -> tuple[str, Any]:
    """Load what a job returned (kind ``result``) or raised (``error``), and return its kind too.

    Raises:
        UntrustedFileError: the file is signed, but is no result, or it is not signed.
    """
    return _load(file_path, identity=identity, kinds=_RESULTS)


def load_checkpoint(file_path: str | os.PathLike[str], main: dict[str, Any] | None = None) -> Any:
    """Load what a job has saved, in another attempt of it; classes of this process are left as they are.

    Args:
        file_path: the file.
        main: the globals that functions of the notebook have in this process; None for some of their own.

    Raises:
        UntrustedFileError: the file is signed, but is no checkpoint, or it is not signed.
    """
    return _load(file_path, kinds=_CHECKPOINTS, main=main)[1]


def _load(
    file_path: str | os.PathLike[str],
    *,
    trusted: bool = False,
    identity: FileIdentity | None = None,
    add_finder: AddFinder | None = None,
    kinds: frozenset[str] = frozenset(),
    main: dict[str, Any] | None = None,
) -> tuple[str, Any]:
    """Load an object; where kinds are given, one of a job, and of these kinds alone."""
    with FileReader(file_path) as file:
        if not file.is_job_file:
            _check_kind(file, _PICKLE, kinds)
            return _PICKLE, load_plain(file, trusted=trusted, by_former_keys=bool(kinds))
        if not trusted:
            _check_signature(file, by_former_keys=bool(kinds))
        header = file.header()
        kind = str(header.fields.get("kind"))
        _check_kind(file, kind, kinds)
        _check_python(file, header)
        stream, sources, buffers = checked_content(file, header, identity, signed=not trusted)
        packages, modules = info.packages_in(file, header), info.local_modules_in(file, header)
    texts, compiled = source_code.sources_in(sources)
    own_process = add_finder is not None
    source_code.remember(texts, own_process=own_process)
    if add_finder is not None:
        source_importer.install(modules, texts, compiled, add_finder)
        main = job_main.prepare(header.fields.get("main", {}))
    try:
        obj = load(stream, buffers, anew=own_process, main=main)
    except Exception as error:
        if not own_process and isinstance(error, (ImportError, AttributeError)):
            _check_modules(file.path, modules)
        error.add_note(f"Raised while {file.path} was loaded, which is whole and signed.")
        raise
    package_versions.compare(file.path, packages)
    return kind, obj


def check_process(file_path: str | os.PathLike[str]) -> FileIdentity:
    """Check that a file is one that :func:`load_process` loads; see :func:`check_file`."""
    return check_file(file_path, kinds=_PROCESSES)


def import_sources(file_path: str | os.PathLike[str], add_finder: AddFinder) -> None:
    """Let ``import`` find the sources that a process file carries, in a process that its job has started.

    Args:
        file_path: the file.
        add_finder: see :func:`load_file`.

    Raises:
        OSError: it can't be opened.
        JobFileError: it is damaged, no process, or not signed by a key of this user.
    """
    with FileReader(file_path) as file:
        _check_signature(file, by_former_keys=True)
        header = file.header()
        _check_kind(file, str(header.fields.get("kind")), _PROCESSES)
        texts, compiled = source_code.sources_in(file.sources(header))
        source_importer.install(info.local_modules_in(file, header), texts, compiled, add_finder)


def check_file(
    file_path: str | os.PathLike[str], *, anew: bool = False, kinds: frozenset[str] = frozenset()
) -> FileIdentity:
    """Check that a file is whole and signed by this user's key, as a load does; nothing in it is run.

    Args:
        file_path: the file.
        kinds: what it may hold; empty for anything.
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
            header = file.header()
            _check_kind(file, str(header.fields.get("kind")), kinds)
            checked_content(file, header, signed=True, anew=anew)
        else:
            _check_kind(file, _PICKLE, kinds)
            signed_content(file)
        return file.identity


def checked_content(
    file: FileReader, header: Header, identity: FileIdentity | None = None, *, signed: bool = False, anew: bool = False
) -> tuple[bytes | bytearray, bytes | bytearray, list[memoryview]]:
    """Read stream, sources and buffers of a job file, and check all but its signature.

    Args:
        file: the file.
        header: its header.
        identity: what the writer of the file vouches for.
        signed: whether the signature was checked, so that the header vouches for the blobs beside the file.
        anew: whether large buffers are hashed although somebody vouches for them.

    Raises:
        CorruptFileError: it was altered, or a blob is missing.
    """
    load_blob = file.blob_loader(header, vouched=signed, anew=anew)
    stream, sources, buffers = file.stream(header, load_blob), file.sources(header), file.buffers(header, load_blob)
    is_known = file.is_own and (file.identity == identity or (file.identity, file.signature) in _whole)
    if anew or not is_known:
        file.check_buffers(header, buffers)
        if file.is_own:
            remember_whole(file.identity, file.signature)
    return stream, sources, buffers


def remember_whole(identity: FileIdentity, signature: bytes) -> None:
    """Note that this process has written or checked every byte of a file."""
    if identity.size >= _REMEMBERED_FROM:
        if len(_whole) >= _MOST_REMEMBERED:
            _whole.clear()
        _whole.add((identity, signature))


def _check_signature(file: FileReader, *, by_former_keys: bool = False) -> None:
    if not signing.is_signed(Purpose.JOB_FILE, file.signed, file.signature, by_former_keys=by_former_keys):
        raise UntrustedFileError(
            f"{file.path} is not signed with your key {signing.key_file()}, or was altered, and loading it would run "
            "code that is in it. If you trust who made it, or made it yourself with a key that was replaced since: "
            f"deserialize_from_file(..., trusted=True), or once `jobcontainer trust {file.path}`."
        )


def _check_kind(file: FileReader, kind: str, kinds: frozenset[str]) -> None:
    if kinds and kind not in kinds:
        wanted = " or ".join(sorted(kinds - {_PICKLE}))
        raise UntrustedFileError(
            f"{file.path} says that it holds a {kind}, and is not loaded as a {wanted}: what a file is signed as is "
            "what it is loaded as. If it is in a job's folder, something has put it there: submit the process again. "
            "A file to run is made by Serializer.serialize_to_file(process, path), of an object with run()."
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
