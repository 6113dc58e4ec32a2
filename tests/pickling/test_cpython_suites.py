"""CPython's own tests of enums and data classes, sent through a file: their classes behave in a job as they do here."""

from __future__ import annotations

import unittest
from importlib.util import find_spec
from pathlib import Path

import pytest

from jobcontainer import Serializer

RUNS = """
import io, unittest
class Runs:
    def run(self):
        suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, {cases}))
        result = unittest.TextTestRunner(io.StringIO()).run(suite)
        problems = result.failures + result.errors + [(test, "unexpected success") for test in result.unexpectedSuccesses]
        return result.testsRun, {{test.id(): trace for test, trace in problems}}
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "process.job"


@pytest.mark.parametrize("name", ["test.test_enum", "test.test_dataclasses"])
def test_it_passes_in_a_job(cell, path, run_in_job, name):
    source = Path(find_spec(name).origin).read_text()
    namespace = cell(source.partition("\nif __name__ ==")[0])
    cases = [key for key, value in namespace.items() if isinstance(value, type) and issubclass(value, unittest.TestCase)]
    process = cell(RUNS.format(cases=f"[{', '.join(cases)}]"))["Runs"]()
    Serializer.serialize_to_file(process, path)
    here_count, here = process.run()
    there_count, there = run_in_job(path)
    print(here_count, list(here))
    print(there_count)
    for k in there.keys() - here.keys(): print(k, there[k])
    assert there_count == here_count
    assert there.keys() == here.keys()
