"""Jobs as records: whatever parameters and results are called, each has a field of its own."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from jobcontainer.views import records
from jobcontainer.views.records import FACTS, JOB, columns_of, records_of

PARTS = st.sampled_from(["job", "state", "result", "process", "rate", "error"])
NAMES = st.lists(PARTS, min_size=1, max_size=3).map(".".join)
VALUES = st.dictionaries(NAMES, st.integers(0, 2), max_size=6)


def read(parameters, values, number=0):
    facts = dict.fromkeys(FACTS, "a fact")
    return records._Read(f"20261122-{number}-a", facts, parameters, values)


def records_with(*jobs):
    """The records of jobs that were read already."""
    found = [read(*job, number) for number, job in enumerate(jobs)]
    return records_of([SimpleNamespace(read=one) for one in found])


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=3))
def test_nothing_is_overwritten(jobs):
    """Every parameter and every value of a result that says more than it stands in the record, under one name."""
    with_read = records._read
    records._read = lambda job: job.read
    try:
        found = records_with(*jobs)
    finally:
        records._read = with_read
    names = {name for parameters, _ in jobs for name in parameters}
    repeated = {
        name
        for name in names
        if all(name not in values or (name in given and given[name] == values[name]) for given, values in jobs)
    }
    for record, (parameters, values) in zip(found, jobs, strict=True):
        told = [value for name, value in values.items() if name not in repeated]
        assert len(record) == 1 + len(parameters) + len(FACTS) + len(told)
        assert [record[name] for name in FACTS] == ["a fact"] * len(FACTS)
        assert list(record.values())[1 : 1 + len(parameters)] == list(parameters.values())
        assert list(record.values())[1 + len(parameters) + len(FACTS) :] == told
    assert sorted(columns_of(found)) == sorted({name for record in found for name in record})


def test_the_names_of_what_collides(monkeypatch):
    """A parameter gets ``process.`` before it, a value of a result ``result.``; also where it begins with that."""
    monkeypatch.setattr(records, "_read", lambda job: job.read)
    (record,) = records_with(
        ({"rate": 1, "state": 2, "process.state": 3, "result.rate": 4}, {"rate": 5, "job": 6, "result.rate": 7})
    )
    assert list(record) == [
        JOB,
        "rate",
        "process.state",
        "process.process.state",
        "process.result.rate",
        *FACTS,
        "result.rate",
        "result.job",
        "result.result.rate",
    ]
    assert [value for name, value in record.items() if name not in {JOB, *FACTS}] == [1, 2, 3, 4, 5, 6, 7]
