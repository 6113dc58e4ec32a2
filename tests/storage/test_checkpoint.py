"""The file of a checkpoint: the last or the one before, whatever fails; nothing else is taken for one; no litter."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from jobcontainer import (
    CorruptFileError,
    IncompatibleFileError,
    JobPool,
    JobStore,
    SerializationError,
    UntrustedFileError,
)
from jobcontainer.jobfile import info, signing
from jobcontainer.jobfile.blobs import BLOB_FROM, blob_path, blobs_beside
from jobcontainer.jobfile.reader import blobs_of
from jobcontainer.jobfile.serializer import write_file
from jobcontainer.storage import checkpoint as checkpoint_file
from jobcontainer.storage import data as data_module
from jobcontainer.storage.checkpoint import checkpoints_of, read_checkpoint, take_checkpoint, write_checkpoint
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.store_folder import StoreFolder

SIZE = BLOB_FROM


@pytest.fixture
def store(tmp_path):
    folder = StoreFolder(tmp_path / "store")
    folder.create()
    return folder


@pytest.fixture
def folder(store):
    return store.new_job("job")


def large(number):
    return np.full(SIZE, number, np.uint8)


def state(folder):
    """What is on disk: the checkpoint, its large data, and that of the store."""
    return read_checkpoint(folder, None), len(blobs_beside(folder.checkpoint_file)), in_data(folder)


def in_data(folder):
    data = StoreFolder(folder.path.parent).data_folder
    return len(names(data)) if data.exists() else 0


def names(path):
    return [entry.name for entry in path.iterdir()]


class Model:
    def __init__(self, weights):
        self.weights = weights


def test_the_last_one_is_loaded_and_large_data_of_the_former_is_gone(folder):
    """A model that is saved in each epoch takes the disk of one."""
    for epoch in range(4):
        write_checkpoint(folder, {"epoch": epoch, "fixed": large(99), "weights": large(epoch)})
        found, beside, in_store = state(folder)
        assert found["epoch"] == epoch
        assert np.array_equal(found["weights"], large(epoch))
        assert (beside, in_store) == (2, 2)
    found["weights"][:] = 7  # a copy in memory
    assert read_checkpoint(folder, None)["weights"][0] == 3


def test_large_data_that_another_job_has_stays(store, folder):
    """Only what nobody has goes from the store."""
    other = store.new_job("other")
    write_checkpoint(folder, large(1))
    write_checkpoint(other, large(1))
    write_checkpoint(folder, large(2))
    assert in_data(folder) == 2
    assert read_checkpoint(other, None)[0] == 1


def test_what_has_not_changed_is_hashed_once_and_not_written(folder, monkeypatch):
    """So that saving in every epoch is cheap."""
    hashed, write = [], data_module.write_blob
    array = large(1)
    write_checkpoint(folder, [0, array])
    digest = data_module.digest_of
    monkeypatch.setattr(data_module, "digest_of", lambda view: hashed.append(len(view)) or digest(view))
    monkeypatch.setattr("jobcontainer.jobfile.blobs.digest_of", lambda view: hashed.append(len(view)) or digest(view))
    monkeypatch.setattr(data_module, "write_blob", lambda *_: pytest.fail("it was written"))
    write_checkpoint(folder, [1, array])
    assert hashed == [SIZE]
    monkeypatch.setattr(data_module, "write_blob", write)
    assert read_checkpoint(folder, None)[0] == 1


@pytest.mark.parametrize("at", ["blob", "file", "rename"])
def test_a_full_disk_is_a_sentence_and_the_last_good_one_is_kept(folder, monkeypatch, at):
    """Nothing of the one that did not fit stays on the disk, and the next one is saved when there is room."""
    write_checkpoint(folder, ["good", large(1)])

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if at == "blob":  # of two new ones, the second does not fit
            write, count = data_module.write_blob, iter(range(9))
            patch.setattr(data_module, "write_blob", lambda *args: write(*args) if next(count) < 1 else fail())
        else:
            where = "FileWriter._put_buffers" if at == "file" else "Path.replace"
            patch.setattr(f"jobcontainer.jobfile.writer.{where}", fail)
        with pytest.raises(
            OSError, match=r"checkpoint could not be written.*No space left.*one before it.*kept"
        ) as raised:
            write_checkpoint(folder, ["bad", large(2), large(3), b"small" * 9])
    assert raised.value.errno == errno.ENOSPC
    found, beside, in_store = state(folder)
    assert (found[0], beside, in_store) == ("good", 1, 1)
    assert not [name for name in names(folder.path) if name.startswith(".")]
    write_checkpoint(folder, ["next", large(2)])
    assert state(folder)[1:] == (1, 1)


def test_what_can_not_be_pickled_names_the_culprit_and_the_last_good_one_is_kept(folder):
    """Large data of it that was written already goes again."""
    write_checkpoint(folder, "good")
    with pytest.raises(SerializationError, match=r"checkpoint\['lock'\].*lock") as raised:
        write_checkpoint(folder, {"model": large(1), "lock": threading.Lock()})
    assert [culprit.path for culprit in raised.value.culprits] == ["checkpoint['lock']"]
    assert "what is saved" in raised.value.culprits[0].hint
    assert state(folder) == ("good", 0, 0)


def test_what_a_killed_save_has_left_goes_with_the_next_one(folder):
    """Its large data, that is, beside the file and in the store."""
    write_checkpoint(folder, large(1))
    SharedData(StoreFolder(folder.path.parent)).add(memoryview(large(2)), folder.checkpoint_file)  # killed here
    assert state(folder)[1:] == (2, 2)
    write_checkpoint(folder, large(3))
    assert state(folder)[1:] == (1, 1)


def damaged(path):
    path.write_bytes(path.read_bytes()[:-9])


def altered_blob(path):
    [blob] = blobs_beside(path)
    blob.chmod(0o600)
    blob.write_bytes(b"\0" * SIZE)


def lost_blob(path):
    blobs_beside(path)[0].unlink()


def result_in_its_place(path):
    write_file("a result", path, kind="result")


def linked(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def of_another_key(path):
    signing.hold([b"another key, which is not the user's"])
    write_file("foreign", path, kind="checkpoint")
    signing.hold([])


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (damaged, CorruptFileError),
        (altered_blob, CorruptFileError),
        (lost_blob, CorruptFileError),
        (result_in_its_place, UntrustedFileError),
        (of_another_key, UntrustedFileError),
        (linked, CorruptFileError),
    ],
)
def test_one_that_can_not_be_loaded_says_so_and_what_to_do(folder, spoil, error):
    """A job does not begin anew unasked."""
    write_checkpoint(folder, large(1))
    spoil(folder.checkpoint_file)
    with pytest.raises(error, match=r"job\.rerun\(\) does"):
        read_checkpoint(folder, None)
    checkpoints_of(folder)  # raises nothing


def test_code_of_another_python_is_refused(folder, monkeypatch):
    """As in any file: with both versions."""

    def of_the_notebook():
        pass

    of_the_notebook.__module__ = "__main__"
    with monkeypatch.context() as patch:
        patch.setattr(info, "PYTHON", "3.99.1")
        write_checkpoint(folder, of_the_notebook)
    with pytest.raises(IncompatibleFileError, match=r"Python 3\.99\.1.*job\.rerun\(\)"):
        read_checkpoint(folder, None)


def test_when_and_how_large_the_last_hundred_were_is_told(folder):
    """Bounded, with their large data, and without reading any."""
    assert checkpoints_of(folder) == ()
    for number in range(103):
        write_checkpoint(folder, (number, large(1) if number == 102 else 0))
    told = checkpoints_of(folder)
    assert len(told) == 100
    assert [one.at for one in told] == sorted({one.at for one in told})
    assert told[-1].size > SIZE > told[-2].size > 0


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_what_is_no_checkpoint_is_told_as_none(folder, content):
    """Whatever a job has put there."""
    if content is None:
        os.mkfifo(folder.checkpoint_file)
    else:
        folder.checkpoint_file.write_bytes(content)
    assert checkpoints_of(folder) == ()


@pytest.mark.parametrize("has_links", [True, False])
def test_another_job_takes_it_as_it_is_now(store, folder, monkeypatch, has_links):
    """By links where there are any; what the first one saves or prunes afterwards changes nothing."""
    again = store.new_job("again")
    assert not take_checkpoint(folder.checkpoint_file, again.checkpoint_file)
    write_checkpoint(folder, large(1))
    if not has_links:

        def refuse(*_, **__):
            raise OSError(errno.EPERM, "no links")

        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert take_checkpoint(folder.checkpoint_file, again.checkpoint_file)
    assert take_checkpoint(folder.checkpoint_file, again.checkpoint_file)  # replaces it
    write_checkpoint(folder, large(2))
    shutil.rmtree(folder.path)
    assert read_checkpoint(again, None)[0] == 1
    assert len(checkpoints_of(again)) == 1


def test_one_that_is_replaced_while_it_is_taken_is_taken_whole(store, folder, monkeypatch):
    """The other job goes on and saves; never a file without its large data."""
    again, look, count = store.new_job("again"), blobs_of, iter(range(1, 9))
    write_checkpoint(folder, large(0))

    def saved_meanwhile(path):
        found = look(path)
        if (number := next(count)) < 4:
            monkeypatch.setattr(checkpoint_file, "blobs_of", look)
            write_checkpoint(folder, large(number))
            monkeypatch.setattr(checkpoint_file, "blobs_of", saved_meanwhile)
        return found

    monkeypatch.setattr(checkpoint_file, "blobs_of", saved_meanwhile)
    assert take_checkpoint(folder.checkpoint_file, again.checkpoint_file)
    assert read_checkpoint(again, None)[0] == 3
    assert len(blobs_beside(again.checkpoint_file)) == 1


def test_one_whose_large_data_is_lost_is_not_taken(store, folder):
    """A rerun says so at once."""
    again = store.new_job("again")
    write_checkpoint(folder, large(1))
    digest = next(iter(blobs_of(folder.checkpoint_file)))
    blob_path(folder.checkpoint_file, digest).unlink()
    (store.data_folder / digest).unlink()
    with pytest.raises(CorruptFileError, match="not whole"):
        take_checkpoint(folder.checkpoint_file, again.checkpoint_file)
    assert names(again.path) == []


def test_prune_and_size_count_it_as_any_file(tmp_path):
    """Its large data goes with the job."""
    with JobPool(engine="inline", store=tmp_path) as pool:
        job = pool.submit(len, "work")
    write_checkpoint(job.folder, large(1))
    assert job.folder.size() > SIZE
    assert JobStore(tmp_path).prune(keep=0) == [job.id]
    assert names(tmp_path / "data") == []
