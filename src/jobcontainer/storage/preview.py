"""The preview of a job's end: what a card shows of a result or an exception without loading either.

The job makes it, where its classes are, and writes it beside the result file as one small piece of JSON. To whoever
reads it, it is data: it is opened without waiting, read up to a size, and anything else than a preview is no preview.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.storage.regular_file import read_part

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_TEXT: Final = 20_000
"""Characters of the text of a result, and of a traceback, that are kept."""

LARGEST: Final = 4_000_000
"""Bytes of the whole file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What is shown of a result, or of what ``run()`` raised.

    Attributes:
        type_name: the qualified name of the type of a result.
        size: of the result file in bytes.
        data: MIME type to content, as in ``display_data``; a result has at least its ``text/plain``.
        metadata: as in ``display_data``.
        traceback: of an exception, as printed in the job; its end, where it is long.
        problem: what went wrong when this was made, in a sentence; empty where all went well.
    """

    type_name: str = ""
    size: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    traceback: str = ""
    problem: str = ""


def write_preview(path: Path, preview: Preview) -> None:
    """Write a preview, whole or not at all; of one that is too large, the text only.

    Raises:
        OSError: it can't be written.
        ValueError: JSON can't hold what is in it, or TypeError or RecursionError.
    """
    content = json.dumps(asdict(preview), allow_nan=False).encode()
    if len(content) > LARGEST:
        text = {mime: form for mime, form in preview.data.items() if mime == "text/plain"}
        content = json.dumps(asdict(replace(preview, data=text, metadata={}))).encode()
    write_whole(path, content)


def read_preview(path: Path) -> Preview | None:
    """Read a preview; None where there is none, or something else is in its place."""
    try:
        found = json.loads(preview_bytes(path))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    defaults = asdict(Preview())
    return Preview(**{name: found[name] for name in defaults if type(found.get(name)) is type(defaults[name])})


def preview_bytes(path: Path) -> bytes:
    """Read the file of a preview, if it is a regular file that is not too large; nothing of any other.

    Raises:
        OSError: it can't be read.
    """
    content = read_part(path, 0, LARGEST + 1)
    return content if len(content) <= LARGEST else b""
