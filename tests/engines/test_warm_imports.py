"""Installed libraries that jobs import are loaded before jobs are forked, where that is safe; jobs do not notice."""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings

import pytest

from jobcontainer import JobPool, JobState
from jobcontainer.engines.local import wanted_modules
from waiting import is_running, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="keepers fork on Linux")

HOSTILE = {
    "starts a thread": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    "forks": "import os, time\nif os.fork() == 0:\n    time.sleep(1000)",
    "prints": "print('hello')",
    "warns": "import warnings\nwarnings.warn('old', stacklevel=1)",
    "raises": "1 / 0",
    "exits": "raise SystemExit(3)",
    "handles a signal": "import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)",
    "is killed": "import os\nif os.environ.get('JOB') is None:\n    os.kill(os.getpid(), 9)",
    "leaves at once": "import os\nif os.environ.get('JOB') is None:\n    os._exit(0)",
    "hangs": "import os, time\nif os.environ.get('JOB') is None:\n    time.sleep(1000)",
    "stops the alarm and hangs": (
        "import os, signal, time\nif os.environ.get('JOB') is None:\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0)\n    time.sleep(1000)"
    ),
    "keeps a file open": "held = open('/dev/null')",
    "changes sys.path": "import sys\nsys.path.append('/nowhere')",
    "changes the working directory": "import os\nos.chdir('/')",
    "takes much memory": "held = b'x' * 300_000_000",
}
WHO = "\nimport os\nPID = os.getpid()\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what installs a module of a text, and gives its name."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(wanted_modules, "_refused", {})
    before = set(sys.modules)

    def install(name, text=""):
        (folder / f"{name}.py").write_text(text + WHO)
        return name

    yield install
    for name in set(sys.modules) - before:
        if name.startswith("lib_"):
            del sys.modules[name]


@pytest.fixture
def new_pool(tmp_path):
    pools = []

    def new_pool(slots=1, *, seconds=20.0, idle_seconds=300.0, memory=None, **options):
        pool = JobPool(slots, store=tmp_path / "store", **options)
        pools.append(pool)
        modules = pool._control.scheduler.engine._worker_slots._modules
        modules.message = modules.message._replace(seconds=seconds, idle_seconds=idle_seconds, memory=memory)
        return pool

    yield new_pool
    for pool in pools:
        pool.shutdown()


class Looks:
    """Says whether a module is loaded when ``run()`` begins."""

    def __init__(self, name):
        self.name = name

    def run(self):
        return self.name in sys.modules


class Imports:
    """Imports a module by its name, so that nobody knows of it before; says who had imported it, and what it is."""

    def __init__(self, name, attribute="PID"):
        self.name, self.attribute = name, attribute

    def run(self):
        os.environ["JOB"] = "1"
        module = importlib.import_module(self.name)
        return os.getpid() == module.PID, getattr(module, self.attribute)


def test_what_a_job_imports_the_next_one_has(install, new_pool):
    """The first job imports it, in its own process; jobs after it find it loaded, in a fresh process each.

    A thread that has ended by the end of its import is no reason against it.
    """
    threads = "import threading\nfor _ in range(50):\n    t = threading.Thread(target=int)\n    t.start()\nt.join()"
    name, pool = install("lib_learned", threads), new_pool()
    assert pool.submit(Imports(name)).result()[0] is True
    assert pool.submit(Looks(name)).result() is True
    by_itself, pid = pool.submit(Imports(name)).result()
    assert by_itself is False
    assert pid not in {os.getpid(), pool.submit(os.getpid).result()}


def test_what_the_notebook_has_loaded_the_first_job_has(install, new_pool, as_notebook):  # noqa: ARG001 -- by value
    """A class that imports a module in ``run()`` finds it loaded where the notebook has loaded it."""
    importlib.import_module(install("lib_known"))

    class Uses:
        def run(self):
            loaded = "lib_known" in sys.modules
            import lib_known

            return loaded, os.getpid() == lib_known.PID

    assert new_pool().submit(Uses()).result() == (True, False)


class Begins:
    """Begins with imports, and goes on with others that not every job comes to, or that come after a change."""

    def run(self):
        import lib_first as first
        import lib_first.part
        from lib_second import PID

        os.environ["CHANGED"] = "1"
        import lib_after_a_change as third

        if os.getpid() == 0:
            import lib_in_a_branch  # noqa: F401 -- nobody does
        return [os.getpid() == pid for pid in (first.PID, lib_first.part.PID, PID, third.PID)]


def begins():
    import lib_first

    return os.getpid() == lib_first.PID


def test_what_run_begins_with_importing_the_first_job_has(install, new_pool, tmp_path):
    """Also where the notebook has not loaded it; nothing else is imported that a job may not come to."""
    for name in ("lib_second", "lib_after_a_change"):
        install(name)
    install("lib_in_a_branch", f"open({str(tmp_path / 'branch')!r}, 'w').close()")
    package = tmp_path / "site-packages/lib_first"
    package.mkdir()
    (package / "__init__.py").write_text(WHO)
    (package / "part.py").write_text(WHO)
    assert new_pool().submit(Begins()).result() == [False, False, False, True]
    assert new_pool().submit(begins).result() is False
    assert not {"lib_first", "lib_second", "lib_after_a_change"} & sys.modules.keys()
    assert not (tmp_path / "branch").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_module_that_does_harm_is_left_to_jobs(install, new_pool, kind):
    """It is given up, once for all parts of it, and alone: jobs import it themselves, others stay warm."""
    bad, good = install("lib_bad", HOSTILE[kind]), install("lib_good")
    pool = new_pool(preload=[f"{bad}.one", f"{bad}.other", good], seconds=1.0, memory=250_000_000)
    job = pool.submit(Looks(bad))
    assert job.result() is False, job.log
    assert pool.submit(Looks(good)).result() is True
    # A slow machine may take its second for pytest too, which the jobs import with this module.
    assert [name for name, _ in wanted_modules._refused if name.startswith("lib_")] == [bad]
    other = new_pool(preload=[bad, good])
    assert other.submit(Looks(bad)).result() is False
    assert other.submit(Looks(good)).result() is True


def test_a_failing_import_shows_as_in_the_job(install, new_pool):
    """The same traceback, and what it prints before, in the log of the job that imports it, each time."""
    name = install("lib_fails", "print('before')\n1 / 0")
    pool = new_pool(preload=[name])
    for _ in range(2):
        job = pool.submit(Imports(name))
        with pytest.raises(ZeroDivisionError):
            job.result()
        assert job.log.startswith("before\n")
        assert "lib_fails.py" in job.log


def test_variables_of_a_job_are_set_before_it_imports(install, new_pool, tmp_path):
    """A job with ``env=`` or ``cwd=`` imports everything itself, also where others find it loaded."""
    name = install("lib_reads", "import os\nSEEN = os.environ.get('SEEN'), os.getcwd()")
    pool = new_pool(preload=[name])
    assert pool.submit(Imports(name, "SEEN")).result() == (False, (None, os.getcwd()))
    assert pool.with_options(env={"SEEN": "1"}).submit(Imports(name, "SEEN")).result() == (True, ("1", os.getcwd()))
    assert pool.with_options(cwd=tmp_path).submit(Imports(name, "SEEN")).result() == (True, (None, str(tmp_path)))
    assert pool.submit(Imports(name, "SEEN")).result() == (False, (None, os.getcwd()))


def test_a_job_in_another_environment_of_the_notebook_has_no_import_of_the_old_one(install, new_pool, monkeypatch):
    """The first one imports for itself; from the second on it is loaded once more, in the new environment."""
    name = install("lib_reads", "import os\nSEEN = os.environ.get('SEEN')")
    pool = new_pool(preload=[name])
    assert pool.submit(Imports(name, "SEEN")).result() == (False, None)
    monkeypatch.setenv("SEEN", "new")
    assert [pool.submit(Imports(name, "SEEN")).result() for _ in range(2)] == [(True, "new"), (False, "new")]


def test_variables_that_an_import_sets_are_the_jobs(install, new_pool):
    """scikit-learn sets some for OpenMP; a job has them as if it had imported it."""
    name = install("lib_sets", "import os\nos.environ['SET_BY_LIBRARY'] = '1'")
    pool = new_pool(preload=[name])
    for threads in (1, 2):
        assert pool.with_options(threads=threads).submit(os.getenv, "SET_BY_LIBRARY").result() == "1"


class Warns:
    """Imports a module that adds a filter, and warns."""

    def run(self):
        importlib.import_module("lib_filters")
        warnings.warn("of the library", stacklevel=1)
        warnings.warn("of the job", stacklevel=1)


def test_warning_filters_of_an_import_are_the_jobs(install, new_pool):
    """Those that scikit-learn adds, say: where the notebook has not loaded it, a job has them as if it imported it."""
    install("lib_filters", "import warnings\nwarnings.filterwarnings('ignore', message='of the library')")
    pool = new_pool()
    for warm in (False, True, True):
        assert pool.submit(Looks("lib_filters")).result() is warm
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            job = pool.submit(Warns())
        job.result()
        assert "of the job" in job.log
        assert "of the library" not in job.log


def test_nothing_is_loaded_ahead_where_that_is_switched_off(install, new_pool):
    """``preload=None``: each job imports for itself."""
    name, pool = install("lib_off"), new_pool(preload=None)
    assert [pool.submit(Imports(name)).result()[0] for _ in range(2)] == [True, True]


@pytest.mark.parametrize("preload", ["pandas", 1, [1], ["json", None]])
def test_a_wrong_preload_is_refused(tmp_path, preload):
    """With a sentence that says what it takes."""
    with pytest.raises(ValueError, match='it takes "auto", a list of names of modules, or None'):
        JobPool(1, store=tmp_path, preload=preload)


def test_a_module_beside_the_notebook_is_never_loaded_ahead(new_pool, tmp_path, monkeypatch):
    """Not even where it is asked for: each job has it as it was at its submit."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(wanted_modules, "_refused", {})
    (tmp_path / "lib_beside.py").write_text(WHO)
    pool = new_pool(preload=["lib_beside"])
    assert [pool.submit(Imports("lib_beside")).result()[0] for _ in range(2)] == [True, True]


def test_a_job_can_be_cancelled_while_it_waits_for_an_import(install, new_pool, tmp_path):
    """It never starts; the pool goes on."""
    begun = tmp_path / "begun"
    name = install("lib_slow", f"import time\nopen({str(begun)!r}, 'w').close()\ntime.sleep(1000)")
    pool = new_pool(preload=[name], seconds=60.0)
    job = pool.submit(Looks(name))
    wait_for(begun.exists, within=30)
    job.cancel()
    wait_for(job.done, within=10)
    assert job.state is JobState.CANCELLED


def test_a_keeper_that_is_idle_gives_back_what_it_has_imported(install, new_pool, tmp_path):
    """After some minutes without a job, until the next one, which finds it loaded again."""
    log = tmp_path / "imports"
    name = install("lib_idle", f"with open({str(log)!r}, 'a') as log:\n    log.write('x')")
    pool = new_pool(preload=[name], idle_seconds=0.3)
    # What the job imports besides, pytest say, may be refused, which would cost a fork server too.
    pool._control.scheduler.engine._worker_slots._modules.learns = False
    first = pool.submit(Imports(name)).result()[1]
    wait_for(lambda: not is_running(first))
    imports = log.read_text()
    with pytest.raises(AssertionError):  # nothing is imported while nobody asks for a job
        wait_for(lambda: log.read_text() != imports, within=1)
    by_itself, second = pool.submit(Imports(name)).result()
    assert by_itself is False
    assert second != first


def test_a_death_in_a_process_that_was_forked_warm_is_told(install, new_pool):
    """The exit code and the signal come from the fork server, which is its parent."""
    pool = new_pool(preload=[install("lib_any")])
    dead = pool.submit(os.kill, 0, 9)
    assert dead.exception() is not None
    left = pool.submit(os._exit, 7)
    assert "7" in str(left.exception())
    assert pool.submit(Looks("lib_any")).result() is True


def test_the_fork_server_can_die(install, new_pool):
    """Its job dies with it; the next one has another."""
    name = install("lib_dies")
    pool = new_pool(preload=[name])
    job = pool.submit(os.kill, pool.submit(os.getppid).result(), 9)
    job.exception()
    assert pool.submit(Imports(name)).result()[0] is False


def test_keepers_of_a_pool_learn_from_one_another(install, new_pool):
    """What a job in one slot has imported, jobs in the other find loaded."""
    name, pool = install("lib_shared"), new_pool(2)
    assert pool.submit(Imports(name)).result()[0] is True
    both = [pool.submit(Looks(name)) for _ in range(8)]
    assert all(job.result() for job in both)


def test_a_slow_machine_is_no_reason(install, new_pool):
    """A job that comes while an import goes on waits for it, and does not import beside it."""
    name = install("lib_takes_a_second", "import time\ntime.sleep(1)")
    pool = new_pool(preload=[name])
    begun = time.monotonic()
    assert pool.submit(Imports(name)).result()[0] is False
    assert time.monotonic() - begun > 1
