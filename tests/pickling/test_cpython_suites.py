"""CPython's own tests of enums and data classes, sent through a file: their classes behave in a job as they do here."""

from __future__ import annotations

import importlib
import sys
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
        found = unittest.TextTestRunner(io.StringIO()).run(suite)
        failed = [test for test, _ in found.failures + found.errors] + found.unexpectedSuccesses
        return found.testsRun, sorted({{getattr(test, "test_case", test).id() for test in failed}})
"""

LOOKED_UP_BY_TEXT = {  # the names that they look for stand in texts that their code puts together
    "test.test_enum": {"TestConvert.test_convert_complex"},
    "test.test_dataclasses": {"TestStringAnnotations.test_classvar"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOKED_UP_BY_TEXT)
def test_they_pass_in_a_job(cell, tmp_path, run_in_job, name):
    """Hundreds of them, run as a cell and sent off in one process; but for those that find globals by a text."""
    source = Path(find_spec(name).origin).read_text()
    namespace = cell(source.partition("\nif __name__ ==")[0])
    cases = [
        key for key, value in namespace.items() if isinstance(value, type) and issubclass(value, unittest.TestCase)
    ]
    process = cell(RUNS.format(cases=f"[{', '.join(cases)}]"))["Runs"]()
    Serializer.serialize_to_file(process, tmp_path / "process.job")
    count, failed = process.run()
    count_in_job, failed_in_job = run_in_job(tmp_path / "process.job")
    assert count > 100
    assert count_in_job == count
    assert {test.removeprefix("__main__.") for test in set(failed_in_job) - set(failed)} <= LOOKED_UP_BY_TEXT[name]


IN_A_HELPER = """
import importlib, io, unittest
class Runs:
    def __init__(self, module): self.module = module
    def run(self):
        suite = unittest.defaultTestLoader.loadTestsFromModule(self.module)
        found = unittest.TextTestRunner(io.StringIO()).run(suite)
        failed = [test for test, _ in found.failures + found.errors] + found.unexpectedSuccesses
        return found.testsRun, sorted({getattr(test, "test_case", test).id() for test in failed})
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOKED_UP_BY_TEXT)
def test_they_pass_in_a_helper_module(cell, tmp_path, run_in_job, monkeypatch, name):
    """All of them: a module beside the notebook is imported in the job, and so has every name."""
    folder = tmp_path / "notebook"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    helper = f"{name.rpartition('.')[2]}_of_a_helper"
    (folder / f"{helper}.py").write_text(Path(find_spec(name).origin).read_text())
    module = importlib.import_module(helper)
    try:
        process = cell(IN_A_HELPER)["Runs"](module)
        Serializer.serialize_to_file(process, tmp_path / "process.job")
        here = process.run()
        assert here[0] > 100
        assert run_in_job(tmp_path / "process.job") == here
    finally:
        del sys.modules[helper]


SENT = """
import io, unittest
def nothing(): ...
class Runs:
    def __init__(self, tests): self.tests = tests
    def run(self):
        found = unittest.TextTestRunner(io.StringIO()).run(unittest.TestSuite(self.tests))
        failed = [test for test, _ in found.failures + found.errors] + found.unexpectedSuccesses
        return found.testsRun, sorted({getattr(test, "test_case", test).id() for test in failed})
"""


@pytest.mark.slow
def test_enums_that_the_notebook_has_made_pass_in_a_job(cell, tmp_path, run_in_job):
    """What ``setUp`` of the suite makes is made here, and goes through the file."""
    namespace = cell(Path(find_spec("test.test_enum").origin).read_text().partition("\nif __name__ ==")[0])
    kinds = [one for one in namespace.values() if isinstance(one, type) and issubclass(one, unittest.TestCase)]
    cases = [one for one in kinds if one.setUp is not unittest.TestCase.setUp]
    tests = [test for case in cases for test in unittest.defaultTestLoader.loadTestsFromTestCase(case)]
    names = cell(SENT)
    for test in tests:
        test.setUp()
        test.setUp = names["nothing"]
    process = names["Runs"](tests)
    Serializer.serialize_to_file(process, tmp_path / "process.job")
    count, failed = process.run()
    assert count > 100
    assert len(failed) < count // 10
    assert run_in_job(tmp_path / "process.job") == (count, failed)
