"""An open file has an owner from the first moment on: an interrupt leaves none open."""

from __future__ import annotations

import contextlib
import gc
import os
from functools import partial
from pathlib import Path

import pytest

import jobcontainer
from interrupts import interrupted
from jobcontainer import Serializer
from jobcontainer.events import Started
from jobcontainer.jobfile import blobs
from jobcontainer.jobfile.atomic import write_whole
from jobcontainer.jobfile.open_file import open_file, open_folder
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.journal import Journal
from jobcontainer.storage.own_descriptor import OwnDescriptor
from jobcontainer.storage.progress_file import ProgressFile
from jobcontainer.storage.regular_file import open_regular, read_part
from jobcontainer.storage.store_folder import StoreFolder

PACKAGE = Path(jobcontainer.__file__).parent
WHERE = (str(PACKAGE / "jobfile"), str(PACKAGE / "storage"))


def read_job_file(folder):
    with FileReader(folder / "it.job") as file:
        file.header()


def list_folder(folder):
    with open_folder(folder) as descriptor:
        os.fstat(descriptor)


def write_progress(folder):
    ProgressFile(folder / "progress").close()


def reopen(folder):
    own = OwnDescriptor(open_regular(folder / "text"), reopen=lambda: open_regular(folder / "text"))
    own.ensured()
    own.close()


def add_data(folder):
    file = folder / "large.job"
    for blob in blobs.blobs_beside(file):
        blob.unlink()
    SharedData(StoreFolder(folder)).add(memoryview(b"data" * 9), file)


def use_journal(folder):
    store = StoreFolder(folder)
    job = store.job("20261128-034732.857353-job-abcdef")
    job.append_event(Started(at=1.0, pid=1, attempt=1))
    Journal(store).entries([job])
    Journal(store).shrink()
    store.job_ids()


CALLS = {
    "open_file": lambda folder: open_file(folder / "text", os.O_RDONLY).close(),
    "open_folder": list_folder,
    "read_part": lambda folder: read_part(folder / "text", 0, 3),
    "write_whole": lambda folder: write_whole(folder / "other", b"whole"),
    "OwnDescriptor": reopen,
    "ProgressFile": write_progress,
    "FileReader": read_job_file,
    "Serializer": lambda folder: Serializer.serialize_to_file(1, folder / "it.job"),
    "SharedData": add_data,
    "Journal": use_journal,
}
"""Each way of opening files: a function that does it in a folder."""


def descriptors():
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found[path.name] = path.readlink()
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").write_text("text")
    (tmp_path / "20261128-034732.857353-job-abcdef").mkdir()
    tmp_path.chmod(0o700)
    Serializer.serialize_to_file(1, tmp_path / "it.job")
    return tmp_path


@pytest.mark.fast_cases(4)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # told of what an interrupt has left to its owner
@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_any_step_leaves_nothing_open(folder, name):
    """Whatever is opened, and wherever the interrupt comes."""
    CALLS[name](folder)
    before = descriptors()
    # A folder has no owner but the block: it is closed wherever Python looks for signals, which is not at every step.
    kind = "signal" if name in {"open_folder", "Journal"} else "opcode"
    number = 0
    while interrupted(partial(CALLS[name], folder), number, kind, (*WHERE, contextlib.__file__)):
        if descriptors() != before:
            gc.collect()  # a pickler and what it writes to have each other
        assert descriptors() == before, f"after step {number}"
        number += 1
    assert number > 5


def test_a_folder_is_refused_as_a_file_and_not_left_open(tmp_path):
    """Also where it was put in the place of a file just now."""
    before = descriptors()
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path, os.O_RDONLY)
    with pytest.raises(NotADirectoryError), open_folder("/dev/null"):
        pass
    assert descriptors() == before


def test_an_open_file_is_inherited_by_no_program(tmp_path):
    """As all that Python opens."""
    with open_file(tmp_path / "it", os.O_RDWR | os.O_CREAT) as file, open_folder(tmp_path) as folder:
        assert not os.get_inheritable(file.fileno())
        assert not os.get_inheritable(folder)
