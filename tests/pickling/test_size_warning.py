"""A process that is large by accident says why."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from jobcontainer.jobfile.serializer import write_file
from jobcontainer.pickling.size_warning import largest_parts


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
    with pytest.warns(UserWarning, match="The file of Train has 37") as caught:
        write_file(names["Train"](), path, kind="process")
    [warning] = caught
    assert "help() -> global table 24 MB, process.data['train'] 8 MB, process.text 5 MB" in str(warning.message)
    assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_file(names["Train"](), path, kind="process")


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
