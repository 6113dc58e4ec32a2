"""Whether a file stands still, and whether its times will tell when it no longer does. Only Linux can say.

Two means. A *read lease* is granted only while nobody has the file open for writing or mapped as shared and writable,
and until it is given back the kernel holds up whoever opens or truncates it. The *time of the last status change*
can't be set: the kernel takes it from its coarse clock, which moves on every 1 to 10 ms, at each write, truncation and
link. So if that clock is beyond a file's time while a lease is held, then every write that comes after has a later one.

That holds for the file systems named here, which count nanoseconds. Where they cut the time, as ext4 with small inodes
does, its zeros tell. Nothing is said of other file systems: those of a network keep times of another machine's clock,
and report them late; and tmpfs does not tell of a store through a shared mapping to a page that was read through it.

What the times do not tell, measured on Linux 6.18: a store through a shared mapping is told when it is the first to a
page since that page was last written back, and a later store to the page is not. No lease is granted while there is
such a mapping, so both must come after it. Nor does anything tell of bytes that are changed beneath the file system, on
the device.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from jobcontainer.jobfile.mounts import file_system

if TYPE_CHECKING:
    from collections.abc import Iterator

_TELLING: Final = frozenset({"btrfs", "ext4", "f2fs", "overlay", "xfs"})
_COARSE_CLOCK: Final = 5  # CLOCK_REALTIME_COARSE, which the time module has no name for
_COARSEST_STEP: Final = 1_000_000  # nanoseconds; from this on, times have zeros that tell of it
_FINER_STEP: Final = 1_000
_LONGEST_WAIT: Final = 50_000_000
_PAUSE: Final = 0.0005


class Written(NamedTuple):
    """A file as it was written, with digests that were taken of what lies in it.

    Attributes:
        path: where it is now.
        status: before it got there.
        since: when it got there, as :func:`clock` told.
        signature: as it stands in the file.
    """

    path: str
    status: os.stat_result
    since: int
    signature: bytes

    def is_of(self, status: os.stat_result) -> bool:
        """Tell whether a status is of this file, with what was written; a rename does not count as a change."""
        now, then = (
            (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_nlink) for one in (status, self.status)
        )
        return now == then


def times_tell(descriptor: int) -> bool:
    """Tell whether the times of an open file show each change, once :func:`settled` has given them."""
    return file_system(descriptor) in _TELLING


def clock() -> int:
    """Return the nanoseconds of the clock that changes are dated by; zero where there is none."""
    return time.clock_gettime_ns(_COARSE_CLOCK) if sys.platform == "linux" else 0


@contextlib.contextmanager
def held_still(descriptor: int) -> Iterator[bool]:
    """Hold up everybody who would change a file.

    Args:
        descriptor: of the file, opened for reading.

    Yields:
        Whether that could be had: nobody has it open for writing, and its file system knows leases.
    """
    if sys.platform != "linux":
        yield False
        return
    import fcntl  # noqa: PLC0415 -- not on Windows

    try:
        # Whoever is held up is told to us by a signal. The usual one would end the process; this one is passed over.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # the kernel took it back: whoever was held up waited for too long
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def settled(descriptor: int, since: int) -> os.stat_result | None:
    """Wait until any later change of a file would get a later time, which takes some milliseconds.

    Args:
        descriptor: of the file, on a file system whose times tell; it is held still.
        since: what :func:`clock` gave before the last change.

    Returns:
        The file's status; None where its times were cut, or come from another clock.
    """
    status = os.fstat(descriptor)
    latest = max(status.st_ctime_ns, status.st_mtime_ns)
    if not since <= status.st_ctime_ns or latest > time.time_ns() or status.st_ctime_ns % _COARSEST_STEP == 0:
        return None
    until = time.monotonic_ns() + _LONGEST_WAIT
    while clock() <= latest + _FINER_STEP:
        if time.monotonic_ns() > until:  # the clock was set back
            return None
        time.sleep(_PAUSE)
    return status
