"""The host of detached jobs answers its user, whatever anybody sends, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import pytest

from echo_engine import EchoEngine
from jobcontainer import JobContainerError, JobPool
from jobcontainer.jobfile import signing
from jobcontainer.jobs.detached import client, protocol
from jobcontainer.jobs.detached import host as host_module
from jobcontainer.jobs.detached.client import DetachedJobs
from jobcontainer.jobs.detached.host import Host
from jobcontainer.jobs.detached.protocol import Request, differences, message_line, peer_of, runtime
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.owner import this_process
from jobcontainer.storage.store_folder import StoreFolder
from waiting import is_running, wait_for

NOBODY = 65534


class Returns:
    def __init__(self, value):
        self.value = value

    def run(self):
        return self.value


@pytest.fixture(autouse=True)
def _own_key(key_file):
    """The user's key is never touched."""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store in the working directory, so that the path of its socket is short."""
    folder = StoreFolder(tmp_path / "store")
    folder.create()
    monkeypatch.chdir(folder.path)
    return folder


class Served:
    """A host that runs in a thread of the tests; what it would run is counted only."""

    def __init__(self, store):
        self.submitted = []
        self.unfinished = []
        self.host = Host(store)
        self.host._control.scheduler.end()
        self.host._control = SimpleNamespace(
            submit=self.submitted.extend, scheduler=SimpleNamespace(unfinished=lambda: self.unfinished)
        )
        self.is_wanted = True
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind("host.sock")
        self.listener.listen(64)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        asyncio.run(self.host.serve(self.listener, lambda: self.is_wanted))

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect("host.sock")
        return connection

    def answer(self, line):
        """Send something, and return the answer; None where the host closes the connection."""
        with self.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            return json.loads(connection.makefile("rb").readline() or "null")

    def answers(self):
        """Whether it still answers what a client asks first."""
        return self.answer(message_line(runtime=runtime()))["owner"] == this_process()


@pytest.fixture
def served(store, monkeypatch):
    monkeypatch.setattr(host_module, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(host_module, "engine_named", lambda *_: EchoEngine())  # not a keeper for each test
    served = Served(store)
    yield served
    served.is_wanted = False
    served.thread.join(20)
    served.listener.close()
    assert not served.thread.is_alive()


def environment(**changes):
    """An environment as a request holds it."""
    here = {"cwd": "/", "sys_path": ["/a"], "environ": {"A": "b"}, "log_level": 30, "settings": {}}
    return {name: value for name, value in (here | changes).items() if value is not None}


def request(**changes):
    """A request of this version, with something else in it."""
    return message_line(**{"runtime": runtime(), "jobs": ["x"], "environment": environment()} | changes)


ODD = {
    "nothing": b"",
    "an empty line": b"\n",
    "half a request": message_line(runtime={})[:-10],
    "zeros": bytes(1000),
    "binary": bytes(range(256)) * 10,
    "another encoding": '{"protocol": 1}\n'.encode("utf-16"),
    "a list": b"[]\n",
    "null": b"null\n",
    "a number": b"1e999\n",
    "not a number": b'{"protocol": NaN}\n',
    "many digits": b'{"protocol": ' + b"9" * 10_000 + b"}\n",
    "deep lists": b"[" * 100_000 + b"\n",
    "deep objects": b'{"protocol":' * 100_000 + b"\n",
    "deep and whole": b'{"protocol": 1, "jobs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}\n",
    "an older client": b"{}\n",
    "an older client's jobs": json.dumps({"jobs": ["x"], "environment": environment()}).encode() + b"\n",
    "a newer protocol": b'{"protocol": 2}\n',
    "no runtime": message_line(),
    "a list as runtime": message_line(runtime=[]),
    "numbers as runtime": message_line(runtime={"key": 1, "prefix": None}),
    "jobs without environment": lambda: message_line(runtime=runtime(), jobs=["x"]),
    "a text as jobs": lambda: request(jobs="x"),
    "an object as jobs": lambda: request(jobs={"x": 1}),
    "numbers as jobs": lambda: request(jobs=[1, None]),
    "lists as jobs": lambda: request(jobs=[["x"]]),
    "the folder around": lambda: request(jobs=[".."]),
    "another folder": lambda: request(jobs=["../../etc"]),
    "an absolute path": lambda: request(jobs=["/etc"]),
    "the store itself": lambda: request(jobs=["."]),
    "no name": lambda: request(jobs=[""]),
    "a zero byte": lambda: request(jobs=["a\0b"]),
    "a long name": lambda: request(jobs=["a" * 10_000]),
    "half a character": lambda: request(jobs=["\ud800"]),
    "no such job": request,
    "a list as environment": lambda: request(environment=[]),
    "an empty environment": lambda: request(environment={}),
    "an unknown field": lambda: request(environment=environment(more=1)),
    "no cwd": lambda: request(environment=environment(cwd=None)),
    "a number as cwd": lambda: request(environment=environment(cwd=5)),
    "a text as sys_path": lambda: request(environment=environment(sys_path="/a")),
    "numbers as sys_path": lambda: request(environment=environment(sys_path=[1])),
    "numbers as variables": lambda: request(environment=environment(environ={"A": 1})),
    "a list as variables": lambda: request(environment=environment(environ=["A"])),
    "an impossible variable": lambda: request(environment=environment(environ={"A=B": "c"})),
    "a text as level": lambda: request(environment=environment(log_level="DEBUG")),
    "a list as settings": lambda: request(environment=environment(settings=[])),
}


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
def test_no_request_ends_the_host(served, line):
    """It is refused in a sentence, or the connection closed; the next client gets its answer, and no job was taken."""
    answer = served.answer(line() if callable(line) else line)
    assert answer is None or answer.keys() == {"protocol", "refused"}, answer
    assert served.submitted == []
    assert served.answers()


@pytest.fixture
def _short_requests(monkeypatch):
    """Requests are of a thousand bytes at the most, before there is a host."""
    monkeypatch.setattr(host_module, "LARGEST_REQUEST", 1000)


@pytest.mark.usefixtures("_short_requests")
def test_a_request_that_is_too_long_is_not_read_to_its_end(served):
    """What is held of it in memory is bounded."""
    assert served.answer(b"x" * 10_000_000) is None
    assert served.answers()


def test_silent_clients_hold_up_nobody(served):
    """Neither those that send nothing, nor those that stop in the middle, nor those that do not read their answer."""
    silent = [served.connect() for _ in range(20)]
    for number, connection in enumerate(silent):
        if number % 3:
            connection.sendall(message_line(runtime=runtime())[: -1 if number % 3 == 1 else None])
    begun = time.monotonic()
    assert all(served.answers() for _ in range(10))
    assert time.monotonic() - begun < 5
    for connection in silent:
        connection.close()


def test_a_client_that_is_silent_for_too_long_is_cut_off(served, monkeypatch):
    """Its place is free again."""
    monkeypatch.setattr(host_module, "_REQUEST_SECONDS", 0.1)
    with served.connect() as connection:
        connection.sendall(b'{"protocol"')
        assert connection.recv(100) == b""
    wait_for(lambda: not served.host._clients)


def test_with_too_many_clients_the_oldest_is_cut_off(served):
    """So that there is always a place for the next one."""
    silent = [served.connect() for _ in range(host_module._MOST_CLIENTS)]
    wait_for(lambda: len(served.host._clients) == host_module._MOST_CLIENTS)
    assert served.answers()
    with contextlib.suppress(ConnectionResetError):
        assert silent[0].recv(100) == b""
    silent[1].sendall(message_line(runtime=runtime()))
    assert b"owner" in silent[1].recv(1000)
    for connection in silent:
        connection.close()


def recorded(submission):
    """The folder of a job that a client has written."""
    write_records([submission])
    return submission.folder


def test_a_request_that_comes_twice_counts_once(served, store):
    """As where the answer was lost, or where a client names a job twice."""
    folder = recorded(Submitter(store).of_process(Returns(1), JobOptions()))
    for _ in range(2):
        assert served.answer(request(jobs=[folder.id, folder.id]))["taken"]
    assert [submission.folder.id for submission in served.submitted] == [folder.id]


def test_jobs_of_an_earlier_host_are_refused(served, store):
    """They are its own, and end as lost."""
    owner = {"host": os.uname().nodename, "pid": 2**22 + 1, "started": 0.0}
    folder = recorded(Submitter(store, owner=owner).of_process(Returns(1), JobOptions()))
    assert "submit them again" in served.answer(request(jobs=[folder.id]))["refused"]
    assert served.submitted == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: folder.record_file.write_bytes(b"[]"),
        lambda folder: folder.record_file.write_bytes(b"\xff"),
        lambda folder: folder.record_file.write_bytes(b'{"id": 1}'),
        lambda folder: folder.record_file.unlink(),
        lambda folder: folder.path.rename(folder.path.with_name("moved")).joinpath("..", folder.id).symlink_to("moved"),
        lambda folder: folder.path.chmod(0o777),
    ],
    ids=["a list", "binary", "not whole", "none", "a link", "open to all"],
)
def test_a_job_folder_that_is_none_is_refused(served, store, spoil):
    """Whatever a job or another user made of it."""
    folder = recorded(Submitter(store).of_process(Returns(1), JobOptions()))
    spoil(folder)
    assert served.answer(request(jobs=[folder.id]))["refused"]
    assert served.submitted == []
    assert served.answers()


def test_an_error_of_the_host_itself_is_reported_and_ends_nothing(served, monkeypatch, capsys):
    """The traceback is in its log, where the answer says that it is."""
    with monkeypatch.context() as patch:
        patch.setattr(served.host, "_take", lambda _: 1 / 0)
        assert "host.log" in served.answer(request())["refused"]
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert served.answers()


def test_a_client_of_another_version_gets_a_new_host_where_nothing_runs(served):
    """The old one ends, and whoever asked starts one of its own version."""
    assert served.answer(message_line(runtime=runtime() | {"jobcontainer": "9.9"}))["ending"]
    served.thread.join(10)
    assert not served.thread.is_alive()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"jobcontainer": "9.9"}, "and this is jobcontainer 9.9."),
        ({"python": "3.99.1"}, "and this is Python 3.99.1."),
        ({"prefix": "/elsewhere"}, "and this is the Python environment /elsewhere."),
        ({"key": "00"}, "It has another key."),
    ],
)
def test_a_client_of_another_version_is_refused_while_jobs_run(served, other, words):
    """Neither is the job run by another version, or in another environment, nor are those that run ended."""
    served.unfinished = [object()] * 3
    refused = served.answer(message_line(runtime=runtime() | other))["refused"]
    assert words in refused
    assert "have not ended: 3. Wait for its jobs, cancel them" in refused
    assert served.answers()


def test_a_key_that_was_replaced_is_no_other_key_where_both_have_it(served, key_file):
    """The host signs with the new one from now on, as its clients do."""
    assert served.answers()
    key_file.unlink()
    assert served.answers()
    assert served.answer(message_line(runtime=runtime() | {"key": "00"}))["ending"]


def test_what_a_host_says_of_the_key_is_no_signature_of_a_file():
    """It is sent to clients, and proves nothing to anybody else."""
    assert not signing.is_signed(signing.Purpose.JOB_FILE, b"", bytes.fromhex(runtime()["key"]))


def test_equal_runtimes_do_not_differ():
    """And every field counts."""
    here = runtime()
    assert differences(here, dict(here)) == ""
    assert all(differences(here, here | {name: "x"}) for name in here)


def test_an_environment_travels_as_it_is():
    """What a client sends is what the job gets, odd names and bytes of variables included."""
    environ = {"A": "ä\udcff\n", "B": ""}
    given = Environment(cwd="/ä", sys_path=("/a", ""), environ=environ, log_level=10, settings={"a": [1, None]})
    line = message_line(runtime=runtime(), jobs=["x"], environment=client.asdict(given))
    assert Request.from_line(line).environment == given


# --- who is at the other end ------------------------------------------------------------------------------------------

LISTENS = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind("host.sock")
os.chmod("host.sock", 0o666)
if os.getuid() == 0:
    os.setuid(65534)
listener.listen()
print(flush=True)
connection, _ = listener.accept()
connection.settimeout(20)
print(len(connection.recv(10**6)), flush=True)
"""

CONNECTS = """
import os, socket, sys
if os.getuid() == 0:
    os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(20)
connection.connect("host.sock")
try:
    connection.sendall(sys.argv[1].encode())
    print(len(connection.recv(10**6)))
except ConnectionError:
    print(0)
"""


@pytest.fixture
def other_user(monkeypatch):
    """Take this process's own user for another one, where the tests can't run a process as one."""
    if os.geteuid() != 0:
        monkeypatch.setattr(protocol, "this_user", lambda: NOBODY)


@pytest.mark.usefixtures("other_user")
def test_nothing_is_sent_to_a_host_of_another_user(store):
    """A socket in one's own store, but who listens is another: not even a request, and no environment."""
    with subprocess.Popen([sys.executable, "-c", LISTENS], cwd=store.path, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(JobContainerError, match=rf"process {other.pid}, belongs to .*JOBCONTAINER_HOME"):
            DetachedJobs(store)
        assert other.stdout.readline() == "0\n"


@pytest.mark.usefixtures("other_user")
def test_a_client_of_another_user_gets_no_answer(served, store):
    """Though the socket should be closed to it anyway."""
    os.chmod("host.sock", 0o666)  # noqa: PTH101, S103 -- in the working directory; as if somebody had opened it
    store.path.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-S", "-c", CONNECTS, message_line(runtime=runtime()).decode()],
        cwd=store.path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
    assert served.thread.is_alive()


def test_the_kernel_says_who_is_at_the_other_end(monkeypatch):
    """Its process, and nothing where it is this user's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == (os.getpid(), "")
        monkeypatch.setattr(protocol, "this_user", lambda: os.geteuid() + 1)
        assert peer_of(ours)[1].startswith("belongs to ")


# --- started, and outlived --------------------------------------------------------------------------------------------

OLDER = """
import socket
listener = socket.socket(socket.AF_UNIX)
listener.bind("host.sock")
listener.listen()
print(flush=True)
while True:
    connection, _ = listener.accept()
    connection.recv(10**6)
    connection.close()
"""


def test_a_host_that_does_not_answer_is_named(store, monkeypatch):
    """As one of an older version, or one that hangs: its process, its log, and that it can be killed."""
    monkeypatch.setattr(client, "_START_SECONDS", 0.0)
    monkeypatch.setattr(DetachedJobs, "_start", lambda _: None)
    with subprocess.Popen([sys.executable, "-c", OLDER], cwd=store.path, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(JobContainerError, match=rf"process {other.pid}, does not answer.*host\.log.*can be killed"):
            DetachedJobs(store)
        other.kill()


def test_a_host_that_can_not_be_started_is_reported(store, monkeypatch):
    """With the file that its errors are in."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JobContainerError, match=r"can't be started.*host\.log"):
        DetachedJobs(store)


SHADOWS = ("random", "queue", "secrets", "select", "types", "uuid", "fcntl", "traceback", "calendar")
SHADOW = """
import sys
with open({trace!r}, "a") as trace:
    trace.write(" ".join(sys.orig_argv) + "\\n")
raise ImportError("a module of the notebook's folder")
"""
NOTEBOOK = """
import asyncio, calendar, fcntl, os, queue, random, secrets, select, sys, traceback, types, uuid, subprocess
import numpy, psutil
os.chdir(sys.argv[1])
sys.path[0] = ""  # as ipykernel has it

from jobcontainer import JobPool

class Looks:
    def run(self):
        import sys
        return os.path.abspath(sys.path[0]), "PYTHONSAFEPATH" in os.environ

pool = JobPool(1, store=sys.argv[2], detach=sys.argv[3] == "detached")
job = pool.submit(Looks())
print(job.result(60), job.record.owner["pid"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["detached", "attached"])
def test_a_module_in_the_notebooks_folder_is_for_its_jobs_alone(tmp_path, way):
    """A ``random.py`` there is not run by the host, nor by a keeper; a job has the folder on its path, as the notebook.

    The trackers of multiprocessing and loky, which start as Python starts them, are another matter.
    """
    folder, trace = tmp_path / "notebooks", tmp_path / "trace"
    folder.mkdir()
    trace.touch()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(textwrap.dedent(SHADOW.format(trace=str(trace))))
    (tmp_path / "kernel.py").write_text(NOTEBOOK)
    done = subprocess.run(
        [sys.executable, tmp_path / "kernel.py", folder, tmp_path / "store", way],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(f"({str(folder)!r}, False)"), done.stderr
    if way == "detached":
        host = int(done.stdout.split()[-1])
        os.kill(host, 15)
        wait_for(lambda: not is_running(host))
    assert [line for line in trace.read_text().splitlines() if "resource_tracker" not in line] == []


@pytest.mark.slow
def test_a_host_makes_way_for_another_environment_and_jobs_go_on(store, key_file, monkeypatch):
    """A real host: the first client's job ends, the second client, of another version, gets a host of its own."""
    runtime()  # makes the key
    monkeypatch.setenv(signing.KEY_VARIABLE, str(key_file))
    pool = JobPool(1, store=store.path, detach=True)
    first = pool.submit(pow, 2, 3)
    assert first.result(60) == 8
    old = first.record.owner["pid"]
    (store.path / "host.log").unlink()
    here = runtime()
    asked = []

    def other():
        asked.append(len(asked))
        return here | {"jobcontainer": "0.0.1"} if len(asked) == 1 else here

    monkeypatch.setattr(client, "runtime", other)
    second = pool.submit(pow, 2, 4)
    assert second.result(60) == 16
    new = second.record.owner["pid"]
    wait_for(lambda: not is_running(old))
    assert new != old
    os.kill(new, 15)
    wait_for(lambda: not is_running(new))
    pool.shutdown()
