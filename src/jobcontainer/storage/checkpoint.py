"""The checkpoint of a job, as a file: what it saved last, and what it or a rerun of it goes on from.

It is a signed file with its large data beside it, as a result is; what has not changed since the one before is only
hashed. The one before stays until the new one is whole and has taken its place, so that a kill at any instant leaves
one of the two. Then the large data that only the former had goes, from the store too: a model that is saved in each
epoch must not fill the disk. When the earlier ones were saved, and how large they were, is in the header.

Any process may read it or take it over meanwhile; only the job itself writes it, one save after another.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.errors import CorruptFileError, JobFileError
from jobcontainer.events import Checkpoint, checked
from jobcontainer.jobfile.atomic import NOT_WRITABLE
from jobcontainer.jobfile.blobs import blob_path, blobs_beside, load_blob
from jobcontainer.jobfile.loading import load_checkpoint
from jobcontainer.jobfile.reader import FileReader, blobs_of, remove_stale_blobs
from jobcontainer.jobfile.serializer import write_file
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.store_folder import StoreFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobcontainer.storage.folder import JobFolder

_MOST_LISTED: Final = 100  # saves that a header names
_ATTEMPTS: Final = 10  # each fails only if the job saves another one in between


def write_checkpoint(folder: JobFolder, obj: object) -> None:
    """Save an object as the checkpoint of a job; until it is whole, and where that fails, the one before stays.

    Raises:
        SerializationError: it can't go into a file.
        OSError: it can't be written; the message says what to do.
    """
    path = folder.checkpoint_file
    earlier = [[one.at, one.size] for one in checkpoints_of(folder)[1 - _MOST_LISTED :]]
    try:
        with replacing_checkpoint(path) as data:
            write_file(obj, path, kind="checkpoint", blobs=data, more={"earlier": earlier})
    except OSError as error:
        if error.errno in NOT_WRITABLE:
            raise OSError(
                error.errno,
                f"The checkpoint could not be written to {folder.path} ({error.strerror}). The one before it, if there "
                "was one, is kept. Free some space there; the job may go on, and save again.",
            ) from error
        raise


def read_checkpoint(folder: JobFolder, main: dict[str, Any] | None) -> Any:
    """Load what a job has saved last.

    Args:
        folder: of the job.
        main: see :func:`jobcontainer.jobfile.loading.load_checkpoint`.

    Raises:
        FileNotFoundError: it has saved nothing.
        JobFileError: it can't be loaded; the message says what to do.
    """
    path = folder.checkpoint_file
    try:
        _refuse_link(path)
        return load_checkpoint(path, main)
    except JobFileError as error:
        advice = "To begin anew though the job has got further is for you to decide: job.rerun() does."
        raise type(error)(f"{error} {advice}") from error


def checkpoints_of(folder: JobFolder) -> tuple[Checkpoint, ...]:
    """Return when the last hundred checkpoints of a job were saved and how large they were, oldest first."""
    path = folder.checkpoint_file
    try:
        _refuse_link(path)
        with FileReader(path) as file:
            if not file.is_job_file:
                return ()
            header, size = file.header(), file.status.st_size
        size += sum(blob.size for blob in header.blobs.values())
        saved = [*header.fields.get("earlier", ()), (header.fields["created"], size)]
        return tuple(checked(Checkpoint, {"at": at, "size": size}) for at, size in saved[-_MOST_LISTED:])
    except (OSError, JobFileError, ValueError, TypeError, KeyError):  # the job may have put anything there
        return ()


def take_checkpoint(source: Path, target: Path) -> bool:
    """Give a job folder the checkpoint of another one, as it is at the moment: by links, or else copies.

    Args:
        source: the checkpoint, whose job may go on and save.
        target: where it goes; what is there is replaced.

    Returns:
        Whether there is one.

    Raises:
        CorruptFileError: its large data is missing, or was altered.
        OSError: it can't be written.
    """
    for left in reversed(range(_ATTEMPTS)):
        remove_checkpoint(target)
        try:
            _refuse_link(source)
            _link(source, target)
        except FileNotFoundError:
            return False
        try:
            _take_blobs(source, target)
        except CorruptFileError:  # mostly because there is another checkpoint by now
            remove_checkpoint(target)
            if not left:
                raise
        else:
            break
    return True


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, and of its large data what nobody else has; where there is none, what is left of one."""
    with replacing_checkpoint(path):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_checkpoint(path: Path) -> Iterator[SharedData]:
    """Replace a checkpoint in the block, or fail to: then remove the large data that neither it nor anybody else has.

    Yields:
        The data of its store.
    """
    data = SharedData(StoreFolder(path.parent.parent))
    before = {blob.name.removeprefix(f"{path.name}.") for blob in blobs_beside(path)}
    try:
        yield data
    finally:
        if before or data.added:
            remove_stale_blobs(path)
            data.remove_if_unused(before | data.added)


def _take_blobs(source: Path, target: Path) -> None:
    data = SharedData(StoreFolder(target.parent.parent))
    for blob in blobs_of(target).values():
        try:
            os.link(blob_path(source, blob.digest), blob_path(target, blob.digest))
        except OSError:  # missing, or on another file system
            if not data.link(blob, target):
                data.add(load_blob(os.fspath(source), blob, vouched=False), target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)


def _refuse_link(path: Path) -> None:
    """Raise where a job has put a link in the place of its checkpoint: another job's is none of this one."""
    if path.is_symlink():
        raise CorruptFileError(f"{path} is a link, and holds no checkpoint of the job. Nothing was loaded.")
