"""What makes jobs cheap, counted rather than timed: no noise of a machine can sway it."""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
from collections import Counter

import pytest

from jobcontainer import JobPool
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.process import JobOptions
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker.keeper_protocol import Order, RunJob

_counters: list[Counter[str]] = []

pytestmark = pytest.mark.usefixtures("as_notebook")


def _count(event, arguments):
    # A file object over a descriptor, or with an opener, which has an event of its own, asks nothing of the system.
    asks_nothing = event == "open" and (isinstance(arguments[0], int) or (arguments[1] or "").startswith("x"))
    if _counters and event.partition(".")[0] in {"open", "os", "subprocess", "socket"} and not asks_nothing:
        _counters[-1][event] += 1


sys.addaudithook(_count)  # it can't be removed, so it is switched


class Adds:
    def __init__(self, number):
        self.number = number

    def run(self):
        return self.number + 1


@pytest.fixture
def submitter(tmp_path):
    store = StoreFolder(tmp_path)
    store.create()
    return Submitter(store)


def counted(call):
    """The calls of the system, by Python's names for them, that a call leads to."""
    _counters.append(Counter())
    try:
        call()
    finally:
        counter = _counters.pop()
    return dict(counter)


def test_a_job_is_written_with_two_files(submitter):
    """A folder, the process and the record, each opened once and renamed; nothing is read again, nothing else made."""
    here, options = submitter.here(), JobOptions()
    submitter.of_process(Adds(0), options, here)  # the source of the class is looked up once
    calls = counted(lambda: write_records([submitter.of_process(Adds(1), options, here)]))
    assert calls == {"os.mkdir": 1, "open": 2, "os.rename": 2}


def test_the_file_of_a_small_process_is_small(submitter):
    """It holds the class and its source, and little else."""
    folder = submitter.of_process(Adds(0), JobOptions()).folder
    assert folder.process_file.stat().st_size < 8192


def test_an_order_to_a_keeper_that_knows_the_environment_is_small(submitter):
    """``sys.path`` and the environment go to a keeper when they change, not with every job."""
    submission = submitter.of_process(Adds(0), JobOptions())
    order = Order(str(submission.folder.path), submission.options.to_json(), submission.environment, 1)
    assert len(pickle.dumps(RunJob(order._replace(environment=None)))) < 1024


COUNTS = """
import json, resource, sys
from jobcontainer import JobPool
class Counts:
    def run(self):
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return pages, sorted({name.partition(".")[0] for name in sys.modules})
if __name__ == "__main__":
    with JobPool(1, store=sys.argv[1]) as pool:
        print(json.dumps([pool.submit(Counts()).result() for _ in range(4)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="keepers fork on Linux")
def test_a_fresh_process_touches_few_pages(tmp_path):
    """Every page that a new process writes to is copied: some 1,000 until ``run()``, beside what a keeper has loaded.

    The first process was made before its environment was known, and takes it over by itself. A keeper has loaded joblib
    and what that brings, numpy included; no other library may make its jobs larger. What the settings of libraries
    cost that a notebook has loaded is not counted.
    """
    script = tmp_path / "counts.py"
    script.write_text(COUNTS)
    done = subprocess.run([sys.executable, script, tmp_path / "store"], capture_output=True, text=True, check=True)
    (pages, loaded), *others = json.loads(done.stdout)
    assert pages < 1700
    assert max(pages for pages, _ in others) < 1400
    assert not {"IPython", "distributed", "ipywidgets", "matplotlib", "pandas", "rich"} & set(loaded)


class UsesPandas:
    def run(self):
        loaded = "pandas" in sys.modules
        import pandas as pd  # noqa: PLC0415 -- as a job does

        return loaded, resource.getrusage(resource.RUSAGE_SELF).ru_minflt, len(pd.DataFrame({"a": [1]}))


@pytest.mark.skipif(sys.platform != "linux", reason="keepers fork on Linux")
def test_a_job_that_imports_a_large_library_is_forked_with_it(tmp_path):
    """From the first job on, where the notebook has loaded it; its own import of pandas would touch 15,000 pages."""
    import pandas as pd  # noqa: F401, PLC0415 -- as a cell of the notebook

    with JobPool(1, store=tmp_path) as pool:
        jobs = [pool.submit(UsesPandas()).result() for _ in range(3)]
    assert [loaded for loaded, _, _ in jobs] == [True] * 3
    assert max(pages for _, pages, _ in jobs) < 3000
