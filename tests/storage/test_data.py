"""Large data of a store is on disk once, never lost or taken for other data, and goes with the last job that has it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from jobcontainer import CorruptFileError, JobPool, JobStore, Serializer
from jobcontainer.jobfile import blobs, identity, reader, signing
from jobcontainer.jobfile import format as job_format
from jobcontainer.jobfile.blobs import BLOB_FROM, blobs_beside
from jobcontainer.jobfile.loading import check_file, load_file
from jobcontainer.jobfile.reader import blobs_of
from jobcontainer.jobfile.serializer import trust_file, write_file
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.process import JobOptions
from jobcontainer.storage.data import SharedData
from jobcontainer.storage.store_folder import StoreFolder

SIZE = BLOB_FROM
LARGER = 9 * 2**20 + 1  # several pieces, one of them a single byte


def recorded(submission):
    """The folder of a job, once it is one."""
    write_records([submission])
    return submission.folder


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch):
    """Each test starts in a process that knows no blob, and has a key."""
    signing.sign(signing.Purpose.JOB_FILE, b"")
    monkeypatch.setattr(blobs, "_known", {})


@pytest.fixture
def store(tmp_path):
    store = StoreFolder(tmp_path / "store")
    store.create()
    return store


@pytest.fixture
def submit(store):
    """Write the folder of a process that holds something."""
    submitter = Submitter(store)
    return lambda held, **options: recorded(submitter.of_process(Holds(held), JobOptions(**options)))


@pytest.fixture
def hashed(monkeypatch):
    """The sizes of what is hashed."""
    sizes = []

    def count(view):
        sizes.append(len(view))
        return job_format.digest_of(view)

    monkeypatch.setattr(blobs, "digest_of", count)
    monkeypatch.setattr("jobcontainer.storage.data.digest_of", count)
    return sizes


class Keeps:
    def __init__(self, held):
        self.held = held

    def run(self):
        pass


class Holds:
    def __init__(self, held):
        self.held = held

    def run(self):
        return self.held


def array(seed=1, size=SIZE):
    return np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)


def forget():
    """Be as another process."""
    blobs._known.clear()


def names(store):
    return sorted(path.name for path in store.data_folder.glob("*"))


def held_by(folder):
    return load_file(folder.process_file).held


def du(path):
    return 1024 * int(subprocess.run(["du", "-sk", path], capture_output=True, text=True, check=True).stdout.split()[0])


# --- once -----------------------------------------------------------------------------------------------------------


def test_the_same_content_is_written_once_by_whoever_has_it(store, submit, hashed):
    """Also by another process, which hashes what it finds, once; a second content is another file."""
    first = [submit(array()) for _ in range(3)]
    [name] = names(store)
    blob = store.data_folder / name
    assert (blob.stat().st_nlink, blob.stat().st_mode & 0o777) == (4, 0o400)
    assert hashed == [SIZE] * 3
    forget()
    first += [submit(array()) for _ in range(2)]
    assert hashed == [SIZE] * 6
    submit(array(2))
    assert len(names(store)) == 2
    assert all(np.array_equal(held_by(folder), array()) for folder in first)


def test_what_is_in_the_file_is_small(store, submit):
    """Arrays, also within others, texts and bytes are beside it; small ones are not."""
    held = {"a": array(), "b": [array(2)], "c": bytes(array(3)), "d": "x" * SIZE, "e": bytearray(array(4)), "f": b"y"}
    folder = submit(held)
    without = submit({}).process_file.stat().st_size  # the source of this module, and of what it imports
    assert folder.process_file.stat().st_size < without + SIZE // 50
    assert len(names(store)) == 5
    loaded = held_by(folder)
    assert np.array_equal(loaded.pop("a"), held.pop("a"))
    assert np.array_equal(loaded.pop("b")[0], held.pop("b")[0])
    assert loaded == held
    submit(array(size=SIZE - 1))
    assert len(names(store)) == 5


def test_a_file_of_a_person_is_one_file(tmp_path):
    """``serialize_to_file`` puts everything into it."""
    file = tmp_path / "one.job"
    Serializer.serialize_to_file(Holds(array(size=LARGER)), file)
    assert list(tmp_path.iterdir()) == [file]


def test_equal_arrays_of_one_process_stay_two(store, submit):
    """They are on disk once, and what is written into the one is not in the other."""
    folder = submit([array(), array()])
    assert len(names(store)) == 1
    first, second = held_by(folder)
    first[0] ^= 1
    assert np.array_equal(second, array())
    assert np.array_equal(held_by(folder)[0], array())


@pytest.mark.parametrize("size", [SIZE, 4 * 2**20, 4 * 2**20 + 1, LARGER])
def test_digests_are_those_of_buffers_in_a_file(store, submit, size):
    """However many threads write and hash, and wherever a piece ends."""
    folder = submit(array(size=size))
    [name] = names(store)
    assert name == job_format.digest_of(memoryview(array(size=size)))
    assert np.array_equal(held_by(folder), array(size=size))


def test_a_list_of_processes_is_hashed_once(tmp_path, hashed):
    """Not once for each process that has the array; so a sweep costs as much as its data."""
    one, other = array(size=LARGER), array(2)
    with JobPool(1, engine="inline", store=tmp_path) as pool:
        pool.submit_all([Keeps((one, number)) for number in range(5)])
        assert hashed.count(LARGER) == 1
        pool.submit_all({number: Keeps((one, other, number)) for number in range(5)})
        assert (hashed.count(LARGER), hashed.count(SIZE)) == (2, 1)


def test_a_generator_may_change_its_array_from_process_to_process(tmp_path):
    """Each job has what it was when its process was made."""
    shared = array()

    def processes():
        for number in range(3):
            shared[:] = number
            yield Holds(shared)

    with JobPool(1, engine="inline", store=tmp_path) as pool:
        assert [result[0] for result in pool.submit_all(processes()).results()] == [0, 1, 2]


def test_memory_that_changes_while_it_is_written_gets_a_true_name(store, submit, monkeypatch):
    """What is on disk is what its digest says, although another thread writes into the array."""
    changing, write = array(size=LARGER), blobs.write_blob

    def change(descriptor, view):
        changing[LARGER // 2] ^= 1
        return write(descriptor, view)

    monkeypatch.setattr("jobcontainer.storage.data.write_blob", change)
    folder = submit(changing)
    check_file(folder.process_file, anew=True)
    [name] = names(store)
    assert name == job_format.digest_of(memoryview((store.data_folder / name).read_bytes()))


@pytest.mark.slow
def test_a_large_blob_count_leaves_descriptors_to_the_job(submit):
    """Each mapping holds one; so only some are mapped."""
    folder = submit([array(seed) for seed in range(300)])
    before = len(list(Path("/proc/self/fd").iterdir()))
    loaded = held_by(folder)
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 200
    assert all(np.array_equal(one, array(seed)) for seed, one in enumerate(loaded))


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_du(store, submit):
    """Of a folder and of the store; what jobs share counts once in the store."""
    folders = [submit(array(size=LARGER)) for _ in range(4)]
    assert {folder.size() for folder in folders} == {du(folders[0])}
    assert JobStore(store.path).size() == du(store.path)
    assert JobStore(store.path).size() < 1.1 * LARGER


# --- whole wherever it is -------------------------------------------------------------------------------------------


def test_a_folder_that_is_moved_or_copied_elsewhere_is_whole(store, submit, tmp_path, hashed):
    """Nothing of it is left in the store, and a copy is hashed once by who loads it."""
    folder = submit(array())
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(store.path)
    forget()
    hashed.clear()
    for _ in range(2):
        assert np.array_equal(load_file(copy / "process.job").held, array())
    assert hashed == [SIZE]


def test_a_file_without_its_data_says_what_to_copy(submit, tmp_path):
    """A job file alone is not enough, and nothing of it is loaded."""
    folder = submit(array())
    shutil.copy(folder.process_file, tmp_path)
    with pytest.raises(CorruptFileError, match="Copy or move the whole folder"):
        load_file(tmp_path / "process.job")


@pytest.mark.parametrize("same_system", [True, False])
def test_a_process_of_another_store_brings_its_data(submit, tmp_path, monkeypatch, same_system):
    """Submitted as a file, or run again; by a link, or, from another file system, by a copy."""
    folder, other = submit(array()), StoreFolder(tmp_path / "other")
    link = os.link

    def refuse(source, target):
        if Path(source).is_relative_to(folder.path) and not same_system:
            raise OSError(errno.EXDEV, "another file system")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    with JobPool(1, engine="inline", store=other.path) as pool:
        jobs = [pool.submit_file(folder.process_file), pool.rerun(pool.submit_file(folder.process_file))]
        shutil.rmtree(folder)
        assert all(np.array_equal(job.result(), array()) for job in jobs)


# --- trust ----------------------------------------------------------------------------------------------------------


def test_who_wrote_a_blob_vouches_for_it(submit, hashed, monkeypatch):
    """By the signed header, until the machine is started again; then it is hashed once in each process."""
    folder = submit(array())
    forget()
    hashed.clear()
    held_by(folder)
    assert hashed == []
    monkeypatch.setattr(reader, "boot_id", lambda: "another start")
    held_by(folder)
    held_by(folder)
    assert hashed == [SIZE]


@pytest.mark.parametrize("known", [True, False], ids=["written here", "found"])
def test_a_blob_is_not_believed_for_its_name(store, submit, known):
    """One whose content is another is written anew for whoever needs it next; nothing of the other is loaded."""
    before = submit(array())
    [name] = names(store)
    if not known:
        forget()
    (store.data_folder / name).unlink()
    (store.data_folder / name).write_bytes(bytes(array(2)))
    after = submit(array())
    assert np.array_equal(held_by(before), array())
    assert np.array_equal(held_by(after), array())
    assert names(store) == [name]
    assert (store.data_folder / name).read_bytes() == bytes(array())


@pytest.mark.parametrize("other", ["nothing", "a folder", "a pipe", "a link to itself", "a shorter file"])
def test_whatever_is_in_the_place_of_a_blob_costs_its_own_job(submit, other):
    """No reader hangs or loads it, and the next job over the same content is whole."""
    before, folder = submit(array(2)), submit(array())
    [link] = blobs_beside(folder.process_file)
    link.unlink()
    {
        "nothing": lambda: None,
        "a folder": link.mkdir,
        "a pipe": lambda: os.mkfifo(link),
        "a link to itself": lambda: link.symlink_to(link),
        "a shorter file": lambda: link.write_bytes(b"short"),
    }[other]()
    with pytest.raises(CorruptFileError):
        held_by(folder)
    assert np.array_equal(held_by(before), array(2))
    assert np.array_equal(held_by(submit(array())), array())


def test_a_blob_that_was_changed_in_place_is_noticed(submit):
    """By each job that has it and loads it later; the next one over the same content is whole."""
    folders = [submit(array()), submit(array())]
    [link] = blobs_beside(folders[0].process_file)
    link.chmod(0o600)
    with link.open("r+b") as file:
        file.write(b"changed")
    os.utime(link, ns=(0, 0))
    for folder in folders:
        with pytest.raises(CorruptFileError, match="damaged"):
            held_by(folder)
    assert np.array_equal(held_by(submit(array())), array())


def test_an_unsigned_header_vouches_for_nothing(submit):
    """Though it names the very identity that a file of another content has, that is hashed, also to sign it."""
    folder = submit(array())
    [link] = blobs_beside(folder.process_file)
    data = bytearray(folder.process_file.read_bytes())
    true = str(identity.FileIdentity.of(link).modified).encode()
    link.unlink()
    link.write_bytes(bytes(array(2)))
    false = identity.FileIdentity.of(link)
    inode = str(blobs_of(folder.process_file)[link.name.rpartition(".")[2]].identity.inode).encode()
    at = data.rindex(b'"buffers"')
    if len(str(false.inode)) != len(inode):
        pytest.fail("the test needs an inode of as many digits")
    data[at:] = data[at:].replace(inode, str(false.inode).encode()).replace(true, str(false.modified).encode())
    folder.process_file.write_bytes(data)
    with pytest.raises(CorruptFileError, match="damaged"):
        load_file(folder.process_file, trusted=True)
    with pytest.raises(CorruptFileError, match="damaged"):
        trust_file(folder.process_file)


@pytest.mark.parametrize("digest", ["../../elsewhere", "0" * 63 + "/", "é" * 64, "A" * 64, 7])
def test_a_digest_is_no_way_out_of_the_folder(digest):
    """A header that names anything else is no header."""
    blob = job_format.Buffer(1, "0" * 64, identity.FileIdentity(1, 1, 1, 1))
    header = job_format.Header({}, (0, ""), (0, ""), (blob,))
    packed = header.packed()
    assert job_format.Header.unpacked(packed)
    forged = packed.replace(json.dumps("0" * 64).encode(), json.dumps(digest).encode())
    with pytest.raises(ValueError, match=r"digest|header"):
        job_format.Header.unpacked(forged)


# --- where links can't be had ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV])
def test_without_hard_links_each_job_has_a_copy_and_a_sentence_says_so(store, submit, monkeypatch, number):
    """It is said once; each folder is whole, and nothing is left beside them."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.warns(UserWarning, match="no hard links, so that each job there keeps a copy") as caught:
        folders = [submit([array(), array(), array(2)]) for _ in range(2)]
    assert len(caught) == 1
    assert names(store) == []
    for folder in folders:
        assert len(blobs_beside(folder.process_file)) == 2
        assert np.array_equal(held_by(folder)[2], array(2))


def test_more_jobs_than_a_file_may_have_names_share_two_files(store, submit, monkeypatch):
    """Where the file system allows no further link, the next job begins with another file."""
    first, link = submit(array()), os.link

    def refuse(source, target):
        if Path(source).stat().st_nlink > 2:
            raise OSError(errno.EMLINK, "too many links")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    submit(array())
    assert len(names(store)) == 1
    later = [submit(array()), submit(array())]
    assert all(np.array_equal(held_by(folder), array()) for folder in [first, *later])


def test_a_full_disk_leaves_nothing(store, submit, monkeypatch):
    """No folder, no temporary file, and what was there stays whole."""
    before = submit(array())

    def fail(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="no space"):
        submit([array(), array(2, LARGER), bytes(array(3))])
    SharedData(store).remove_unused()
    assert [folder.id for folder in store.folders()] == [before.id]
    assert len(names(store)) == 1
    assert np.array_equal(held_by(before), array())


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_something_in_the_place_of_the_folder_of_large_data_is_named(store, submit, make):
    """The error says what is in the way, and what to do; small processes need no such folder."""
    submit(1)
    make(store.data_folder)
    submit(2)
    with pytest.raises(NotADirectoryError, match=r"data is where a store keeps large data.*Move it away"):
        submit(array())
    assert len(list(store.folders())) == 2
    store.data_folder.unlink()
    assert np.array_equal(held_by(submit(array())), array())


# --- prune, kills and several processes -----------------------------------------------------------------------------


def in_child(act):
    """Call something in a forked child, which ends then; return the signal that killed it, 0 if none did."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def at_operation(number, act):
    """Call something before the operation of that number on files, of this process, which never ends otherwise."""
    count, busy = [0], threading.Lock()

    def hook(event, arguments):
        if event.partition(".")[0] not in {"open", "os", "fcntl"} or (event == "open" and type(arguments[0]) is int):
            return
        if busy.acquire(blocking=False):
            count[0] += 1
            if count[0] == number:
                act()
            busy.release()

    sys.addaudithook(hook)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def check(store):
    """Every process file that is there is whole; what nobody links to goes with the next prune, and nothing else."""
    for folder in store.folders():
        if folder.process_file.exists():
            check_file(folder.process_file, anew=True)
            held_by(folder)
    linked = {path.stat().st_ino for folder in store.folders() for path in folder.path.glob("*.job.*")}
    SharedData(store).remove_unused()
    left = {path.stat().st_ino for path in store.data_folder.iterdir()} if store.data_folder.exists() else set()
    assert left <= linked
    assert not [name for name in names(store) if name.startswith(".")]


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("size", [SIZE, LARGER])
def test_a_kill_at_any_instant_loses_and_leaves_nothing(store, submit, size):
    """Between any two operations on files, and within a write: what is there is whole, and the next job is."""
    submitter, first = Submitter(store), submit(array(7))
    number = 1
    while True:

        def act(number=number):
            at_operation(number, kill)
            recorded(submitter.of_process(Holds([array(size=size), bytes(array(7))]), JobOptions()))

        if not in_child(act):
            break
        forget()
        check(store)
        if number % 4 == 0:
            assert np.array_equal(held_by(submit(array(size=size))), array(size=size))
        for folder in store.folders():
            if folder.id != first.id:
                shutil.rmtree(folder)
        check(store)
        assert len(names(store)) == 1
        number += 1
    assert number > 15


def test_a_kill_within_a_write_leaves_nothing(store, submit):
    """A temporary file that is written in part goes with the next prune."""

    def act():
        write = os.pwrite

        def cut(descriptor, data, offset):
            write(descriptor, data[: len(data) // 2], offset)
            kill()

        os.pwrite = cut
        submit(array(size=LARGER))

    assert in_child(act) == signal.SIGKILL
    [left] = names(store)
    assert left.startswith(".")
    check(store)
    assert names(store) == []


@pytest.mark.slow
@pytest.mark.parametrize("found", [False, True], ids=["new", "found"])
def test_a_prune_at_any_instant_loses_nothing(store, submit, found):
    """Before any operation of a submission another process may remove what nobody links to yet: it is written anew."""
    number, ran = 1, store.path / "ran"

    def prune():
        SharedData(store).remove_unused()
        ran.touch()

    while True:
        for folder in [submit([array(), array(2, LARGER)])] if found else []:
            shutil.rmtree(folder)

        def act(number=number):
            at_operation(number, prune)
            submit([array(), array(2, LARGER)])

        ran.unlink(missing_ok=True)
        assert in_child(act) == 0
        [folder] = store.folders()
        check(store)
        shutil.rmtree(folder)
        SharedData(store).remove_unused()
        if not ran.exists():
            break
        number += 1
    assert number > 8 if found else number > 15


def test_a_file_that_is_being_written_is_no_leftover(store, monkeypatch, submit):
    """A prune of another process, while a blob is half written, leaves it alone."""
    write = os.pwrite

    def prune(descriptor, data, offset):
        assert in_child(SharedData(store).remove_unused) == 0
        assert [name for name in names(store) if name.startswith(".")]
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", prune)
    assert np.array_equal(held_by(submit(array())), array())


@pytest.mark.slow
def test_processes_that_write_load_and_prune_at_the_same_time(store, submit):
    """Each job is whole, however the others come and go."""

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(60):
            number = int(random.integers(3))
            folder = submit(array(number))
            assert np.array_equal(held_by(folder), array(number))
            if random.integers(2):
                shutil.rmtree(folder)
            SharedData(store).remove_unused()

    children = []
    for seed in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                work(seed)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    check(store)
    assert len(names(store)) <= 3


def test_prune_removes_what_the_last_job_had(tmp_path):
    """With the last job that has it, whoever deleted the others, and if it deletes no job; no file of another name."""
    with JobPool(1, engine="inline", store=tmp_path) as pool:
        jobs = [pool.submit(Holds(array())) for _ in range(3)]
    store = StoreFolder(tmp_path)
    (store.data_folder / "a").touch()
    JobStore(tmp_path).prune(keep=1)
    assert len(names(store)) == 2
    assert np.array_equal(JobStore(tmp_path).jobs()[0].result(), array())
    shutil.rmtree(jobs[-1].folder)
    assert len(names(store)) == 2
    assert JobStore(tmp_path).prune(keep=1) == []
    assert names(store) == ["a"]


class Store(RuleBasedStateMachine):
    """A store, and all that may happen to its large data."""

    folders = Bundle("folders")
    contents = st.integers(0, 3)

    def __init__(self):
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.store = StoreFolder(Path(self.place.name, "store"))
        self.store.create()
        self.held = {}

    def teardown(self):
        self.place.cleanup()

    @rule(target=folders, content=contents, twice=st.booleans())
    def submit(self, content, twice):
        held = [array(content), *([bytes(array(content)), array(0)] if twice else [])]
        folder = recorded(Submitter(self.store).of_process(Holds(held), JobOptions()))
        self.held[folder] = held
        return folder

    @rule(folder=folders, content=contents)
    def write_result(self, folder, content):
        write_file(array(content), folder.result_file, kind="result", blobs=SharedData(self.store))
        assert np.array_equal(load_file(folder.result_file), array(content))
        assert len(blobs_beside(folder.result_file)) == 1

    @rule(
        target=folders,
        content=contents,
        number=st.sampled_from([errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK]),
        allowed=st.integers(0, 4),
        pruned=st.booleans(),
    )
    def submit_where_links_fail(self, content, number, allowed, pruned):
        left, link = [None] * allowed, os.link

        def fail(source, target):
            if pruned:
                SharedData(self.store).remove_unused()
            if not left:
                raise OSError(number, os.strerror(number))
            left.pop()
            link(source, target)

        held = [array(content), array(content + 4)]
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
            patch.setattr(os, "link", fail)
            try:
                folder = recorded(Submitter(self.store).of_process(Holds(held), JobOptions()))
            except OSError as error:
                assert number == errno.EMLINK or pruned, error  # noqa: PT017 -- whether it may be raised
                return multiple()
        self.held[folder] = held
        return folder

    @rule(target=folders, folder=folders)
    def run_again(self, folder):
        again = recorded(Submitter(self.store).of_job(folder))
        self.held[again] = self.held[folder]
        return again

    @rule(folder=consumes(folders))
    def delete(self, folder):
        shutil.rmtree(folder)
        del self.held[folder]

    @rule()
    def prune(self):
        SharedData(self.store).remove_unused()
        linked = {path.stat().st_ino for folder in self.held for path in folder.path.glob("*.job.*")}
        assert {path.stat().st_ino for path in self.store.data_folder.glob("*")} <= linked

    @rule()
    def be_another_process(self):
        forget()

    @rule(content=contents, other=contents)
    def forge(self, content, other):
        name = job_format.digest_of(memoryview(array(content)))
        self.store.data_folder.mkdir(exist_ok=True)
        (self.store.data_folder / name).unlink(missing_ok=True)
        (self.store.data_folder / name).write_bytes(bytes(array(other)))

    @rule(content=contents, number=st.integers(1, 40))
    def be_killed(self, content, number):
        def act():
            at_operation(number, kill)
            recorded(Submitter(self.store).of_process(Holds(array(content)), JobOptions()))

        before = {folder.id for folder in self.store.folders()}
        in_child(act)
        for folder in self.store.folders():
            if folder.id not in before:
                shutil.rmtree(folder)

    @rule(target=folders, folder=consumes(folders))
    def move(self, folder):
        elsewhere = type(folder)(self.store.path / f"moved-{os.urandom(8).hex()}")
        shutil.copytree(folder, elsewhere)
        shutil.rmtree(folder)
        self.held[elsewhere] = self.held.pop(folder)
        return elsewhere

    @invariant()
    def every_job_has_what_it_was_submitted_with(self):
        for folder, held in self.held.items():
            loaded = held_by(folder)
            assert len(loaded) == len(held)
            assert all(np.array_equal(mine, yours) for mine, yours in zip(loaded, held, strict=True))


@pytest.mark.slow
def test_whatever_happens_every_job_has_what_it_was_submitted_with():
    """Submissions, reruns, results, deletions, prunes, kills, moves and forged files, in any order."""
    run_state_machine_as_test(
        Store,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
