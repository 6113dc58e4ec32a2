"""The shell's door: the same files, options, states and jobs."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from jobcontainer import JobPool, JobStore, Serializer
from jobcontainer.cli import main
from jobcontainer.jobfile.writer import FileWriter


class Prints:
    def run(self):
        print("Task is running")
        return 42


class Raises:
    def run(self):
        raise ZeroDivisionError("on purpose")


class Dies:
    def run(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Sleeps:
    def run(self):
        print("sleeping", flush=True)
        threading.Event().wait(600)


class ReadsEnvironment:
    def run(self):
        print(os.environ["COLOUR"], os.getcwd())  # noqa: PTH109 -- a text is printed


@pytest.fixture
def shell(tmp_path):
    """Runs one command in a folder of its own, where the store is too."""

    def run(*arguments, **options):
        return subprocess.run(
            [sys.executable, "-m", "jobcontainer", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def file(tmp_path):
    """Writes a process file, and returns its path."""

    def write(process):
        path = tmp_path / f"{type(process).__name__}.job"
        Serializer.serialize_to_file(process, path)
        return path

    return write


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / ".jobcontainer")


def test_run_prints_the_log_and_nothing_else(shell, file, store):
    """The process's output is this command's output; success is 0."""
    done = shell("run", file(Prints()))
    assert (done.returncode, done.stdout, done.stderr) == (0, "Task is running\n", "")
    assert store.jobs()[0].result() == 42


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    ("process", "options", "code", "words"),
    [
        (Raises(), [], 1, "ZeroDivisionError: on purpose"),
        (Dies(), [], 3, "JobCrashedError"),
        (Sleeps(), ["--timeout", "0.3"], 124, "JobTimeoutError"),
    ],
)
def test_the_exit_code_tells_how_the_job_ended(shell, file, process, options, code, words):
    """A script learns from the exit code how the job ended, and a person from one line what to do next."""
    done = shell("run", file(process), *options)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "jobcontainer show" in done.stderr


@pytest.mark.slow
def test_options_are_flags(shell, file, tmp_path):
    """Every option of a job is a flag of the same name."""
    done = shell("run", file(ReadsEnvironment()), "--env", "COLOUR=red", "--cwd", tmp_path, "--name", "painter")
    assert (done.returncode, done.stdout) == (0, f"red {tmp_path}\n"), done.stderr
    assert "painter" in shell("list").stdout


@pytest.mark.slow
def test_an_interrupt_cancels_politely(file, tmp_path, store):
    """Ctrl-C ends the job, and the command says that it was cancelled."""
    command = [sys.executable, "-m", "jobcontainer", "run", str(file(Sleeps()))]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "sleeping\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "cancelled" in errors
    assert "Traceback" not in errors
    assert [job.cancelled() for job in store.jobs()] == [True]


@pytest.mark.slow
def test_a_job_of_another_process_is_followed_and_cancelled(file, tmp_path, shell, store):
    """``log -f`` shows it live, ``cancel`` ends it though another process runs it."""
    command = [sys.executable, "-m", "jobcontainer", "run", str(file(Sleeps()))]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "sleeping\n"
        job_id = store.jobs()[0].id
        assert json.loads(shell("show", job_id, "--json").stdout)["state"] == "running"
        assert shell("log", job_id).stdout == "sleeping\n"
        assert shell("cancel", job_id).returncode == 0
        process.communicate(timeout=30)
    assert process.returncode == 130
    done = shell("log", "-f", job_id)
    assert done.stdout.startswith("sleeping\n")
    assert shell("cancel", job_id).returncode == 0
    assert store.jobs()[0].cancelled()


@pytest.mark.slow
def test_a_detached_run_is_waited_for_from_the_shell(file, shell, store):
    """It belongs to the store's host; this command only watches."""
    done = shell("run", file(Prints()), "--detach")
    assert (done.returncode, done.stdout) == (0, "Task is running\n"), done.stderr
    pid = store.jobs()[0].record.owner["pid"]
    os.kill(pid, signal.SIGTERM)
    _until(lambda: not os.path.exists(f"/proc/{pid}"))  # noqa: PTH110 -- as short as it gets


@pytest.mark.slow
def test_list_and_show_tell_a_script_what_it_wants(shell, file, store):
    """``--json`` prints what a script needs; without it the same is a table."""
    shell("run", file(Prints()))
    (listed,) = json.loads(shell("list", "--json").stdout)
    shown = json.loads(shell("show", listed["id"], "--json").stdout)
    assert (listed["name"], listed["state"]) == ("Prints", "succeeded")
    assert shown["tail"] == ["Task is running"]
    assert "class Prints" in shown["source"]
    assert listed["id"] in shell("list").stdout
    assert store.jobs()[0].id == listed["id"]


@pytest.mark.slow
def test_a_long_list_shows_the_newest_jobs_and_how_many_more_there_are(tmp_path, monkeypatch, capsys):
    """``--all`` shows every job, and ``--json`` always does."""
    monkeypatch.setenv("JOBCONTAINER_HOME", "")
    monkeypatch.setattr("jobcontainer.cli.MOST_LISTED", 2)
    with JobPool(engine="inline", store=tmp_path) as pool:
        jobs = pool.submit_all([Prints() for _ in range(5)])
    capsys.readouterr()

    def listed(*flags):
        assert main(["--store", str(tmp_path), "list", *flags]) == 0
        return capsys.readouterr().out

    monkeypatch.setattr("jobcontainer.storage.store_folder._session_store", None)
    text = listed()
    assert [job.id in text for job in jobs] == [False] * 3 + [True] * 2
    assert text.endswith("3 older jobs not shown: `jobcontainer list --all`\n")
    text = listed("--all")
    assert all(job.id in text for job in jobs)
    assert "older" not in text
    assert [one["id"] for one in json.loads(listed("--json"))] == [job.id for job in jobs]


@pytest.mark.slow
def test_rerun_runs_a_job_again(shell, file, store):
    """``rerun`` makes a second job of the first one's process."""
    shell("run", file(Prints()))
    done = shell("rerun", "--resume", store.jobs()[0].id)  # it has saved nothing, and begins anew
    assert (done.returncode, done.stdout) == (0, "Task is running\n"), done.stderr
    assert len(store.jobs()) == 2


@pytest.mark.slow
def test_inspect_runs_nothing(shell, file):
    """``inspect`` shows the header of a file, and does not unpickle it."""
    facts = json.loads(shell("inspect", file(Prints()), "--json").stdout)
    assert facts["class_name"].endswith("Prints")
    assert facts["kind"] == "process"


HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
NASTY = "red\x1b[31m\x1b]0;title\x07 back\b\b over\r \u202eturned\nstate: succeeded"


class Nasty:
    """Everything that it says acts on a terminal, where it is shown as it is."""

    def __repr__(self):
        return NASTY

    def run(self):
        print(NASTY)
        return self


class NastyError(Exception):
    """An error of its own."""


class FailsNastily:
    def run(self):
        raise NastyError(NASTY)


@pytest.mark.slow
def test_nothing_that_a_file_or_a_job_says_acts_on_the_terminal(shell, tmp_path):
    """Names, results, messages, sources, headers: each field begins a line of its own, with its controls shown."""
    with JobPool(engine="inline", store=tmp_path / ".jobcontainer", name=NASTY) as pool:
        jobs = [pool.submit(Nasty()), pool.submit(FailsNastily())]
        for job in jobs:
            job.exception()
    forged = tmp_path / "forged.job"
    texts = dict.fromkeys(("kind", "class", "module", "python", "cloudpickle"), NASTY)
    many = {f"{NASTY}{number}": (NASTY, NASTY) for number in range(20_000)}
    fields = texts | {"created": 1.0, "by_value": True, "modules": [NASTY] * 20_000, "packages": many}
    FileWriter(forged).finish(fields, b"", [], lambda _: bytes(32))
    for arguments in (["list"], *(["show", job.id] for job in jobs), ["inspect", forged], ["show", NASTY]):
        done = shell(*arguments)
        said = done.stdout + done.stderr
        assert "Traceback (most recent call last):\n  File" not in done.stderr
        assert HARMFUL.findall(said) == []
        assert r"\x1b[31m" in said
        assert len(said) < 200_000
        assert len([line for line in said.splitlines() if line.startswith("state: ")]) == (
            arguments[1:] in [[job.id] for job in jobs]
        )


@pytest.mark.slow
def test_a_foreign_file_runs_only_after_a_decision(shell, tmp_path):
    """A plain pickle is refused; ``--trusted`` or ``jobcontainer trust`` lets it run."""
    path = tmp_path / "foreign.job"
    path.write_bytes(pickle.dumps(_partial()))
    refused = shell("run", path)
    assert refused.returncode == 2
    assert "jobcontainer trust" in refused.stderr
    assert shell("trust", path).returncode == 0
    assert shell("run", path).returncode in {0, 1}


def test_trust_says_which_file_it_means(tmp_path, capsys, monkeypatch):
    """A link is followed: the file that it leads to is signed, and named; the link stays one."""
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(1)
    (tmp_path / "foreign.job").write_bytes(pickled)
    (tmp_path / "between").symlink_to("foreign.job")
    (tmp_path / "link").symlink_to("between")
    assert main(["trust", "link"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'foreign.job'} (link leads to it) is signed by your key")
    assert (tmp_path / "link").readlink().name == "between"
    Serializer.verify(tmp_path / "foreign.job")
    (tmp_path / "foreign.job").write_bytes(pickled)
    assert main(["trust", "foreign.job"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'foreign.job'} is signed by your key")
    (tmp_path / "nowhere").symlink_to("gone")
    assert main(["trust", "nowhere"]) == 2
    assert not (tmp_path / "gone").exists()


def _partial():
    from jobcontainer.process import Call  # noqa: PLC0415 -- a process whose class every Python finds by its name

    return Call(print, ("from a plain pickle",), {})


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing.job"], "no process file"),
        (["run", "nothing.job", "--memory", "2 XB"], "memory"),
        (["run", "nothing.job", "--timeout", "-1"], "timeout"),
        (["show", "nothing"], "no job"),
        (["prune"], "older_than"),
        (["frobnicate"], "invalid choice"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_line(shell, arguments, words):
    """A request that can't be met exits with 2 and says in a line why."""
    done = shell(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_prune_deletes_what_was_asked(shell, tmp_path):
    """``prune`` deletes by its conditions, or all that has ended, and says how many."""
    with JobPool(engine="inline", store=tmp_path / ".jobcontainer") as pool:
        for _ in range(3):
            pool.submit(Prints())
    assert shell("prune", "--keep", "1", "--state", "succeeded").stdout == "2 jobs deleted\n"
    assert shell("prune", "--all").stdout == "1 jobs deleted\n"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    """``jobcontainer list | head -1`` ends quietly."""
    with JobPool(engine="inline", store=tmp_path / ".jobcontainer") as pool:
        for _ in range(200):
            pool.submit(Prints())
    command = f"{sys.executable} -m jobcontainer list | head -n 1"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "state" in done.stdout
    assert done.stderr == ""


def _until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
