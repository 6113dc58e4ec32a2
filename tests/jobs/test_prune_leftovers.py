"""What pruning does to folders that are no jobs, and what is left where it is cut."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jobcontainer import JobPool, JobStore
from jobcontainer.storage.store_folder import StoreFolder


@pytest.fixture
def pool(tmp_path):
    with JobPool(engine="inline", store=tmp_path / "store") as pool:
        yield pool


def test_a_prune_that_is_cut_never_makes_an_ended_job_queued_again(pool, monkeypatch):
    """Whatever a prune had deleted when it was cut, a job that had ended is there as it was, or not at all."""
    job = pool.submit(pow, 2, 3)
    assert job.result() == 8
    left = len(list(job.folder.path.iterdir()))
    deleted: list[str] = []

    def unlink(path, *args, **kwargs):
        if deleted:
            raise KeyboardInterrupt
        deleted.append(os.fspath(path))
        return real(path, *args, **kwargs)

    real = os.unlink
    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(Path, "unlink", lambda path, **_: unlink(path))
    with pytest.raises(KeyboardInterrupt):
        JobStore(pool.store).prune(keep=0)
    monkeypatch.undo()
    assert len(list(job.folder.path.iterdir())) == left - 1
    assert not list(JobStore(pool.store).jobs())


def test_a_folder_of_a_cut_off_submission_goes_with_a_later_prune(pool):
    """What a submission left that was cut off before there was a job is deleted by a prune a day later, no earlier."""
    cut_off = StoreFolder(pool.store).new_job("Train")
    cut_off.process_file.write_bytes(b"half")
    store = JobStore(pool.store)
    store.prune(keep=0)
    assert cut_off.path.exists()
    days_ago = time.time() - 2 * 24 * 3600
    os.utime(cut_off.path, (days_ago, days_ago))
    (pool.store / "notes").mkdir()
    os.utime(pool.store / "notes", (days_ago, days_ago))
    store.prune(keep=0)
    assert not cut_off.path.exists()
    assert (pool.store / "notes").exists()  # no folder of ours
