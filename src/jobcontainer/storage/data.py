"""SharedData: the ``data`` folder of a store, where large data is once for each content.

A file there is called by the digest of its content. A job folder that needs it has a hard link to it, beside the job
file that refers to it (:mod:`jobcontainer.jobfile.blobs`). Nothing else is recorded: a file lives while a folder links
to it, and the next :meth:`SharedData.remove_unused` removes those that have no other link, whoever deleted the folders
and whatever was killed meanwhile.

Any number of processes write here at the same time, without locks between them:

- A new file is written under a temporary name, then linked to its own. So it appears whole or not at all.
- ``os.link`` into the job folder is the test whether a file is there. If it was removed in between, it is written anew;
  once linked, it can't be lost.
- A file that this process has not written is hashed before anything refers to it. One whose content is not what its
  name says is taken out and written anew; folders that link to it notice when they load it.
- The temporary file is locked while it is written; one that nobody locks is left over by a process that was killed.

Where a file system has no hard links, each job folder gets a copy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobcontainer.jobfile.atomic import temporary_beside
from jobcontainer.jobfile.blobs import address_of, blob_path, is_whole, load_blob, remember_blob, write_blob
from jobcontainer.jobfile.format import Buffer, digest_of
from jobcontainer.jobfile.identity import FileIdentity
from jobcontainer.jobfile.open_file import open_file
from jobcontainer.jobfile.reader import blobs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jobcontainer.storage.store_folder import StoreFolder

_ATTEMPTS: Final = 5  # each fails only if a prune, or a deletion by hand, comes in between
_HOUR: Final = 3600.0
_OURS: Final = re.compile(r"[0-9a-f]{64}|\.blob\.[0-9a-f]{12}")  # digests, and temporary names
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class SharedData:
    """The large data of a store, as one submission or one job sees it; not for several threads at the same time.

    Args:
        store: the store.
        remembers: whether data at the same address is taken for the same while processes are written one after another.
            True only where no code of the user runs in between that may change it;
            see :meth:`forget_addresses`.

    Attributes:
        written: how many bytes were written so far, and not found to be there.
        copies: whether the file system turned out to have no hard links.
        added: the digests of what was put beside files so far.

    Example:
        >>> SharedData(store).add(memoryview(array).cast("B"), folder.process_file)      # doctest: +SKIP
        Buffer(size=134217728, digest='7c1f...', identity=FileIdentity(...))
    """

    def __init__(self, store: StoreFolder, *, remembers: bool = False) -> None:
        self._folder = store.data_folder
        self._remembers = remembers
        self._before: dict[tuple[int, int], tuple[memoryview, str]] = {}
        self._now: dict[tuple[int, int], tuple[memoryview, str]] = {}
        self.written = 0
        self.copies = False
        self.added: set[str] = set()

    def next_process(self) -> None:
        """Begin with another process: what only those before the last one had is forgotten, and its memory let go."""
        self._before, self._now = self._now, {}

    def add(self, view: memoryview, file: Path) -> Buffer:
        """See that a blob with this content lies beside a job file: a link to the one that the store has, or gets.

        Raises:
            OSError: it can't be written; a part of it is nowhere.
        """
        digest = self._digest_of(view)
        self.added.add(digest)
        for _ in range(_ATTEMPTS):
            added = self._linked(len(view), digest, file) or self._written(view, file)
            if added is not None:
                return added
        raise OSError(f"{self._folder} or {file.parent} loses what is written to it: does something else delete it?")

    def forget_addresses(self) -> None:
        """From now on, take no data for the same because it is at the same address: code runs that may change it."""
        self._remembers = False
        self._before, self._now = {}, {}

    def link(self, blob: Buffer, file: Path) -> Buffer | None:
        """Link a blob beside a job file; None where it is not there, with the content that its digest says."""
        self.added.add(blob.digest)
        return self._linked(blob.size, blob.digest, file)

    def adopt(self, received: Path, digest: str, file: Path) -> None:
        """Make a file that came from elsewhere, into the folder of a job file, a blob of that.

        Raises:
            OSError: its content is not what its digest says.
        """
        self.added.add(digest)
        received.chmod(0o400)
        if is_whole(received, digest) is None:
            raise OSError(f"{received} was altered on its way here. Submit the job again.")
        link = blob_path(file, digest)
        received.replace(link)
        with contextlib.suppress(OSError):  # it is there by now, or there are no hard links
            _make(self._folder)
            (self._folder / digest).hardlink_to(link)

    def take_over(self, source: Path, file: Path) -> None:
        """Give a job file the blobs of another one whose content it has; by links, or else copies.

        Raises:
            CorruptFileError: one is missing, or was altered.
        """
        for blob in blobs_of(source).values():
            if self.link(blob, file):
                continue
            theirs = blob_path(source, blob.digest)
            with contextlib.suppress(OSError):  # it is on another file system
                if is_whole(theirs, blob.digest) is not None:  # else it is missing, or another user can change it
                    os.link(theirs, blob_path(file, blob.digest))
                    continue
            self.add(load_blob(os.fspath(source), blob, vouched=False), file)

    def remove_if_unused(self, digests: Iterable[str]) -> None:
        """Remove those of these files that no job folder links to, without a look at any other."""
        for digest in digests:
            with contextlib.suppress(OSError):
                if (self._folder / digest).lstat().st_nlink == 1:
                    (self._folder / digest).unlink()

    def remove_unused(self) -> None:
        """Remove what no job folder links to, and what killed processes have left; files of other names stay."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._folder) as entries:
            # Temporary files first: they are links too.
            ours = (entry for entry in entries if _OURS.fullmatch(entry.name))
            for entry in sorted(ours, key=lambda entry: not entry.name.startswith(".")):
                with contextlib.suppress(OSError):
                    is_used = (
                        _is_being_written(entry.path)
                        if entry.name.startswith(".")
                        else entry.stat(follow_symlinks=False).st_nlink > 1
                    )
                    if not is_used:
                        Path(entry.path).unlink()

    def _digest_of(self, view: memoryview) -> str:
        if not self._remembers:
            return digest_of(view)
        key = address_of(view), len(view)
        if key not in self._now:
            # The view keeps the memory from becoming that of something else.
            self._now[key] = self._before.get(key) or (view, digest_of(view))
        return self._now[key][1]

    def _linked(self, size: int, digest: str, file: Path) -> Buffer | None:
        """Link to a blob that is there; None where there is none, or not one with that content."""
        blob, link = self._folder / digest, blob_path(file, digest)
        try:
            os.link(blob, link)
        except FileExistsError:  # the file has it twice, or an earlier attempt had it
            blob = link
        except OSError as error:
            if error.errno == errno.EMLINK:  # as many links as the file system allows: begin with another file
                blob.unlink(missing_ok=True)
            self.copies |= error.errno in _NO_LINKS
            return None
        found = is_whole(link, digest)
        if found is None:
            blob.unlink(missing_ok=True)
            link.unlink(missing_ok=True)
        return found and Buffer(size, digest, found)

    def _written(self, view: memoryview, file: Path) -> Buffer | None:
        """Write a blob, and link to it; None where it was removed in between, or can't be linked to."""
        with _temporary_file(file.parent if self.copies else self._folder) as (descriptor, path):
            digest = write_blob(descriptor, view)
            os.fchmod(descriptor, 0o400)
            identity = FileIdentity.of(descriptor)
            remember_blob(identity, digest)
            self.written += len(view)
            if self.copies:
                path.replace(blob_path(file, digest))
                return Buffer(len(view), digest, identity)
            try:
                os.link(path, self._folder / digest)
            except FileExistsError:  # another process was faster
                pass
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self.copies = True
                return None
            return self._linked(len(view), digest, file)


@contextlib.contextmanager
def _temporary_file(folder: Path) -> Iterator[tuple[int, Path]]:
    """Make a file, locked as long as the block lasts, and removed then, unless it has another name by then."""
    while True:
        path = temporary_beside(folder / "blob")
        try:
            file = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except (FileNotFoundError, NotADirectoryError):
            _make(folder)
            continue
        with contextlib.suppress(OSError):  # file systems that have no locks
            fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file.fileno()).st_nlink:  # else it was taken for a leftover before it was locked
            break
        file.close()
    try:
        with file:
            yield file.fileno(), path
    finally:
        path.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)  # another process may make it at the same time
    except FileExistsError as error:
        reason = f"{folder} is where a store keeps large data, and it is no folder. Move it away, and submit again."
        raise NotADirectoryError(errno.ENOTDIR, reason) from error


def _is_being_written(path: str) -> bool:
    """Return whether a process writes a temporary file; where none can be locked, whether one did in the last hour."""
    with open_file(path, os.O_RDONLY | os.O_NONBLOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return time.time() - os.fstat(file.fileno()).st_mtime < _HOUR
    return False
