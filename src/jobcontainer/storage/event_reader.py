"""Reading a job's events on from where the last look stopped, a bounded amount however many there are.

A job that stays within its limits writes about 100 MB of outputs. One that does not can fill its file with anything;
that costs its own outputs, and not the time or memory of whoever looks at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobcontainer.events import Event
    from jobcontainer.storage.folder import JobFolder

MOST_READ: Final = 128 * 2**20
"""Bytes of events that whoever shows a job reads in all."""

OF_ONE: Final = 1000
"""Bytes that an event counts as besides its own: to decode a short one takes as long as to read so many."""

_END: Final = 2**16  # bytes of the end of a file that is larger


class EventReader:
    """Reads every event of a job once; belongs to one thread, and keeps no file open.

    Args:
        folder: of the job.
        most: bytes that are read in all, as they count; of more, only what stands at the end of the file is.

    Attributes:
        has_skipped: whether there were more events than are read, so that some were passed over.

    Example:
        >>> from jobcontainer.storage.folder import JobFolder
        >>> list(EventReader(JobFolder("no such folder")).read())
        []
    """

    def __init__(self, folder: JobFolder, most: float = MOST_READ) -> None:
        self.has_skipped = False
        self._folder, self._most = folder, most
        self._offset = self._read = 0
        self._torn = 0, 0  # size of the file, and offset of a last line of it that was not whole

    def read(self) -> Iterator[Event]:
        """Go through the events that were added since the last call, some of them where there are many."""
        size = self._folder.events_size()
        if size < self._offset:  # the job has written its file anew
            self._offset = 0
        if self._read >= self._most and size - self._offset > _END:
            self.has_skipped = True
            self._offset = size - _END
        if size > self._offset and (size, self._offset) != self._torn:
            events, following = self._folder.read_events(self._offset)
            if following == self._offset:
                self._torn = size, following
            self._read += following - self._offset + OF_ONE * len(events)
            self._offset = following
            yield from events

    def read_all(self) -> Iterator[Event]:
        """Go through the events that were added since the last call, to the last one that is there."""
        before = -1
        while before != self._offset:
            before = self._offset
            yield from self.read()
