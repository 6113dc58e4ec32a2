"""Nothing is written to, or run from, what another user may change.

Where the tests run as root, files really belong to another user; elsewhere this user is taken for another one.
"""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace

import numpy as np
import pytest

from jobcontainer import (
    CorruptFileError,
    JobContainerError,
    JobPool,
    JobState,
    JobStore,
    Serializer,
    UntrustedFileError,
)
from jobcontainer.cli import main
from jobcontainer.engines.dask import transfer
from jobcontainer.jobfile import ownership
from jobcontainer.jobfile.blobs import blobs_beside
from jobcontainer.jobfile.identity import FileIdentity
from jobcontainer.jobfile.loading import load_file
from jobcontainer.jobfile.serializer import write_file
from jobcontainer.jobs.control import StoreControl
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.process import JobOptions
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.regular_file import open_regular
from jobcontainer.storage.store_folder import StoreFolder

NOBODY = 65534


class Returns:
    def __init__(self, value):
        self.value = value

    def run(self):
        print("returning", self.value, end="\x1b]0;title\a\n")
        return self.value


@pytest.fixture
def give_away(monkeypatch):
    """Make files, links included, belong to another user than this one."""

    def give(*paths):
        if os.geteuid() == 0:
            for path in paths:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        else:
            monkeypatch.setattr(ownership, "this_user", lambda: NOBODY)

    return give


@pytest.fixture
def foreign(tmp_path, give_away):
    """The store of a colleague, with a job that succeeded, and one whose kernel is gone."""
    with JobPool(engine="inline", store=tmp_path / "store") as pool:
        pool.submit(Returns(1))
    gone = {"host": os.uname().nodename, "pid": 2**22 + 1, "started": 0.0}
    write_records([Submitter(StoreFolder(tmp_path / "store"), owner=gone).of_process(Returns(2), JobOptions())])
    give_away(*[tmp_path / "store", *(tmp_path / "store").rglob("*")])
    return tmp_path / "store"


def content(folder):
    """All that is in a folder: names, modes, times of changes and bytes."""
    found = [(path, path.lstat()) for path in (folder, *sorted(folder.rglob("*")))]
    return [(path, is_[:7], is_.st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path, is_ in found]


def made(mode, user=None):
    """What ``stat`` says of something with this mode and owner."""
    return os.stat_result((mode, 1, 1, 1, os.geteuid() if user is None else user, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (made(stat.S_IFDIR | 0o700), ""),
        (made(stat.S_IFDIR | 0o755), ""),
        (made(stat.S_IFREG | 0o644), ""),
        (made(stat.S_IFDIR | 0o700, user=NOBODY), "belongs to"),
        (made(stat.S_IFDIR | 0o777, user=NOBODY), "belongs to"),
        (made(stat.S_IFDIR | 0o720), "mode is 720"),
        (made(stat.S_IFDIR | 0o702), "mode is 702"),
        (made(stat.S_IFDIR | 0o1777), "mode is 1777"),
        (made(stat.S_IFREG | 0o666), "mode is 666"),
    ],
)
def test_owner_and_mode_decide_whose_a_file_is(status, why):
    """Another owner, or a mode that lets others write: with the sticky bit, too, as they could still add files."""
    reason = ownership.why_foreign(status)
    assert why in reason
    assert bool(reason) == bool(why)


def test_a_file_of_root_is_not_this_users_own(monkeypatch):
    """Though root could read everything anyway: what it owns was not made by this user."""
    monkeypatch.setattr(ownership, "this_user", lambda: 12345)
    assert ownership.why_foreign(made(stat.S_IFDIR | 0o755, user=0)) == "belongs to root"
    assert ownership.why_foreign(made(stat.S_IFDIR | 0o755, user=2**31 - 2)) == f"belongs to user {2**31 - 2}"


def test_no_job_is_submitted_to_the_store_of_another_user(foreign):
    """The sentence says whose it is and what to do; nothing was written there."""
    before = content(foreign)
    for submit in (lambda: JobPool(store=foreign), lambda: StoreFolder(foreign).new_job("job")):
        with pytest.raises(PermissionError, match=r"belongs to \w+.*set JOBCONTAINER_HOME to a folder of your own"):
            submit()
    assert content(foreign) == before


def test_a_store_that_another_user_made_first_is_refused_with_nothing_in_it(tmp_path, give_away):
    """As ``.jobcontainer`` in a folder that many share, empty and open to all: it gets no file of ours."""
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(0o777)
    give_away(store)
    with pytest.raises(PermissionError, match="JOBCONTAINER_HOME"):
        JobPool(store=store)
    assert list(store.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o2770, 0o702])
def test_a_store_that_others_can_write_to_is_refused_until_they_can_not(tmp_path, mode):
    """They could put links and sockets there; the sentence has the command that ends this, and it does."""
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(mode)
    with pytest.raises(PermissionError, match=rf"mode is {mode:o}.*chmod go-w {store}"):
        JobPool(store=store)
    assert list(store.iterdir()) == []
    store.chmod(mode & ~0o022)
    with JobPool(engine="inline", store=store) as pool:
        assert pool.submit(Returns(3)).result() == 3


def test_a_store_is_its_owners_alone_whatever_the_umask(tmp_path):
    """It is made with mode 0700, and so are the folders of jobs; a later look finds them its owner's."""
    before = os.umask(0)
    try:
        with JobPool(engine="inline", store=tmp_path / "store") as pool:
            job = pool.submit(Returns(3))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (pool.store, job.folder.path)] == [0o700, 0o700]
    job.folder.check_own()


def test_a_link_to_a_store_is_followed_if_it_is_ones_own(tmp_path, give_away):
    """As to a larger disk. A link that another user made leads to whatever they want, though that is ours."""
    with JobPool(engine="inline", store=tmp_path / "store"):
        pass
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "store")
    with JobPool(engine="inline", store=link) as pool:
        assert pool.submit(Returns(3)).result() == 3
    give_away(link)
    with pytest.raises(PermissionError, match="link that belongs to"):
        JobPool(engine="inline", store=link)


def test_a_store_that_changed_hands_takes_no_further_job(tmp_path, give_away):
    """Whoever may write to the folder around it can put another in its place at any time."""
    with JobPool(engine="inline", store=tmp_path / "store") as pool:
        pool.submit(Returns(1))
        give_away(tmp_path / "store")
        with pytest.raises(PermissionError, match="JOBCONTAINER_HOME"):
            pool.submit(Returns(2))


def test_the_store_of_a_colleague_can_be_read_and_is_left_as_it_is(foreign):
    """Jobs, logs, states and what is signed with one's key; no line is added to its journal, no end to its jobs."""
    before = content(foreign)
    ended, lost = JobStore(foreign).jobs()
    assert (ended.state, ended.log, ended.result()) == (JobState.SUCCEEDED, "returning 1\x1b]0;title\a\n", 1)
    assert lost.state is JobState.LOST
    assert JobStore(foreign).open(ended.id).source == ended.source
    assert "belongs to" in JobStore(foreign).advice()
    assert content(foreign) == before


@pytest.mark.parametrize("change", ["cancel", "rerun", "prune"])
def test_the_store_of_a_colleague_can_not_be_changed(foreign, change, monkeypatch):
    """Though its files may permit it."""
    monkeypatch.setattr("jobcontainer.jobs.watcher.is_alive", lambda _: True)
    monkeypatch.setattr("jobcontainer.jobs.watcher.is_alive", lambda _: True)  # so that there is one to cancel
    before = content(foreign)
    store = JobStore(foreign)
    jobs = list(store.jobs())
    changes = {
        "cancel": lambda: StoreControl(StoreFolder(foreign)).cancel(jobs),
        "rerun": jobs[0].rerun,
        "prune": lambda: store.prune(keep=0),
    }
    with pytest.raises(PermissionError, match="JOBCONTAINER_HOME"):
        changes[change]()
    assert content(foreign) == before


def test_results_in_the_store_of_a_colleague_are_foreign_files(foreign, key_file):
    """They are signed with a key that this user does not have."""
    key_file.unlink()
    Serializer.serialize_to_file(1, foreign.parent / "any.job")
    from jobcontainer.jobfile import signing  # noqa: PLC0415 -- the one place where a test plays a new process

    signing.hold([])
    with pytest.raises(UntrustedFileError):
        JobStore(foreign).jobs()[0].result()


def test_the_shell_lists_the_store_of_a_colleague_and_says_whose_it_is(foreign, capsys, monkeypatch):
    """``list`` prints the jobs, and on standard error a sentence; what would change it ends with 2.

    What ``log`` prints does nothing to the terminal.
    """
    monkeypatch.setenv("JOBCONTAINER_HOME", "")  # which the shell sets, and which is put back
    assert main(["--store", str(foreign), "list"]) == 0
    printed = capsys.readouterr()
    assert "Returns" in printed.out
    assert "set JOBCONTAINER_HOME to a folder of your own" in printed.err
    assert main(["--store", str(foreign), "prune", "--keep", "0"]) == 2
    assert "belongs to" in capsys.readouterr().err
    assert main(["--store", str(foreign), "log", JobStore(foreign).jobs()[0].id]) == 0
    assert capsys.readouterr().out == "returning 1\\x1b]0;title\\x07\n"


def test_a_job_folder_of_another_user_is_not_written_to(tmp_path, give_away):
    """Nor is a link in its place followed, whoever made it."""
    store = StoreFolder(tmp_path / "store")
    store.create()
    folder = store.new_job("job")
    link = store.job("link")
    link.path.symlink_to(folder.path)
    with pytest.raises(PermissionError, match="no folder, or a link to one"):
        link.ask_to_cancel()
    give_away(folder.path)
    with pytest.raises(PermissionError, match="belongs to"):
        folder.ask_to_cancel()
    assert list(folder.path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        JobFolder(tmp_path / "none").ask_to_cancel()


def _open_to_all(path):
    path.touch()
    path.chmod(0o666)


PLACES = {
    "a link": lambda path, precious: path.symlink_to(precious),
    "a dangling link": lambda path, precious: path.symlink_to(precious.with_name("nothing")),
    "another name": lambda path, precious: path.hardlink_to(precious),
    "a FIFO": lambda path, _: os.mkfifo(path, 0o600),
    "a folder": lambda path, _: path.mkdir(),
    "open to all": lambda path, _: _open_to_all(path),
}


@pytest.mark.parametrize("put", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("name", ["host.log", "host.lock"])
def test_a_file_that_is_not_what_it_should_be_is_not_written_to(tmp_path, put, name):
    """A link would redirect a log into another file of one's own, a FIFO would wait for its reader for ever."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path = tmp_path / name
    put(path, precious)
    with pytest.raises(PermissionError, match=rf"{name} .*not used"):
        open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, own=True)
    assert precious.read_text() == "precious"
    assert not precious.with_name("nothing").exists()


@pytest.mark.parametrize("own", [True, False])
def test_a_file_of_another_user_is_not_written_to(tmp_path, give_away, own):
    """Or they could read what is added: also where a folder of theirs is in the place of a job's."""
    path = tmp_path / "theirs" / "log.txt"
    path.parent.mkdir()
    path.touch()
    path.chmod(0o666)
    give_away(path, path.parent)
    with pytest.raises((PermissionError, FileNotFoundError), match="belongs to"):
        open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, own=own)
    assert path.read_bytes() == b""


def test_ones_own_file_is_made_and_appended_to(tmp_path):
    """For its owner alone, whatever the umask."""
    before = os.umask(0)
    try:
        for _ in range(2):
            with open_regular(tmp_path / "host.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, own=True) as file:
                file.write(b"line\n")
    finally:
        os.umask(before)
    assert (tmp_path / "host.log").read_bytes() == b"line\n" * 2
    assert stat.S_IMODE((tmp_path / "host.log").stat().st_mode) == 0o600


def test_no_host_is_started_whose_log_leads_elsewhere(tmp_path):
    """The victim's own file stays as it was; the sentence names the link."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    with JobPool(1, store=tmp_path / "store", detach=True) as pool:
        (tmp_path / "store" / "host.log").symlink_to(precious)
        with pytest.raises((PermissionError, JobContainerError), match=r"host\.log"):
            pool.submit(Returns(1))
    assert precious.read_text() == "precious"


# --- files that are signed with one's own key, and belong to another user ---------------------------------------------


def written(store, *, blobs):
    """A process file with two megabytes, in it or beside it; and the file that holds them."""
    store.create()
    file = store.new_job("job").process_file
    write_file(Returns(np.zeros(2**21, np.uint8)), file, kind="process", blobs=SharedData(store) if blobs else None)
    return file, (blobs_beside(file) or [file])[0]


@pytest.mark.parametrize("blobs", [False, True], ids=["in the file", "beside it"])
@pytest.mark.parametrize("change", ["owner", "mode"])
def test_a_file_that_another_user_can_change_is_hashed_each_time(tmp_path, give_away, blobs, change):
    """They change it in place and set its time back: what was loaded stays as it was, and it is not loaded again."""
    file, large = written(StoreFolder(tmp_path / "store"), blobs=blobs)
    if change == "owner":
        give_away(file, large)
    else:
        large.chmod(0o666)
    before, identity = large.stat(), FileIdentity.of(file)
    loaded = load_file(file, identity=identity).value
    large.chmod(0o666)
    with large.open("r+b") as opened:
        opened.seek(2**20)
        opened.write(b"changed")
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert FileIdentity.of(file) == identity
    assert not loaded.any()
    with pytest.raises(CorruptFileError, match=r"was altered|is damaged"):
        load_file(file, identity=identity)


@pytest.mark.parametrize("blobs", [False, True], ids=["in the file", "beside it"])
def test_a_process_in_a_file_that_others_can_change_is_copied(tmp_path, blobs):
    """A link to it would have what they make of it later."""
    file, large = written(StoreFolder(tmp_path / "theirs"), blobs=blobs)
    for path in (file, large):
        path.chmod(0o666)
    with JobPool(engine="inline", store=tmp_path / "store") as pool:
        job = pool.submit_file(file)
    assert not job.result().any()
    kept = [path.stat() for path in job.folder.path.glob("process.job*")]
    assert not {one.st_ino for one in kept} & {file.stat().st_ino, large.stat().st_ino}
    assert not any(one.st_mode & 0o077 for one in kept)


@pytest.mark.parametrize("put", ["nothing", "a folder", "open to all", "a link", "a file"])
def test_dask_workers_share_large_data_in_a_folder_of_their_user_alone(tmp_path, give_away, put):
    """It is beside Dask's folders, which may lie in another user's; there each worker has a folder of its own."""
    worker, precious = tmp_path / "scratch" / "worker", tmp_path / "precious" / "data" / "notes"
    shared = worker.parent / f"jobcontainer-data-{os.getuid()}"
    worker.mkdir(parents=True)
    precious.parent.mkdir(parents=True)
    precious.touch()
    match put:
        case "a folder" | "open to all":
            shared.mkdir()
            shared.chmod(0o777 if put == "open to all" else 0o755)
        case "a link":
            shared.symlink_to(tmp_path / "precious")
        case "a file":
            shared.touch()
    if put in {"a folder", "a link", "a file"}:
        give_away(shared)
    dask_worker = SimpleNamespace(local_directory=str(worker))
    transfer.create("job", dask_worker)
    data = (transfer.folders["job"].path.parent / "data").resolve()
    transfer.remove_unused_data(dask_worker)
    transfer.remove("job")
    assert data.is_relative_to(worker) == (put != "nothing")
    assert precious.exists()
