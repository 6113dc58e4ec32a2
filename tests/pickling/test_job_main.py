"""What the notebook defines is in ``__main__`` of a job, under its name: found by pickle, by import, by workers."""

from __future__ import annotations

import pickle
import shelve
import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pytest

from jobcontainer import JobFailedError
from jobcontainer.views.card import job_card
from jobcontainer.views.render import card_text
from jobcontainer.views.snapshot import snapshot_of

CELL = """
import collections, dataclasses, enum, functools, os, pickle, sys
import __main__

@dataclasses.dataclass
class Model:
    weights: list
    class Config:
        depth = 3
    def predict(self, x): return [weight * x for weight in self.weights]

class Color(enum.Enum):
    RED = 1

Point = collections.namedtuple("Point", "x y")

def double(x): return Model([x * 2])

@functools.lru_cache
def cached(x): return x + 1

COUNT = 0
def count():
    global COUNT
    COUNT += 1
    return COUNT

class Process:
    def __init__(self, work): self.work = work
    def run(self): return self.work()
"""


@pytest.fixture
def in_job(cell, pool):
    """Run a cell that defines ``work()`` after the others, and return what that returns in a job, and the names."""
    cell(CELL)

    def run(source, **names):
        namespace = cell(source)
        namespace.update(names)
        return pool.submit(namespace["Process"](namespace["work"])).result(60), namespace

    return run


# --- pickle and its kind --------------------------------------------------------------------------------------------


def test_plain_pickle_in_a_job_and_the_file_in_the_notebook(in_job):
    """By reference, as in the notebook: instances, a class within a class, enums, named tuples, functions."""
    made, names = in_job(
        """
        def work():
            things = [Model([1]), Model.Config(), Color.RED, Point(1, 2), double, Model, cached]
            data = pickle.dumps(things)
            again = pickle.loads(data)
            assert [type(a) is type(b) for a, b in zip(things, again)] == [True] * 7
            assert again[0] == things[0] and again[4:] == things[4:]
            return data
        """
    )
    assert len(made) < 500  # names, no code
    model, config, red, point, double, cls, cached = pickle.loads(made)
    assert (type(model), cls, type(config)) == (names["Model"], names["Model"], names["Model"].Config)
    assert red is names["Color"].RED
    assert point == names["Point"](1, 2)
    assert (double, cached) == (names["double"], names["cached"])


def test_joblib_and_shelve_write_files_that_the_notebook_opens(in_job, tmp_path):
    """With their own picklers, numpy arrays included."""
    _, names = in_job(
        """
        def work():
            import joblib, shelve
            import numpy as np
            joblib.dump(Model([np.arange(5)]), FOLDER + "/model.joblib")
            with shelve.open(FOLDER + "/shelf") as shelf:
                shelf["model"] = Model([2])
        """,
        FOLDER=str(tmp_path),
    )
    model = joblib.load(tmp_path / "model.joblib")
    assert type(model) is names["Model"]
    assert np.array_equal(model.weights[0], np.arange(5))
    with shelve.open(str(tmp_path / "shelf")) as shelf:
        assert shelf["model"] == names["Model"]([2])


def test_a_pickle_of_the_notebook_opens_in_a_job(in_job, tmp_path):
    """Where the job has the class."""
    file = tmp_path / "model.pickle"
    found, names = in_job(
        """
        with open(FILE, "wb") as file:
            pickle.dump(Model([3]), file)
        def work():
            with open(FILE, "rb") as file:
                model = pickle.load(file)
            return isinstance(model, Model), model
        """.replace("FILE", repr(str(file)))
    )
    assert found == (True, names["Model"]([3]))


FILES = {
    "plain": """
def save(thing, file):
    with open(file, "wb") as opened:
        pickle.dump(thing, opened, protocol=PROTOCOL)
def read(file):
    with open(file, "rb") as opened:
        return pickle.load(opened)
""",
    "python": """
def save(thing, file):
    with open(file, "wb") as opened:
        pickle._Pickler(opened, PROTOCOL).dump(thing)
def read(file):
    with open(file, "rb") as opened:
        return pickle._Unpickler(opened).load()
""",
    "torch": """
import zipfile
STORAGES = {}
def save(thing, file):  # as torch.save does: a zip archive, storages beside a stream that names classes
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if not isinstance(obj, bytes): return None
            STORAGES[str(len(STORAGES))] = obj
            return "storage", str(len(STORAGES) - 1)
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(thing)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        for key, data in STORAGES.items():
            archive.writestr(f"archive/data/{key}", data)
def read(file):
    with zipfile.ZipFile(file) as archive:
        class Unpickler(pickle.Unpickler):
            def find_class(self, module, name): return super().find_class(module, name)
            def persistent_load(self, known): return archive.read(f"archive/data/{known[1]}")
        return Unpickler(io.BytesIO(archive.read("archive/data.pkl"))).load()
""",
    "joblib": """
def save(thing, file):
    import joblib
    joblib.dump(thing, file, compress=3)
def read(file):
    import joblib
    return joblib.load(file)
""",
    "shelve": """
import shelve
def save(thing, file):
    with shelve.open(file, writeback=True) as shelf:
        shelf["things"] = []
        shelf["things"].append(thing)
def read(file):
    with shelve.open(file) as shelf:
        return shelf["things"][0]
""",
}


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("source", FILES.values(), ids=FILES)
def test_a_file_goes_from_a_job_to_the_notebook_and_back(cell, pool, tmp_path, source):
    """Written in a job, read and written by the notebook, read by another job; all of the classes that each has."""
    cell(CELL + "import io\n" + source)
    names = cell(
        """
        PROTOCOL = 2
        class Saves:
            def __init__(self, file): self.file = file
            def run(self): save([Model([b"weights", 2]), Color.RED, Point(1, 2), double, Model.Config()], self.file)
        class Reads(Saves):
            def run(self):
                model, color, point, function, config = read(self.file)
                same = type(model) is Model, color is Color.RED, type(point) is Point, function is double
                return *same, type(config) is Model.Config, function(2) == Model([4]), model, point
        """
    )
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    pool.submit(names["Saves"](first)).result(60)
    here = names["Reads"](first).run()
    assert here == (*[True] * 6, names["Model"]([b"weights", 2]), (1, 2))
    names["Saves"](second).run()
    assert pool.submit(names["Reads"](second)).result(60) == here
    assert pool.submit(names["Reads"](first)).result(60) == here


# --- names ----------------------------------------------------------------------------------------------------------


def test_names_are_in_main(in_job):
    """By ``import __main__``, ``globals()``, ``sys.modules``, ``vars()``; functions share their globals with it."""
    found, names = in_job(
        """
        def work():
            count()
            __main__.count()
            return (
                __main__.Model is Model,
                globals()["Model"] is Model,
                sys.modules[Model.__module__].double is double,
                vars(__main__) is globals(),
                (COUNT, __main__.COUNT),
                work is __main__.work,
                Process.__module__,
                __name__,
                eval("Model is __main__.Model"),
            )
        """
    )
    assert found == (True, True, True, True, (2, 2), True, "__main__", "__main__", True)
    assert names["COUNT"] == 0


def test_a_name_that_means_another_object_by_now_is_left(in_job):
    """A class that was redefined, a decorated function: what has the name in the notebook has it in the job."""
    found, _ = in_job(
        """
        old = Model
        @dataclasses.dataclass
        class Model:
            weights: tuple
        @functools.wraps(double)
        def triple(x): return 3 * x
        def work():
            return __main__.Model is Model, old is Model, old([1]).predict(2), triple(2), __main__.double is triple
        """
    )
    assert found == (True, False, [2], 6, False)


def test_what_a_job_defines_is_its_own(in_job):
    """A class that a job makes by ``exec`` is in its ``__main__``, and not in the notebook's."""
    found, names = in_job(
        """
        def work():
            exec("class Late: pass", globals())
            return pickle.loads(pickle.dumps(Late())).__class__ is Late
        """
    )
    assert found is True
    assert "Late" not in names


# --- workers of a job -----------------------------------------------------------------------------------------------

POOL = """
import concurrent.futures, functools, multiprocessing
import multiprocessing.pool

READY = None
def prepare(value):
    global READY
    READY = value
def ready(_): return READY, __name__, os.getpid()
def fail(x): raise Broken(x)
class Broken(Exception): pass
def same(thing): return thing
def main(x): return "mine", x
def has_main(_): return __main__.Model is Model and globals()["Model"] is Model

def work():
    context = multiprocessing.get_context(METHOD)
    with context.Pool(2, prepare, ("ready",)) as pool:
        made = pool.map(double, [1, 2])
        colors = pool.map(same, [Color.RED, Point(1, 2), double, Model])
        try:
            pool.apply(fail, (1,))
        except Broken as error:
            broken = type(error) is Broken and error.args == (1,)
        told = set(pool.map(ready, range(4)))
        mains = pool.map(main, [1]), pool.map(has_main, [1])
        local = pool.apply(functools.partial(same, lambda x: x + 1))(1) if METHOD == "fork" else 2
    with concurrent.futures.ProcessPoolExecutor(2, context, prepare, (Model([1]),)) as executor:
        futures = list(executor.map(ready, range(2)))
    queue = context.SimpleQueue()
    process = context.Process(target=queue_put, args=(queue, Model([7])))
    process.start()
    got = queue.get()
    process.join()
    return {
        "made": made == [Model([2]), Model([4])] and all(type(one) is Model for one in made),
        "same": colors == [Color.RED, Point(1, 2), double, Model],
        "broken": broken,
        "told": {(value, name) for value, name, _ in told},
        "others": os.getpid() not in {pid for *_, pid in told},
        "mains": mains,
        "local": local,
        "futures": all(value == Model([1]) for value, *_ in futures),
        "queue": (got, process.exitcode),
        "result": made[0],
    }

def queue_put(queue, model): queue.put(Model(model.weights * 2))
"""


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_take_and_return_what_the_notebook_defined(in_job, method):
    """Of the same classes, whatever starts them; a worker keeps its globals from call to call; ``main`` is no other."""
    found, names = in_job(POOL, METHOD=method)
    assert found == {
        "made": True,
        "same": True,
        "broken": True,
        "told": {("ready", "__main__")},
        "others": True,
        "mains": ([("mine", 1)], [True]),
        "local": 2,
        "futures": True,
        "queue": (names["Model"]([7, 7]), 0),
        "result": names["Model"]([2]),
    }


JOBLIB = """
import joblib, numpy as np
def mean(model, array): return Model([float(array.mean()), model.weights, os.getpid()]), Color.RED
def fail(model): raise Wrong(model)
class Wrong(Exception): pass
def work():
    with joblib.Parallel(2, backend=BACKEND, max_nbytes=1000) as parallel:
        made = parallel(joblib.delayed(mean)(Model(number), np.full(10_000, number)) for number in range(20))
        made += parallel(joblib.delayed(mean)(model=Model(number), array=np.ones(3)) for number in range(2))
        bound = parallel(joblib.delayed(Model([2]).predict)(number) for number in range(3))
    try:
        joblib.Parallel(2, backend=BACKEND)(joblib.delayed(fail)(Model([1])) for _ in range(2))
    except Wrong as error:
        wrong = type(error) is Wrong and error.args == (Model([1]),)
    pids = {model.weights.pop() for model, _ in made}
    return made, bound, wrong, all(color is Color.RED for _, color in made), pids == {os.getpid()}
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["multiprocessing", "loky", "threading"])
def test_joblib_in_a_job_gets_its_workers(in_job, backend):
    """Functions, classes and methods of the notebook, arrays that joblib maps, exceptions of the notebook's own."""
    (made, *found, without_workers), names = in_job(JOBLIB, BACKEND=backend)
    model = names["Model"]
    means = [(float(number), number) for number in range(20)] + [(1.0, 0), (1.0, 1)]
    assert made == [(model(list(pair)), names["Color"].RED) for pair in means]
    assert found == [[[0], [2], [4]], True, True]
    assert without_workers is (backend == "threading")


KINDS = """
import concurrent.futures, functools, multiprocessing, multiprocessing.managers, multiprocessing.pool, operator, typing

class Worker(multiprocessing.get_context(METHOD).Process):
    def __init__(self, model, queue):
        super().__init__()
        self.model, self.queue = model, queue
    def run(self): self.queue.put((self.model, os.getpid()))

class Shelf:
    def __init__(self): self.models = []
    def put(self, model): self.models.append(model)
    def get(self): return self.models
class Manager(multiprocessing.managers.BaseManager): pass
Manager.register("Shelf", Shelf)

class Handler:
    factor = 3
    def __call__(self, x): return Model([x * self.factor])
    def method(self, x): return Model([x + self.factor])
    @classmethod
    def make(cls, x): return cls.factor, Model([x])
    @staticmethod
    def static(x): return Color(x)

T = typing.TypeVar("T")
UserId = typing.NewType("UserId", int)
@functools.singledispatch
def kind(x): return "other"
@kind.register
def _(x: Model): return "model"
def same(thing): return thing
def add(x, y, *, z=0): return Point(x + y, z)
def numbers(count): return [Model([number]) for number in range(count)]
def fork_again(_):
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(double, 4).result()

def work():
    context = multiprocessing.get_context(METHOD)
    found = {}
    queue = context.Queue()
    worker = Worker(Model([1]), queue)
    worker.start()
    model, pid = queue.get(timeout=50)
    worker.join()
    found["subclass"] = model == Model([1]) and pid == worker.pid
    with Manager(ctx=context) as manager:
        shelf = manager.Shelf()
        shelf.put(Model([2]))
        found["manager"] = shelf.get() == [Model([2])] and type(shelf.get()[0]) is Model
    with context.Manager() as manager:
        shared = manager.dict(model=Model([5]))
        shared["color"] = Color.RED
        found["dict"] = shared.copy() == {"model": Model([5]), "color": Color.RED}
    with context.Pool(2, maxtasksperchild=2) as pool:
        handler = Handler()
        found["calls"] = pool.map(handler, [1, 2]) == [Model([3]), Model([6])]
        found["methods"] = pool.map(handler.method, [1]) == [Model([4])]
        found["class"] = pool.map(Handler.make, [1]) == [(3, Model([1]))]
        found["static"] = pool.map(Handler.static, [1]) == [Color.RED]
        found["partial"] = pool.starmap(functools.partial(add, z=Color.RED), [(1, 2)]) == [Point(3, Color.RED)]
        found["unordered"] = sorted(one.weights for one in pool.imap_unordered(double, [1, 2])) == [[2], [4]]
        found["lists"] = pool.apply_async(numbers, (3,)).get(50) == numbers(3)
        found["nested"] = pool.map(fork_again, [1]) == [double(4)]
        found["cached"] = pool.map(cached, [1, 1]) == [2, 2]
        found["dispatch"] = pool.map(kind, [Model([1]), 1]) == ["model", "other"]
        found["names"] = all(map(operator.is_, pool.map(same, names := [T, UserId, cached, kind]), names))
    here, there = context.Pipe()
    process = context.Process(target=there.send, args=([Model, Color.RED, Model.Config],))
    process.start()
    found["pipe"] = here.recv() == [Model, Color.RED, Model.Config]
    process.join()
    once = {} if METHOD == "fork" else {"max_tasks_per_child": 1}
    with concurrent.futures.ProcessPoolExecutor(1, context, **once) as pool:
        found["futures"] = [pool.submit(double, n).result(50) for n in range(2)] == [double(0), double(1)]
    with multiprocessing.pool.ThreadPool(1) as threads:
        found["threads"] = threads.map(double, [1]) == [double(1)]
    return {name for name, fine in found.items() if not fine}, len(found)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_every_kind_know_what_the_notebook_defined(in_job, method):
    """Subclasses of Process, managers and their proxies, callables, methods, pipes, workers that are replaced."""
    assert in_job(f"METHOD = {method!r}\n{KINDS}")[0] == (set(), 17)


SCRIPT = """
import multiprocessing, sys, helper, pathlib
from jobcontainer import JobPool

print("top of", __name__, flush=True)

class Model:
    def __init__(self, value): self.value = value

def square(x): return Model(helper.square(x)), helper.Thing(x)

class Nested:
    def __init__(self, method): self.method = method
    def run(self):
        with multiprocessing.get_context(self.method).Pool(2) as pool:
            models = pool.map(square, [2, 3])
            things = pool.map(helper.Thing, [5])
        import __main__
        assert type(models[0][0]) is Model is __main__.Model
        assert type(things[0]) is type(models[0][1]) is helper.Thing
        return [(model.value, thing.x) for model, thing in models], pathlib.Path(__main__.__file__).name, __file__

if __name__ == "__main__":
    with JobPool(1, store=sys.argv[1]) as pool:
        jobs = [pool.submit(Nested(method)) for method in ("fork", "spawn", "forkserver")]
        for job in jobs:
            assert job.result() == ([(4, 2), (9, 3)], "script.py", __file__), job.result()
    print("done")
"""

HELPER = """
class Thing:
    def __init__(self, x): self.x = x
def square(x): return x * x
"""


def run_script(arguments, folder):
    done = subprocess.run(
        [sys.executable, *arguments, "store"], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_script_with_a_helper_beside_it(tmp_path):
    """``python folder/script.py``: its jobs' workers do not run the script again, however they are started."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    (folder / "helper.py").write_text(HELPER)
    assert run_script([str(folder / "script.py")], tmp_path) == "top of __main__\ndone\n"


@pytest.mark.slow
def test_a_module_of_a_package_run_as_a_script(tmp_path):
    """``python -m package.script``: relative imports work in ``run()`` as they do at the top."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text(HELPER)
    (package / "late.py").write_text("VALUE = 'late'")
    script = SCRIPT.replace("sys, helper,", "sys,").replace(
        "from jobcontainer", "from . import helper\nfrom jobcontainer"
    )
    script = script.replace("        import __main__\n", "        import __main__\n        from .late import VALUE\n")
    (package / "script.py").write_text(script)
    assert run_script(["-m", "package.script"], tmp_path) == "top of __main__\ndone\n"


# --- names in a text ------------------------------------------------------------------------------------------------

IN_TEXTS = {
    "get": "def work(): return globals().get('RATE')",
    "in": "def work(): return 'RATE' in globals(), 'NOBODY' in globals()",
    "item": "def work(): return globals()['RATE']",
    "loop": "def work(): return [globals()[name] for name in ('RATE', 'double')][0]",
    "attribute": "def work(): return __main__.RATE, hasattr(__main__, 'double'), __main__.Model([1]).predict(2)",
    "alias": "import __main__ as mine\ndef work(): return mine.RATE, getattr(mine, 'double')(2).weights",
    "import": "def work():\n    from __main__ import RATE, Model\n    return RATE, Model([1]).predict(2)",
    "modules": "def work(): return vars(sys.modules['__main__'])['RATE']",
    "import_module": "import importlib\ndef work(): return importlib.import_module('__main__').RATE",
    "eval": "def work(): return eval('RATE * len(double(2).weights)')",
    "exec": "def work():\n    exec('made = RATE + 1', globals())\n    return made",
    "duckdb": """
class duckdb:
    def sql(text): return sys._getframe(1).f_globals[text.split()[-1]]
def work(): return duckdb.sql('from RATE')
""",
    "template": "import string\ndef work(): return string.Template('$RATE ${COUNT}').substitute(globals())",
    "format": "def work(): return '{RATE:.2f} {COUNT}'.format(**globals()) + '%(RATE)s' % globals()",
    "format_map": "def work(): return '{RATE}'.format_map(globals())",
    "query": "import pandas as pd\ndef work(): return len(pd.DataFrame({'a': [1]}).query('a > @RATE'))",
    "pandas.eval": "import pandas as pd\ndef work(): return pd.eval('RATE + 1')",
    "frame.eval": "import pandas as pd\ndef work(): return pd.DataFrame({'a': [1]}).eval('a + @RATE').tolist()",
    "another function": """
def find(name): return globals()[name]
def work(): return find('RATE'), type(find('double')(1)) is find('Model')
""",
    "default": "def work(name='RATE', *, other='double'): return globals()[name], globals()[other](1).weights",
    "a global text": "FORMULA = 'RATE * 2'\ndef work(): return eval(FORMULA)",
    "global texts": "NAMES = ['COUNT', 'RATE']\ndef work(): return [eval(name) for name in NAMES]",
    "a class": """
class Formula:
    text = 'RATE + COUNT'
    def value(self): return eval(self.text)
def work(): return Formula().value()
""",
    "in a chain": """
def third(): return eval('RATE')
def second(): return globals()['third']()
def work(): return globals()['second']()
""",
    "in a circle": """
class Even:
    def down(self, n): return n == 0 or globals()['Odd']().down(n - 1)
class Odd:
    def down(self, n): return n != 0 and globals()['Even']().down(n - 1)
def work(): return globals()['Even']().down(4)
""",
    "a member": "TABLE = {Color.RED: [Model([1])]}\ndef work(): return globals()['TABLE'][Color.RED][0].predict(2)",
}


@pytest.mark.parametrize("source", IN_TEXTS.values(), ids=IN_TEXTS)
def test_a_name_in_a_text_of_the_code_is_in_the_job(in_job, source):
    """Where code may look it up by that text, in the dict of globals or by evaluating it."""
    found, names = in_job("RATE = 0.1\n" + textwrap.dedent(source))
    assert found == names["work"]()


def test_polars_finds_frames_of_the_notebook(in_job):
    """It looks through the local names of all callers, which are the notebook's globals in a cell."""
    found, _ = in_job(
        """
        import pandas as pd
        FRAME = pd.DataFrame({"a": [1, 2]})
        def work():
            import polars as pl
            return pl.sql("select sum(a) as n from FRAME").collect().item()
        """
    )
    assert found == 3


def test_a_name_in_an_attribute_of_the_process_is_in_the_job(cell, pool):
    """As formulas of a sweep are; a name of a class is one too."""
    cell(CELL)
    names = cell(
        """
        RATE = 0.1
        class Evaluates:
            def __init__(self, formula, *kinds): self.formula, self.kinds = formula, kinds
            def run(self): return eval(self.formula), [globals().get(kind) is None for kind in self.kinds]
        """
    )
    jobs = pool.submit_all([names["Evaluates"]("RATE + 1", "Model"), names["Evaluates"]("double(2).weights", "Nobody")])
    assert jobs.results() == [(1.1, [False]), ([4], [True])]


def test_a_text_that_only_seems_to_be_a_name_costs_nothing(cell, pool):
    """What has that name may be unfit for a file; what nobody looks up stays in the notebook."""
    names = cell(
        """
        import threading
        class Loud:
            def __reduce__(self): raise ValueError("not this one")
        lock, loud, big = threading.Lock(), Loud(), bytes(10_000_000)
        def looks():
            eval("1"), ["a is 1", "5in", "\\\\d", "(" * 300, "0" * 20_000]  # no code
            return ["lock", "loud"], sorted({"lock", "loud", "fine"} & globals().keys())
        fine = 1
        class Looks:
            def run(self): return looks()
        class Does_not_look:
            def run(self): return ["big", "lock"]
        """
    )
    assert pool.submit(names["Looks"]()).result(60) == (["lock", "loud"], ["fine"])
    job = pool.submit(names["Does_not_look"]())
    assert job.result(60) == ["big", "lock"]
    assert sum(file.stat().st_size for file in job.folder.path.glob("process.job*")) < 100_000


LOOKED_UP = {
    "eval": "def work(): return eval(TEXT())",
    "globals": "def work(): return globals()[TEXT()]",
    "import": "def work(): return getattr(__main__, TEXT())",
    "import from": "def work(): exec('from __main__ import ' + TEXT())",
    "query": "def work():\n    import pandas as pd\n    return pd.DataFrame({'a': [1]}).query('a > @' + TEXT())",
    "pandas.eval": "def work():\n    import pandas as pd\n    return pd.eval(TEXT() + ' + 1')",
    "pickle": "def work(): return pickle.loads(b'c__main__\\nRATE\\n.')",
    "duckdb": "def work(): raise OSError('Catalog Error: Table with name RATE does not exist!\\nDid you mean x?')",
    "polars": "def work(): raise OSError(\"relation 'RATE' was not found\")",
    "template": "import string\ndef work(): return string.Template('$' + TEXT()).substitute(globals())",
    "formatter": "import string\ndef work(): return string.Formatter().vformat('{%s}' % TEXT(), (), globals())",
    "format": "def work(): return ('{' + TEXT() + '}').format(**globals())",
    "format_map": "def work(): return ('{' + TEXT() + '}').format_map(globals())",
    "percent": "def work(): return ('%(' + TEXT() + ')s') % globals()",
    "chain of maps": "def work(): return collections.ChainMap({}, globals())[TEXT()]",
    "another function": "def look(names, name): return names[name]\ndef work(): return look(globals(), TEXT())",
    "wrapped": """
def work():
    try:
        eval(TEXT() + ' * 2')
    except NameError as error:
        raise RuntimeError('no formula') from error
""",
}


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("source", LOOKED_UP.values(), ids=LOOKED_UP)
def test_a_name_in_a_text_that_the_job_lacks_is_explained(cell, source, pool):
    """In the exception's note, in the log, and in the reason on the card: what is missing, and what to do."""
    cell(CELL)
    names = cell("RATE, LETTERS = 0.1, list('RATE')\ndef TEXT(): return ''.join(LETTERS)\n" + textwrap.dedent(source))
    job = pool.submit(names["Process"](names["work"]))
    error = job.exception(60)
    sentence = "The notebook has RATE, but the job does not"
    assert not isinstance(error, JobFailedError)
    assert sentence in "".join(error.__notes__)
    assert "Mention RATE in run(), or pass it in" in "".join(error.__notes__)
    assert sentence in job.log
    assert sentence in job.outcome.reason
    assert sentence in card_text(job_card(snapshot_of(job), 0.0))


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "source",
    [
        "def work(): return eval('NOBODY')",
        "def work(): return {}['RATE']",
        "def work():\n    RATE\n    return eval('RATES')",
        "def work():\n    import pandas as pd\n    return globals() and pd.DataFrame({'a': [1]})[''.join(LETTERS)]",
        "def work():\n    raise ValueError('RATE')",
        "def work():\n    if len('a') > 1: inner = 1\n    return inner",
    ],
)
def test_other_errors_have_no_such_note(cell, source, pool):
    """A name that the notebook lacks too, another kind of error, a local name."""
    cell(CELL)
    names = cell("RATE = inner = 0.1\nLETTERS = list('RATE')\n" + source)
    job = pool.submit(names["Process"](names["work"]))
    error = job.exception(60)
    assert not getattr(error, "__notes__", [])
    assert "notebook" not in job.outcome.reason
