r"""Plain pickles, made by others: loaded only on purpose, and signed without being changed.

A pickle ends with its STOP opcode, and ``pickle.load`` ignores what stands behind it. So a signature can stand there:
``pickle.load`` still reads the file, and here it counts as this user's own::

    the pickle
    16 bytes  "\njobcontainer-1\n"
    32 bytes  signature of the BLAKE3 digest of everything before, for the purpose "plain pickle"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import CorruptFileError, UntrustedFileError
from jobcontainer.jobfile import signing
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.jobfile.format import SIGNATURE_SIZE, Digest
from jobcontainer.jobfile.signing import Purpose
from jobcontainer.pickling.unpickler import load_foreign

if TYPE_CHECKING:
    from jobcontainer.jobfile.reader import FileReader

_MARK: Final = b"\njobcontainer-1\n"
_TRAILER_SIZE: Final = len(_MARK) + SIGNATURE_SIZE
_BEGINNINGS: Final = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))


def load_plain(file: FileReader, *, trusted: bool, by_former_keys: bool = False) -> Any:
    """Load a plain pickle, if it is signed or trusted.

    Args:
        file: the file.
        trusted: load it although it is not signed by this user's key.
        by_former_keys: whether keys count that this process has used before the present one.

    Raises:
        UntrustedFileError: it is neither.
        CorruptFileError: it is no pickle, or not a whole one.
    """
    content = _content(file) if trusted else signed_content(file, by_former_keys=by_former_keys)
    file.close()
    try:
        return load_foreign(content)
    except (ImportError, AttributeError) as error:
        error.add_note(f"{file.path} needs that. Install or import it where the file is loaded.")
        raise
    except Exception as error:
        raise CorruptFileError(
            f"{file.path} is neither a job file nor a pickle that can be loaded ({type(error).__name__}: {error}). "
            "Make or copy it again."
        ) from error


def sign_plain(file: FileReader) -> None:
    """Sign a plain pickle as this user's own, whole or not at all.

    Raises:
        CorruptFileError: it does not look like a pickle.
        OSError: it can't be written; the old file is as it was.
    """
    _check_beginning(file)
    content = _content(file)
    write_whole(file.path, content + _MARK + signing.sign(Purpose.PLAIN_PICKLE, Digest(content).digest()))


def _content(file: FileReader) -> bytes:
    """Read the pickle without the signature that may stand behind it."""
    return bytes(file.read(0, file.status.st_size - (_TRAILER_SIZE if _signature(file) else 0)))


def signed_content(file: FileReader, *, by_former_keys: bool = False) -> bytes:
    """Read a plain pickle that is signed by this user's key.

    Raises:
        UntrustedFileError: it is not.
        CorruptFileError: it does not even look like a pickle.
    """
    signature = _signature(file)
    if signature:
        content = _content(file)
        if signing.is_signed(Purpose.PLAIN_PICKLE, Digest(content).digest(), signature, by_former_keys=by_former_keys):
            return content
    _check_beginning(file)
    raise UntrustedFileError(
        f"{file.path} is a plain pickle that is not signed with your key, and loading it would run code that is in it. "
        f"If you trust who made it: deserialize_from_file(..., trusted=True), or once `jobcontainer trust {file.path}`."
    )


def _signature(file: FileReader) -> bytes:
    """Read the signature behind a pickle; empty where there is none."""
    start = file.status.st_size - _TRAILER_SIZE
    trailer = bytes(file.read(start, _TRAILER_SIZE)) if start > 0 else b""
    return trailer[len(_MARK) :] if trailer.startswith(_MARK) else b""


def _check_beginning(file: FileReader) -> None:
    if not bytes(file.read(0, min(2, file.status.st_size))).startswith(_BEGINNINGS):
        raise CorruptFileError(f"{file.path} is no job file. Serializer.serialize_to_file makes one.")
