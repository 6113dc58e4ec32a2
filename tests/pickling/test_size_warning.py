"""A process that is large by accident says why."""

from __future__ import annotations

import warnings
import weakref

import numpy as np
import pytest

from jobcontainer.jobfile.serializer import write_file
from jobcontainer.jobs.submission import Submitter
from jobcontainer.pickling import size_warning
from jobcontainer.pickling.size_warning import largest_parts
from jobcontainer.process import JobOptions
from jobcontainer.storage.store_folder import StoreFolder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "process.job"


def test_a_captured_global_is_named_once_for_each_class(cell, path):
    """With its share; so are the next largest. The line shown is the user's."""
    names = cell(
        """
        import numpy as np
        table = np.zeros(3_000_000)
        class Train:
            def __init__(self):
                self.data = {"train": np.zeros(1_000_000), "test": list(range(2000))}
                self.text = "x" * 5_000_000
                self.small = np.zeros(1000)
            def run(self):
                return self.help()
            def help(self):
                return table.sum()
        """
    )
    with pytest.warns(UserWarning, match="The file of Train has 37 MB, and each job reads all of it: ") as caught:
        write_file(names["Train"](), path, kind="process")
    [warning] = caught
    assert "help() -> global table 24 MB, process.data['train'] 8 MB, process.text 5 MB" in str(warning.message)
    assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_file(names["Train"](), path, kind="process")


@pytest.mark.parametrize("look", ["eval('sum(table)')", "globals()['table']", "frame.query('a > @table')"])
def test_a_global_that_only_a_text_names_is_named(cell, look):
    """It has no place in the code that could be shown; what else is large stays named beside it."""
    names = cell(
        f"""
        frame = None
        table = list(range(200_000))
        class Looks:
            def __init__(self):
                self.text = "x" * 200_000
            def run(self):
                return {look}
        """
    )
    found = largest_parts(names["Looks"](), "process")
    assert [words for words, _ in found] == ["global table, which a text names", "process.text"]


@pytest.mark.parametrize("kind", ["result", "object", "error"])
def test_only_processes_are_warned_of(path, kind):
    """A large result is what was asked for."""
    write_file({"large": np.zeros(2_000_000)}, path, kind=kind)


def test_what_is_made_of_many_small_things_is_named_as_one():
    """A list of a million numbers is not weighed one by one."""
    parts = largest_parts({"many": list(range(200_000)), "few": ["x" * 100_000]}, "process")
    assert [words for words, _ in parts][:2] == ["process['many']", "process['few'][0]"]


def test_what_is_shared_is_counted_once():
    """An array that two parts hold is counted for one of them."""
    array = np.zeros(10**6)
    parts = largest_parts({"a": [array], "b": [array]}, "process")
    assert len([weight for _, weight in parts if weight > 10**6]) == 1


class Holds:
    def __init__(self, *held):
        self.held = held

    def run(self):
        pass


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Write the folder of a process in a store, by a process that has warned of none."""
    monkeypatch.setattr(size_warning, "_warned", weakref.WeakSet())
    monkeypatch.setattr(size_warning, "_wrote", weakref.WeakSet())
    submitter = Submitter(StoreFolder(tmp_path / "store"))
    return lambda *held: submitter.of_process(Holds(*held), JobOptions())


def test_what_jobs_share_is_no_reason_to_warn(submit):
    """It is written once, however many jobs have it; so is what another sweep of the class has."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shared in (np.zeros(3_000_000), np.ones(3_000_000)):
            for number in range(3):
                submit(shared, number)


@pytest.mark.slow
def test_what_each_job_writes_is_named_and_nothing_else(submit):
    """Small objects are in the file of each; the array beside them is not."""
    with pytest.warns(UserWarning, match=r"Each job of Holds writes and reads 1\d\.\d MB of its own: ") as caught:
        submit(np.zeros(3_000_000), [str(number) for number in range(1_500_000)])
    assert "process.held[1] 1" in str(caught[0].message)
    assert "held[0]" not in str(caught[0].message)


def test_large_data_that_is_another_in_each_job_is_warned_of(submit):
    """The first may be shared; when the second writes its own, it is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        submit(np.zeros(3_000_000))
    with pytest.warns(UserWarning, match="Each job of Holds writes and reads 24 MB of its own: process.held"):
        submit(np.ones(3_000_000))
