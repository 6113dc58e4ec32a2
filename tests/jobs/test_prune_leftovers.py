"""What pruning does to folders that are no jobs, and what is left where it is cut."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jobcontainer import JobPool, JobState, JobStore
from jobcontainer.events import Outcome, Started
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


def test_what_a_submission_or_a_prune_left_that_was_cut_off_goes_with_a_later_prune(pool):
    """A folder that holds no job is deleted by a prune a day later, no earlier; that of a job which runs never."""
    cut_off, half_pruned, runs = [StoreFolder(pool.store).new_job("Train") for _ in range(3)]
    for folder in (cut_off, half_pruned, runs):
        folder.process_file.write_bytes(b"half")
    for folder in (half_pruned, runs):
        folder.append_event(Started(at=1.0, pid=7))
    half_pruned.append_event(Outcome(state=JobState.SUCCEEDED, at=2.0))
    store = JobStore(pool.store)
    store.prune(keep=0)
    assert cut_off.path.exists()
    assert half_pruned.path.exists()
    days_ago = time.time() - 2 * 24 * 3600
    for folder in (cut_off, half_pruned, runs):
        os.utime(folder.path, (days_ago, days_ago))
    (pool.store / "notes").mkdir()
    os.utime(pool.store / "notes", (days_ago, days_ago))
    store.prune(keep=0)
    assert [folder.path.exists() for folder in (cut_off, half_pruned, runs)] == [False, False, True]
    assert (pool.store / "notes").exists()  # no folder of ours
