"""A class of the notebook is in a job what it is in the notebook, attribute by attribute."""

from __future__ import annotations

import pytest
from class_cells import CELLS
from describing import differences

from jobcontainer import Serializer

ASKS = """
from describing import describe
class Asks:
    def run(self):
        return describe({subjects}), check() if {checks} else None
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "process.job"


@pytest.mark.parametrize("name", CELLS)
def test_a_class_is_the_same_in_a_job(cell, path, run_in_job, name):
    """What it is made of, what is shared with whom, how it behaves: described on both sides, and compared."""
    subjects, source = CELLS[name]
    namespace = cell(source)
    namespace = cell(ASKS.format(subjects=", ".join(subjects.split()), checks="check" in namespace))
    Serializer.serialize_to_file(namespace["Asks"](), path)
    here, answer_here = namespace["Asks"]().run()
    there, answer_there = run_in_job(path)
    assert answer_there == answer_here
    assert list(differences(here, there)) == []
