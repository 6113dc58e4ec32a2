"""Files that are written together share the pickle of their class, and are what each alone would be."""

from __future__ import annotations

import gc
import threading

import pytest

from jobcontainer import JobPool, SerializationError
from jobcontainer.jobfile.loading import load_in_job
from jobcontainer.jobfile.serializer import Serializer, write_file
from jobcontainer.pickling.shared_prefix import Shared
from jobcontainer.process import Call

FACTOR = {"by": 2}


class Times:
    unit = "m"

    def __init__(self, number, other=None):
        self.number, self.other = number, other

    def run(self):
        return self.number * FACTOR["by"], self.unit, self.other


Times.__module__ = "__main__"  # as a class of a notebook
Times.run.__module__ = Times.__init__.__module__ = "__main__"


def twice(number):
    return number * FACTOR["by"]


twice.__module__ = "__main__"


@pytest.fixture
def written(tmp_path):
    """Write objects together, and read each in turn as a job would."""

    def written(objs, **how):
        shared = Shared()
        for number, obj in enumerate(objs):
            write_file(obj, tmp_path / f"{number}.job", kind="process", shared=shared, **how)
        return [load_in_job(tmp_path / f"{number}.job") for number in range(len(objs))]

    return written


def test_each_is_what_it_would_be_alone(written, tmp_path):
    """The stream goes on after the class with the object's own parts, references to the class among them."""
    objs = [Times(1), Times(2, other=Times), Times(3, other=[Times(4), twice]), Times("x")]
    first, second, third, last = written(objs)
    assert [first.run(), second.run()[:2], last.run()] == [(2, "m", None), (4, "m"), ("xx", "m", None)]
    assert second.other is type(second)
    assert type(third.other[0]) is type(third)
    assert third.other[1](5) == 10
    Serializer.serialize_to_file(objs[0], tmp_path / "alone.job")
    alone, together = Serializer.inspect(tmp_path / "alone.job"), Serializer.inspect(tmp_path / "0.job")
    assert (alone.class_name, alone.source, alone.modules, alone.by_value) == (
        together.class_name,
        together.source,
        together.modules,
        together.by_value,
    )


def test_functions_are_shared_too(written):
    """Calls of one function, as ``pool.map`` makes them, begin with it."""
    assert [call.run() for call in written([Call(twice, (number,), {}) for number in range(3)])] == [0, 2, 4]


def test_objects_that_are_gone_are_not_taken_for_others(written):
    """The memo of the class keeps alive what it names by identity."""

    def objs():
        for number in range(5):
            yield Times(number, other=[number])
            gc.collect()

    assert [obj.run()[2] for obj in written(list(objs()))] == [[number] for number in range(5)]


def test_a_class_that_changes_between_two_lists_is_never_stale(tmp_path, monkeypatch):
    """What a class is, and what its code refers to, is taken when a list is submitted."""
    with JobPool(1, store=tmp_path, engine="inline") as pool:
        assert pool.submit_all([Times(1), Times(2)]).results() == [(2, "m", None), (4, "m", None)]
        monkeypatch.setattr(Times, "unit", "km")
        monkeypatch.setitem(FACTOR, "by", 3)
        files = [job.folder.process_file for job in pool.submit_all([Times(1), Times(2)])]
        assert [load_in_job(file).run() for file in files] == [(3, "km", None), (6, "km", None)]


def test_a_class_that_changes_while_a_generator_makes_processes_is_never_stale(tmp_path, monkeypatch):
    """Who makes processes on the way may change their class between two of them."""

    def processes():
        for unit in ("m", "km", "mm"):
            monkeypatch.setattr(Times, "unit", unit)
            yield Times(1)

    with JobPool(1, store=tmp_path, engine="inline") as pool:
        files = [job.folder.process_file for job in pool.submit_all(processes())]
    assert [load_in_job(file).run()[1] for file in files] == ["m", "km", "mm"]


def test_an_object_that_changes_its_class_when_it_is_pickled_is_never_stale(written):
    """Whoever has a hand in its own pickling is written alone."""

    class Counts:
        pickled = 0

        def __getstate__(self):
            Counts.pickled += 1
            return {}

    Counts.__module__ = Counts.__getstate__.__module__ = "__main__"
    assert [type(obj).pickled for obj in written([Counts(), Counts(), Counts()])] != [0, 0, 0]


def test_one_that_does_not_fit_is_told_as_ever(tmp_path):
    """The error names the culprit, and no job of the list is submitted."""
    with JobPool(1, store=tmp_path, engine="inline") as pool:
        with pytest.raises(SerializationError, match=r"process\.other"):
            pool.submit_all([Times(1), Times(2, other=threading.Lock())])
        assert not [entry for entry in tmp_path.iterdir() if entry.is_dir()]
