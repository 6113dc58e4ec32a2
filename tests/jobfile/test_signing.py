"""Who may be loaded: keys, signatures, and the two ways round them."""

from __future__ import annotations

import gzip
import hmac
import multiprocessing
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from jobcontainer import CorruptFileError, Serializer, UntrustedFileError
from jobcontainer.jobfile import signing
from jobcontainer.jobfile.loading import check_process, load_process
from jobcontainer.jobfile.reader import FileReader
from jobcontainer.jobfile.serializer import trust_file, write_file
from jobcontainer.jobfile.signing import Purpose
from jobcontainer.storage.result import decided_state, read_result
from jobcontainer.worker.job_imports import load_in_job


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "object.job"


@pytest.fixture
def other_key(tmp_path, monkeypatch):
    """Switch to the key of another user."""

    def switch():
        key = tmp_path / "other key"
        key.write_text("0123456789abcdef" * 4)
        key.chmod(0o600)
        monkeypatch.setenv(signing.KEY_VARIABLE, str(key))

    return switch


def test_the_key_is_made_on_first_use_for_its_owner_alone(path, key_file):
    """Whatever the umask: 32 random bytes as hex, mode 0600, in a folder of mode 0700 where that had to be made too."""
    before = os.umask(0)
    try:
        Serializer.serialize_to_file(1, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert len(bytes.fromhex(key_file.read_text())) == 32
    assert list(key_file.parent.iterdir()) == [key_file]


def test_the_folder_of_the_key_is_its_owners_alone(tmp_path, monkeypatch, path):
    """A folder that is made for the key has mode 0700."""
    monkeypatch.setattr(signing, "_own_key_file", lambda: str(tmp_path / "config" / "jobcontainer" / "key"))
    Serializer.serialize_to_file(1, path)
    assert stat.S_IMODE((tmp_path / "config" / "jobcontainer").stat().st_mode) == 0o700


def _sign_at_once(folder, start, results):
    signing._own_key_file = lambda: folder + "/key"
    start.wait()
    results.put(signing.sign(Purpose.JOB_FILE, b"data"))


def test_processes_that_make_the_key_at_once_end_with_one(tmp_path):
    """All sign with the same key, whoever was first."""
    context = multiprocessing.get_context("fork")
    for round_number in range(5):
        folder = tmp_path / str(round_number)
        start, results = context.Event(), context.SimpleQueue()
        processes = [context.Process(target=_sign_at_once, args=(str(folder), start, results)) for _ in range(8)]
        for process in processes:
            process.start()
        start.set()
        signatures = {results.get() for _ in processes}
        for process in processes:
            process.join()
            process.close()
        results.close()
        assert len(signatures) == 1
        assert [entry.name for entry in folder.iterdir()] == ["key"]


def test_a_file_of_another_key_is_refused_and_nothing_in_it_is_run(tmp_path, path, other_key):
    """Neither by loading nor by looking at it."""
    Serializer.serialize_to_file(Bomb(tmp_path / "trace"), path)
    other_key()
    for refuse in (Serializer.deserialize_from_file, Serializer.verify):
        with pytest.raises(UntrustedFileError, match=r"not signed with your key .*other key.*jobcontainer trust"):
            refuse(path)
    assert not Serializer.inspect(path).signed
    assert not (tmp_path / "trace").exists()


def test_trusted_loads_a_foreign_file_once(path, other_key):
    """It does not make the file trusted for later loads."""
    Serializer.serialize_to_file({"a": np.arange(10**5)}, path)
    other_key()
    assert Serializer.deserialize_from_file(path, trusted=True)["a"].sum() == 4999950000
    with pytest.raises(UntrustedFileError):
        Serializer.deserialize_from_file(path)


def test_trusted_is_no_way_round_damage(path, other_key):
    """A foreign file must still be whole."""
    Serializer.serialize_to_file({"a": np.arange(10**5)}, path)
    other_key()
    for place in (100, 5000):
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(CorruptFileError):
            Serializer.deserialize_from_file(path, trusted=True)
        with pytest.raises(CorruptFileError):
            trust_file(path)


def test_a_file_that_was_signed_by_hand_is_ones_own(path, other_key):
    """Its content stays as it was."""
    given = {"a": np.arange(10**6)}
    Serializer.serialize_to_file(given, path)
    other_key()
    before = path.read_bytes()
    trust_file(path)
    Serializer.verify(path)
    assert Serializer.inspect(path).signed
    assert np.array_equal(Serializer.deserialize_from_file(path)["a"], given["a"])
    after = path.read_bytes()
    assert (before[:32], before[64:]) == (after[:32], after[64:])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_is_loaded_on_purpose_only(tmp_path, path, protocol):
    """The error says both ways; nothing in the pickle is run before."""
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "trace"), protocol))
    for refuse in (Serializer.deserialize_from_file, Serializer.verify):
        with pytest.raises(UntrustedFileError, match=r"plain pickle.*trusted=True.*jobcontainer trust"):
            refuse(path)
    facts = Serializer.inspect(path)
    assert (facts.kind, facts.signed, facts.size) == ("pickle", False, path.stat().st_size)
    assert not (tmp_path / "trace").exists()
    Serializer.deserialize_from_file(path, trusted=True).close()
    assert (tmp_path / "trace").exists()


def test_a_plain_pickle_that_was_signed_stays_one(path):
    """``pickle.load`` and others go on reading it; signing it again changes nothing."""
    path.write_bytes(pickle.dumps({"a": 1}))
    trust_file(path)
    assert Serializer.deserialize_from_file(path) == {"a": 1}
    Serializer.verify(path)
    facts = Serializer.inspect(path)
    assert (facts.kind, facts.signed) == ("pickle", True)
    with path.open("rb") as file:
        assert pickle.load(file) == {"a": 1}
    once = path.read_bytes()
    trust_file(path)
    assert path.read_bytes() == once


def test_a_signed_pickle_that_was_altered_is_refused(path):
    """Each byte of it counts, those of the signature too."""
    path.write_bytes(pickle.dumps({"a": 1}))
    trust_file(path)
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((CorruptFileError, UntrustedFileError)):
            Serializer.deserialize_from_file(path)


def test_a_signature_can_not_be_moved_to_another_file(path, tmp_path):
    """Neither from pickle to pickle, nor from a job file to a pickle."""
    path.write_bytes(pickle.dumps(1))
    trust_file(path)
    trailer = path.read_bytes()[-48:]
    foreign = tmp_path / "foreign.pkl"
    foreign.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")) + trailer)
    with pytest.raises(UntrustedFileError):
        Serializer.deserialize_from_file(foreign)
    own = tmp_path / "own.job"
    Serializer.serialize_to_file(1, own)
    foreign.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")) + trailer[:16] + own.read_bytes()[32:64])
    with pytest.raises(UntrustedFileError):
        Serializer.deserialize_from_file(foreign)
    assert not (tmp_path / "trace").exists()


NO_FILES = {
    "empty": b"",
    "text": b"hello",
    "zeros": bytes(1000),
    "half a magic": b"\x93JOB",
    "a magic": b"\x93JOB\r\n\x1a\n",
    "a magic and zeros": b"\x93JOB\r\n\x1a\n" + bytes(100),
    "compressed": gzip.compress(pickle.dumps(1)),
    "as text": b"\x93JOB\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("content", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_job_file_is_corrupt_however_it_is_asked_for(path, content):
    """Loading, looking, verifying and signing agree."""
    path.write_bytes(content)
    for refuse in (
        Serializer.deserialize_from_file,
        Serializer.inspect,
        Serializer.verify,
        trust_file,
        lambda file: Serializer.deserialize_from_file(file, trusted=True),
    ):
        with pytest.raises(CorruptFileError):
            refuse(path)
    assert path.read_bytes() == content


def _make_socket(path):
    import socket  # noqa: PLC0415 -- the other places need none

    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


PLACES = {
    "a folder": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a socket": _make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a folder": lambda path: path.symlink_to("/"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_what_is_no_file_is_refused_at_once(tmp_path, make, monkeypatch):
    """A FIFO without a writer would hold a reader up for ever, a device would never end."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = tmp_path.relative_to(tmp_path) / "place"
    make(path)
    for refuse in (
        Serializer.deserialize_from_file,
        Serializer.inspect,
        Serializer.verify,
        trust_file,
        lambda file: Serializer.deserialize_from_file(file, trusted=True),
    ):
        with pytest.raises(CorruptFileError, match="no job file"):
            refuse(path)


def test_a_link_swapped_in_is_checked_as_what_it_leads_to(tmp_path, path):
    """To a foreign file: refused. To one's own: loaded, as a link to the latest of several is no damage."""
    foreign = tmp_path / "foreign"
    foreign.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    path.symlink_to(foreign)
    with pytest.raises(UntrustedFileError):
        Serializer.deserialize_from_file(path)
    own = tmp_path / "own"
    Serializer.serialize_to_file("mine", own)
    path.unlink()
    path.symlink_to(own)
    assert Serializer.deserialize_from_file(path) == "mine"


def test_a_file_put_in_the_place_of_one_that_is_open_is_not_read(path, tmp_path, monkeypatch):
    """The file is opened once, and its signature is that of what is unpickled."""
    Serializer.serialize_to_file({"mine": np.arange(10**5)}, path)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    check = signing.is_signed

    def swap_meanwhile(*given, **named):
        foreign.replace(path)
        return check(*given, **named)

    monkeypatch.setattr(signing, "is_signed", swap_meanwhile)
    assert Serializer.deserialize_from_file(path)["mine"].sum() == 4999950000
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622, 0o644, 0o601])
def test_a_key_that_others_can_read_or_write_is_refused(path, key_file, mode):
    """Neither signing nor loading goes on; the message has the command."""
    Serializer.serialize_to_file(1, path)
    key_file.chmod(mode)
    for refuse in (lambda: Serializer.serialize_to_file(2, path), lambda: Serializer.deserialize_from_file(path)):
        with pytest.raises(UntrustedFileError, match=rf"chmod 600 .*{key_file.name}"):
            refuse()
    key_file.chmod(0o600)
    assert Serializer.deserialize_from_file(path) == 1


def _key_is_a_folder(key):
    key.mkdir()


def _key_is_short(key):
    key.write_text("secret\n")
    key.chmod(0o600)


def _key_is_empty(key):
    key.touch(0o600)


def _key_is_a_fifo(key):
    os.mkfifo(key, 0o600)


@pytest.mark.parametrize("make", [_key_is_a_folder, _key_is_short, _key_is_empty, _key_is_a_fifo])
def test_a_key_file_that_is_none_is_refused(path, tmp_path, monkeypatch, make):
    """In a sentence that says what to do, and without waiting for ever."""
    key = tmp_path / "bad key"
    make(key)
    monkeypatch.setenv(signing.KEY_VARIABLE, str(key))
    with pytest.raises(UntrustedFileError, match=r"bad key, .*set JOBCONTAINER_KEY_FILE to a file"):
        Serializer.serialize_to_file(1, path)
    assert not path.exists()


def test_a_named_key_that_is_missing_is_not_made(path, tmp_path, monkeypatch):
    """On a cluster that would be another key on each machine."""
    monkeypatch.setenv(signing.KEY_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(UntrustedFileError, match=r"no such file. Copy the key of your other machines"):
        Serializer.serialize_to_file(1, path)
    assert not (tmp_path / "missing").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that belongs to another user")
def test_a_key_of_another_user_is_refused(path, key_file):
    """Whoever owns it could sign files in this user's name."""
    signing.sign(Purpose.JOB_FILE, b"")
    os.chown(key_file, 65534, 65534)
    with pytest.raises(UntrustedFileError, match="belongs to another user"):
        Serializer.serialize_to_file(1, path)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702])
def test_a_key_in_a_folder_that_others_can_write_to_is_refused(path, tmp_path, monkeypatch, mode):
    """They could put a file in its place whose content they know; not so in one with the sticky bit, as /tmp."""
    folder = tmp_path / "open"
    folder.mkdir()
    key = folder / "key"
    key.write_text("0123456789abcdef" * 4)
    key.chmod(0o600)
    monkeypatch.setenv(signing.KEY_VARIABLE, str(key))
    folder.chmod(mode)
    with pytest.raises(UntrustedFileError, match=r"folder, .*open, in which other users can put another key"):
        Serializer.serialize_to_file(1, path)
    folder.chmod(mode | 0o1000)
    Serializer.serialize_to_file(1, path)
    assert Serializer.deserialize_from_file(path) == 1


def test_a_link_of_another_user_to_a_key_is_refused(path, key_file, tmp_path, monkeypatch):
    """It may lead to any file of this user's whose content others know; a link of one's own is followed."""
    signing.sign(Purpose.JOB_FILE, b"")
    link = tmp_path / "link"
    link.symlink_to(key_file)
    monkeypatch.setenv(signing.KEY_VARIABLE, str(link))
    Serializer.serialize_to_file(1, path)
    if os.geteuid() == 0:
        os.chown(link, 65534, 65534, follow_symlinks=False)
    else:
        foreign = os.stat_result((stat.S_IFLNK | 0o777, 1, 1, 1, 65534, 65534, 0, 0, 0, 0))
        monkeypatch.setattr(Path, "lstat", lambda _: foreign)
    signing._read.cache_clear()
    with pytest.raises(UntrustedFileError, match="belongs to another user"):
        Serializer.serialize_to_file(1, path)


NOT_WRITABLE = """
import sys
from jobcontainer import Serializer, UntrustedFileError
try:
    Serializer.serialize_to_file(1, sys.argv[1])
except UntrustedFileError as error:
    print(error)
"""


def test_without_a_home_to_write_to_the_sentence_names_the_variable(tmp_path):
    """As in containers that run under a user without a home."""
    environment = {name: value for name, value in os.environ.items() if name != signing.KEY_VARIABLE}
    result = subprocess.run(
        [sys.executable, "-c", NOT_WRITABLE, tmp_path / "object.job"],
        env=environment | {"HOME": "/proc", "XDG_CONFIG_HOME": "/proc/none"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "can't be made" in result.stdout, result
    assert signing.KEY_VARIABLE in result.stdout


def test_a_new_key_is_taken_at_once(path, key_file):
    """A key file that was replaced is read again: old files are foreign then."""
    Serializer.serialize_to_file("old", path)
    key_file.unlink()
    with pytest.raises(UntrustedFileError):
        Serializer.deserialize_from_file(path)
    Serializer.serialize_to_file("new", path)
    assert Serializer.deserialize_from_file(path) == "new"


def test_a_held_key_outlasts_the_environment(path, key_file, tmp_path, monkeypatch):
    """A job that sets HOME, or a key of its own, signs its result with the key that it was submitted with."""
    Serializer.serialize_to_file(1, path)
    signing.hold(signing.keys_for_jobs())
    monkeypatch.setenv(signing.KEY_VARIABLE, str(tmp_path / "missing"))
    key_file.unlink()
    assert Serializer.deserialize_from_file(path) == 1


def test_signatures_are_compared_in_constant_time(path, monkeypatch):
    """By the function that is made for it."""
    compared = []
    monkeypatch.setattr(signing.hmac, "compare_digest", lambda first, second: compared.append((first, second)) or True)
    Serializer.serialize_to_file(1, path)
    path.write_bytes(path.read_bytes()[:32] + bytes(32) + path.read_bytes()[64:])
    assert Serializer.deserialize_from_file(path) == 1
    assert compared
    assert compared[0][1] == bytes(32)


PURPOSES = list(Purpose)


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize("made_for", PURPOSES)
def test_a_signature_for_one_purpose_is_none_for_another(made_for):
    """Over the same bytes: not for any other purpose, and without one it is not made at all."""
    signature = signing.sign(made_for, b"data")
    assert [purpose for purpose in Purpose if signing.is_signed(purpose, b"data", signature)] == [made_for]


def test_no_purpose_and_data_can_be_cut_elsewhere(key_file):
    """The words of a purpose hold no zero byte, so that the data can't begin with the rest of another purpose."""
    assert not any("\0" in purpose for purpose in Purpose)
    key = key_file.parent / "key"
    signing.sign(Purpose.HOST, b"")
    made = hmac.digest(bytes(key.read_bytes().strip()), b"job file\0data", "sha256")
    assert signing.is_signed(Purpose.JOB_FILE, b"data", made)
    assert not signing.is_signed(Purpose.JOB_FILE, b"data", hmac.digest(key.read_bytes().strip(), b"data", "sha256"))


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.JOB_FILE])
def test_what_was_signed_for_another_purpose_makes_no_file(path, tmp_path, purpose):
    """A Dask client, or a client of the host, can have bytes of its choice signed: those of a job file, too."""
    Serializer.serialize_to_file(Bomb(tmp_path / "trace"), path)
    data = path.read_bytes()
    with FileReader(path) as file:
        signature = signing.sign(purpose, bytes(file.signed))
    path.write_bytes(data[:32] + signature + data[64:])
    with pytest.raises(UntrustedFileError):
        Serializer.deserialize_from_file(path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.PLAIN_PICKLE])
def test_what_was_signed_for_another_purpose_makes_no_pickle(path, tmp_path, purpose):
    """The same for a plain pickle, whose digest alone is signed."""
    content = pickle.dumps(Bomb(tmp_path / "trace"))
    path.write_bytes(content + b"\njobcontainer-1\n" + signing.sign(purpose, blake3(content).digest()))
    with pytest.raises(UntrustedFileError):
        Serializer.deserialize_from_file(path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kind", ["result", "error", "object", "checkpoint", ""])
def test_a_file_of_another_kind_is_not_loaded_as_a_process(path, tmp_path, kind):
    """A job may have made it, and moved it there; nothing in it is run, though it is whole and signed."""
    identity = write_file(Bomb(tmp_path / "trace"), path, kind=kind)
    for load in (load_process, load_in_job, lambda path: load_process(path, identity), check_process):
        with pytest.raises(UntrustedFileError, match=rf"holds a {kind}.*not loaded as a process"):
            load(path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kind", ["process", "object", "checkpoint", ""])
def test_a_file_of_another_kind_is_not_loaded_as_a_result(path, tmp_path, kind):
    """Nor is a plain pickle, though somebody signed it: no job writes its result as one."""
    identity = write_file(Bomb(tmp_path / "trace"), path, kind=kind)
    for known in (identity, None):
        with pytest.raises(UntrustedFileError, match=rf"holds a {kind}.*not loaded as a error or result"):
            read_result(path, known)
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    trust_file(path)
    with pytest.raises(UntrustedFileError, match="holds a pickle"):
        read_result(path)
    assert decided_state(path) is None
    assert not (tmp_path / "trace").exists()


def test_a_changed_kind_is_an_altered_file(path):
    """The kind is a part of what is signed."""
    write_file(1, path, kind="result")
    path.write_bytes(path.read_bytes().replace(b'"kind":"result"', b'"kind":"errors"'))
    with pytest.raises(UntrustedFileError, match="was altered"):
        read_result(path)


def test_a_signed_pickle_may_be_run(path):
    """A person has decided so with ``jobcontainer trust``, and a pickle does not say what it holds."""
    path.write_bytes(pickle.dumps({"a": 1}))
    trust_file(path)
    check_process(path)
    assert load_process(path) == {"a": 1}


def test_a_job_and_its_pool_go_on_when_the_key_is_deleted(path, key_file):
    """A running job signs with the former key, a queued one was signed with it: this process alone reads both."""
    result = path.with_name("result.job")
    write_file("process", path, kind="process")
    write_file("result", result, kind="result")
    key_file.unlink()
    assert load_process(path) == "process"
    assert read_result(result) == ("result", None)
    with pytest.raises(UntrustedFileError):
        Serializer.deserialize_from_file(result)
    first, former = signing.keys_for_jobs()
    assert first == key_file.read_bytes().strip() != former
    signing.hold([])  # as a process that begins now
    with pytest.raises(UntrustedFileError, match=r"with a key that was replaced since.*jobcontainer trust"):
        read_result(result)


def test_a_job_is_sent_off_though_the_key_can_not_be_read_any_more(path, key_file):
    """What was submitted before needs no key file."""
    write_file("process", path, kind="process")
    used = key_file.read_bytes().strip()
    key_file.chmod(0o644)
    assert signing.keys_for_jobs() == (used,)
    assert load_process(path) == "process"
    signing.hold([])
    assert signing.keys_for_jobs() == ()


def test_few_keys_are_remembered(path, key_file):
    """A process in which the key changes for ever does not try ever more of them."""
    for number in range(20):
        key_file.unlink(missing_ok=True)
        Serializer.serialize_to_file(number, path)
    assert len(signing.keys_for_jobs()) == 8
    assert signing.keys_for_jobs()[0] == key_file.read_bytes().strip()
