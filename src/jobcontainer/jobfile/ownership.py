"""Whether a file or folder is this user's own: into any other, nothing is written, and nothing from it is run.

A store may lie in a folder that others can write to as well. One of them could have made it first, or may change it
later: then they would be sent the environment of whoever submits a job, their links would redirect what is written
there, and their files be taken for those of jobs. So its owner and mode are compared before each use, and files whose
names are known beforehand are opened without following a link. Reading is another matter: what lies in a store is data
to its readers, and a colleague's may be read. A signed file that another user can change is read into memory and hashed
each time: its identity proves nothing, as whoever owns a file can change its content and set its time back, and a
mapping would show what is changed after the check.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_ROOT: Final = 0


def why_foreign(status: os.stat_result) -> str:
    """Return what lets another user change a file or folder; empty where nothing does.

    Root, who may change everything, counts as another user where a file belongs to it.

    Example:
        >>> why_foreign(os.stat_result((0o40777, 1, 1, 2, os.geteuid(), 0, 0, 0, 0, 0)))
        'can be written to by other users (its mode is 777)'
    """
    if status.st_uid != this_user():
        return f"belongs to {user_name(status.st_uid)}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"can be written to by other users (its mode is {stat.S_IMODE(status.st_mode):o})"
    return ""


def why_foreign_folder(path: Path) -> str:
    """Return what lets another user change a folder, or put another in its place; empty where nothing does.

    A symbolic link to it may belong to this user or to root.

    Raises:
        OSError: there is no such folder.
    """
    entry = path.lstat()
    if stat.S_ISLNK(entry.st_mode) and entry.st_uid not in {this_user(), _ROOT}:
        return f"is a link that belongs to {user_name(entry.st_uid)}"
    return why_foreign(path.stat())


def this_user() -> int:
    """Return the id of the user that this process acts as."""
    return os.geteuid()


def user_name(user: int) -> str:
    """Return the name of a user, or the number where it has none.

    Example:
        >>> user_name(0)
        'root'
    """
    import pwd  # noqa: PLC0415 -- there is none where files have no such owners

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(user).pw_name
    return f"user {user}"
