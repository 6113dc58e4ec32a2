"""Loky without numpy: joblib waits for the user, and is then what a plain import would have made."""

import os
import subprocess
import sys
import textwrap

import pytest

RUNS = """
import importlib, os, pickle, sys, threading
from jobcontainer import JobPool

class Runs:
    def __init__(self, function):
        self.function = function
    def run(self):
        return self.function()

def job(function, **options):
    with JobPool(1, store=os.environ["STORE"], **options) as pool:
        return pool.submit(Runs(function)).result(30)

def start_up():
    job(int)
"""


@pytest.fixture
def new(tmp_path):
    """Run a script in a new interpreter, and return what it prints; it complains of nothing."""

    def new(text):
        path = tmp_path / "script.py"
        path.write_text(RUNS + textwrap.dedent(text))
        done = subprocess.run(
            [sys.executable, "-W", "error", path],
            env=os.environ | {"STORE": str(tmp_path / "jobs")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return new


def test_nobody_loads_numpy_for_us(new):
    """Neither this process, nor a keeper, nor a job has numpy unless it uses it; and no tracker is started."""
    printed = new("""
        from jobcontainer.worker import process_tree

        def mapped(pid):
            with open(f"/proc/{pid}/maps") as maps:
                return "numpy" in maps.read()

        with JobPool(1, store=os.environ["STORE"]) as pool:
            print(pool.submit(Runs(lambda: "numpy" in sys.modules)).result())
            print("numpy" in sys.modules, mapped(os.getpid()))
            children = process_tree.children_of(os.getpid())
            print(len(children), any(map(mapped, children)))
    """)
    assert printed == ["False", "False False", "1 False"]


def test_what_is_preloaded_is_there(new):
    """A keeper has numpy where it is asked for, and its jobs with it."""
    assert new('print(job(lambda: "numpy" in sys.modules, preload=["numpy"]))') == ["True"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "use",
    [
        "import joblib; found = joblib.Parallel(2)([joblib.delayed(abs)(-1)])",
        "from joblib import Parallel, delayed; found = Parallel(2)([delayed(abs)(-1)])",
        "from joblib.parallel import Parallel, delayed; found = Parallel(2)([delayed(abs)(-1)])",
        "import joblib.externals.loky as own; found = [own.get_reusable_executor(2).submit(abs, -1).result()]",
        "import joblib; found = [int(joblib.externals.loky.cpu_count() > 0)]",
        "from joblib import *; found = Parallel(2)([delayed(abs)(-1)])",
        "import joblib; importlib.reload(joblib); found = joblib.Parallel(2)([joblib.delayed(abs)(-1)])",
        "import joblib.memory; found = [int(joblib.Memory is joblib.memory.Memory)]",
        "import joblib.memory; importlib.reload(joblib.memory); found = [int(joblib.memory.__spec__.has_location)]",
        "from joblib import memory; memory = importlib.reload(memory); found = [int(callable(memory.Memory))]",
        "import joblib; found = [int(pickle.loads(pickle.dumps(joblib.Memory)) is joblib.Memory)]",
    ],
)
@pytest.mark.parametrize("where", ["before", "beside", "inside"])
def test_joblib_is_what_a_plain_import_makes(new, use, where):
    """In the notebook before and after a first job, and inside jobs, however it is asked for."""
    check = "import joblib, types; joblib.Parallel; assert type(joblib) is types.ModuleType"
    script = {
        "before": f"{use}\n{check}\nstart_up()\nprint(found)",
        "beside": f"start_up()\n{use}\nprint(found)\n{check}",
        "inside": f'def inside():\n    names = {{}}\n    exec("import importlib, pickle; {use}", names)\n'
        "    return names['found']\nprint(job(inside))",
    }[where]
    assert new(script) == ["[1]"]


def test_a_module_that_waits_looks_as_the_loaded_one(new):
    """Its names, version, documentation, file and type, and an attribute that does not exist."""
    printed = new("""
        start_up()
        import joblib, types
        print(type(joblib) is types.ModuleType, joblib.__file__.endswith("__init__.py"), joblib.__name__)
        print("lightweight pipelining" in joblib.__doc__, "Parallel" in dir(joblib), type(joblib) is types.ModuleType)
        print(hasattr(joblib, "no_such_name"), joblib.__version__[0].isdigit(), joblib.__spec__.name)
    """)
    assert printed == ["False True joblib", "True True True", "False True joblib"]


def test_threads_that_use_it_at_once_wait_for_each_other(new):
    """Its code runs once, and nobody sees half of it."""
    printed = new("""
        start_up()
        import joblib
        barrier, found = threading.Barrier(8), []
        def use(number):
            barrier.wait()
            found.append(joblib.load.__name__ + joblib.Parallel.__name__)
        threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join(20)
        print(found == ["loadParallel"] * 8)
    """)
    assert printed == ["True"]


def test_what_its_code_raises_is_raised_and_it_is_tried_again(new, tmp_path):
    """As an import that failed; the next use begins anew."""
    package = tmp_path / "waits"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os\nhalf = 1\nif 'READY' not in os.environ: raise OSError('not yet')\n"
    )
    (package / "part.py").write_text("whole = 2\n")
    printed = new(f"""
        from jobcontainer.engines.local.lazily import defer
        sys.path.append({str(tmp_path)!r})
        defer("waits", free="waits.part"), defer("no_such_package")
        import waits.part
        print(waits.part.whole, "no_such_package" in sys.modules)
        for _ in range(2):
            try: waits.half
            except OSError as error: print(error)
        os.environ["READY"] = "yes"
        print(waits.half, waits.part.whole)
    """)
    assert printed == ["2 False", "not yet", "not yet", "1 2"]


def test_a_pool_without_a_job_leaves_no_interpreter(new):
    """The one that was started ahead ends with its pool, with a refused option, and with this process."""
    printed = new("""
        from jobcontainer.worker import process_tree
        JobPool(1, store=os.environ["STORE"]).shutdown()
        print(len(process_tree.children_of(os.getpid())))
        try: JobPool(1, store=os.environ["STORE"], timeout=-1)
        except ValueError: print(len(process_tree.children_of(os.getpid())))
        pool = JobPool(1, store=os.environ["STORE"])
        print(*process_tree.children_of(os.getpid()))
    """)
    assert printed[:2] == ["0", "0"]
    assert not os.path.exists(f"/proc/{int(printed[2])}")
