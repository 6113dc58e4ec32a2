"""StoreFolder: the folder that holds the job folders; the only module that knows the names of what else is there."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.jobfile.open_file import open_folder
from jobcontainer.jobfile.ownership import why_foreign_folder
from jobcontainer.process import working_directory
from jobcontainer.storage.folder import RECORD_NAME, JobFolder, size_on_disk
from jobcontainer.storage.record import is_job_id, new_job_id
from jobcontainer.storage.regular_file import status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_CANCEL: Final = "cancel"
_DATA: Final = "data"
_KEYS: Final = "keys"


class StoreFolder:
    """The folder that holds the job folders, and their journal."""

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()

    @property
    def data_folder(self) -> Path:
        """Where large data is, once for each content; see :mod:`jobcontainer.storage.data`."""
        return self.path / _DATA

    @property
    def keys_folder(self) -> Path:
        """Where the jobs of each key stand; see :mod:`jobcontainer.storage.keys`."""
        return self.path / _KEYS

    @property
    def journal_file(self) -> Path:
        """The index: a line for each job submitted and each that ended."""
        return self.path / "journal.jsonl"

    @property
    def cancel_file(self) -> Path:
        """Touched whenever a process asks for the end of another's job, so that one look finds all requests."""
        return self.path / _CANCEL

    @property
    def host_lock_file(self) -> Path:
        """Locked by the host of the detached jobs."""
        return self.path / "host.lock"

    @property
    def host_socket_file(self) -> Path:
        """Where the host takes requests."""
        return self.path / "host.sock"

    @property
    def host_log_file(self) -> Path:
        """What the host has to complain of."""
        return self.path / "host.log"

    def create(self) -> None:
        """Make the folder for its owner alone, kept out of version control, if it is not there.

        Raises:
            NotADirectoryError: the path is a file.
            PermissionError: it can't be written to, or another user can change it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"The job store {self.path} is a file. Give another path, or set JOBCONTAINER_HOME."
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            why = self.why_foreign()
            ignore = self.path / ".gitignore"
            if not why and not ignore.exists():
                write_whole(ignore, b"*\n")
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise
            raise type(error)(
                error.errno,
                f"The job store {self.path} can't be written to ({error.strerror}). "
                "Give another path, or set JOBCONTAINER_HOME.",
            ) from error
        if why:
            raise PermissionError(why)

    def why_foreign(self) -> str:
        """Return, in a sentence, why the store is not this user's own and what to do; empty where it is.

        A store that is not may be read: its jobs, logs and outputs are data, and a result is loaded only if it is
        signed with a key of this user's.

        Raises:
            OSError: there is no such folder.
        """
        what = why_foreign_folder(self.path)
        if not what:
            return ""
        own = "" if what.startswith("belongs") else f"chmod go-w {self.path} if they have put nothing there, or "
        return (
            f"The job store {self.path} {what}: its jobs can be looked at, but nothing is written to it or run from "
            f"it. To submit, cancel or prune jobs, {own}set JOBCONTAINER_HOME to a folder of your own."
        )

    def check_own(self) -> None:
        """Raise unless the store is this user's own.

        Raises:
            PermissionError: it is not; the message says what to do.
            FileNotFoundError: there is no such folder.
        """
        if why := self.why_foreign():
            raise PermissionError(why)

    def is_own(self) -> bool:
        """Return whether the store is there, and is this user's own."""
        with contextlib.suppress(OSError):
            return not self.why_foreign()
        return False

    def new_job(self, name: str) -> JobFolder:
        """Make the folder of a new job.

        Raises:
            PermissionError: the store is not this user's own; the message says what to do.
            FileNotFoundError: there is no store.
        """
        self.check_own()
        folder = self.job(new_job_id(name))
        folder.create()
        return folder

    def job(self, job_id: str) -> JobFolder:
        """Name the folder of a job; nothing is read or made."""
        return JobFolder(f"{self.path}{os.sep}{job_id}")

    def folders(self) -> Iterator[JobFolder]:
        """Go through all folders that lie here as those of jobs do, whether they hold a job or not, sorted by name."""
        names: list[str] = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), open_folder(self.path) as store:
            names += [entry.name for entry in os.scandir(store) if entry.is_dir(follow_symlinks=False)]
        return map(self.job, sorted(name for name in names if is_job_id(name)))

    def job_ids(self, prefix: str = "") -> list[str]:
        """Return the ids of the jobs whose ids begin so, oldest first: of the folders that have a record.

        A folder whose name can't be printed is nobody's job.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), open_folder(self.path) as store:
            with os.scandir(store) as entries:
                names = [
                    entry.name
                    for entry in entries
                    if entry.name.startswith(prefix)
                    and entry.name.isprintable()
                    and entry.is_dir(follow_symlinks=False)
                ]
            names.sort()
            # By a path that begins at the store: of a hundred thousand names, whole paths would take twice as long.
            return [name for name in names if status_of(f"{name}{os.sep}{RECORD_NAME}", dir_fd=store) is not None]
        return []

    def size(self) -> int:
        """Return the bytes that the store takes on disk, as ``du`` counts them: what jobs share counts once."""
        return size_on_disk(self.path)


def store_folder(store: str | os.PathLike[str] | None) -> StoreFolder:
    """Name the store: the one given, else the session's own.

    That is ``JOBCONTAINER_HOME``, or else ``.jobcontainer`` in the working directory, as they are when it is first
    asked for: a later ``cd`` moves no store.

    Raises:
        FileNotFoundError: the working directory was deleted.
    """
    global _session_store  # noqa: PLW0603 -- the process has one
    if store is not None:
        return _store_at(store)
    if _session_store is None:
        _session_store = _store_at(os.environ.get("JOBCONTAINER_HOME") or ".jobcontainer")
    return _session_store


def _store_at(path: str | os.PathLike[str]) -> StoreFolder:
    expanded = Path(path).expanduser()
    return StoreFolder(expanded if expanded.is_absolute() else Path(working_directory(), expanded))


_session_store: StoreFolder | None = None
