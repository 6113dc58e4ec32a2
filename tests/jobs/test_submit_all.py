"""A list of processes: each is written as it is when its turn comes, and either all are submitted or none."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from jobcontainer import JobPool, SerializationError
from jobcontainer.worker.job_imports import load_in_job

FACTOR = {"by": 2}

pytestmark = pytest.mark.usefixtures("as_notebook")


class Times:
    unit = "m"

    def __init__(self, number, other=None):
        self.number, self.other = number, other

    def run(self):
        return self.number * FACTOR["by"], self.unit, self.other


Times.__module__ = "__main__"  # as a class of a notebook
Times.run.__module__ = Times.__init__.__module__ = "__main__"


@pytest.fixture
def pool(tmp_path):
    with JobPool(1, store=tmp_path / "store", engine="inline") as pool:
        yield pool


def test_the_jobs_come_in_the_order_of_the_processes(pool):
    """Each with its own result."""
    group = pool.submit_all(Times(number) for number in range(5))
    assert [number for number, _, _ in group.results()] == [0, 2, 4, 6, 8]


def test_a_class_that_changes_between_two_lists_is_never_stale(pool, monkeypatch):
    """The class, and what its code refers to, is written as it is when a list is submitted."""
    assert pool.submit_all([Times(1), Times(2)]).results() == [(2, "m", None), (4, "m", None)]
    monkeypatch.setattr(Times, "unit", "km")
    monkeypatch.setitem(FACTOR, "by", 3)
    files = [job.folder.process_file for job in pool.submit_all([Times(1), Times(2)])]
    assert [load_in_job(file).run() for file in files] == [(3, "km", None), (6, "km", None)]


def test_a_class_that_changes_while_a_generator_makes_processes_is_never_stale(pool, monkeypatch):
    """A generator may change the class between two processes."""

    def processes():
        for unit in ("m", "km", "mm"):
            monkeypatch.setattr(Times, "unit", unit)
            yield Times(1)

    files = [job.folder.process_file for job in pool.submit_all(processes())]
    assert [load_in_job(file).run()[1] for file in files] == ["m", "km", "mm"]


def test_one_that_does_not_fit_leaves_no_job(pool):
    """The error names the culprit, and no job of the list is submitted."""
    with pytest.raises(SerializationError, match=r"process\.other"):
        pool.submit_all([Times(1), Times(2, other=threading.Lock())])
    assert not [entry for entry in pool.store.iterdir() if entry.is_dir()]


def test_the_keys_of_a_dict_name_the_jobs(pool):
    """Whatever they are: texts, numbers, pairs; the jobs come in the order of the dict."""
    group = pool.submit_all({"small": Times(1), 0.5: Times(2), ("a", 1): Times(3), "": Times(4)})
    assert [job.name for job in group] == ["small", "0.5", "('a', 1)", "''"]
    assert [number for number, _, _ in group.results()] == [2, 4, 6, 8]


def test_of_a_dict_too_all_are_submitted_or_none(pool):
    """A process that can't go into a file refuses the sweep, by its path."""
    with pytest.raises(SerializationError, match=r"process\.other"):
        pool.submit_all({"good": Times(1), "bad": Times(2, threading.Lock())})
    assert [path for path in pool.store.iterdir() if path.is_dir()] == []


class Fills:
    """Says what it consists of in a buffer that all of its instances use."""

    buffer = np.zeros(100_000)

    def __init__(self, number):
        self.number = number

    def __getstate__(self):
        Fills.buffer[:] = self.number
        return {"data": Fills.buffer}

    def run(self):
        return float(self.data[0])


def test_code_that_changes_data_between_two_processes_is_noticed(pool):
    """Data at the same address is not taken for the same where a class says itself what it consists of."""
    assert pool.submit_all([Fills(number) for number in range(3)]).results() == [0.0, 1.0, 2.0]


def test_what_comes_to_nothing_leaves_no_large_data(pool, tmp_path):
    """It may be what has filled the disk, and nobody would know of it."""
    with pytest.raises(SerializationError):
        pool.submit_all([Times(np.ones(100_000)), Times(threading.Lock())])
    assert list((tmp_path / "store" / "data").iterdir()) == []
