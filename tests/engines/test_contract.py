"""What every engine promises, tried on each of them; where one can't give a promise, the test says so, and why."""

from __future__ import annotations

import asyncio
import ctypes
import enum
import importlib
import json
import logging
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import jobcontainer
from jobcontainer import checkpoint
from jobcontainer.engines import RunsInCaller
from jobcontainer.engines.inline import InlineEngine
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.errors import UntrustedFileError
from jobcontainer.events import JobState, Outcome, Started
from jobcontainer.jobfile import signing
from jobcontainer.jobfile.blobs import blob_path, blobs_beside
from jobcontainer.jobfile.inputs import InputReference, signature_of
from jobcontainer.jobfile.loading import load_file
from jobcontainer.jobfile.reader import blobs_of
from jobcontainer.jobfile.serializer import RepeatedFiles, Serializer, write_file
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.call_results import CallReader
from jobcontainer.storage.checkpoint import checkpoints_of
from jobcontainer.storage.preview import read_preview
from jobcontainer.storage.progress_file import read_bars
from jobcontainer.storage.result import RemoteTraceback, read_result
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker.call_chunk import CallChunk
from waiting import is_running, wait_for

ENGINES = {
    "inline": InlineEngine,
    "fork": lambda: LokyEngine(2, forks=True),
    "no fork": lambda: LokyEngine(2, forks=False),
    "reuse": lambda: LokyEngine(2, forks=True),
    "dask": None,  # on the module's cluster
    "dask remote": None,  # which can't see the store
}
REMOTE, CLUSTERS = "dask remote", {"dask", "dask remote"}
QUICK, QUICK_ANYWHERE = {"inline", "fork"}, {"inline", "fork", "reuse"}
SAME_PROCESS = "it runs jobs in the caller's process"

pytestmark = pytest.mark.usefixtures("as_notebook")


def pytest_generate_tests(metafunc):
    """Try each promise on every engine that gives it.

    The quick run tries all of them on one engine, some where a job comes after others, a few where a job starts an
    interpreter, and none on a cluster.
    """
    marker = metafunc.definition.get_closest_marker("not_promised")
    left_out = marker.kwargs if marker else {}
    names = [name for name in ENGINES if name.replace(" ", "_") not in left_out]
    quick = metafunc.definition.get_closest_marker("quick")
    fast = QUICK if quick is None else QUICK_ANYWHERE | set(quick.args)
    params = [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]
    metafunc.parametrize("engine", params, indirect=True, scope="module")


@pytest.fixture(scope="module")
def engine(request):
    make = ENGINES[request.param]
    engine = make() if make else request.getfixturevalue("dask_cluster").engine(slots=2)
    engine.isolation = "reuse" if request.param == "reuse" else "fresh"
    yield engine
    engine.close()


@pytest.fixture
def store(request, tmp_path, seen_from_here_only):
    folder = StoreFolder(
        (seen_from_here_only(tmp_path) if request.node.callspec.params["engine"] == REMOTE else tmp_path) / "store"
    )
    folder.create()
    return folder


@pytest.fixture
def start(engine, store):
    """Submit a process, or a function as one; returns its folder and its future."""

    def start(process, *, attempt=1, folder=None, **options):
        if folder is None:
            folder = store.new_job("job")
            Serializer.serialize_to_file(process if hasattr(process, "run") else Runs(process), folder.process_file)
        options = JobOptions(**{"isolation": engine.isolation} | options)
        future = engine.submit(folder, options, Environment.here(), attempt=attempt)
        if isinstance(engine, RunsInCaller):
            engine.run_submitted()
        return folder, future

    return start


@pytest.fixture
def run(start):
    """Run a process, which must succeed, and return what it returned."""

    def run(process, **options):
        folder, future = start(process, **options)
        outcome = future.result(60)
        assert outcome.state is JobState.SUCCEEDED, (outcome, folder.tail(100))
        return read_result(folder.result_file)[0]

    return run


class Runs:
    def __init__(self, function):
        self.function = function

    def run(self):
        return self.function()


class Holds:
    def __init__(self, changed, handed_on):
        self.changed, self.handed_on = changed, handed_on

    def run(self):
        address = self.changed.__array_interface__["data"][0]
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, *_, inode = line.split()[:5]
            begin, end = (int(bound, 16) for bound in span.split("-"))
            if begin <= address < end:
                break
        self.changed += 1
        return int(inode), float(self.changed[-1]), self.handed_on


@pytest.mark.quick
def test_the_results_of_calls_are_in_the_folder(start, store):
    """A chunk of calls: what each returned or raised, in order."""

    def call(number):
        return [1, 2, 3][number]

    folder = store.new_job("calls")
    RepeatedFiles(CallChunk, call).write(([0, 3, 2],), folder.process_file)
    folder, future = start(None, folder=folder)
    assert future.result(60).state is JobState.SUCCEEDED
    results = list(CallReader(folder).read())
    assert [value for value, _ in results] == [1, None, 3]
    assert [type(error) for _, error in results] == [type(None), IndexError, type(None)]
    assert read_result(folder.result_file)[0].calls == 3


@pytest.mark.quick("no fork")
def test_an_input_is_the_result_of_its_job(start, run):
    """Mapped, once for all places in which the process has it, of the process's own class; one that is gone fails."""

    class Model:
        def __init__(self):
            self.weights = np.arange(2**17, dtype=float)  # large enough for a file of its own

    def make():
        return Model()

    class Uses:
        def __init__(self, *models):
            self.models = models

        def run(self):
            one, other = self.models
            one.weights[0] = 5.0
            return one is other, type(one) is Model, float(one.weights[0] + one.weights[-1])

    upstream, future = start(make)
    assert future.result(60).state is JobState.SUCCEEDED
    reference = InputReference(upstream.id, str(upstream.path.parent), signature_of(upstream.process_file))
    assert run(Uses(reference, reference)) == (True, True, 5.0 + 2**17 - 1)
    assert read_result(upstream.result_file)[0].weights[0] == 0
    upstream.remove_result()
    folder, future = start(Uses(reference, reference))
    assert future.result(60).error_type == "jobcontainer.errors.JobUpstreamError"
    assert read_result(folder.result_file)[1].upstream == upstream.id


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.quick("no fork")
def test_what_run_returns_comes_back_by_the_result_file(start):
    """The outcome says succeeded, the result file holds the value, the log what was printed, the events both ends."""

    def speak():
        print("Task is running")
        return 42

    folder, future = start(speak)
    outcome = future.result(60)
    assert outcome.state is JobState.SUCCEEDED
    assert read_result(folder.result_file) == (42, None)
    assert folder.tail(5) == ["Task is running"]
    events, _ = folder.read_events()
    assert [type(event) for event in events] == [Started, Outcome]
    assert events[-1] == outcome


@pytest.mark.quick
def test_what_run_raises_comes_back_as_the_same_exception(start):
    """The outcome says failed and names the error; the result file holds it, with the job's traceback attached."""

    def fail():
        raise KeyError("no good")

    folder, future = start(fail)
    outcome = future.result(60)
    assert (outcome.state, outcome.error_type, outcome.error_message) == (JobState.FAILED, "KeyError", "'no good'")
    value, error = read_result(folder.result_file)
    assert value is None
    assert isinstance(error, KeyError)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fail" in str(error.__cause__)
    assert "worker/run.py" not in str(error.__cause__)
    assert folder.tail(1) == ["KeyError: 'no good'"]


@pytest.mark.quick
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError])
def test_a_result_whose_text_can_not_be_made_costs_its_text_alone(start, error):
    """The job has succeeded and its result is kept; the preview beside it says which method raised what."""

    def make():
        class Mute:
            def __repr__(self):
                raise error

        return Mute()

    folder, future = start(make)
    assert future.result(60).state is JobState.SUCCEEDED
    assert type(read_result(folder.result_file)[0]).__name__ == "Mute"
    assert read_preview(folder.preview_file).problem == f"Its __repr__() raised {error.__name__}."


@pytest.mark.quick
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError])
def test_an_exception_whose_message_raises_is_a_failure_like_any_other(start, error):
    """It names the type of the exception, and comes with its traceback."""

    def fail():
        class MuteError(Exception):
            def __str__(self):
                raise error

        raise MuteError

    folder, future = start(fail)
    outcome = future.result(60)
    assert outcome.state is JobState.FAILED
    assert "MuteError" in outcome.error_type
    assert f"its __str__() raised {error.__name__}" in outcome.error_message
    assert type(read_result(folder.result_file)[1]).__name__ == "MuteError"
    assert "in fail" in read_preview(folder.preview_file).traceback
    assert "MuteError" in folder.tail(1)[0]


@pytest.mark.quick
def test_the_fields_of_a_result_are_there_without_the_result(start):
    """Tables show them, whatever else is in it, and wherever the job ran."""

    def make():
        return {"loss": 0.5, "steps": 3, "model": object(), "weights": bytes(2_000_000)}

    folder, future = start(make)
    assert future.result(60).state is JobState.SUCCEEDED
    folder.result_file.unlink()
    fields = read_preview(folder.preview_file).fields
    assert (fields["loss"], fields["steps"]) == (0.5, 3)
    assert fields["model"].startswith("<object object")
    assert len(fields["weights"]) < 1000


@pytest.mark.slow
@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_a_text_or_message_that_takes_for_ever_is_given_up_after_some_seconds(start):
    """The result was written before; where nothing else helps, its process is ended, and the log shows where it was.

    An exception is kept, with its type and where it was raised. All three jobs begin at once, as each takes seconds.
    """

    def make(stubborn):
        class Endless:
            def __repr__(self):
                while True:
                    try:
                        time.sleep(1000)
                    except BaseException:
                        if not stubborn:
                            raise

        return Endless()

    def fail():
        class EndlessError(Exception):
            def __str__(self):
                return time.sleep(1000) or ""

        raise EndlessError

    started = [start(lambda: make(stubborn=False)), start(lambda: make(stubborn=True)), start(fail)]
    outcomes = [future.result(60) for _, future in started]
    assert [outcome.state for outcome in outcomes] == [JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED]
    for stubborn, (folder, _) in enumerate(started[:2]):
        assert type(read_result(folder.result_file)[0]).__name__ == "Endless"
        problem = read_preview(folder.preview_file).problem
        assert problem.startswith(
            "To make its text ended the job's process" if stubborn else "Its __repr__() took longer"
        )
        assert ("in __repr__" in "\n".join(folder.tail(200))) is bool(stubborn)
    assert "its __str__() took longer than" in outcomes[2].error_message
    assert "in fail" in read_preview(started[2][0].preview_file).traceback


@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_a_cancel_while_a_result_has_its_text_made_comes_too_late(engine, start):
    """It ends the text and not the result, which is there already."""

    def make():
        class Endless:
            def __repr__(self):
                print("begun")
                time.sleep(1000)

        return Endless()

    folder, future = start(make, grace=30)
    wait_for(lambda: folder.tail(1), 60)
    engine.cancel(folder.id)
    assert future.result(60).state is JobState.SUCCEEDED
    assert type(read_result(folder.result_file)[0]).__name__ == "Endless"
    assert read_preview(folder.preview_file).problem == "Its __repr__() was cut off, as the job was to end."


def test_more_jobs_than_slots_all_end(start):
    """What is submitted beyond the slots waits its turn."""
    jobs = [start(lambda number=number: number * number) for number in range(12)]
    assert [future.result(60).state for _, future in jobs] == [JobState.SUCCEEDED] * 12
    assert [read_result(folder.result_file)[0] for folder, _ in jobs] == [number * number for number in range(12)]


def test_a_process_file_that_cannot_be_loaded_is_a_failure(start, store):
    """A missing or damaged process file ends in an outcome like any other, and nothing in it is run."""
    missing = store.new_job("missing")
    damaged = store.new_job("damaged")
    damaged.process_file.write_bytes(b"damaged")
    for folder, error in ((missing, "FileNotFoundError"), (damaged, "jobcontainer.errors.CorruptFileError")):
        outcome = start(None, folder=folder)[1].result(60)
        assert (outcome.state, outcome.error_type) == (JobState.FAILED, error)


@pytest.mark.quick
def test_a_result_in_the_place_of_a_process_is_not_run(start, store):
    """Whole and signed by a job, it is still no process: the job fails, and the message says what the file is."""
    folder = store.new_job("job")
    write_file(Runs(lambda: 42), folder.process_file, kind="result")
    folder, future = start(None, folder=folder)
    outcome = future.result(60)
    assert (outcome.state, outcome.error_type) == (JobState.FAILED, "jobcontainer.errors.UntrustedFileError")
    assert "holds a result, and is not loaded as a process" in str(read_result(folder.result_file)[1])


@pytest.mark.not_promised(
    inline="its one process needs the key for both",
    dask="its worker reads the key",
    dask_remote="its worker reads the key",
)
@pytest.mark.quick
def test_a_key_that_is_deleted_strands_no_job(start, store, key_file, tmp_path):
    """One that runs then and one that is queued end as ever; this process reads both, a later one says why not."""
    gate = tmp_path / "gate"

    def wait():
        deadline = time.monotonic() + 60
        while not gate.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return "done"

    running, first = start(wait)
    wait_for(running.last_turn)
    queued = store.new_job("job")
    Serializer.serialize_to_file(Runs(lambda: "queued"), queued.process_file)
    key_file.unlink()
    later, second = start(lambda: "later")  # is signed with the new key
    _, third = start(None, folder=queued)
    gate.touch()
    assert {future.result(60).state for future in (first, second, third)} == {JobState.SUCCEEDED}
    assert [read_result(folder.result_file)[0] for folder in (running, later, queued)] == ["done", "later", "queued"]
    signing.hold(())  # as in a process that begins now
    assert read_result(later.result_file)[0] == "later"
    with pytest.raises(UntrustedFileError, match="a key that was replaced since"):
        read_result(running.result_file)


@pytest.mark.not_promised(inline="a debugger wants no retries")
def test_a_second_attempt_goes_on_in_the_same_log(start):
    """The log of a retry is set off by one line, and the result of the attempt before is gone."""

    def speak():
        print("attempt")
        assert not list(Path(os.environ["STORE"]).glob("*/result.job"))

    folder, future = start(speak, env={"STORE": "/nowhere"})
    assert future.result(60).state is JobState.SUCCEEDED
    assert folder.result_file.exists()
    _, future = start(None, folder=folder, attempt=2, env={"STORE": str(folder.path.parent)})
    assert future.result(60).attempt == 2
    assert future.result(60).state is JobState.SUCCEEDED
    assert folder.tail(9) == ["attempt", "--- attempt 2 ---", "attempt"]


# --- what follows the job -------------------------------------------------------------------------------------------


def test_the_working_directory_follows_the_job(run, tmp_path, monkeypatch):
    """It is the one at submit, or the one asked for."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    assert run(os.getcwd) == str(here)
    assert run(os.getcwd, cwd=str(there)) == str(there)
    assert run(os.getcwd) == str(here)


def test_a_missing_working_directory_is_named(start, tmp_path):
    """The job fails before any user code runs, and says which directory is not there."""
    folder, future = start(lambda: print("never"), cwd=str(tmp_path / "gone"))
    outcome = future.result(60)
    assert (outcome.state, outcome.error_type) == (JobState.FAILED, "FileNotFoundError")
    assert str(tmp_path / "gone") in outcome.error_message
    assert "never" not in folder.tail(100)


def test_the_environment_follows_the_job(run, monkeypatch):
    """Variables are as they were at submit; one that was deleted since is gone."""
    monkeypatch.setenv("FOLLOWS", "one")
    assert run(lambda: os.environ.get("FOLLOWS")) == "one"
    monkeypatch.setenv("FOLLOWS", "two")
    assert run(lambda: os.environ.get("FOLLOWS")) == "two"
    monkeypatch.delenv("FOLLOWS")
    assert run(lambda: os.environ.get("FOLLOWS")) is None
    assert run(lambda: ctypes.CDLL(None).getenv(b"FOLLOWS")) == 0


class ReadsWhenLoaded:
    def __setstate__(self, state):
        self.seen = os.environ.get("CUDA_VISIBLE_DEVICES")

    def __getstate__(self):
        return {"something": True}

    def run(self):
        return self.seen


@pytest.mark.quick("no fork")
def test_env_is_set_for_this_job_alone_before_its_code_is_loaded(start):
    """Two jobs at a time see different devices."""
    jobs = [start(ReadsWhenLoaded(), env={"CUDA_VISIBLE_DEVICES": str(number)}) for number in range(4)]
    for _, future in jobs:
        future.result(60)
    assert [read_result(folder.result_file)[0] for folder, _ in jobs] == ["0", "1", "2", "3"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.quick
@pytest.mark.not_promised(inline=SAME_PROCESS)
@pytest.mark.parametrize(
    ("env", "look", "seen"),
    [
        ({"PYTHONHASHSEED": "1"}, lambda: hash("text"), None),
        ({"PYTHONWARNINGS": "error::UserWarning"}, lambda: warnings.filters[0][:3:2], ("error", UserWarning)),
        ({"PYTHONINTMAXSTRDIGITS": "641"}, sys.get_int_max_str_digits, 641),
        ({"PYTHONDEVMODE": "1"}, lambda: sys.flags.dev_mode, True),
        ({"TZ": "Pacific/Kiritimati"}, lambda: time.tzname[0], "+14"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_env_takes_effect_where_python_reads_it_when_it_starts(run, env, look, seen):
    """The job has an interpreter of its own where it must, and is a job like any other; the next one has none of it."""
    before = run(look)
    found = {run(look, env=env) for _ in range(2)}
    assert len(found) == 1
    assert found == {seen} or seen is None
    assert run(look, env={"UNRELATED": "1"}) not in found
    assert run(look) == before or seen is None


class Stage(enum.StrEnum):
    TEST = "test"


@pytest.mark.quick
def test_a_variable_may_be_a_member_of_a_text_enum(run):
    """One of the notebook, which no keeper knows."""
    assert run(lambda: os.environ["STAGE"], env={"STAGE": Stage.TEST}) == "test"


@pytest.mark.quick
@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_pythonpath_in_env_leads_to_modules(run, tmp_path):
    """``env={"PYTHONPATH": ...}`` comes before what is installed, and after the notebook's own folder."""
    for name in ("colorsys", "only_there"):
        (tmp_path / f"{name}.py").write_text("where = 'there'\n")

    def use():
        import only_there

        return only_there.where

    assert run(use, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}"}) == "there"


@pytest.mark.quick
@pytest.mark.parametrize("leave", [sys.exit, lambda: sys.exit(0), lambda: sys.exit(None)])
def test_an_exit_without_error_is_a_failure_that_says_what_to_do(start, leave):
    """A command line interface exits when it is done, and returns nothing: click and typer have a switch for it."""
    folder, future = start(leave)
    outcome = future.result(60)
    assert (outcome.state, outcome.error_type) == (JobState.FAILED, "SystemExit")
    assert "standalone_mode=False" in outcome.reason
    assert not folder.result_file.exists()


@pytest.mark.quick
def test_click_commands_run_where_they_are_called_so(start, run):
    """The advice holds: what the command returns is the job's result."""
    import click

    @click.command()
    @click.option("--number", default=2)
    def command(number):
        return 2 * number

    _, future = start(lambda: command(["--number", "3"]))
    assert future.result(60).error_type == "SystemExit"
    assert run(lambda: command(["--number", "3"], standalone_mode=False)) == 6


@pytest.mark.quick
@pytest.mark.parametrize("deep", [lambda: nested([]), lambda: nested({}), lambda: Linked.of(100_000)])
def test_a_result_that_is_nested_too_deeply_says_so(start, deep):
    """The job fails and says what to return instead; a chain of objects is as deep as a list in a list."""
    _, future = start(deep)
    outcome = future.result(60)
    assert outcome.state is JobState.FAILED
    assert "nested too deeply" in outcome.error_message
    assert "a list instead of a chain" in outcome.error_message


def nested(whole):
    for _ in range(100_000):
        whole = [whole] if isinstance(whole, list) else {"inner": whole}
    return whole


class Linked:
    def __init__(self, following):
        self.following = following

    @staticmethod
    def of(length):
        first = None
        for _ in range(length):
            first = Linked(first)
        return first


def test_modules_beside_the_notebook_can_be_imported(run, tmp_path, monkeypatch):
    """``sys.path`` is as it was at submit."""
    (tmp_path / "beside_the_notebook.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def use():
        import beside_the_notebook

        return beside_the_notebook.answer

    try:
        assert run(use) == 42
    finally:
        sys.modules.pop("beside_the_notebook", None)


def test_helper_modules_are_imported_from_the_source_in_the_file(start, store, tmp_path, monkeypatch):
    """Where their folder is gone when the job runs, and in a process that has run another version of them before."""
    folder = tmp_path / "notebook"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def work():
        import helper_of_contract
        from package_of_contract.part import Part

        return helper_of_contract.version(), Part()

    try:
        for version in ("one", "two"):
            (folder / "package_of_contract").mkdir(parents=True)
            (folder / "package_of_contract" / "__init__.py").touch()
            (folder / "package_of_contract" / "part.py").write_text("class Part: pass\n")
            (folder / "helper_of_contract.py").write_text(f"def version(): return {version!r}\n")
            importlib.invalidate_caches()
            helper = importlib.import_module("helper_of_contract")
            importlib.reload(helper)
            part = importlib.import_module("package_of_contract.part")
            job = store.new_job("job")
            Serializer.serialize_to_file(Runs(work), job.process_file)
            shutil.rmtree(folder)
            outcome = start(None, folder=job)[1].result(60)
            assert outcome.state is JobState.SUCCEEDED, (outcome, job.tail(30))
            found, made = read_result(job.result_file)[0]
            assert (found, type(made)) == (version, part.Part)
    finally:
        for name in ("helper_of_contract", "package_of_contract", "package_of_contract.part"):
            sys.modules.pop(name, None)


@pytest.mark.quick
@pytest.mark.parametrize("entry", [Path("/nowhere"), b"/nowhere", None], ids=["Path", "bytes", "None"])
def test_entries_of_the_path_that_are_no_texts_cost_nothing(run, engine, monkeypatch, entry):
    """Python passes over them when it looks for a module, here and in the job."""
    monkeypatch.setattr(sys, "path", [entry, *sys.path, entry])
    assert run(lambda: entry in sys.path) is isinstance(engine, InlineEngine)


@pytest.mark.not_promised(inline="logging writes where the caller's handlers say")
def test_the_level_of_the_root_logger_follows_the_job(start, monkeypatch):
    """What logging shows in the notebook it shows in the log, before user code has configured any handler."""

    def log():
        logger = logging.getLogger("job")
        logger.info("told at INFO")
        logger.debug("not told")

    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    logging.getLogger().manager._clear_cache()
    folder, future = start(log)
    future.result(60)
    assert folder.tail(9) == ["told at INFO"]


@pytest.mark.not_promised(inline="the libraries are the caller's")
def test_threads_bounds_numerical_libraries(run):
    """BLAS uses no more than ``threads``; libraries that are loaded later are told by the environment."""

    def count():
        from threadpoolctl import threadpool_info

        np.dot(np.ones((200, 200)), np.ones((200, 200)))
        return max(library["num_threads"] for library in threadpool_info()), os.environ["OMP_NUM_THREADS"]

    assert run(count, threads=1) == (1, "1")
    most, told = run(count, threads=2)
    assert most == min(2, os.cpu_count())
    assert told == "2"
    assert run(lambda: os.environ["OMP_NUM_THREADS"], threads=2, env={"OMP_NUM_THREADS": "3"}) == "3"


@pytest.mark.not_promised(inline="the generators are the caller's")
def test_no_two_jobs_draw_the_same_numbers(run):
    """The global random generators, Python's and numpy's, are seeded freshly in each job."""
    draws = [run(lambda: (random.random(), float(np.random.random()))) for _ in range(4)]  # noqa: NPY002, S311
    for generator in zip(*draws, strict=True):
        assert len(set(generator)) == 4


SEEDS = {
    "random": lambda: random.seed(1),
    "state": lambda: random.setstate((3, (*range(624), 624), None)),
    "numpy": lambda: np.random.seed(1),  # noqa: NPY002 -- the global one
}


@pytest.mark.quick
@pytest.mark.not_promised(inline="the generators are the caller's")
def test_a_seed_that_a_job_sets_is_not_the_next_ones(run):
    """What a job draws after one that has seeded is drawn by no other."""

    def draw():
        return random.random(), float(np.random.random())  # noqa: NPY002, S311

    drawn = []
    for seed in SEEDS.values():
        for _ in range(2):
            run(lambda seed=seed: seed() and None)
            drawn.append(run(draw))
    assert [len(set(numbers)) for numbers in zip(*drawn, strict=True)] == [6, 6]


TORCH = """
import os
state = 1

def seed():
    global state
    state = int.from_bytes(os.urandom(8), "big")

def rand():
    global state
    state = state * 6364136223846793005 % 2**64
    return state
"""

TENSORFLOW = """
import types
random = types.SimpleNamespace(seed=1, set_seed=lambda seed: setattr(random, "seed", seed))
"""


@pytest.mark.quick
@pytest.mark.not_promised(inline="the generators are the caller's", dask="test_local has it", dask_remote="as well")
def test_no_two_jobs_draw_the_same_numbers_of_libraries_that_are_warm(engine, store, tmp_path, monkeypatch):
    """The generators of torch and tensorflow, imported before the job came, are seeded freshly in each job."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "torch.py").write_text(TORCH)
    (installed / "tensorflow.py").write_text(TENSORFLOW)
    monkeypatch.syspath_prepend(str(installed))
    own = LokyEngine(1, preload=["torch", "tensorflow"], forks=engine._worker_slots._forks)

    def draw():
        import tensorflow as tf
        import torch

        return os.getpid(), torch.rand(), tf.random.seed, random.random()  # noqa: S311

    drawn = []
    for _ in range(3):
        folder = store.new_job("job")
        Serializer.serialize_to_file(Runs(draw), folder.process_file)
        outcome = own.submit(folder, JobOptions(isolation=engine.isolation), Environment.here()).result(60)
        assert outcome.state is JobState.SUCCEEDED, folder.tail(100)
        drawn.append(read_result(folder.result_file)[0])
    own.close()
    pids, *generators = zip(*drawn, strict=True)
    assert len(set(pids)) == (1 if engine.isolation == "reuse" else 3)
    assert [len(set(numbers)) for numbers in generators] == [3, 3, 3]


@pytest.mark.quick
@pytest.mark.not_promised(inline="generators are the caller's")
def test_a_generator_that_cannot_be_seeded_costs_no_job(run, tmp_path, monkeypatch):
    """A module that is called like a library, and is none, is left alone."""
    (tmp_path / "torch.py").write_text("seed = 'the one of a fruit'\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def use():
        import torch

        return torch.seed

    assert [run(use) for _ in range(2)] == ["the one of a fruit"] * 2


# --- standard input, and children of the job's own ------------------------------------------------------------------


def ask_for_input():
    return input("name? ")


def read_line():
    return next(sys.stdin)


def ask_for_password():
    import getpass
    import warnings

    warnings.simplefilter("ignore")  # it says that it can't hide what is typed
    return getpass.getpass()


@pytest.mark.quick
@pytest.mark.not_promised(inline="it is the caller's terminal")
@pytest.mark.parametrize("ask", [ask_for_input, ask_for_password, read_line])
def test_standard_input_is_empty(start, ask):
    """Whoever asks gets the end of the file at once, as with ``< /dev/null``, and the traceback shows where."""
    _, future = start(ask)
    outcome = future.result(60)
    assert outcome.error_type == ("StopIteration" if ask is read_line else "EOFError")


@pytest.mark.not_promised(inline="it is the caller's terminal")
def test_no_stream_reads_what_the_job_opens(run, tmp_path):
    """Standard input stays on its descriptor, whichever others the job's files get; programs find it empty too."""
    file = tmp_path / "data.txt"
    file.write_text("secret\n")

    def use():
        held = [file.open() for _ in range(20)]
        read = sys.stdin.read(), sys.__stdin__.read(), sys.stdin.fileno()
        for one in held:
            one.close()
        return (*read, subprocess.run(["cat"], capture_output=True, check=True).stdout, os.readlink("/proc/self/fd/0"))

    assert run(use) == ("", "", 0, b"", os.devnull)


@pytest.mark.not_promised(inline="it is the caller's debugger")
def test_breakpoint_says_where_a_job_can_be_debugged(start, run, tmp_path, monkeypatch):
    """It names the engine that runs in the notebook; a debugger that ``PYTHONBREAKPOINT`` names is called."""

    def stop():
        breakpoint()  # noqa: T100 -- what is tested
        return "went on"

    _, future = start(stop)
    assert 'engine="inline"' in future.result(60).error_message
    assert run(stop, env={"PYTHONBREAKPOINT": "0"}) == "went on"
    (tmp_path / "remote_debugger.py").write_text("def stop(): print('listening')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder, future = start(stop, env={"PYTHONBREAKPOINT": "remote_debugger.stop"})
    future.result(60)
    assert folder.tail(1) == ["listening"]


def trace_in_pdb():
    import pdb  # noqa: T100 -- what is tested

    pdb.set_trace()  # noqa: T100 -- as above


def look_after_an_error():
    import pdb  # noqa: T100 -- what is tested

    try:
        json.loads("")
    except ValueError:
        pdb.post_mortem()


def open_console():
    import code

    code.interact(local={})


def ask_by_input():
    return input("name? ")


def ask_for_password():
    import getpass

    return getpass.getpass()


def ask_by_click():
    import click

    return click.prompt("name")


def trace_in_own_debugger():
    import pdb  # noqa: T100 -- what is tested

    class Debugger(pdb.Pdb): ...

    Debugger().set_trace()
    return "went on"


@pytest.mark.not_promised(inline="it is the caller's terminal")
@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (trace_in_pdb, "pdb.set_trace(): a job has no terminal"),
        (look_after_an_error, "pdb.post_mortem(): a job has no terminal"),
        (open_console, "code.interact(): a job has no terminal"),
        (ask_by_input, "standard input is empty"),
        (ask_for_password, "standard input is empty"),
        (ask_by_click, "standard input is empty"),
        (trace_in_own_debugger, "A debugger: a job has no terminal"),
    ],
)
def test_what_stops_at_a_prompt_says_where_it_can(start, prompt, said):
    """Debuggers and consoles do not pass as if somebody had looked; the reason names the engine that has a terminal."""
    _, future = start(prompt)
    reason = future.result(60).reason
    told = reason if said in reason else future.result(60).error_message
    assert said in told
    assert 'engine="inline"' in told


def test_the_end_of_another_file_is_no_prompt(start):
    """An ``EOFError`` of pickle, or one that user code raises, has no advice about terminals."""
    for raises in (lambda: pickle.loads(b""), lambda: (_ for _ in ()).throw(EOFError("mine"))):
        _, future = start(raises)
        assert "standard input" not in future.result(60).reason


def raise_in_child():
    raise ValueError("of the child")


def exit_in_child():
    sys.exit(3)


def exit_with_words_in_child():
    sys.exit("words of the child")


def return_in_child():
    return "the child's"


class LoadsInFork:
    """Forks while it is loaded, and the child raises."""

    def __setstate__(self, state):
        self.__dict__ = state
        self.pid = os.fork()
        if self.pid == 0:
            raise ValueError("of the child")

    def run(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        (raise_in_child, 1, "ValueError: of the child"),
        (exit_in_child, 3, "parent"),
        (exit_with_words_in_child, 1, "words of the child"),
        (return_in_child, 0, "parent"),
    ],
)
def test_a_child_that_run_forks_does_not_speak_for_the_job(start, act, code, said):
    """However it ends, it ends as a script's child would, and the job goes on to its own end, once."""

    def fork():
        pid = os.fork()
        if pid == 0:
            return act()
        status = os.waitpid(pid, 0)[1]
        print("parent", flush=True)
        return os.waitstatus_to_exitcode(status)

    folder, future = start(fork)
    assert future.result(60).state is JobState.SUCCEEDED
    assert read_result(folder.result_file)[0] == code
    assert said in folder.tail(9)
    assert [type(event) for event in folder.read_events()[0]] == [Started, Outcome]


@pytest.mark.quick
def test_a_child_forked_while_the_job_is_loaded_does_not_speak_for_it_either(start):
    """The file's code runs in the job's process as well, before ``run()``."""
    process = LoadsInFork()
    process.pid = None
    folder, future = start(process)
    assert future.result(60).state is JobState.SUCCEEDED
    assert read_result(folder.result_file)[0] == 1


# --- coroutines -----------------------------------------------------------------------------------------------------


class Awaits:
    """Its ``run`` is a coroutine function."""

    async def run(self):
        import asyncio

        first, second = await asyncio.gather(asyncio.sleep(0.01, "first"), asyncio.sleep(0, "second"))
        return first, second


@pytest.mark.quick
def test_async_run_is_awaited(start, run):
    """``async def run`` returns and raises as any other; so does a function that returns a coroutine."""

    async def fail():
        raise KeyError("no good")

    def inner():
        return asyncio.sleep(0, 42)

    assert run(Awaits()) == ("first", "second")
    assert run(inner) == 42
    _, future = start(fail)
    assert future.result(60).error_type == "KeyError"


@pytest.mark.quick
def test_async_run_is_awaited_where_an_event_loop_runs_already(run):
    """As in a notebook, whose cells run in one: inline, too."""

    async def cell():
        return run(Awaits())

    assert asyncio.run(cell()) == ("first", "second")


@pytest.mark.quick
@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_a_cancelled_coroutine_may_clean_up(start, engine, tmp_path):
    """A stop reaches what it awaits: ``finally`` blocks run, with the loop still there."""
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"

    async def wait():
        import asyncio

        try:
            begun.touch()
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            cleaned.touch()

    folder, future = start(wait)
    wait_for(begun.exists)
    engine.cancel(folder.id)
    assert future.result(30).state is JobState.CANCELLED
    assert cleaned.exists()


# --- output ---------------------------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.not_promised(inline="descriptors 1 and 2 stay the terminal's, so that a debugger can be used")
def test_everything_that_is_printed_is_in_the_log_in_order(start):
    """Python, its streams without a newline, descriptors, C, subprocesses: as they came."""

    def speak():
        libc = ctypes.CDLL(None)
        print("1 print")
        print("2 partial", end="")
        print(" on stderr", file=sys.stderr)
        os.write(1, b"3 descriptor\n")
        libc.printf(b"4 C\n")
        subprocess.run(["sh", "-c", "echo 5 subprocess; echo 6 its stderr >&2"], check=True)
        logging.getLogger("job").warning("7 logging")
        sys.stdout.buffer.write(b"8 bytes\n")
        libc.printf(b"9 C without a newline")

    folder, future = start(speak)
    assert future.result(60).state is JobState.SUCCEEDED
    assert folder.tail(20) == [
        "1 print",
        "2 partial on stderr",
        "3 descriptor",
        "4 C",
        "5 subprocess",
        "6 its stderr",
        "7 logging",
        "8 bytes",
        "9 C without a newline",
    ]


@pytest.mark.not_promised(inline="the caller waits for the job")
def test_the_log_is_live(start, tmp_path):
    """What was printed, half a line too, is in the log while the job goes on."""
    go = tmp_path / "go"

    def speak():
        print("half a line", end="")
        while not go.exists():
            time.sleep(0.005)

    folder, future = start(speak)
    wait_for(lambda: folder.tail(1) == ["half a line"])
    assert not future.done()
    go.touch()
    assert future.result(60).state is JobState.SUCCEEDED


def test_progress_and_displays_reach_the_folder(start):
    """``progress()`` moves the bars of the record; ``display()`` leaves an event."""

    def show():
        for _ in jobcontainer.progress(range(3), desc="steps"):
            pass
        display({"answer": 42})  # noqa: F821 -- a job has it, as a notebook does

    folder, future = start(show)
    assert future.result(60).state is JobState.SUCCEEDED
    assert [(bar.label, bar.done, bar.total) for bar in read_bars(folder.progress_file)] == [("steps", 3, 3)]
    assert any("42" in event.data["text/plain"] for event in folder.read_events()[0] if event.event == "display")


# --- limits ---------------------------------------------------------------------------------------------------------


def wait_and_clean_up(started, cleaned):
    try:
        started.touch()
        time.sleep(1000)
    finally:
        cleaned.touch()


@pytest.mark.quick
@pytest.mark.not_promised(inline="nobody is there to stop the caller's thread")
def test_a_cancelled_job_may_clean_up_and_ends_at_once(start, engine, tmp_path):
    """``finally`` blocks run, the log shows where it was, and the end is told long before the grace is over.

    The grace may be of any length.
    """
    started, cleaned = tmp_path / "started", tmp_path / "cleaned"
    folder, future = start(lambda: wait_and_clean_up(started, cleaned), grace=1e10)
    wait_for(started.exists)
    engine.cancel(folder.id)
    outcome = future.result(10)
    assert outcome.state is JobState.CANCELLED
    assert cleaned.exists()
    assert any("in wait_and_clean_up" in line for line in folder.tail(100))
    assert not folder.result_file.exists()


@pytest.mark.not_promised(inline="every job has ended when the next can be submitted")
def test_a_job_that_waits_can_be_cancelled(start, engine, tmp_path):
    """It ends at once, without having started; the jobs before and behind it are not touched."""
    go, started = tmp_path / "go", [tmp_path / "started 0", tmp_path / "started 1"]

    def wait(mark):
        mark.touch()
        while not go.exists():
            time.sleep(0.005)

    running = [start(lambda mark=mark: wait(mark))[1] for mark in started]
    waiting, cancelled = start(lambda: print("never"))
    _, behind = start(lambda: "behind")
    wait_for(lambda: all(mark.exists() for mark in started))
    engine.cancel(waiting.id)
    assert cancelled.result(10).state is JobState.CANCELLED
    assert not any(future.done() for future in running)
    go.touch()
    assert [future.result(60).state for future in (*running, behind)] == [JobState.SUCCEEDED] * 3
    assert [event.state for event in waiting.read_events()[0]] == [JobState.CANCELLED]


def test_to_cancel_what_is_not_there_does_nothing(start, engine):
    """Neither a job that has ended nor one that never was."""
    folder, future = start(lambda: 1)
    outcome = future.result(60)
    engine.cancel(folder.id)
    engine.cancel("no such job")
    assert folder.read_events()[0][-1] == outcome
    assert start(lambda: 2)[1].result(60).state is JobState.SUCCEEDED


@pytest.mark.not_promised(inline="nobody is there to stop the caller's thread")
def test_a_timeout_ends_the_job_and_says_where_it_was(start, tmp_path):
    """Politely first: ``finally`` blocks run."""
    started, cleaned = tmp_path / "started", tmp_path / "cleaned"
    folder, future = start(lambda: wait_and_clean_up(started, cleaned), timeout=1.5, grace=30)
    outcome = future.result(20)
    assert outcome.state is JobState.TIMED_OUT
    assert "timeout=1.5 s" in outcome.reason
    assert cleaned.exists()
    assert any("in wait_and_clean_up" in line for line in folder.tail(100))
    assert 1.5 <= outcome.usage.wall < 10


@pytest.mark.quick
@pytest.mark.not_promised(inline="nobody is there to kill the caller")
def test_a_job_that_will_not_stop_is_killed_after_its_grace(start, engine, tmp_path):
    """With everything that it started, and with a traceback in the log, within the grace and a tenth of a second."""
    started = tmp_path / "started"

    def refuse():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        started.write_text(str(child.pid))
        while True:
            time.sleep(1000)

    folder, future = start(refuse, grace=0.2)
    wait_for(lambda: started.exists() and started.read_text())
    begun = time.monotonic()
    engine.cancel(folder.id)
    assert future.result(10).state is JobState.CANCELLED
    assert 0.2 <= time.monotonic() - begun < 2
    assert any("in refuse" in line for line in folder.tail(100))
    assert not is_running(int(started.read_text()))


@pytest.mark.quick
@pytest.mark.not_promised(inline="nobody is there to measure")
def test_memory_bounds_the_process_tree(start):
    """A job that grows above it is ended; the outcome names peak and limit, the log where it grew."""

    def grow():
        held = []
        while True:
            held.append(np.ones(1_000_000))

    folder, future = start(grow, memory="200MB")
    outcome = future.result(60)
    assert outcome.state is JobState.OUT_OF_MEMORY
    assert "memory=200 MB, and it held 2" in outcome.reason
    assert outcome.usage.peak_memory > 200e6
    assert any("in grow" in line for line in folder.tail(100))


@pytest.mark.not_promised(inline="nobody is there to measure")
def test_memory_that_is_shared_or_untouched_is_not_counted(run):
    """Address space, mapped files, and pages that forked children share with the job do no harm to it."""

    def share():
        import mmap

        untouched = mmap.mmap(-1, 1_000_000_000)
        held = np.ones(10_000_000)
        children = [os.fork() for _ in range(4)] if os.getpid() else []
        if 0 in children:
            time.sleep(1000)
        time.sleep(0.3)
        for child in children:
            os.kill(child, signal.SIGKILL)
        return len(untouched) + held.size

    assert run(share, memory="250MB") == 1_010_000_000


@pytest.mark.not_promised(inline="the caller's memory is not the job's")
def test_usage_tells_time_cpu_and_memory(start):
    """Wall and CPU seconds, and the peak of memory, also where it was high for a moment only."""

    def work():
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        return len(bytearray(b"x") * 100_000_000)

    usage = start(work)[1].result(60).usage
    assert 0.2 <= usage.cpu <= usage.wall + 0.5 <= 20
    assert usage.peak_memory > 95e6


# --- isolation ------------------------------------------------------------------------------------------------------


@pytest.mark.not_promised(inline=SAME_PROCESS, reuse="imported modules, open files and threads stay")
def test_nothing_of_a_job_reaches_the_next(run):
    """Modules and their state, files, threads: the next job's process has never been used."""

    def change():
        import colorsys

        colorsys.changed = True
        globals()["held"] = open(os.devnull)  # noqa: SIM115 -- left open
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        return os.getpid()

    def look():
        return (
            "colorsys" in sys.modules,
            len(threading.enumerate()),
            sorted(map(int, os.listdir("/proc/self/fd")))[:3],
            os.getpid(),
        )

    pids = {run(change) for _ in range(3)}
    loaded, threads, descriptors, pid = run(look)
    assert (loaded, threads, descriptors) == (False, 1, [0, 1, 2])
    assert pid not in pids
    assert len(pids) == 3


@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_what_can_be_put_back_does_not_reach_the_next_job(run, tmp_path):
    """Working directory, environment, paths, streams, builtins, signal handlers, filters, ``__main__``."""

    def change():
        import builtins
        import decimal
        import socket
        import warnings

        os.chdir(tmp_path)
        os.environ["CHANGED"] = "yes"
        sys.path.append("changed")
        sys.argv.append("changed")
        sys.stdout = sys.stderr = None
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 1000)
        warnings.simplefilter("error")
        logging.basicConfig(level=logging.ERROR)
        decimal.getcontext().prec = 3
        socket.setdefaulttimeout(1)
        os.umask(0)
        sys.modules["__main__"].changed = True
        sys.setrecursionlimit(5000)
        builtins.changed = builtins.len = True

    def look():
        import builtins
        import decimal
        import socket
        import warnings

        print("still printed")
        umask = os.umask(0o022)
        return (
            os.getcwd(),
            os.environ.get("CHANGED"),
            "changed" in sys.path,
            "changed" in sys.argv,
            hasattr(builtins, "changed"),
            callable(builtins.len),
            signal.getsignal(signal.SIGTERM),
            signal.getitimer(signal.ITIMER_REAL),
            any(action == "error" for action, *_ in warnings.filters),
            logging.getLogger().handlers,
            decimal.getcontext().prec,
            socket.getdefaulttimeout(),
            umask,
            hasattr(sys.modules["__main__"], "changed"),
            sys.getrecursionlimit(),
        )

    before = run(look)
    for _ in range(2):
        run(change)
    assert run(look) == before


@pytest.mark.quick("no fork")
@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_a_crash_costs_its_own_job_only(start):
    """Its neighbours, and the jobs that follow it, succeed."""
    jobs = [start(os.abort if number == 2 else lambda: "fine")[1] for number in range(8)]
    states = [future.result(60).state for future in jobs]
    assert states.pop(2) is JobState.CRASHED
    assert states == [JobState.SUCCEEDED] * 7


@pytest.mark.quick
@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_nothing_that_a_job_started_outlives_it(run):
    """Children, and children of children that made themselves daemons, are gone when the job is."""

    def leave():
        shell = subprocess.Popen(["sleep", "1000"])
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if pid := os.fork():
                os.write(writer, str(pid).encode())
                os._exit(0)
            time.sleep(1000)
        return shell.pid, int(os.read(reader, 20))

    for pid in run(leave):
        assert not is_running(pid)


@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_the_job_has_a_session_of_its_own(run):
    """An interrupt of the notebook, which goes to its process group, does not reach the job."""
    session, group = run(lambda: (os.getsid(0), os.getpgrp()))
    assert session != os.getsid(0)
    assert group != os.getpgrp()


def double(number):
    return 2 * number


@pytest.mark.not_promised(inline="it is the caller's multiprocessing")
def test_processes_can_be_used_inside_a_job(run):
    """multiprocessing, its fork and its spawn, concurrent.futures, joblib and subprocess, as in a script."""

    def use():
        from joblib import Parallel, delayed

        with multiprocessing.get_context("fork").Pool(2) as pool:
            forked = pool.map(double, range(3))
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
            spawned = list(executor.map(abs, range(3)))
        parallel = Parallel(n_jobs=2)(delayed(double)(number) for number in range(3))
        by_pool = Parallel(n_jobs=2, backend="multiprocessing")(delayed(os.getpid)() for _ in range(20))
        assert os.getpid() not in by_pool
        return forked, spawned, parallel, subprocess.run(["true"], check=True).returncode

    assert run(use, timeout=60) == ([0, 2, 4], [0, 1, 2], [0, 2, 4], 0)


# --- large data -------------------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_large_data_is_written_once(start, store):
    """Jobs over one array share its bytes on disk and its pages in memory, may write to it, and hand it on uncopied."""
    changed, handed_on = np.arange(500_000.0), np.arange(300_000)
    submitter = Submitter(store)
    jobs = [start(None, folder=submitter.of_process(Holds(changed, handed_on), JobOptions()).folder) for _ in range(5)]
    inodes = set()
    for folder, future in jobs:
        outcome = future.result(60)
        assert outcome.state is JobState.SUCCEEDED, (outcome, folder.tail(100))
        (inode, last, result), _ = read_result(folder.result_file)
        inodes.add(inode)
        assert last == 500_000
        assert np.array_equal(result, handed_on)
        assert np.array_equal(load_file(folder.process_file).changed, np.arange(500_000.0))
    assert len(inodes) == 1
    assert changed[-1] == 499_999
    links = {path.stat().st_size: path.stat().st_nlink for path in store.data_folder.iterdir()}
    assert links == {changed.nbytes: 1 + len(jobs), handed_on.nbytes: 1 + 2 * len(jobs)}


def test_large_data_of_an_earlier_attempt_goes_with_its_result(start):
    """Another attempt has the result of that one, and no job keeps what it does not refer to."""
    folder, future = start(lambda: np.zeros(10**6))
    assert future.result(60).state is JobState.SUCCEEDED
    _, future = start(None, folder=folder, attempt=2)
    assert future.result(60).state is JobState.SUCCEEDED
    (folder.path / f"result.job.{'0' * 64}").write_bytes(b"left by an attempt that was killed")
    _, future = start(None, folder=folder, attempt=3)
    assert future.result(60).state is JobState.SUCCEEDED
    assert set(blobs_beside(folder.result_file)) == {
        blob_path(folder.result_file, digest) for digest in blobs_of(folder.result_file)
    }
    assert read_result(folder.result_file)[0].shape == (10**6,)


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Model:
    def __init__(self):
        self.weights, self.fixed = np.zeros(100_000), np.ones(100_000)


class KillsWhenPickled:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)
        return object, ()


class Trains:
    """Goes on from the epoch where it was, and fails in the middle of its first attempt."""

    def __init__(self, fail):
        self.fail = fail

    def run(self):
        state = checkpoint.load(default={"epoch": 0, "model": Model()})
        begun, model = state["epoch"], state["model"]
        assert type(model) is Model
        for epoch in range(begun, 4):
            model.weights += 1
            checkpoint.save({"epoch": epoch + 1, "model": model})
            if epoch == 1:
                self.fail()
        return begun, model.weights[0], model.fixed[-1]


def fail():
    raise ValueError("half way")


def die_while_saving():
    checkpoint.save([np.full(100_000, 7.0), KillsWhenPickled()])


def written(store, process, **options):
    """Return the folder of a process, as a job of the store."""
    submission = Submitter(store).of_process(process, JobOptions(**options))
    write_records([submission])
    return submission.folder


def resumed(store, folder, *, resume=True):
    """Return the folder of a job that runs the process of another one again."""
    submission = Submitter(store).of_job(folder, resume=resume)
    write_records([submission])
    return submission.folder


@pytest.mark.quick
def test_retries_and_reruns_that_resume_go_on_from_the_checkpoint(start, store):
    """With the classes of the notebook, large arrays and all; a plain rerun, and any other job, begins anew."""
    folder, future = start(None, folder=written(store, Trains(fail)))
    assert future.result(60).error_message == "half way"
    assert len(checkpoints_of(folder)) == 2
    again, anew = resumed(store, folder), resumed(store, folder, resume=False)
    for one in (folder, again):
        _, future = start(None, folder=one, attempt=2)
        assert future.result(60).state is JobState.SUCCEEDED, one.tail(100)
        assert read_result(one.result_file)[0] == (2, 4.0, 1.0)
        assert len(checkpoints_of(one)) == 4
        assert set(blobs_beside(one.checkpoint_file)) == {
            blob_path(one.checkpoint_file, digest) for digest in blobs_of(one.checkpoint_file)
        }
    for one in (anew, written(store, Trains(fail))):
        assert start(None, folder=one)[1].result(60).error_message == "half way"


@pytest.mark.quick
@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_a_kill_while_a_checkpoint_is_saved_leaves_the_one_before(start, store):
    """And what was written of the other one is gone with the next save."""
    folder, future = start(None, folder=written(store, Trains(die_while_saving)))
    assert future.result(60).state is JobState.CRASHED
    _, future = start(None, folder=folder, attempt=2)
    assert future.result(60).state is JobState.SUCCEEDED, folder.tail(100)
    assert read_result(folder.result_file)[0] == (2, 4.0, 1.0)
    assert len(blobs_beside(folder.checkpoint_file)) == 2
    assert len(list(store.data_folder.iterdir())) == 2


@pytest.mark.quick
@pytest.mark.not_promised(inline="nobody is there to stop the caller's thread")
def test_a_checkpoint_that_is_saved_when_the_job_is_stopped_counts(start, engine, store, tmp_path):
    """In ``finally``, or where the ``KeyboardInterrupt`` is caught, within the grace."""
    started = tmp_path / "started"

    class Waits:
        def run(self):
            if (found := checkpoint.load()) is not None:
                return found
            checkpoint.save("saved at the beginning")
            try:
                started.touch()
                time.sleep(1000)
            finally:
                checkpoint.save("saved at the end")

    folder, future = start(None, folder=written(store, Waits()))
    wait_for(started.exists)
    wait_for(lambda: len(checkpoints_of(folder)) == 1)  # another worker may go on from it, should this one be lost
    engine.cancel(folder.id)
    assert future.result(30).state is JobState.CANCELLED
    again, future = start(None, folder=resumed(store, folder))
    assert future.result(60).state is JobState.SUCCEEDED, again.tail(100)
    assert read_result(again.result_file)[0] == "saved at the end"


@pytest.mark.quick
def test_a_checkpoint_that_can_not_be_loaded_fails_the_job(start, store):
    """It does not begin anew unasked; what to do stands in the error."""
    folder, future = start(None, folder=written(store, Trains(fail)))
    future.result(60)
    folder.checkpoint_file.write_bytes(b"something else")
    _, future = start(None, folder=folder, attempt=2)
    outcome = future.result(60)
    assert outcome.error_type == "jobcontainer.errors.UntrustedFileError"
    assert "job.rerun()" in outcome.error_message


@pytest.mark.not_promised(inline=SAME_PROCESS)
def test_what_can_not_be_saved_costs_the_job_nothing(run):
    """An object that can't be pickled, or a child that saves; the last good one is kept, and threads may save."""

    def save():
        checkpoint.save("good")
        with pytest.raises(jobcontainer.SerializationError, match=r"checkpoint\[1\]"):
            checkpoint.save([1, threading.Lock()])
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as others:
            error = others.submit(save_in_child).exception(60)
        assert "child process of a job" in str(error), error
        found = checkpoint.load()
        thread = threading.Thread(target=lambda: checkpoint.save("of a thread"))
        thread.start()
        thread.join()
        return found, checkpoint.load()

    assert run(save) == ("good", "of a thread")


def save_in_child():
    checkpoint.save("of a child")
