"""A crash at any point of a job's life, with any legal loss of what was not synced: a reader is never told a lie."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
from concurrent.futures import CancelledError
from dataclasses import dataclass, field

import pytest
from life import DATA
from store_operations import is_available, record

from jobcontainer import JobContainerError, JobStore, cli
from jobcontainer.events import JobState
from jobcontainer.storage.checkpoint import read_checkpoint
from jobcontainer.storage.folder import JobFolder

ENDED = {state.value for state in JobState if state.ended}
NEVER = 10**9
SHOWN = 12
"""Finds that a failure shows, of each kind one."""

pytestmark = pytest.mark.skipif(
    not is_available() and "CI" not in os.environ, reason="strace, which records, is not installed or may not trace"
)


@dataclass
class Life:
    """What is true of one job: what its files said in the end, and the counts of operations at which it became so."""

    id: str
    result: object = None
    log: bytes = b""
    made: int = NEVER
    submitted: int = NEVER
    ended: int = NEVER  # the user was told so
    end: str = ""
    pruning: int = NEVER
    pruned: int = NEVER
    ends: list[tuple[int, str]] = field(default_factory=list)  # that were written, or decided by a result file
    starts: list[int] = field(default_factory=list)
    saves: list[tuple[int, int]] = field(default_factory=list)  # of checkpoints, with their numbers

    def mark(self, what, count):
        """Note what the user was told."""
        if what in ENDED:
            self.ended, self.end = count, what
        else:
            setattr(self, what, count)

    def grow(self, name, data, count):
        """Note what was written into a file, or that one came to its place."""
        if name == "log.txt":
            self.log += data
        elif name == "result.job":
            self.ends.append((count, "failed" if "Fails" in self.id else "succeeded"))
        elif name == "checkpoint.job":  # of another job, where it has none before the attempt
            self.saves.append((count, self.saves[-1][1] + 1 if self.saves else 1 if self.starts else 3))
        elif name == "events.jsonl":
            for event in map(json.loads, data.splitlines()):
                if event["event"] == "ended":
                    self.ends.append((count, event["state"]))
                elif event["event"] == "started":
                    self.starts.append(count)

    def may_be(self, count):
        """Return how the job may have ended for a reader who comes after so many operations."""
        return {end for at, end in self.ends if at <= count} | {JobState.LOST.value}


def lives_of(recording):
    """Read from a recording what became of each job."""
    lives = {}
    for count, one in enumerate(recording.operations, 1):
        job_id, _, name = (one.to or one.path).partition("/")
        if one.kind == "mark":
            for what, marked in map(json.loads, one.data.splitlines()):
                lives[marked].mark(what, count)
        elif one.kind == "mkdir" and not name and job_id[:1].isdigit():
            lives[job_id] = Life(job_id, made=count)
        elif one.kind in {"write", "rename", "link"} and job_id in lives:
            lives[job_id].grow(name, one.data, count)
    return lives


class Reader:
    """Looks at a store in every way that there is, and collects what is not true.

    Args:
        lives: what is true of each job.
        count: after how many operations the crash came.
        is_whole: whether nothing was lost but the end of the last write.
    """

    def __init__(self, lives, count, *, is_whole):
        self.lives, self.count, self.is_whole = lives, count, is_whole
        self.finds = []

    def look(self, path, *, alive):
        """Read all; return the states that were seen."""
        jobs = {}
        with self.no_exception("jobs()", "store"):
            jobs = {job.id: job for job in JobStore(path).jobs()}
        for job_id in jobs.keys() - self.lives.keys():
            self.finds.append(f"{job_id} was never submitted")
        for life in self.lives.values():
            job = jobs.get(life.id)
            if job is None:
                self._check_absent(path, life)
            else:
                self._check(job, life, alive=alive)
        return {job.id: job.state.value for job in jobs.values()}

    def run_commands(self, path):
        """Have the command line list and show everything."""
        files = [str(file) for file in path.rglob("*.job")]
        for command in (["list"], ["list", "--json"], *(["inspect", file] for file in files)):
            with self.no_exception(command[0], "cli"):
                run_command(path, *command)
        for job_id in self.lives:
            for command in ("show", "log"):
                with self.no_exception(command, job_id):
                    run_command(path, command, job_id)

    def prune(self, path, seen):
        """Delete what has ended, and look at what is left."""
        ended = {job_id for job_id, state in seen.items() if state in ENDED}
        with self.no_exception("prune()", "store"):
            gone = set(JobStore(path).prune(keep=0))
            left = {job.id for job in JobStore(path).jobs()}
            if gone != ended or left != seen.keys() - ended:
                self.finds.append(f"prune() deleted {len(gone)} of {len(ended)} jobs, and left {len(left)}")
            unused = [file.name for file in (path / "data").glob("*") if file.stat().st_nlink == 1]
            if unused:
                self.finds.append(f"prune() left {unused}, which no job has")

    def _check_absent(self, path, life):
        if self.is_whole and life.submitted <= self.count < life.pruning:
            self.finds.append(f"{life.id} was submitted, and is absent")
        with self.no_exception("open()", life.id), contextlib.suppress(KeyError):
            JobStore(path).open(life.id)
            self.finds.append(f"{life.id} is not listed, and can be opened")

    def _check(self, job, life, *, alive):
        if self.count >= life.pruned and self.is_whole:
            self.finds.append(f"{life.id} was pruned, and is here")
        told = self.is_whole and life.ended <= self.count < life.pruning
        possible = {life.end} if told else life.may_be(self.count)
        if alive and not told:
            possible |= {"running" if any(start < self.count for start in life.starts) else "queued"}
            possible |= {"running" for start in life.starts if start == self.count}
            possible |= {"queued"} if len(life.starts) > 1 else set()  # between two attempts
        state = job.state.value
        if state not in possible:
            self.finds.append(f"{life.id} is {state}, and may be {sorted(possible)}")
        for what in ("log", "tail", "outputs", "progress", "usage", "attempts", "record", "outcome", "_repr_html_"):
            with self.no_exception(what, life.id):
                value = getattr(job, what)
                value() if callable(value) else value
        if self.is_whole and self.count < life.pruning and not life.log.startswith(job.folder.read_log()):
            self.finds.append(f"{life.id} has a log that it never had")
        with self.no_exception("checkpoint", life.id):
            self._check_checkpoint(job, life)
        if job.done():
            self._check_result(job, life, told=told)

    def _check_checkpoint(self, job, life):
        saved = [number for count, number in life.saves if count <= self.count][-1:]
        found = [read_checkpoint(job.folder, None)["number"]] if job.folder.checkpoint_file.exists() else []
        if self.is_whole and self.count < life.pruning and (found != saved or bool(job.checkpoints) != bool(saved)):
            self.finds.append(f"{life.id} has the checkpoint {found}, {job.checkpoints}, and saved {saved}")

    def _check_result(self, job, life, *, told):
        try:
            found = job.result(0)
        except (JobContainerError, CancelledError) as error:
            if told and life.end == "succeeded":
                self.finds.append(f"{life.id} succeeded, and its result is {error!r}")
            return
        except ValueError as error:
            if str(error) != "on purpose" or "Fails" not in life.id:
                self.finds.append(f"{life.id} is {job.state.value}, and result() raised {error!r}")
            return
        except Exception as error:
            self.finds.append(f"{life.id} is {job.state.value}, and result() raised {error!r}")
            return
        if found != life.result or job.state is not JobState.SUCCEEDED:
            self.finds.append(f"{life.id} is {job.state.value}, and its result is {found!r:.80}")

    @contextlib.contextmanager
    def no_exception(self, what, where):
        """Only errors of the package may come out of anything."""
        try:
            yield
        except JobContainerError:
            pass
        except KeyError as error:
            if what != "open()":
                self.finds.append(f"{what} of {where} raised {error!r}")
            raise
        except Exception as error:
            self.finds.append(f"{what} of {where} raised {error!r}")


def run_command(path, *arguments):
    os.environ["JOBCONTAINER_HOME"] = str(path)
    sys.modules["jobcontainer.storage.store_folder"]._session_store = None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return cli.main(arguments)


def believe_the_journal(path):
    """Give the files the times that the journal knows them by, where their size is right, as on the crashed machine."""
    with contextlib.suppress(OSError):
        for line in (path / "journal.jsonl").read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError, AttributeError, OSError):
                entry = json.loads(line)
                folder = JobFolder(path / entry["id"])
                for name, file in (("record", folder.record_file), ("events", folder.events_file)):
                    size, time = map(int, entry.get(name, "-1:0").split(":"))
                    if file.stat().st_size == size:
                        os.utime(file, ns=(time, time))


class Crashes:
    """The crashes of one recorded life, and what was found of them."""

    def __init__(self, recording, folder, monkeypatch, search):
        self.recording, self.folder, self.search = recording, folder, search
        self.lives = lives_of(recording)
        self.patch = monkeypatch
        self.finds = {}
        self.random = search.random
        for life in self.lives.values():
            if "Works" in life.id:
                number = int(life.log.split()[1])
                life.result = {"number": number, "bytes": bytearray(5000)}
            elif "Saves" in life.id and life.log:
                life.result = int(life.log.split()[-1])
            elif "Shares" in life.id and life.log:
                life.result = {"number": int(life.log.split()[1]), "data": DATA}

    def after_kill(self, count, size=None):
        self._read(self.recording.killed(count, size), count, f"all killed in operation {count}, {size=}", whole=True)

    def after_power_loss(self, count):
        state = self.recording.power_lost(count, self.random)
        self._read(state, count, f"power lost after operation {count}", whole=False)

    def _read(self, state, count, what, *, whole):
        self.search.count("crashes")
        path = self.folder / "replayed"
        state.put(path)
        believe_the_journal(path)
        reader = Reader(self.lives, count, is_whole=whole)
        before = {}
        if whole:
            with self.patch.context() as patched:
                patched.setattr("jobcontainer.jobs.watcher.is_alive", lambda _owner: True)
                before = reader.look(path, alive=True)
        first = reader.look(path, alive=False)
        second = reader.look(path, alive=False)
        reader.run_commands(path)
        for old, new in ((before, first), (first, second)):
            reader.finds += [
                f"{job_id} was {seen}, then {new.get(job_id)}"
                for job_id, seen in old.items()
                if seen in ENDED and new.get(job_id) != seen
            ]
        if not reader.finds:
            reader.prune(path, second)
        if reader.finds:
            self._note(reader.finds, what, count, path)
        shutil.rmtree(path)

    def _note(self, finds, what, count, path):
        operation = self.recording.operations[count - 1]
        sizes = {str(file.relative_to(path)): file.stat().st_size for file in sorted(path.rglob("*")) if file.is_file()}
        for find in finds:
            kind = re.sub(r"[\d-]+\.\d+-(\w+)-\w{6}", r"\1", find).replace(str(self.folder), "")
            self.finds.setdefault(
                re.sub(r"\d+|JSONDecodeError\(.*", "", kind)[:160], f"{find}\n    {what}: {operation}\n    {sizes}"
            )

    def check(self, seed):
        shown = "\n".join(list(self.finds.values())[:SHOWN])
        if self.finds:
            pytest.fail(f"--search-seed {seed} found {len(self.finds)} kinds:\n{shown}", pytrace=False)


@pytest.fixture
def crashes(tmp_path, script, monkeypatch, search):
    """Record the life of jobs of one engine."""
    monkeypatch.setenv("JOBCONTAINER_HOME", "")

    def of(engine):
        store, marks = tmp_path / "store", tmp_path / "marks"
        marks.touch()
        recording = record(script("life.py", engine, store, marks), store, marks, tmp_path / "trace")
        assert_complete(recording, store)
        search.count("operations", len(recording.operations))
        search.begin()
        return Crashes(recording, tmp_path, monkeypatch, search)

    return of


def assert_complete(recording, store):
    """The recording ends with what is on disk; else something was missed."""
    state = recording.end()
    found = {str(path.relative_to(store)): path for path in store.rglob("*") if not path.is_socket()}
    assert found.keys() == state.names.keys()
    for name, inode in state.names.items():
        assert inode == 0 or found[name].read_bytes() == bytes(state.files[inode]), name


@pytest.mark.parametrize("engine", ["inline", "loky", "detached"])
def test_after_a_crash_each_job_is_absent_or_true(crashes, search, engine):
    """Whatever is killed, and whatever the disk had not yet: no reader sees a lie, or an exception of another kind."""
    found = crashes(engine)
    operations = found.recording.operations
    counts = [count for count, one in enumerate(operations, 1) if one.kind not in {"mark", "sync"}]
    search.random.shuffle(counts)
    for count in counts:
        found.after_kill(count)
        if operations[count - 1].kind == "write":
            found.after_kill(count, search.random.randrange(len(operations[count - 1].data)))
        found.after_power_loss(count)
        if not search.goes_on():
            break
    while search.goes_on():
        found.after_power_loss(search.random.randint(1, len(operations)))
    found.check(search.seed)
