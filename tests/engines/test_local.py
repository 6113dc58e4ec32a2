"""What the engine on this machine promises beyond the contract: of its keepers, and to the process that uses it."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from joblib.externals import loky

from jobcontainer.engines.local import worker_slots
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.events import JobState
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.process import Environment, JobOptions
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.result import read_result
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker import process_tree, subreaper
from waiting import is_running, wait_for

PRELUDE = """
import os, signal, sys, time
from jobcontainer.engines.local.engine import LokyEngine
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.jobfile.serializer import Serializer
from jobcontainer.process import JobOptions, Environment

class Runs:
    def __init__(self, function):
        self.function = function
    def run(self):
        return self.function()

store = StoreFolder(os.environ["STORE"])
store.create()

def start(engine, function, **options):
    folder = store.new_job("job")
    Serializer.serialize_to_file(Runs(function), folder.process_file)
    return engine.submit(folder, JobOptions(**options), Environment.here())

def hang():
    time.sleep(1000)
"""

BOUND = 30.0


class Runs:
    def __init__(self, function):
        self.function = function

    def run(self):
        return self.function()


def hang():
    time.sleep(1000)


@pytest.fixture
def store(tmp_path):
    folder = StoreFolder(tmp_path / "store")
    folder.create()
    return folder


@pytest.fixture
def submit(store):
    def submit(engine, function, *, folder=None, **options):
        folder = folder or store.new_job("job")
        if folder.path.exists():
            Serializer.serialize_to_file(Runs(function), folder.process_file)
        return engine.submit(folder, JobOptions(**options), Environment.here())

    return submit


@pytest.fixture
def engine():
    engine = LokyEngine(2)
    yield engine
    engine.close()


@pytest.fixture
def script(tmp_path):
    """Run a script of its own process group, with the engine at hand; returns its process, its pipes open."""
    processes = []

    def script(text, *, prelude=PRELUDE):
        path = tmp_path / "script.py"
        path.write_text(prelude + textwrap.dedent(text))
        process = subprocess.Popen(
            [sys.executable, "-W", "error", path],
            env=os.environ | {"STORE": str(tmp_path / "scripts")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield script
    for process in processes:
        process.kill()
        process.communicate()


def keepers():
    """The processes of this one's keepers, which are loky's workers."""
    return [pid for pid in process_tree.children_of(os.getpid()) if command(pid).startswith(subreaper.NAME.encode())]


def command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


# --- the end of an engine -------------------------------------------------------------------------------------------


def test_close_cancels_what_runs_and_what_waits(submit, tmp_path):
    """It returns when all has ended; polite jobs may clean up, and their futures say cancelled."""
    started = tmp_path / "started"
    engine = LokyEngine(1)
    running = submit(engine, lambda: (started.touch(), hang()), grace=30)
    waiting = submit(engine, hang)
    wait_for(started.exists)
    begun = time.monotonic()
    engine.close()
    assert time.monotonic() - begun < 5
    assert running.result(0).state is waiting.result(0).state is JobState.CANCELLED
    with pytest.raises(RuntimeError, match="make a new JobPool"):
        submit(engine, hang)
    engine.close()


def test_an_idle_engine_that_is_collected_leaves_nothing(submit):
    """Forgotten engines end their keepers by themselves."""
    engine = LokyEngine(2)
    assert submit(engine, os.getpid).result(30).state is JobState.SUCCEEDED
    pids = keepers()
    assert pids
    del engine
    gc.collect()
    wait_for(lambda: not any(map(is_running, pids)))


def test_an_engine_that_is_collected_lets_its_jobs_end_first(submit, tmp_path):
    """Whoever holds a job's future gets its outcome, though nobody holds the engine."""
    go = tmp_path / "go"

    def wait():
        while not go.exists():
            time.sleep(0.005)

    engine = LokyEngine(1)
    futures = [submit(engine, wait), submit(engine, os.getpid)]
    del engine
    gc.collect()
    go.touch()
    assert [future.result(30).state for future in futures] == [JobState.SUCCEEDED] * 2
    wait_for(lambda: not keepers())


@pytest.mark.slow
def test_a_script_that_does_not_close_its_engine_ends_cleanly(script):
    """At the interpreter's exit running jobs are cancelled; nothing is printed, nothing hangs, nothing is left."""
    process = script("""
        engine = LokyEngine(2)
        start(engine, os.getpid).result()
        start(engine, hang)
        print("end")
    """)
    assert process.communicate(timeout=30) == ("end\n", "")
    assert process.returncode == 0


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("left", ["", "start(engine, hang)", "start(engine, hang), start(engine, hang)"])
def test_a_script_whose_engine_has_several_keepers_ends_cleanly(script, left):
    """Loky has its own function at exit registered anew with each keeper; ours comes before all of them."""
    process = script(f"""
        engine = LokyEngine(2)

        def meet():
            mine, other = (os.path.join(os.environ["STORE"], name) for name in ("one", "other"))
            if os.path.exists(mine):
                mine, other = other, mine
            open(mine, "w").close()
            while not os.path.exists(other):
                time.sleep(0.005)

        for future in [start(engine, meet), start(engine, meet)]:
            assert future.result().state == "succeeded"
        {left}
        print("end")
    """)
    assert process.communicate(timeout=30) == ("end\n", "")
    assert process.returncode == 0


@pytest.mark.slow
def test_a_script_needs_no_guard(script):
    """A script without ``if __name__ == "__main__"`` runs once: no keeper and no job imports it."""
    process = script("""
        print("imported")
        engine = LokyEngine(1)
        folder = store.new_job("job")
        Serializer.serialize_to_file(Runs(lambda: __name__), folder.process_file)
        print(engine.submit(folder, JobOptions(), Environment.here()).result().state)
        engine.close()
    """)
    assert process.communicate(timeout=30) == ("imported\nsucceeded\n", "")


# --- the process that uses it ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupt_of_the_notebook_touches_no_job(script):
    """SIGINT to the process group of the notebook reaches neither a keeper, from its first moment on, nor a job."""
    process = script("""
        signal.signal(signal.SIGINT, lambda *_: None)
        print("ready", flush=True)
        engine = LokyEngine(2)
        jobs = [start(engine, lambda: time.sleep(0.5)) for _ in range(2)]
        print(*[job.result().state for job in jobs])
        engine.close()
    """)
    assert process.stdout.readline() == "ready\n"
    while process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    assert process.communicate(timeout=30) == ("succeeded succeeded\n", "")


def test_a_fork_of_the_notebook_does_not_keep_keepers_alive(script):
    """A child that user code forked, and that outlives the notebook, holds nothing that the keepers wait for."""
    process = script("""
        engine = LokyEngine(1)
        start(engine, os.getpid).result()
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                start(engine, os.getpid)
            except RuntimeError as error:
                print("child:", error, flush=True)
            os.close(1), os.close(2)
            os.write(tell, b".")
            hang()
        os.read(told, 1)
        from jobcontainer.worker import process_tree
        below = process_tree.descendants_of(os.getpid())
        print(child, *[pid for pid in process_tree.marked_with("JOBCONTAINER_SLOT=") if pid in below], flush=True)
        hang()
    """)
    refused, pids = process.stdout.readline(), process.stdout.readline()
    child, *others = map(int, pids.split())
    try:
        assert "make a new JobPool" in refused
        process.kill()
        wait_for(lambda: not any(map(is_running, others)), within=2)
        assert is_running(child)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_it_can_be_used_from_many_threads(submit, engine):
    """Jobs that several threads submit at once all end."""
    futures = []
    threads = [threading.Thread(target=lambda: futures.append(submit(engine, os.getpid))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [future.result(30).state for future in futures] == [JobState.SUCCEEDED] * 12


@pytest.mark.slow
def test_the_users_joblib_is_untouched(script):
    """``joblib.Parallel`` before, during, inside and after jobs: it keeps its workers, and their death harms no job."""
    process = script("""
        from joblib import Parallel, delayed
        from joblib.externals.loky import reusable_executor
        from jobcontainer.worker import process_tree

        def use():
            return Parallel(n_jobs=2)(delayed(abs)(-number) for number in range(4)) == [0, 1, 2, 3]

        def workers():
            return set(reusable_executor._executor._processes)

        print(use())
        before = workers()
        engine = LokyEngine(1)
        jobs = [start(engine, use), start(engine, lambda: time.sleep(0.5))]
        print(use(), workers() == before)
        reusable_executor._executor.shutdown(kill_workers=True)
        print(*[job.result().state for job in jobs])
        print(use(), workers() == before)
        engine.close()
        print(use())
    """)
    out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["True", "True True", "succeeded succeeded", "True False", "True"]
    assert err == ""


@pytest.mark.slow
def test_modules_are_preloaded(submit, store):
    """A job finds the modules of ``preload`` imported; a name that does not exist does no harm."""
    engine = LokyEngine(1, preload=["colorsys", "no_such_module"])
    folder = store.new_job("job")
    try:
        assert submit(engine, lambda: "colorsys" in sys.modules, folder=folder).result(30).state is JobState.SUCCEEDED
        assert read_result(folder.result_file)[0] is True
    finally:
        engine.close()


SCARCE = """
import errno, os, pathlib, sys
fork = os.fork

def fork_where_there_is_room():
    # The process above the keeper, which forks that, has room.
    if pathlib.Path({full!r}).exists() and sys._getframe(1).f_code.co_name != "run_below":
        pathlib.Path({tried!r}).touch()
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    return fork()

os.fork = fork_where_there_is_room
"""


@pytest.fixture
def scarce(tmp_path, monkeypatch):
    """A keeper's system that has no process ids left while one file exists; it makes another when it was asked."""
    full, tried = tmp_path / "full", tmp_path / "tried"
    full.touch()
    (tmp_path / "sitecustomize.py").write_text(SCARCE.format(full=str(full), tried=str(tried)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    engine = LokyEngine(1)
    yield engine, full, tried
    engine.close()


def test_a_job_waits_while_its_keeper_can_fork_no_process(submit, scarce):
    """For a moment there are no process ids or no memory: that is no reason to lose a job, or a keeper."""
    engine, full, tried = scarce
    future = submit(engine, os.getpid)
    wait_for(tried.exists, within=30)
    (keeper,) = keepers()
    full.unlink()
    assert future.result(30).state is JobState.SUCCEEDED
    assert keepers() == [keeper]


def test_a_job_that_waits_for_a_process_can_be_cancelled(submit, store, scarce):
    """It never started, and the keeper is there for the next one."""
    engine, full, tried = scarce
    folder = store.new_job("job")
    future = submit(engine, os.getpid, folder=folder)
    wait_for(tried.exists, within=30)
    engine.cancel(folder.id)
    assert future.result(10).state is JobState.CANCELLED
    full.unlink()
    assert submit(engine, os.getpid).result(30).state is JobState.SUCCEEDED


@pytest.mark.parametrize("slots", [0, -1, 1.5, True, "2"])
def test_slots_must_be_a_number_of_slots(slots):
    """The error names the option and what is allowed."""
    with pytest.raises(ValueError, match=r"slots=.*whole number from 1 up"):
        LokyEngine(slots)


def test_it_leaves_nothing_in_the_import_system_and_in_signal_handlers(script):
    """After jobs have run, whatever finds modules and handles signals is what it was, and joblib is joblib."""
    process = script("""
        import types

        def look():
            handlers = [signal.getsignal(number) for number in signal.valid_signals()]
            return list(map(id, sys.meta_path)), list(map(id, sys.path_hooks)), handlers

        before = look()
        engine = LokyEngine(1)
        print(start(engine, os.getpid).result().state, look() == before)
        engine.close()
        import joblib
        print(look() == before, type(joblib) is types.ModuleType)
        ours = [name for name, module in sys.modules.items()
                if "jobcontainer" in (getattr(module, "__file__", None) or "") and not name.startswith("jobcontainer")]
        print([name for name in ours if name != "__main__"])
    """)
    assert process.communicate(timeout=60) == ("succeeded True\nTrue True\n[]\n", "")


FORKS = """
import multiprocessing, os, sys, threading
from jobcontainer import JobPool

class Waits:
    def run(self):
        import time
        time.sleep({seconds})

pool = JobPool(1, store=os.environ["STORE"])
job = pool.submit(Waits())
"""


@pytest.mark.slow
def test_a_process_forked_by_multiprocessing_ends_while_a_pool_lives(script):
    """Its exit runs none of our exit hooks, waits for no job of its parent, and ends no keeper."""
    process = script(
        """
        child = multiprocessing.get_context("fork").Process(target=print, args=("child",), kwargs={"flush": True})
        child.start()
        child.join(20)
        print(child.exitcode, job.done(), flush=True)
        job.cancel()
        pool.shutdown()
        """,
        prelude=FORKS.replace("{seconds}", "1000"),
    )
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("child\n0 False\n", "")


@pytest.mark.slow
def test_a_forked_process_exits_and_may_have_a_pool_of_its_own(script):
    """It can't use its parent's pool, and says so; one that it makes runs jobs, and its exit waits for these alone."""
    process = script(
        """
        pid = os.fork()
        if pid == 0:
            try:
                pool.submit(Waits())
            except RuntimeError as error:
                print("make a new JobPool" in str(error), flush=True)
            own = JobPool(1, store=os.environ["STORE"] + "-child")
            print(own.submit(pow, 2, 10).result(30), flush=True)
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), job.done(), flush=True)
        job.cancel()
        pool.shutdown()
        """,
        prelude=FORKS.replace("{seconds}", "1000"),
    )
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("True\n1024\n0 False\n", "")


FORKED = {
    "Process": """
        child = context.Process(target=abs, args=(-1,))
        child.start()
        child.join(20)
        print(child.exitcode)
    """,
    "Pool": """
        workers = context.Pool(2)
        print(workers.map(abs, [-1]))
        workers.close()
        workers.join()
    """,
    "ProcessPoolExecutor": """
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            print(list(executor.map(abs, [-1])))
    """,
    "daemonic worker with queues": """
        given, made = context.Queue(), context.Queue()
        def serve():
            for item in iter(given.get, None):
                made.put(-item)
        worker = context.Process(target=serve, daemon=True)
        worker.start()
        given.put(1)
        print(made.get())
        given.put(None)
        worker.join(20)
    """,
    "os.fork": """
        if (pid := os.fork()) == 0:
            sys.exit()
        print(os.waitpid(pid, 0)[1])
    """,
    "os.fork in a thread": """
        def fork():
            if (pid := os.fork()) == 0:
                sys.exit()
            print(os.waitpid(pid, 0)[1])
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    """,
    "a child that leaves the pool's block": """
        with contextlib.ExitStack() as stack:
            stack.enter_context(pool)
            if os.fork() == 0:
                sys.exit()
            print(os.wait()[1])
            held = stack.pop_all()
    """,
    "a child that drops the pool, and a child of it": """
        if os.fork() == 0:
            del pool
            gc.collect()
            if os.fork() == 0:
                sys.exit()
            sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
        print(os.wait()[1])
    """,
    "a child that lists and shuts down": """
        if os.fork() == 0:
            try:
                job.result(0.01)
            except TimeoutError:
                print([str(one.state) for one in JobStore(pool.store).jobs()], flush=True)
            pool.shutdown(cancel_futures=True)
            sys.exit()
        print(os.wait()[1])
    """,
}
SAID = {
    "Pool": "[1]",
    "ProcessPoolExecutor": "[1]",
    "daemonic worker with queues": "-1",
    "a child that lists and shuts down": "['running', 'queued']\n0",
}


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("interactive", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["script", "prompt"])
@pytest.mark.parametrize("name", FORKED)
def test_a_child_that_user_code_forks_neither_waits_nor_acts(script, name, interactive):
    """It ends at once, however it was made; the jobs of its parent, running and queued, go on as if it were not."""
    process = script(
        f"""
        import contextlib, gc, time
        from concurrent.futures import ProcessPoolExecutor
        from jobcontainer import JobStore
        context = multiprocessing.get_context("fork")
        if {interactive}:
            sys.ps1 = ">>> "
        queued = pool.submit(Waits())
        while job.started is None:
            pass
        begun = time.monotonic()
        """
        + FORKED[name]
        + """
        took = time.monotonic() - begun
        turns = type(job.folder.last_turn()).__name__, queued.folder.last_turn()
        print(took < 3 or took, job.done(), queued.done(), *turns, flush=True)
        for one in (job, queued):
            one.cancel()
        pool.shutdown()
        """,
        prelude=FORKS.replace("{seconds}", "1000"),
    )
    out, err = process.communicate(timeout=60)
    assert (out, err) == (f"{SAID.get(name, '0')}\nTrue False False Started None\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-", ">&- 2>&- <&-"])
def test_it_runs_where_standard_streams_are_closed(tmp_path, closed):
    """A daemon or a container may start Python so; the descriptors 0 to 2 are then free for other files."""
    path = tmp_path / "script.py"
    path.write_text(
        PRELUDE
        + textwrap.dedent("""
        def look():
            print("printed", file=sys.stderr)
            return sys.stdin.read(), [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1)]

        engine = LokyEngine(1)
        start(engine, look).result(60)
        engine.close()
        """)
    )
    environment = os.environ | {"STORE": str(tmp_path / "store")}
    command = f'exec "{sys.executable}" -W error "{path}" {closed}'
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    (job,) = (path for path in (tmp_path / "store").iterdir() if path.is_dir())
    assert JobFolder(job).tail(5) == ["printed"]
    assert read_result(JobFolder(job).result_file)[0] == ("", [os.devnull, str(JobFolder(job).log_file)])


@pytest.mark.slow
def test_a_script_may_end_when_its_first_job_was_just_submitted(script):
    """No process can be started while the interpreter exits: what a job needs has been started by then."""
    process = script(
        "pass", prelude=FORKS.replace("{seconds}", "0.2").replace("1)", "2)", 1) + "pool.submit(Waits())\n"
    )
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    (store,) = (path for path in Path(process.args[-1]).parent.iterdir() if path.name == "scripts")
    states = [JobFolder(path).last_turn().state for path in store.iterdir() if (path / "job.json").exists()]
    assert states == [JobState.SUCCEEDED] * 2


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(6))
def test_an_interrupt_while_the_first_keeper_starts_breaks_nothing(script, moment):
    """Whenever Ctrl-C comes, the interpreter raises KeyboardInterrupt; the engine runs jobs afterwards, and closes."""
    process = script("""
        engine = LokyEngine(1)
        jobs = []
        try:
            print("ready", flush=True)
            jobs.append(start(engine, lambda: "first"))
            jobs[0].result()
            time.sleep(5)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(start(engine, lambda: "second").result().state)
        print({job.result().state for job in jobs} <= {"succeeded"})
        engine.close()
    """)
    assert process.stdout.readline() == "ready\n"
    time.sleep(moment * 0.1)  # the moment is what is tried
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60) == ("interrupted\nsucceeded\nTrue\n", "")
    assert process.returncode == 0


def test_an_interrupt_while_libraries_are_imported_leaves_them_whole(script):
    """Ctrl-C comes when an engine imports joblib; the engine runs jobs, and the user imports the same libraries."""
    process = script("""
        class Interrupts:
            def find_spec(name, path=None, target=None):
                if name == "asyncio.locks":
                    sys.meta_path.remove(Interrupts)
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Interrupts)
        engine = LokyEngine(1)
        try:
            engine.warm_up()
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted")
        import asyncio, joblib, numpy
        print(asyncio.base_events.__name__, numpy.linalg.__name__)
        print(start(engine, lambda: "first").result().state)
        engine.close()
    """)
    assert process.communicate(timeout=60) == (
        "interrupted\nasyncio.base_events numpy.linalg\nsucceeded\n",
        "",
    )


@pytest.mark.slow
def test_an_engine_takes_the_keeper_that_was_started_early(submit):
    """``warm_up`` of the extension starts one in the background; the first engine uses it, and ends it."""
    worker_slots.start_spare_keeper()
    wait_for(lambda: len(keepers()) == 1, within=30)
    (early,) = keepers()
    engine = LokyEngine(1)
    assert submit(engine, os.getpid).result(30).state is JobState.SUCCEEDED
    assert keepers() == [early]
    engine.close()
    assert not is_running(early)


@pytest.mark.slow
@pytest.mark.parametrize("use", ["", "JobPool(2, store=os.environ['STORE']).shutdown()", "keep = JobPool(2)"])
def test_a_keeper_that_was_started_early_and_never_used_ends_with_the_script(script, use):
    """Nothing is printed, nothing hangs, and no process is left."""
    process = script(
        f"""
        from jobcontainer.jobs.pool import warm_up
        os.chdir(os.path.dirname(os.environ["STORE"]))
        warm_up()
        {use}
        """,
        prelude="import os\nfrom jobcontainer import JobPool\n",
    )
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "ours",
    [
        "pool = JobPool(2, store=os.environ['STORE']); jobs = [pool.submit(time.sleep, 0.5) for _ in range(3)]",
        "pool = JobPool(2, store=os.environ['STORE']); pool.submit(abs, -1).result(); jobs = []",
        "from jobcontainer.jobs.pool import warm_up; warm_up(); jobs = []",
    ],
    ids=["jobs that run", "idle keepers", "a spare keeper"],
)
def test_an_executor_that_user_code_makes_after_ours_does_not_hold_up_the_exit(script, ours):
    """User code may use joblib and loky beside a pool that is not shut down: its jobs end, and then the script does."""
    process = script(
        f"""
        from joblib import Parallel, delayed
        {ours}
        print(Parallel(2)(delayed(abs)(-number) for number in range(3)))
        atexit.register(lambda: print({{job.state.value for job in jobs}} <= {{"succeeded"}}))
        """,
        prelude="import atexit, os, time\nfrom jobcontainer import JobPool\n",
    )
    assert process.communicate(timeout=30) == ("[0, 1, 2]\nTrue\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("imported", ["sys", "joblib.externals.loky"], ids=["loky is new", "loky is there"])
def test_a_pool_that_is_first_made_in_an_exit_function_says_that_it_is_too_late(script, imported):
    """The script ends; a job in this process is still possible, as the message says."""
    process = script(
        f"""
        import {imported}

        def late():
            pool = JobPool(1)
            try:
                pool.submit(abs, -42).result(20)
            except (RuntimeError, JobLostError) as error:
                print(type(error).__name__, "The interpreter exits" in str(error), 'engine="inline"' in str(error))
            pool.shutdown()
            print(JobPool(engine="inline").submit(abs, -42).result())

        os.chdir(os.path.dirname(os.environ["STORE"]))
        atexit.register(late)
        """,
        prelude="import atexit, os\nfrom jobcontainer import JobLostError, JobPool\n",
    )
    out, err = process.communicate(timeout=30)
    assert out.splitlines()[-2:] in (["RuntimeError True True", "42"], ["JobLostError True True", "42"])
    assert err == ""
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("imported", ["joblib.parallel", "joblib.externals.loky", "numpy.linalg"])
def test_user_code_may_import_what_loky_needs_while_keepers_start(script, imported):
    """Whichever submodule the user's thread imports first, its import succeeds, and so do the jobs of all slots."""
    process = script(
        f"""
        class Answers:
            def run(self):
                return 42

        with JobPool(2, store=os.environ["STORE"]) as pool:
            import {imported}
            print(*pool.submit_all([Answers(), Answers()]).results())
        """,
        prelude="import os\nfrom jobcontainer import JobPool\n",
    )
    assert process.communicate(timeout=30) == ("42 42\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random", "queue", "shutil"])
def test_a_module_of_the_users_that_is_called_as_one_of_pythons_runs_in_no_process_of_ours(script, tmp_path, name):
    """A ``random.py`` beside the notebook would run in keepers and resource trackers, and break them."""
    folder, ran = tmp_path / "here", tmp_path / "ran"
    folder.mkdir()
    (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('ran')\n1 / 0\n")
    process = script(
        """
        class Answers:
            def run(self):
                return 42

        with JobPool(2, store=os.environ["STORE"]) as pool:
            print(*pool.submit_all([Answers() for _ in range(3)]).results())
        print("PYTHONSAFEPATH" in os.environ)
        """,
        prelude=f"""
import os, random, queue, shutil, sys
import joblib.externals.loky
from jobcontainer import JobPool
os.chdir({str(folder)!r})
sys.path.insert(0, "")
""",
    )
    assert process.communicate(timeout=30) == ("42 42 42\nFalse\n", "")
    assert not ran.exists()


# --- what goes wrong around it --------------------------------------------------------------------------------------


def test_where_no_keeper_can_start_the_job_is_lost_and_says_why(submit, monkeypatch):
    """Without semaphores (no ``/dev/shm``) every job ends at once, with a message that names what is missing."""

    def no_semaphores(**_):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(loky, "ProcessPoolExecutor", no_semaphores)
    engine = LokyEngine(1)
    outcomes = [submit(engine, hang).result(5) for _ in range(2)]
    assert {outcome.state for outcome in outcomes} == {JobState.LOST}
    assert "/dev/shm" in outcomes[0].reason  # noqa: S108 -- a path in a message
    engine.close()


def test_a_job_without_a_folder_fails_and_says_so(submit, engine, store):
    """A store that was removed, or can't be written to, ends the job, not the engine."""
    outcome = submit(engine, hang, folder=store.job("gone")).result(30)
    assert outcome.state is JobState.FAILED
    assert str(store.path / "gone") in outcome.error_message
    assert submit(engine, os.getpid).result(30).state is JobState.SUCCEEDED


# --- reused processes -----------------------------------------------------------------------------------------------


def test_a_reused_job_that_removes_its_folder_ends_as_well(engine, submit, store):
    """Its end can't be written down there; the future has it."""
    folder = store.new_job("job")

    def remove():
        shutil.rmtree(folder.path)

    assert submit(engine, remove, folder=folder, isolation="reuse").result(BOUND).state is JobState.FAILED
    assert submit(engine, int, isolation="reuse").result(BOUND).state is JobState.SUCCEEDED


@pytest.mark.slow
def test_a_crash_costs_none_of_the_reused_jobs_around_it(engine, submit):
    """Each has its own end, whatever the one before did to the process."""
    futures = [submit(engine, os.abort if number % 5 == 4 else int, isolation="reuse") for number in range(20)]
    states = [future.result(BOUND).state for future in futures]
    assert states == [JobState.CRASHED if number % 5 == 4 else JobState.SUCCEEDED for number in range(20)]


@pytest.mark.slow
def test_no_job_stays_pending_whose_keeper_hangs_when_the_engine_closes(submit, tmp_path, monkeypatch):
    """The keeper is killed, and the job is told as cancelled, which it was."""
    monkeypatch.setattr(worker_slots, "_PATIENCE", 0.2)
    engine, started = LokyEngine(1), tmp_path / "started"

    def note_and_hang():
        started.touch()
        time.sleep(1000)

    future = submit(engine, note_and_hang, grace=0.0)
    wait_for(started.exists)
    (above,) = keepers()
    (keeper,) = process_tree.children_of(above)
    os.kill(keeper, signal.SIGSTOP)
    engine.close()
    assert future.result(0).state is JobState.CANCELLED
