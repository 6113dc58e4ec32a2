"""Our descriptors in a job, whose code may close all of them and open files that get their numbers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobcontainer import progress
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.events import JobState
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.own_descriptor import OwnDescriptor
from jobcontainer.storage.regular_file import open_regular
from jobcontainer.storage.store_folder import StoreFolder

MANY = 3000


class TakesOver:
    """Closes every descriptor, opens files until it has none left, and does something."""

    def __init__(self, folder, act):
        self.folder, self.act = str(folder), act

    def run(self):
        for _ in progress(range(2)):
            time.sleep(0.06)  # the progress file is open
        os.closerange(0, 1 << 16)
        self.files = []
        with contextlib.suppress(OSError):
            for number in range(MANY):
                self.files.append(os.open(f"{self.folder}/{number}", os.O_RDWR | os.O_CREAT))
        for number in self.files[-3:]:  # what Python itself needs
            os.close(number)
        return self.act()


def fail():
    raise ValueError("into the log")


def leave_with_words():
    sys.exit("into the log")


def hang():
    time.sleep(1000)


def show_progress():
    for _ in progress(range(5)):
        time.sleep(0.1)
    return 42


def leave_by_interrupt():
    raise KeyboardInterrupt("into the log")


ENDS = [
    (fail, JobState.FAILED, True),
    (leave_with_words, JobState.CRASHED, True),
    (leave_by_interrupt, JobState.FAILED, True),
    (hang, JobState.TIMED_OUT, False),
    (show_progress, JobState.SUCCEEDED, False),
]


@pytest.fixture(scope="module")
def engine():
    engine = LokyEngine(1)
    yield engine
    engine.close()


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("isolation", ["fresh", "reuse"])
@pytest.mark.parametrize(("act", "state", "logged"), ENDS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_job_finds_nothing_of_ours_in_its_files(engine, tmp_path, act, state, logged, isolation):
    """However it ends: what we have to say is in its log, or nowhere."""
    store, files = StoreFolder(tmp_path / "store"), tmp_path / "files"
    store.create()
    files.mkdir()
    folder = store.new_job("job")
    Serializer.serialize_to_file(TakesOver(files, act), folder.process_file)
    options = JobOptions(timeout=3.0 if act is hang else 60, grace=0.2, isolation=isolation)
    outcome = engine.submit(folder, options, Environment.here()).result(60)
    assert outcome.state is state, outcome
    opened = list(files.iterdir())
    assert len(opened) > 500
    assert [file.name for file in opened if file.stat().st_size] == []
    assert ("into the log" in "\n".join(folder.tail(100))) is logged
    # the next job of the same slot is as any other
    after = store.new_job("job")
    Serializer.serialize_to_file(Plain(), after.process_file)
    future = engine.submit(after, JobOptions(isolation=isolation), Environment.here())
    assert future.result(60).state is JobState.SUCCEEDED
    assert after.tail(5) == ["plain"]


class Plain:
    def run(self):
        print("plain")


SCRIPT = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from jobcontainer import JobPool

class Ignores:
    def run(self):
        import signal, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(1000)

with JobPool(1, store=sys.argv[2]) as pool:
    print(pool.submit(abs, -42).result(), pool.submit(abs, -43).result(), flush=True)
    job = pool.with_options(timeout=0.2, grace=0.1).submit(Ignores())
    print(type(job.exception()).__name__, "most recent call first" in job.log, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [48, 60, 64])
def test_jobs_run_where_few_descriptors_are_allowed(tmp_path, limit):
    """The numbers that we choose lie below the limit (`ulimit -n`); tracebacks of killed jobs are there too."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(limit), tmp_path / "store"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("42 43\nJobTimeoutError True\n", "")


def test_a_descriptor_that_is_another_file_now_is_not_written_to(tmp_path):
    """It is opened again where its file is still there, and given up where another has its name."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.touch()
    number = os.open(ours, os.O_WRONLY | os.O_APPEND)
    own = OwnDescriptor(number, reopen=lambda: open_regular(ours, os.O_WRONLY | os.O_APPEND))
    taken = os.open(theirs, os.O_WRONLY | os.O_CREAT)
    os.dup2(taken, number)
    own.write(b"one")
    os.close(own.number)
    own.write(b"two")
    assert (ours.read_bytes(), theirs.read_bytes()) == (b"onetwo", b"")
    os.close(own.number)
    ours.rename(tmp_path / "elsewhere")
    ours.touch()
    with pytest.raises(OSError, match="replaced"):
        own.write(b"three")
    assert ours.read_bytes() == b""
    own.close()
    os.close(taken)
    os.close(number)


def test_a_file_of_the_users_with_our_number_is_never_closed(tmp_path):
    """Not when we are done, and not when what we had opened goes."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.touch()
    for ends in (OwnDescriptor.close, OwnDescriptor.ensured):
        own = OwnDescriptor(open_regular(ours), reopen=lambda: open_regular(ours))
        taken = own.number
        other = os.open(theirs, os.O_WRONLY | os.O_CREAT)
        os.dup2(other, taken)
        ends(own)
        if ends is OwnDescriptor.ensured:
            own.close()
        del own
        assert os.path.samestat(os.fstat(taken), theirs.stat())
        os.close(taken)
        os.close(other)


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "device"])
def test_what_is_no_file_is_not_opened_for_writing(tmp_path, kind):
    """At once, whoever is at the other end of a pipe, and nothing stays open."""
    path, target = tmp_path / "it", tmp_path / "target"
    target.touch()
    {
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(target),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/null"),
    }[kind]()
    readers = [os.open(path, os.O_RDONLY | os.O_NONBLOCK)] if kind == "pipe" else []
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=r".+"):
        open_regular(path, os.O_WRONLY)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    for reader in readers:
        os.close(reader)
