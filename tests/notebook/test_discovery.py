"""Which values of a last expression are processes."""

from __future__ import annotations

import collections
import types

import pytest

from jobcontainer.notebook.discovery import NothingToRunError, find_in_value


class Task:
    def run(self):
        return 1


class Needy:
    def __init__(self, lr):
        self.lr = lr

    def run(self):
        return self.lr


class Odd:
    def __getattribute__(self, name):
        raise ValueError("on purpose")


def test_a_value_that_can_not_be_asked_is_no_process():
    """The last expression of a cell may be anything."""
    assert find_in_value(Odd()) is None
    assert find_in_value([Odd()]) is None


@pytest.mark.parametrize(
    ("value", "count", "as_group"),
    [
        (Task(), 1, False),
        (Task, 1, False),
        ([Task(), Task], 2, True),
        ((Task() for _ in range(3)), 3, True),
        ({"a": Task(), "b": Task()}.values(), 2, True),
        ({"a": Task(), "b": Task}, 2, True),
        (collections.OrderedDict({0.1: Task()}), 1, True),
        (types.MappingProxyType({"a": Task()}), 1, True),
        (frozenset([Task()]), 1, True),
        (collections.deque([Task()]), 1, True),
        (map(Needy, (0.1, 0.2)), 2, True),
    ],
)
def test_processes_and_iterables_of_them_are_found(value, count, as_group):
    """Instances are taken, and classes that need no arguments."""
    found = find_in_value(value)
    assert len(found.processes) == count
    assert found.as_group is as_group
    assert all(not isinstance(process, type) and callable(process.run) for process in found.processes)


@pytest.mark.parametrize(
    "value", [None, 5, "text", b"run", [], {}, {"run": 1}, [1, 2], range(10**12), collections, "run", [None]]
)
def test_other_values_have_no_process(value):
    """Numbers, strings, modules, empty and endless iterables have none."""
    assert find_in_value(value) is None


def test_an_iterator_of_other_things_loses_no_more_than_its_first_item():
    """An endless iterator is not consumed."""
    numbers = iter(range(10**12))
    assert find_in_value(numbers) is None
    assert next(numbers) == 1


def test_an_item_without_run_is_named():
    """The error names its index and type."""
    with pytest.raises(NothingToRunError, match="Item 1 of the last expression, of type int"):
        find_in_value([Task(), 5, Task()])


def test_a_class_that_needs_arguments_is_named_with_them():
    """The error says what to write instead."""
    with pytest.raises(NothingToRunError, match=r"Needy needs lr: end the cell with an instance, Needy\(lr=...\)"):
        find_in_value([Task, Needy])


def test_the_keys_of_a_dict_come_along():
    """They name the jobs; a dict in which only some values are processes is an error, and one without any is none."""
    found = find_in_value({0.1: Task(), "b": Task})
    assert list(found.named) == [0.1, "b"]
    assert find_in_value([Task()]).keys is None
    with pytest.raises(NothingToRunError, match="Item 1 of the last expression, of type int"):
        find_in_value({"a": Task(), "b": 5})
    assert find_in_value({"a": 5, "b": Task()}) is None
