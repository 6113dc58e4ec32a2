"""Settings that are code, as functions of the notebook are: signed, in texts that JSON can carry."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.jobfile import signing
from jobcontainer.pickling import unpickler
from jobcontainer.pickling.pickler import Pickler

if TYPE_CHECKING:
    from collections.abc import Sequence

_LARGEST: Final = 100_000


def packed(obj: Any) -> list[str]:
    """Return an object of the notebook as two texts: its code, and the signature of that.

    Raises:
        TypeError: it can't be pickled, or holds something large.
    """
    stream = io.BytesIO()
    pickler = Pickler(stream)
    try:
        pickler.dump(obj)
        signature = signing.sign(signing.Purpose.SETTING, stream.getvalue())
    except Exception as error:
        raise TypeError("it can't be pickled") from error
    if pickler.buffers or stream.tell() > _LARGEST:
        raise TypeError("it holds something large")
    return [base64.b64encode(part).decode() for part in (stream.getvalue(), signature)]


def unpacked(parts: Sequence[str]) -> Any:
    """Return an object that was packed; its globals are its own, as nothing of the process is loaded yet.

    Raises:
        TypeError: it is not signed by a key of this user.
    """
    stream, signature = map(base64.b64decode, parts)
    if not signing.is_signed(signing.Purpose.SETTING, stream, signature):
        raise TypeError("it is not signed")
    return unpickler.load(stream, anew=True)
