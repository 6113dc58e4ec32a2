"""What a job does to its own folder costs that job alone: every reader returns, or raises an error of ours.

The folders are spoilt by hypothesis, and by the table of what can stand in the place of a file. Beside each spoilt job
lies a good one, of which everything must still be seen.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobcontainer import JobContainerError, JobPool, JobState, JobStore, checkpoint, cli, progress
from jobcontainer.events import Outcome
from jobcontainer.storage.checkpoint import read_checkpoint
from jobcontainer.storage.ending import lost
from jobcontainer.storage.owner import this_process
from jobcontainer.storage.result import decided_state
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.views.card import job_card
from jobcontainer.views.snapshot import SnapshotReader, snapshot_of
from waiting import wait_for

FILES = [
    "events.jsonl",
    "log.txt",
    "job.json",
    "progress",
    "process.job",
    "result.job",
    "checkpoint.job",
    "cancel",
    "../journal.jsonl",
]
MOST_SECONDS = 5.0
"""All readers of one folder together, on a machine that may be busy."""


@pytest.fixture(scope="module", autouse=True)
def _own_key(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("keys")
        patch.setattr("jobcontainer.jobfile.signing._own_key_file", lambda: str(folder / "key"))
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory, _own_key):
    """A store with two jobs that have succeeded."""
    path = tmp_path_factory.mktemp("template") / "store"
    with JobPool(engine="inline", store=path) as pool:
        pool.submit_all([Shows("first"), Shows("second")])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the store of each example lies, one after the other: a watch belongs to a path."""
    return tmp_path_factory.mktemp("place") / "store"


class Shows:
    def __init__(self, text):
        self.text = text

    def run(self):
        for _ in progress([1, 2], desc=self.text):
            print(self.text)
        checkpoint.save(self.text)
        return self.text


def fresh(template, place):
    """Copy the store; return it, and the folder that is to be spoilt."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place)
    store = StoreFolder(place)
    return store, next(store.folders())


def saved(job):
    return job.folder.checkpoint_file


READERS = {
    "state": lambda job: (job.state, job.outcome, job.usage, job.started, job.attempts, repr(job)),
    "progress": lambda job: job.progress,
    "tail": lambda job: (job.tail(), job.tail(10_000)),
    "log": lambda job: job.log,
    "outputs": lambda job: job.outputs,
    "record": lambda job: job.record,
    "source": lambda job: job.source,
    "process": lambda job: job.process,
    "result": lambda job: job.done() and job.result(0),
    "exception": lambda job: job.done() and job.exception(0),
    "snapshot": lambda job: job_card(snapshot_of(job), time.time()),
    "look again": lambda job: (reader := SnapshotReader(job, 10)) and (reader.look(), reader.outputs(), reader.look()),
    "html": lambda job: job._repr_html_(),
    "loss": lambda job: (lost(job.folder, "gone"), decided_state(job.folder.result_file)),
    "turns": lambda job: job.folder.last_turn(),
    "cancel": lambda job: job.folder.is_asked_to_cancel(),
    "checkpoints": lambda job: (job.checkpoints, os.path.lexists(saved(job)) and read_checkpoint(job.folder, None)),
    "size": lambda job: job.folder.size(),
}


def look_everywhere(store, spoilt, without=()):
    """Have everything read that can be; raise what no reader may raise."""
    begun = time.monotonic()
    store = JobStore(store.path)
    with contextlib.suppress(JobContainerError, KeyError):  # KeyError: it has no record, and so is no job
        job = store.open(spoilt.id)
        for name in READERS.keys() - {*without}:
            with contextlib.suppress(JobContainerError):
                READERS[name](job)
    for few in (200, 0):  # from the folders, and by the journal
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jobcontainer.jobs.control._FEW", few)
            jobs = store.jobs()
            jobs.summary(), repr(jobs), store.size(), store.advice()
            good = jobs[-1]
            assert (good.state, good.log, good.result()) == (JobState.SUCCEEDED, "second\nsecond\n", "second")
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobcontainer.storage.store_folder._session_store", None)
        patch.setenv("JOBCONTAINER_HOME", "")
        assert cli.main(["--store", str(store.path), "list"]) == 0
    assert good.id in text.getvalue()
    store.prune(states={"succeeded", "lost", "failed"})
    assert not os.path.lexists(good.folder)
    assert time.monotonic() - begun < MOST_SECONDS


numbers = st.one_of(
    st.integers(-5, 5),
    st.floats(),
    st.sampled_from([10**400, -(10**30), 2**63, math.nan, math.inf, 1e-320, 1e308, True, 1e18, 5e11]),
)
texts = st.one_of(
    st.text(max_size=20), st.sampled_from(["\ud800", "\0", "\u202e", "x" * 5000, "started", "queued", "lost"])
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
usages = st.fixed_dictionaries({}, optional={"wall": plain, "cpu": numbers, "peak_memory": numbers, "new": plain})
bars = st.fixed_dictionaries(
    {},
    optional={name: st.one_of(numbers, plain) for name in ("done", "total", "initial", "started", "updated", "level")}
    | {"label": plain, "message": plain, "new": plain},
)
events = st.fixed_dictionaries(
    {"event": st.sampled_from(["started", "progress", "display", "ended", "new"]), "at": st.one_of(numbers, plain)},
    optional={
        "pid": st.one_of(numbers, plain),
        "attempt": st.one_of(numbers, plain),
        "host": plain,
        "bars": st.one_of(st.lists(bars, max_size=3), plain),
        "data": st.one_of(
            st.dictionaries(st.sampled_from(["text/plain", "text/html", "application/json"]), plain), plain
        ),
        "metadata": plain,
        "display_id": plain,
        "update": plain,
        "clear": plain,
        "state": st.one_of(st.sampled_from([*JobState, "upstream_failed"]), plain),
        "reason": plain,
        "error_type": plain,
        "error_message": plain,
        "exit_code": plain,
        "usage": st.one_of(usages, plain),
        "result_identity": plain,
        "new": plain,
    },
)
records = st.fixed_dictionaries(
    {},
    optional={
        "id": plain,
        "name": plain,
        "submitted": st.one_of(numbers, plain),
        "options": st.one_of(
            st.dictionaries(st.sampled_from(["timeout", "memory", "retries", "env", "grace", "new"]), plain), plain
        ),
        "cwd": plain,
        "sys_path": plain,
        "source": plain,
        "owner": st.one_of(
            st.just(this_process()), st.fixed_dictionaries({"host": plain, "pid": numbers, "started": plain}), plain
        ),
        "new": plain,
    },
)


def as_line(value):
    return json.dumps(value).encode() + b"\n"


lines = st.lists(st.one_of(st.builds(as_line, st.one_of(events, records, plain)), st.binary(max_size=50)), max_size=6)
contents = st.one_of(
    st.binary(max_size=300),
    st.builds(b"".join, lines),
    st.builds(as_line, records),
    st.sampled_from([b"[" * 50_000, b'{"a":' * 50_000, b"\n" * 5000, b"\xff" * 70_000, b"\r" * 70_000]),
)


@settings(
    max_examples=int(os.environ.get("JOBCONTAINER_EXAMPLES", "30")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    spoilt=st.dictionaries(st.sampled_from(FILES), contents, min_size=1, max_size=3),
    appended=st.booleans(),
    deleted=st.sets(st.sampled_from(FILES), max_size=2),
)
def test_any_bytes_in_any_file_of_a_job_cost_that_job_alone(template, place, spoilt, appended, deleted):
    """Every reader returns, or raises an error of ours, and soon; the job beside it is seen as it is."""
    store, folder = fresh(template, place)
    for name, content in spoilt.items():
        with (folder.path / name).open("ab" if appended else "wb") as file:
            file.write(content)
    for name in deleted - spoilt.keys():
        (folder.path / name).unlink(missing_ok=True)
    look_everywhere(store, folder)


IMPOSTORS = {
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "link to a file of the user's": lambda path: path.symlink_to("/etc/passwd"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "gigabyte of zeros": lambda path: (path.touch(), os.truncate(path, 2**30)),
    "link to another job's": lambda path: path.symlink_to(
        max(path.parent.parent.glob("2*")) / path.name if path.parent.name[0] == "2" else path.parent
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "impostor", [pytest.param(name, marks=pytest.mark.slow if "gigabyte" in name else ()) for name in IMPOSTORS]
)
def test_anything_in_the_place_of_a_file_costs_that_job_alone(template, place, name, impostor):
    """Pipes, folders, links, devices and a gigabyte in one line: nobody waits for them, or reads all of them."""
    store, folder = fresh(template, place)
    path = folder.path.parent / name[3:] if name.startswith("..") else folder.path / name
    path.unlink(missing_ok=True)
    IMPOSTORS[impostor](path)
    look_everywhere(store, folder, without=["log"] if "gigabyte" in impostor else [])  # which is asked for as a whole


def test_a_result_that_is_a_link_to_another_job_s_is_none(template, place):
    """It is signed by the same key, and is not what this job returned."""
    store, folder = fresh(template, place)
    other = list(store.folders())[-1]
    folder.result_file.unlink()
    folder.result_file.symlink_to(other.result_file)
    assert decided_state(folder.result_file) is None
    with pytest.raises(JobContainerError, match="link"):
        JobStore(place).open(folder.id).result()


def spoil_events(folder, number):
    """Put something else where the watch looks for events, another thing for each number."""
    match number % 5:
        case 0:
            folder.events_file.write_bytes(as_line({"event": "ended", "at": 10**400, "state": []}) + b"[" * 50_000)
        case 1:
            folder.record_file.unlink()
            os.mkfifo(folder.events_file)
        case 2:
            folder.events_file.symlink_to(folder.events_file)
        case 3:
            folder.events_file.write_bytes(b'{"event": "started", "at": 1.0, "pid": 1, "attempt": 1e400}\n')
        case 4:
            shutil.rmtree(folder.path)


def test_a_watch_sees_the_end_of_a_job_beside_spoilt_ones(template, place):
    """Whatever comes into the folders of others while they are watched, the watch goes on."""
    store, first = fresh(template, place)
    folders = [store.job(f"20260101-000000.{number:06d}-Copy-abcdef") for number in range(12)]
    first.events_file.unlink()
    for folder in folders:
        shutil.copytree(first.path, folder.path)
    handles = [JobStore(place).open(folder.id) for folder in folders]
    assert not any(handle.done() for handle in handles)
    for number, folder in enumerate(folders[:-1]):
        spoil_events(folder, number)
    folders[-1].append_event(Outcome(state=JobState.SUCCEEDED, at=1.0))
    wait_for(handles[-1].done)
    assert handles[-1].state is JobState.SUCCEEDED
    for folder in folders:
        shutil.rmtree(folder.path, ignore_errors=True)
    wait_for(lambda: all(handle.done() for handle in handles))
