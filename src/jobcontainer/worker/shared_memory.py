"""Memory that a job holds in files: memfds, and files in ``/dev/shm``; mapped or not, open or closed.

A process's RSS has only the pages that it maps and has touched. What was written to such a file takes memory as well,
also when its writer has closed it. A memfd is found by the descriptors of the job's processes. A file in ``/dev/shm``
is the job's if it was not there when the job began, and if one of the job's processes had it open or mapped at some
look, or its name says so; from then on it counts until it is deleted. Who made a file
that no look has seen with anybody is not known: it counts for no job, as none must be ended for what another does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_FOLDER: Final = "/dev/shm"  # noqa: S108 -- where the kernel's shared memory has names
_DEPTH: Final = 2  # of the folders that are looked into; joblib makes one
_ALL: Final = re.compile(rb"^Shmem:\s+(\d+) kB", re.MULTILINE)
_JOBLIB: Final = re.compile(r"(?:joblib_memmapping_folder_|sem\.loky-)(\d+)[-_]")  # and the process that made it
_MAPPED: Final = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) ", re.MULTILINE)
_MAPPED_SHARE: Final = re.compile(_MAPPED.pattern + rb".*?^Pss:\s+(\d+) kB", re.MULTILINE | re.DOTALL)

File = tuple[int, int]
"""Device and inode."""


def of_machine() -> int:
    """Return the bytes of shared memory of all processes of this machine, and in all its files; 0 where unknown."""
    with contextlib.suppress(OSError):  # not on Linux
        return sum(map(int, _ALL.findall(Path("/proc/meminfo").read_bytes()))) * 1024
    return 0


class SharedFiles:
    """The files that hold memory of one job; made before the job begins.

    Attributes:
        of_machine_before: what :func:`of_machine` was then.
    """

    def __init__(self) -> None:
        self.of_machine_before = of_machine()
        self._others = {entry.inode() for entry in _named()}  # read with the names, in less than a microsecond each
        self._ours: set[int] = set()

    def sizes(self, pids: Collection[int]) -> dict[File, int]:
        """Return what the files of the job's processes take, in bytes."""
        memfds, named = _devices()
        sizes: dict[File, int] = {}
        for pid in pids:
            for found in _opened_by(pid):
                if found.st_dev == memfds or (found.st_dev == named and found.st_ino not in self._others):
                    sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
            self._ours |= {inode for device, inode in _mapped_by(pid) if device == named}
        self._ours |= {inode for device, inode in sizes if device == named}
        self._ours -= self._others
        for entry in _named():
            made_by = _JOBLIB.match(entry.path, len(_FOLDER) + 1)
            if entry.inode() in self._ours or (made_by and int(made_by[1]) in pids):
                with contextlib.suppress(OSError):  # it was deleted
                    sizes[named, entry.inode()] = entry.stat(follow_symlinks=False).st_blocks * 512
        return sizes


def remove_left_by(pids: Collection[int]) -> None:
    """Remove what joblib has left in ``/dev/shm`` of processes that have ended: arrays, and semaphores.

    Its tracker does so, unless it is killed as well, or has no time.
    """
    with contextlib.suppress(OSError), os.scandir(_FOLDER) as entries:
        for entry in entries:
            made_by = _JOBLIB.match(entry.name)
            if made_by and int(made_by[1]) in pids and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink(missing_ok=True)


def mapped_share(pids: Collection[int], files: Collection[File]) -> int:
    """Return how much of some files processes map and have touched, in bytes; a page shared by n counts 1/n."""
    share = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for major, minor, inode, size in _MAPPED_SHARE.findall(Path(f"/proc/{pid}/smaps").read_bytes()):
                share += int(size) * 1024 * ((os.makedev(int(major, 16), int(minor, 16)), int(inode)) in files)
    return share


@functools.cache
def _devices() -> tuple[int, int]:
    """Return the devices of memfds, and of ``/dev/shm``; -1 where there is none that is memory."""
    if sys.platform != "linux":
        return -1, -1
    memfds = named = -1
    with contextlib.suppress(OSError):
        memfd = os.memfd_create("jobcontainer")
        memfds = os.fstat(memfd).st_dev
        os.close(memfd)
    with contextlib.suppress(OSError):
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
        if [_FOLDER, "tmpfs"] in mounts:
            named = Path(_FOLDER).stat().st_dev
    return memfds, named


def _opened_by(pid: int) -> Iterator[os.stat_result]:
    """Yield what each descriptor of a process leads to, if that is a file."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 -- a Path takes three times as long
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{name}")  # noqa: PTH116 -- as above
                if stat.S_ISREG(found.st_mode):
                    yield found


def _mapped_by(pid: int) -> Iterator[File]:
    with contextlib.suppress(OSError):
        for major, minor, inode in _MAPPED.findall(Path(f"/proc/{pid}/maps").read_bytes()):
            yield os.makedev(int(major, 16), int(minor, 16)), int(inode)


def _named(folder: str = _FOLDER, depth: int = _DEPTH) -> Iterator[os.DirEntry[str]]:
    """Yield the files in ``/dev/shm``."""
    if _devices()[1] < 0:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield entry
            elif depth > 1 and entry.is_dir(follow_symlinks=False):
                yield from _named(entry.path, depth - 1)
