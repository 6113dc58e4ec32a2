"""StoreKeys: which jobs of a store have which key.

``keys/DIGEST`` holds a line for each job of a key, the oldest first; DIGEST is that of the key. A line is added when
the job's folder is made, before it is a job. It is an index: a job is of the key that its ``job.json`` says, and a line
of a job that is not there, or of another key, is passed over. :meth:`StoreKeys.remove_unused` removes those lines.

Whoever looks for a job of a key, and makes one where there is none, holds the lock of the store's keys meanwhile, so
that of two processes one finds what the other has made. The lock is for one holder, threads of a process included; a
child that is forked meanwhile holds nothing once :meth:`KeysLock.release` was called.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import CorruptFileError
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.storage.jsonl import all_lines, append_lines
from jobcontainer.storage.record import is_job_id
from jobcontainer.storage.regular_file import open_regular

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from pathlib import Path

    from jobcontainer.storage.folder import JobFolder
    from jobcontainer.storage.record import JobRecord
    from jobcontainer.storage.store_folder import StoreFolder

_LOCK: Final = "lock"


class KeysLock:
    """The lock of a store's keys, held from the start."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        fcntl.flock(file, fcntl.LOCK_EX)

    @property
    def is_held(self) -> bool:
        """Whether it was not released yet."""
        return not self._file.closed

    def release(self) -> None:
        """Let the next one have it; once is enough, from any thread."""
        if self.is_held:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked child has the same open file
            self._file.close()


class _Thread(threading.local):
    def __init__(self) -> None:
        self.locks: dict[Path, KeysLock] = {}  # that it took last, of each store


_this = _Thread()


class StoreKeys:
    """The keys of a store's jobs.

    Args:
        store: the store.
    """

    def __init__(self, store: StoreFolder) -> None:
        self._store = store

    @contextlib.contextmanager
    def locked(self) -> Iterator[KeysLock]:
        """Hold the lock for a block, or until it is released.

        Raises:
            OSError: the store can't be written to.
            RuntimeError: this thread holds it, and would wait for itself.
        """
        if (mine := _this.locks.get(self._store.path)) is not None and mine.is_held:
            raise RuntimeError(
                "A job with a key can't be submitted while another one is written, as from a __getstate__ or "
                "__reduce__: submit it before."
            )
        self._store.keys_folder.mkdir(mode=0o700, exist_ok=True)
        file = open_regular(self._store.keys_folder / _LOCK, os.O_RDWR | os.O_CREAT, own=True)
        try:
            lock = _this.locks[self._store.path] = KeysLock(file)
            try:
                yield lock
            finally:
                lock.release()
        finally:
            file.close()

    def add(self, key: str, folder: JobFolder) -> None:
        """Note the folder of a job that is to have a key.

        Raises:
            OSError: the store can't be written to.
        """
        self._store.keys_folder.mkdir(mode=0o700, exist_ok=True)
        append_lines(self._file_of(key), [{"job": folder.id}])

    def jobs_of(self, key: str) -> Iterator[tuple[JobFolder, JobRecord]]:
        """Go through the jobs of a key, the newest first."""
        for folder in reversed([self._store.job(line["job"]) for line in _sound_lines(self._file_of(key))]):
            with contextlib.suppress(OSError, CorruptFileError):  # it is no job yet, or no more
                record = folder.read_record()
                if record.options.get("key") == key:
                    yield folder, record

    def remove_unused(self) -> None:
        """Forget the jobs that are gone."""
        with contextlib.suppress(FileNotFoundError), self.locked():
            for entry in os.scandir(self._store.keys_folder):
                if entry.name != _LOCK:
                    with contextlib.suppress(OSError):
                        self._forget_gone(self._store.keys_folder / entry.name)

    def _forget_gone(self, file: Path) -> None:
        lines = _sound_lines(file)
        kept = [line for line in lines if self._store.job(line["job"]).path.is_dir()]
        if not kept:
            file.unlink(missing_ok=True)
        elif len(kept) < len(lines):
            write_whole(file, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def _file_of(self, key: str) -> Path:
        return self._store.keys_folder / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _sound_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines that name a job."""
    return [line for line in all_lines(file) if isinstance(line.get("job"), str) and is_job_id(line["job"])]
