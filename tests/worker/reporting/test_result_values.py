"""What of a result stands in tables."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict, namedtuple
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from jobcontainer.storage.plain_values import LONGEST_VALUE, MOST_VALUES, sound_values
from jobcontainer.storage.preview import read_preview
from jobcontainer.worker.reporting.preview import preview_result
from jobcontainer.worker.reporting.result_values import result_values


@dataclasses.dataclass
class Score:
    loss: float
    steps: int = 3

    @property
    def unlucky(self):
        raise SystemExit


class Point(NamedTuple):
    x: float
    y: float


class Evil:
    def __repr__(self):
        raise SystemExit(3)


class Unfriendly:
    def __repr__(self):
        raise ValueError("no text")


Old = namedtuple("Old", "a b")  # noqa: PYI024 -- the older way


@pytest.mark.parametrize(
    ("result", "values"),
    [
        ({"loss": np.float32(0.5), "epoch": 3}, {"loss": 0.5, "epoch": 3}),
        (OrderedDict(a=1), {"a": 1}),
        ({1: "one", ("a", 2): None}, {"1": "one", "('a', 2)": None}),
        (Score(0.5), {"loss": 0.5, "steps": 3}),
        (Point(1.0, 2.0), {"x": 1.0, "y": 2.0}),
        (Old(1, 2), {"a": 1, "b": 2}),
        (pd.Series({"auc": 0.5, "f1": 1.0}), {"auc": 0.5, "f1": 1.0}),
        (pd.Series([1, 2], index=[("a", 1), ("b", 2)]), {"('a', 1)": 1, "('b', 2)": 2}),
        (0.25, {"result": 0.25}),
        ([1, 2], {"result": [1, 2]}),
        ((1, 2), {"result": [1, 2]}),
        ({}, {"result": {}}),
        (Score, {"result": "text"}),
        (np.zeros(3), {"result": "text"}),
        (pd.DataFrame({"a": [1]}), {"result": "text"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_fields_of_a_result_are_columns(result, values):
    """Of a dict, a dataclass, a named tuple and a Series; any other result is one value."""
    assert result_values(result, "text") == values


@pytest.mark.parametrize(
    "make", [lambda n: dict.fromkeys(range(n), 0), lambda n: pd.Series(range(n))], ids=["dict", "Series"]
)
def test_a_result_of_many_fields_is_one_value(make):
    """A hundred are columns, a hundred and one are data."""
    assert len(result_values(make(MOST_VALUES), "")) == MOST_VALUES
    assert list(result_values(make(MOST_VALUES + 1), "text")) == ["result"]


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, "\ud800" * 10**4, b"\0" * 10**6, 2**100_000, {"a": {"b": {"c": {"d": 1}}}}, list(range(10**6)),
     np.zeros((300, 300)), object(), 1j, float("nan"), {"k" * 10**5: 1}],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("wrapped", [False, True], ids=["the whole", "a field"])
def test_hostile_values_are_short_texts(value, wrapped):
    """Whatever a field holds, the row is bounded JSON, and a reader finds every field of it."""
    values = result_values({"a": value, "b": 1} if wrapped else value, repr(type(value)) * 100)
    content = json.dumps(values)
    assert len(content) < 6 * LONGEST_VALUE + 500
    assert list(sound_values(json.loads(content))) == list(values)


@pytest.mark.parametrize(
    ("result", "problem"), [({"a": 1, "b": Evil()}, "SystemExit: 3"), (Score(Evil()), "SystemExit: 3")]
)
def test_a_field_that_ends_the_reading_costs_the_table_no_more_than_the_fields(tmp_path, result, problem):
    """The preview says what happened, and the table has the whole as a text."""
    preview_result(tmp_path / "preview.json", result, 7, lambda call: call())
    preview = read_preview(tmp_path / "preview.json")
    assert f"To read its fields raised {problem}." in preview.problem
    assert list(preview.fields) == ["result"]


def test_a_field_without_a_text_costs_the_others_nothing(tmp_path):
    """The loss of an epoch is there though its model can't be shown."""
    preview_result(tmp_path / "preview.json", {"loss": 0.5, "model": Unfriendly()}, 7, lambda call: call())
    preview = read_preview(tmp_path / "preview.json")
    assert preview.fields == {"loss": 0.5, "model": "<Unfriendly object>"}
    assert "ValueError" in preview.problem
