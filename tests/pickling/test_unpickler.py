"""Loading never changes a class that is alive."""

from __future__ import annotations

import abc
import copy
import enum
import pickle
import sys
import threading
import time

import cloudpickle
import pytest

from jobcontainer import Serializer
from jobcontainer.pickling import cloudpickle_internals, pickler


@pytest.fixture
def path(tmp_path):
    return tmp_path / "object.job"


class Counter:
    """Counts."""

    total = 1
    seen = []  # noqa: RUF012 -- shared on purpose

    def __init__(self):
        self.own = 5

    def count(self):
        return "old"

    def run(self):
        type(self).total = 99
        type(self).seen.append("job")
        type(self).count = lambda _: "changed in the job"
        type(self).added = "by the job"
        return self


class Colour(enum.Enum):
    RED = 1


@pytest.fixture
def restored():
    """Put back what a test changes in Counter."""
    before = dict(vars(Counter))
    yield
    for name in set(vars(Counter)) - set(before):
        delattr(Counter, name)
    for name in ("total", "seen", "count", "__doc__"):
        setattr(Counter, name, before[name])
    Counter.seen.clear()


@pytest.mark.usefixtures("restored")
def test_an_old_file_does_not_revert_what_was_changed_since(path):
    """Methods, attributes, their contents, the docstring, and names that are new or gone."""
    Serializer.serialize_to_file(Counter(), path)
    Counter.count = lambda _: "new"
    Counter.total = 2
    Counter.seen.append("here")
    Counter.__doc__ = "Counts better."
    Counter.fresh = True
    before = dict(vars(Counter))
    found = Serializer.deserialize_from_file(path)
    assert type(found) is Counter
    assert dict(vars(Counter)) == before
    assert (found.count(), found.total, found.seen, found.own) == ("new", 2, ["here"], 5)


@pytest.mark.usefixtures("restored")
def test_what_a_job_does_to_the_class_stays_in_the_job(path, run_in_job):
    """Its result is an instance of the notebook's class, which is as it was."""
    Serializer.serialize_to_file(Counter(), path)
    before = dict(vars(Counter))
    found = run_in_job(path)
    assert isinstance(found, Counter)
    assert dict(vars(Counter)) == before
    assert (Counter.total, Counter.seen) == (1, [])
    assert found.count() == "old"


@pytest.mark.usefixtures("restored")
def test_a_job_runs_the_class_as_it_was_at_submit(path, run_in_job):
    """Changes since then are for the next file."""
    Serializer.serialize_to_file(Counter(), path)

    class Ask:
        def __init__(self, file):
            self.file = str(file)

        def run(self):
            return Serializer.deserialize_from_file(self.file).count()

    asking = path.with_name("asking.job")
    Serializer.serialize_to_file(Ask(path), asking)
    Counter.count = lambda _: "new"
    assert run_in_job(asking) == "old"


def test_enums_are_the_live_ones(path):
    """A loaded member is the member that the notebook has."""
    Serializer.serialize_to_file([Colour.RED, Colour], path)
    member, cls = Serializer.deserialize_from_file(path)
    assert member is Colour.RED
    assert cls is Colour


def test_a_class_whose_cell_was_run_again_is_another_one(path, cell):
    """The old result stays what it was: an instance of the old class, with the old method."""
    old = cell("class Model:\n    def answer(self): return 'old'\n")["Model"]
    Serializer.serialize_to_file(old(), path)
    new = cell("class Model:\n    def answer(self): return 'new'\n")["Model"]
    found = Serializer.deserialize_from_file(path)
    assert type(found) is old
    assert not isinstance(found, new)
    assert (found.answer(), new().answer()) == ("old", "new")


class MakesClass:
    def run(self):
        class Inner:
            def answer(self):
                return 42

        return Inner()


def test_a_class_that_came_with_a_result_is_made_once(path, run_in_job):
    """Later loads of the same class give instances of the one that is alive by then, changed or not."""
    Serializer.serialize_to_file(MakesClass(), path)
    first = run_in_job(path)
    copied = path.with_name("copied.job")
    Serializer.serialize_to_file(first, copied)
    type(first).answer = lambda _: 43
    second = Serializer.deserialize_from_file(copied)
    assert type(second) is type(first)
    assert (first.answer(), second.answer()) == (43, 43)


@pytest.mark.usefixtures("as_notebook")
def test_in_a_job_classes_are_made_anew(path):
    """Also in a process that has run an older version: each job sees the class as it was at its own submit."""
    Serializer.serialize_to_file(Counter(), path)
    stream = _stream_of(Counter())
    first, second = (_load_anew(stream) for _ in range(2))
    assert len({type(first), type(second), Counter}) == 3
    assert first.count() == "old"
    assert cloudpickle_internals.live_class(_tracker_id(second)) is type(second)
    _restore_tracker()


def _stream_of(obj):
    kept = []

    class Keep:
        def write(self, data):
            kept.append(bytes(data))
            return len(data)

    pickler.Pickler(Keep()).dump(obj)
    return b"".join(kept)


def _load_anew(stream):
    from jobcontainer.pickling.unpickler import load  # noqa: PLC0415 -- its name is that of many here

    return load(stream, anew=True)


def _tracker_id(obj):
    return cloudpickle.cloudpickle._get_or_create_tracker_id(type(obj))


def _restore_tracker():
    """Let the live class be the tracked one again."""
    cloudpickle_internals.track([(_tracker_id(Counter()), Counter)], anew=True)


def test_a_foreign_pickle_does_not_change_live_classes_either(path):
    """One that cloudpickle itself wrote, loaded on purpose."""
    with path.open("wb") as file:
        cloudpickle.dump(Counter(), file)
    before = dict(vars(Counter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Counter, "total", 2)
        found = Serializer.deserialize_from_file(path, trusted=True)
        assert type(found) is Counter
        assert found.total == 2
    assert dict(vars(Counter)) == before


class Base(abc.ABC):  # noqa: B024 -- its registry is what matters
    registry = []  # noqa: RUF012 -- shared on purpose

    def __init_subclass__(cls):
        Base.registry.append(cls.__name__)


class Derived(Base):
    pass


def test_a_live_subclass_is_not_announced_to_its_base_again(path):
    """No class is made where one is alive, so no hook of its base runs."""
    Serializer.serialize_to_file(Derived(), path)
    Serializer.deserialize_from_file(path)
    assert Base.registry == ["Derived"]


class Slow:
    """Loads slowly enough that threads meet."""

    def __setstate__(self, state):
        time.sleep(0.001)
        vars(self).update(state)


def test_threads_that_load_an_unknown_class_get_one_whole_class(path, run_in_job):
    """None sees it half made, and all instances are of the same class."""
    Serializer.serialize_to_file(MakesSlow(), path)
    for round_number in range(10):
        file = path.with_name(f"{round_number}.job")
        run_in_job(path, env={"KEEP": str(file)})
        ready, found, errors = threading.Barrier(6), [], []

        def load(file=file, ready=ready, found=found, errors=errors):
            ready.wait()
            try:
                found.append(Serializer.deserialize_from_file(file))
            except Exception as error:  # noqa: BLE001 -- any is wrong
                errors.append(error)

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        threads = [threading.Thread(target=load) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
        assert errors == []
        assert len({type(item) for items in found for item in items}) == 3
        assert all(item.answer() == item.number for items in found for item in items)


class MakesSlow:
    """Puts instances of classes into a file that no other process has ever seen."""

    def run(self):
        import os  # noqa: PLC0415 -- inside the job

        from jobcontainer import Serializer  # noqa: PLC0415 -- inside the job

        def make(number):
            class Local(Slow):
                def __init__(self):
                    self.number = number

                def answer(self):
                    return number

            return Local()

        Serializer.serialize_to_file([make(1), make(2), make(3)], os.environ["KEEP"])


def test_a_load_within_a_load_keeps_the_two_apart(path):
    """An object that loads another file while it is loaded itself."""
    inner = path.with_name("inner.job")
    Serializer.serialize_to_file(Counter(), inner)

    class Outer:
        def __init__(self, file):
            self.file = str(file)

        def __setstate__(self, state):
            vars(self).update(state)
            self.inner = Serializer.deserialize_from_file(self.file)

    Serializer.serialize_to_file([Outer(inner), Counter()], path)
    outer, counter = Serializer.deserialize_from_file(path)
    assert type(outer) is Outer
    assert type(outer.inner) is type(counter) is Counter


def test_ordinary_copies_work_as_ever(path):
    """What was loaded is an object like any other."""
    Serializer.serialize_to_file(Counter(), path)
    found = Serializer.deserialize_from_file(path)
    assert copy.deepcopy(found).own == 5
    assert pickle.loads(cloudpickle.dumps(found)).own == 5
