"""A job's end is always told: whatever can't be written, whatever a callback raises, whichever process asks."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from echo_engine import EchoEngine, Works
from jobcontainer import JobPool, JobState, JobStore
from jobcontainer.errors import JobLostError
from jobcontainer.jobs import late_ends
from jobcontainer.storage import folder as folder_module
from jobcontainer.storage import result
from jobcontainer.storage.store_folder import StoreFolder
from waiting import wait_for

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def engine():
    engine = EchoEngine()
    yield engine
    engine.close()


@pytest.fixture
def pool(engine, tmp_path):
    """A pool of one slot, without processes."""
    with JobPool(engine=engine, store=tmp_path / "store") as pool:
        yield pool


@pytest.fixture
def disk(monkeypatch):
    """A disk: while it ``is_full``, no line and no file that is written whole gets to it."""

    class Disk:
        is_full = False

    def refusing(write):
        def refuse(*arguments):
            if Disk.is_full:
                raise FULL
            write(*arguments)

        return refuse

    monkeypatch.setattr(folder_module, "append_lines", refusing(folder_module.append_lines))
    monkeypatch.setattr(folder_module, "write_whole", refusing(folder_module.write_whole))
    monkeypatch.setattr("jobcontainer.storage.journal.append_lines", refusing(folder_module.append_lines))
    return Disk


# --- what can't be written ------------------------------------------------------------------------------------------


def test_an_end_on_a_full_disk_is_told_at_once_and_written_when_there_is_space(pool, engine, disk, monkeypatch):
    """The handle knows the end and that it could not be written; other processes learn both a little later."""
    monkeypatch.setattr(late_ends, "_PAUSE_SECONDS", 0.05)
    engine.hold.clear()
    running, queued = pool.submit(Works()), pool.submit(Works())
    disk.is_full = True
    assert queued.cancel()
    assert queued.cancelled()
    assert "could not be written: No space left on device" in queued._repr_html_()
    assert queued.folder.last_turn() is None
    assert JobStore(pool.store).open(queued.id).cancelled()
    disk.is_full = False
    engine.hold.set()
    assert running.result(20) == 1
    written = wait_for(queued.folder.last_turn)
    assert (written.state, written.unwritten) == (JobState.CANCELLED, FULL.strerror)
    listed = JobStore(pool.store).open(queued.id)
    assert (listed.state, listed.outcome.unwritten) == (JobState.CANCELLED, FULL.strerror)


def test_what_is_still_unwritten_is_tried_again_at_shutdown(engine, disk, tmp_path, monkeypatch):
    """A kernel that is about to end does not wait for the next try."""
    monkeypatch.setattr(late_ends, "_PAUSE_SECONDS", 1.0)
    engine.hold.clear()
    with JobPool(engine=engine, store=tmp_path) as pool:
        pool.submit(Works())
        queued = pool.submit(Works())
        disk.is_full = True
        queued.cancel()
        disk.is_full = False
        engine.hold.set()
    assert queued.folder.last_turn().state is JobState.CANCELLED
    wait_for(lambda: not late_ends._unwritten)


@pytest.mark.parametrize("kind", ["one", "several"])
def test_a_submission_on_a_full_disk_raises_a_sentence_and_leaves_nothing(pool, disk, kind):
    """It says what happened and what to do; there is no job, no folder, and the pool goes on afterwards."""
    disk.is_full = True
    with pytest.raises(OSError, match=r"could not be written to .*No space left on device.*another store") as raised:
        pool.submit(Works()) if kind == "one" else pool.submit_all([Works(), Works(), Works()])
    assert raised.value.errno == errno.ENOSPC
    disk.is_full = False
    assert len(JobStore(pool.store).jobs()) == 0
    assert not list(StoreFolder(pool.store).folders())
    assert pool.submit(Works()).result(20) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EFBIG, errno.EACCES])
def test_nothing_that_fails_to_be_written_of_an_end_keeps_it(pool, engine, monkeypatch, code):
    """Journal and events alike: the next jobs run, and the handles are done."""

    def fail(*_):
        raise OSError(code, os.strerror(code))

    engine.hold.clear()
    jobs = [pool.submit(Works()) for _ in range(3)]
    monkeypatch.setattr("jobcontainer.storage.journal.append_lines", fail)
    monkeypatch.setattr(folder_module, "append_lines", fail)
    engine.hold.set()
    assert not wait(jobs, 20).not_done
    assert [job.result() for job in jobs] == [1, 1, 1]


def test_a_result_that_cannot_be_written_is_told_as_such(tmp_path, monkeypatch):
    """Neither the result nor the exception has a file, and the handle says why all the same."""

    def fail(*_, **__):
        raise FULL

    with JobPool(engine="inline", store=tmp_path) as pool:
        monkeypatch.setattr(result, "write_file", fail)
        job = pool.submit(Works())
        assert "What run() returned could not be written (No space left on device)" in str(job.exception(20))


@pytest.mark.skipif(sys.platform != "linux", reason="keepers fork on Linux")
def test_jobs_end_though_their_store_is_deleted_under_the_pool(tmp_path):
    """Running and queued ones; what is asked of them then is a sentence, and the pool runs jobs afterwards."""
    store = tmp_path / "store"
    with JobPool(1, store=store) as pool:
        jobs = [pool.submit(time.sleep, 0.2) for _ in range(3)]
        wait_for(jobs[0].folder.last_turn)
        shutil.rmtree(store)
        assert not wait(jobs, 60).not_done
        assert "Its folder was deleted" in jobs[0]._repr_html_()
        assert pool.submit(pow, 2, 3).result(60) == 8


def test_a_result_whose_folder_was_deleted_is_named(pool):
    """Neither a bare FileNotFoundError nor silence: what was deleted, and what to do."""
    job = pool.submit(Works())
    wait([job], 20)
    shutil.rmtree(job.folder.path)
    with pytest.raises(JobLostError, match=r"succeeded, but its result is lost: .* was deleted. Run it again"):
        job.result()
    assert "Its folder was deleted" in job._repr_html_()


class Fills:
    """Fills its own events file up to the limit on the size of files."""

    def run(self):
        events = Path("/proc/self/fd/1").readlink().with_name("events.jsonl")
        with events.open("ab") as file:
            file.write(b"x" * (resource.getrlimit(resource.RLIMIT_FSIZE)[0] - file.tell() - 1) + b"\n")
        return 5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_the_end_of_a_real_job_that_hits_the_file_size_limit_is_written_when_that_is_raised(tmp_path, monkeypatch):
    """Its keeper can't write it, nor can the kernel; both go on."""
    monkeypatch.setattr(late_ends, "_PAUSE_SECONDS", 0.05)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with JobPool(1, store=tmp_path) as pool:
            job = pool.submit(Fills())
            assert job.result(60) == 5
            assert "could not be written: File too large" in job._repr_html_()
            assert pool.submit(pow, 2, 3).result(60) == 8
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            wait_for(lambda: getattr(job.folder.last_turn(), "state", None) is JobState.SUCCEEDED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# --- callbacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("bad row"), KeyboardInterrupt("stop"), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("add", ["add_done_callback", "on_change"])
def test_a_callback_that_raises_is_told_and_changes_nothing(pool, engine, caplog, add, error):
    """Logged as by concurrent.futures; the callbacks after it are called, the job ends, and so does the next."""
    called = threading.Event()

    def fail(_):
        raise error

    engine.hold.clear()
    job, following = pool.submit(Works()), pool.submit(Works())
    getattr(job, add)(fail)
    getattr(job, add)(lambda _: called.set())
    engine.hold.set()
    assert (job.result(20), following.result(20)) == (1, 1)
    assert called.wait(20)
    (told, *_) = [record for record in caplog.records if record.name == "concurrent.futures"]
    assert told.getMessage() == f"exception calling callback for {job!r}"
    assert told.exc_info[1] is error


def test_a_callback_that_is_added_to_an_ended_job_is_called_at_once(pool, caplog):
    """As of every future, and what it raises is told."""
    job = pool.submit(Works())
    job.result(20)
    called = []
    job.add_done_callback(called.append)
    job.add_done_callback(lambda _: 1 / 0)
    assert called == [job]
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


# --- forked children ------------------------------------------------------------------------------------------------


def test_a_forked_child_does_not_wait_for_its_parents_job(pool, engine):
    """It would wait for ever; it is told so at once, and how to find the job."""
    engine.hold.clear()
    job = pool.submit(Works())
    group = pool.submit_all([Works()])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        for ask in (job.result, job.exception, group.wait, lambda: list(group.as_completed())):
            try:
                ask()
            except RuntimeError as error:
                os.write(writing, b"refused" if "forked" in str(error) and "JobStore(" in str(error) else b"odd")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        assert answers.read() == b"refused" * 4
    os.waitpid(child, 0)
    engine.hold.set()
    assert job.result(20) == 1
