"""RepeatedBlobs: large data that several job files share, written and hashed once, and kept as it was then."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from jobcontainer.errors import CorruptFileError
from jobcontainer.jobfile.blobs import address_of, load_blob

if TYPE_CHECKING:
    from pathlib import Path

    from jobcontainer.jobfile.blobs import BlobStore
    from jobcontainer.jobfile.format import Buffer

_MOST_MAPPED: Final = 64  # each takes a descriptor; of more, this process keeps copies


class RepeatedBlobs:
    """Puts large data beside one job file after another: what was kept by :meth:`keep` by a link, without a look at it.

    Attributes:
        blobs: where the data of the next file goes; None for a file that holds everything itself.
        written: see :class:`~jobcontainer.jobfile.blobs.BlobStore`.
    """

    def __init__(self) -> None:
        self.blobs: BlobStore | None = None
        self._added: dict[tuple[int, int], Buffer] = {}
        self._kept: dict[tuple[int, int], Buffer] = {}

    @property
    def written(self) -> int:
        """How many bytes were written so far, and not found to be there."""
        return self.blobs.written if self.blobs is not None else 0

    def add(self, view: memoryview, file: Path) -> Buffer:
        """See that a blob with this content lies beside a file that is about to be written.

        Raises:
            OSError: it can't be written.
        """
        if self.blobs is None:
            raise RuntimeError("There is no place for large data.")
        key = _key(view)
        known = self._kept.get(key)
        added = (known and self.blobs.link(known, file)) or self.blobs.add(view, file)
        self._added[key] = added
        return added

    def link(self, blob: Buffer, file: Path) -> Buffer | None:
        """Link a blob beside a job file, where it is there."""
        return self.blobs.link(blob, file) if self.blobs is not None else None

    def forget_addresses(self) -> None:
        """From now on, take no data for the same because it is at the same address: code runs that may change it."""
        if self.blobs is not None:
            self.blobs.forget_addresses()

    def keep(self, views: list[memoryview], file: str | os.PathLike[str]) -> list[memoryview]:
        """Return the data of a file that was just written, as it is in there: what becomes of the views is no matter.

        Args:
            views: buffers that are in the file.
            file: the file.
        """
        kept = []
        for view in views:
            blob, found = self._added.get(_key(view)), None
            if blob is not None and len(self._kept) < _MOST_MAPPED:
                with suppress(CorruptFileError, OSError):  # the folder is gone already
                    found = load_blob(os.fspath(file), blob, vouched=True)
            found = memoryview(bytes(view)) if found is None else found
            if blob is not None:
                self._kept[_key(found)] = blob
            kept.append(found)
        return kept

    def keep_constant(self, data: bytes) -> None:
        """Note that data that was just written can't change."""
        view = memoryview(data)
        if (blob := self._added.get(_key(view))) is not None:
            self._kept[_key(view)] = blob


def _key(view: memoryview) -> tuple[int, int]:
    return address_of(view), len(view)
