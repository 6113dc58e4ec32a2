"""Small plain values: what of a process and of a result stands in files and tables, without any code of a user."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
from decimal import Decimal
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcontainer.process import Call
from jobcontainer.storage.plain_values import MOST_VALUES, parameters_of, plain, plain_values, sound_values
from jobcontainer.storage.record import JobRecord

LARGEST = 400_000
"""Bytes of the parameters of one job, whatever its process holds."""


class Shade(enum.Enum):
    DARK = object()


class Slotted:
    __slots__ = ("__hidden", "_own", "depth", "unset")

    def __init__(self):
        self.depth, self._own, self.__hidden = 3, 1, 2


class Both(Slotted):
    unit = "of the class"

    def __init__(self):
        super().__init__()
        self.rate = 0.1


class Lies:
    """An object that raises at whatever it is asked."""

    def __init__(self):
        object.__getattribute__(self, "__dict__")["rate"] = 0.5

    def __getattribute__(self, name):
        raise SystemExit(name)

    def __eq__(self, _):
        raise SystemExit

    __hash__ = None


class LongText(str):
    __slots__ = ()

    def __len__(self):
        raise SystemExit

    __str__ = __len__


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(object),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=200,
)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (True, True),
        (2**200, 2**200),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int8(7), 7),
        (np.float64(1) == 1, True),
        (np.array(3), 3),
        (Shade.DARK, "DARK"),
        (dt.date(2026, 11, 28), "2026-11-28"),
        (Decimal("1.10"), "1.10"),
        (PurePosixPath("a/b"), "a/b"),
        ((1, "a", None), [1, "a", None]),
        ({"a": [1, 2]}, {"a": [1, 2]}),
        ("half \ud83d", "half \\ud83d"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_texts_and_few_of_them_are_plain(value, found):
    """They become Python's own types, which JSON holds."""
    assert plain(value) == found
    assert type(plain(value)) is type(found)
    assert json.loads(json.dumps(plain(value))) == found


def test_a_text_that_defends_itself_is_a_text():
    """Methods of its class are not called."""
    assert plain(LongText("short")) == "short"


def test_what_is_no_number_stays_none():
    """NaN and infinity are floats like others, and go through ``job.json``."""
    record = JobRecord(id="1", name="a", submitted=0.0, parameters={"rate": math.nan, "most": math.inf})
    data = json.loads(
        json.dumps({"id": "1", "name": "a", "submitted": 0.0, "sys_path": [], "parameters": record.parameters})
    )
    found = JobRecord.from_json(data).parameters
    assert math.isnan(found["rate"])
    assert found["most"] == math.inf


@pytest.mark.parametrize(
    "value",
    [2**300, "x" * 501, "\ud800" * 200, b"bytes", 1j, object(), np.zeros(3), [[[1]]], list(range(33)), {1: 2},
     {"x" * 101: 1}, ["x" * 499] * 5, {1, 2}],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_large_or_no_value_is_refused(value):
    """Nothing of it is cut: a value is there as it is, or not at all."""
    with pytest.raises(ValueError, match=r"too large|no "):
        plain(value)


def test_the_parameters_of_a_process_are_its_own_plain_attributes():
    """Those in slots and those in its dict; nothing of its class, none that is private."""
    assert parameters_of(Both()) == {"depth": 3, "rate": 0.1}


def test_no_code_of_a_process_runs_to_read_its_parameters():
    """A process that defends itself has the parameters of its dict, and is submitted as any other."""
    process = Lies()
    object.__getattribute__(process, "__dict__")["other"] = Lies()
    assert parameters_of(process) == {"rate": 0.5}


def test_texts_that_are_called_secrets_are_left_out():
    """A password is shown on no card; a number of tokens is no secret."""
    process = type("Asks", (), {})()
    names = ("api_key", "password", "hf_token", "tokenizer")
    vars(process).update(dict.fromkeys(names, "text"), max_tokens=256)
    assert parameters_of(process) == {"tokenizer": "text", "max_tokens": 256}


def train(rate, depth=2, *more, seed=0, **rest):
    """Take arguments of each kind."""


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        (Call(train, (0.1,), {}), {"rate": 0.1, "depth": 2, "more": [], "seed": 0}),
        (
            Call(train, (0.1, 3, 4), {"seed": 5, "width": 6}),
            {"rate": 0.1, "depth": 3, "more": [4], "seed": 5, "width": 6},
        ),
        (Call(partial(train, 0.1, seed=7), (), {}), {"depth": 2, "more": [], "seed": 7}),
        (Call(pow, (2, 3), {}), {"base": 2, "exp": 3, "mod": None}),
        (Call(max, (2, 3), {"key": None}), {"key": None}),
        (Call(train, (), {"depth": 9}), {"depth": 9}),
    ],
)
def test_the_parameters_of_a_call_are_its_arguments_by_name(call, parameters):
    """With the defaults; where the names can't be seen, those that were given."""
    assert parameters_of(call) == parameters


@settings(max_examples=20)  # of up to two hundred values each, which take hypothesis most of the time
@given(st.dictionaries(st.text(), anything))
def test_parameters_are_bounded_and_json_whatever_a_process_holds(attributes):
    """They fit into ``job.json``, and are the same when they are read."""
    process = type("Any", (), {})()
    vars(process).update(attributes)
    found = parameters_of(process)
    content = json.dumps(found)
    assert len(content) < LARGEST
    assert str(sound_values(json.loads(content))) == str(found)


def test_a_process_of_many_attributes_has_a_bounded_number_of_parameters():
    """The first hundred."""
    assert len(plain_values((f"n{number}", number) for number in range(10_000))) == MOST_VALUES


@pytest.mark.parametrize(
    "data", [None, [], "text", {"a": {"b": {"c": {"d": 1}}}}, {"a": "x" * 10**6}, {"a" * 10**4: 1}]
)
def test_data_that_a_job_has_written_is_bounded_too(data):
    """What is no small plain value is passed over."""
    assert sound_values(data) == {}
