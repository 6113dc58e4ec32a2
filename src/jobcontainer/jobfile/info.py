"""What a file says of itself without being loaded."""

from __future__ import annotations

import inspect
import platform
import time
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.jobfile import signing
from jobcontainer.jobfile.inputs import InputReference, references_in
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.pickling import cloudpickle_internals, job_main, package_versions
from jobcontainer.pickling.code_references import imported_first
from jobcontainer.pickling.module_origin import MAIN
from jobcontainer.pickling.package_versions import Distribution
from jobcontainer.pickling.source_code import definition_in, definition_of
from jobcontainer.pickling.source_importer import LocalModule

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence

    from jobcontainer.jobfile.format import Header

PYTHON: Final = platform.python_version()

_UNNAMED_MODULES: Final = MAIN | {"builtins"}
_LONGEST_TEXT: Final = 2000  # of a name or version
_LATEST: Final = 1e12  # seconds since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """What the writer of a file said of it; only if ``signed`` is it known to be true.

    Attributes:
        kind: ``process``, ``result``, ``error``, ``checkpoint``, ``object``; or ``pickle``, a plain one that says no
            more.
        class_name: the qualified name of the object's class, or of the function that it calls.
        source: the definition of that class or function, as it was in the notebook; only of a signed file, as the text
            of a foreign one proves nothing of the code that is in it.
        created: seconds since the epoch.
        python: the version of Python that wrote it, for example ``3.12.4``.
        cloudpickle: the version of cloudpickle that wrote it.
        by_value: whether there is code in it, which only the same minor version of Python can load.
        modules: names of the installed modules that it imports.
        packages: the distribution of each of their packages.
        local_modules: names of the modules beside the notebook that it imports.
        size: of the file in bytes, without the large data that lies beside it.
        buffers: the sizes of its out-of-band buffers in bytes.
        signed: whether it is signed by this user's key.
        inputs: the jobs whose results it needs.
        other_versions: the distributions of which this environment has another version: then, and here (None for none).
    """

    kind: str
    class_name: str = ""
    source: str = ""
    created: float = 0.0
    python: str = ""
    cloudpickle: str = ""
    by_value: bool = False
    modules: tuple[str, ...] = ()
    packages: Mapping[str, Distribution] = field(default_factory=dict)
    local_modules: tuple[str, ...] = ()
    size: int = 0
    buffers: tuple[int, ...] = ()
    signed: bool = False
    inputs: tuple[InputReference, ...] = ()
    other_versions: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)


def header_fields(
    obj: object, kind: str, *, by_value: bool, modules: Collection[str], local_modules: Sequence[LocalModule]
) -> dict[str, Any]:
    """Return what goes into the header of an object's file, as plain data."""
    definition = definition_of(obj)
    installed = package_versions.installed_modules(modules) if modules else []
    fields = {
        "kind": kind,
        "class": definition.__qualname__,
        "module": "" if definition.__module__ in _UNNAMED_MODULES else str(definition.__module__),
        "created": time.time(),
        "python": PYTHON,
        "cloudpickle": cloudpickle_internals.VERSION,
        "by_value": by_value,
        "modules": installed,
        "packages": package_versions.distributions_of(installed) if installed else {},
        "local_modules": local_modules,
    }
    if kind == "process":
        fields |= {"main": job_main.describe(), "imports": _imports_of(definition, local_modules)}
    return fields


def _imports_of(definition: object, local_modules: Sequence[LocalModule]) -> list[str]:
    """Return what a process imports first, without the modules that come with it."""
    run = definition if isinstance(definition, types.FunctionType) else inspect.getattr_static(definition, "run", None)
    beside = {module.name for module in local_modules}
    return [name for name in imported_first(run) if name not in beside]


def local_modules_in(file: FileReader, header: Header) -> list[LocalModule]:
    """Return the modules beside the notebook that a header names.

    Raises:
        CorruptFileError: they are not written as they should be.
    """
    try:
        return [
            LocalModule(_text(name), _text(module_file), None if path is None else list(map(_text, path)))
            for name, module_file, path in header.fields.get("local_modules", ())
        ]
    except (TypeError, ValueError) as error:
        raise file.corrupt("its header can't be read") from error


def installed_modules_named_in(file_path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Return the installed modules that a job file of this user refers to; of any other file, none.

    Returns:
        Those that the process that wrote the file had loaded, and those that the job imports before anything else.

    Raises:
        OSError: it can't be opened.
        JobFileError: it is damaged.
    """
    with FileReader(file_path) as file:
        if not file.is_job_file or not signing.is_signed(
            signing.Purpose.JOB_FILE, file.signed, file.signature, by_former_keys=True
        ):
            return [], []
        fields = file.header().fields
        try:
            loaded, imported = (list(map(_text, fields.get(name, ()))) for name in ("modules", "imports"))
        except TypeError as error:
            raise file.corrupt("its header can't be read") from error
    return loaded, package_versions.installed_modules(imported)


def packages_in(file: FileReader, header: Header) -> dict[str, Distribution]:
    """Return the packages that a header names, with cloudpickle where there is code in the stream."""
    fields = header.fields
    try:
        packages = {
            _text(top): Distribution(_text(name), _text(version)) for top, (name, version) in fields["packages"].items()
        }
        if fields["by_value"]:
            packages["cloudpickle"] = Distribution("cloudpickle", _text(fields["cloudpickle"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise file.corrupt("its header can't be read") from error
    return packages


def read_info(file: FileReader) -> FileInfo:
    """Return what a job file says of itself.

    Raises:
        CorruptFileError: a field is missing, or is not of the type and size that it should be.
    """
    header = file.header()
    fields = header.fields
    signed = signing.is_signed(signing.Purpose.JOB_FILE, file.signed, file.signature)
    packages, local_modules = packages_in(file, header), local_modules_in(file, header)
    try:
        return FileInfo(
            kind=_text(fields["kind"]),
            class_name=".".join(filter(None, (_text(fields["module"]), _text(fields["class"])))),
            source=definition_in(file.sources(header), _text(fields["class"]), _file_of(fields, local_modules))
            if signed
            else "",
            created=_moment(fields["created"]),
            python=_text(fields["python"]),
            cloudpickle=_text(fields["cloudpickle"]),
            by_value=bool(fields["by_value"]),
            modules=tuple(map(_text, fields["modules"])),
            packages=packages,
            local_modules=tuple(module.name for module in local_modules),
            size=file.status.st_size,
            buffers=tuple(buffer.size for buffer in header.buffers),
            signed=signed,
            inputs=tuple(references_in(fields.get("inputs", ()))),
            other_versions=package_versions.other_versions(packages),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise file.corrupt("its header can't be read") from error


def _file_of(fields: Mapping[str, Any], local_modules: Sequence[LocalModule]) -> str:
    return next((module.file for module in local_modules if module.name == fields["module"]), "")


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise TypeError(f"not a short text: {type(value).__name__}")
    return value


def _moment(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise ValueError(f"not a time: {type(value).__name__}")
    return float(value)
