"""A process that can't be made leaves nothing in its keeper."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import psutil
import pytest

from jobcontainer.worker import job_process


def held():
    """What this process holds: the number of its descriptors, and its children."""
    return len(list(Path("/proc/self/fd").iterdir())), psutil.Process().children()


@pytest.mark.parametrize(
    ("call", "number"), [("fork", errno.EAGAIN), ("fork", errno.ENOMEM), ("pidfd_open", errno.EMFILE)]
)
def test_a_fork_that_fails_leaves_no_descriptor_and_no_process(monkeypatch, call, number):
    """However often it is tried again."""

    def fails(*_):
        raise OSError(number, os.strerror(number))

    before = held()
    monkeypatch.setattr(os, call, fails)
    for _ in range(3):
        with pytest.raises(OSError, match=os.strerror(number)):
            job_process.fork()
    monkeypatch.undo()
    assert held() == before
