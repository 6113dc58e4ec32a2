"""What is used of cloudpickle's private parts is there and does what is expected of it.

These tests fail first, and name the part, when a new release of cloudpickle has changed one.
"""

from __future__ import annotations

import ast
import enum
import pickle
import types
from pathlib import Path

import cloudpickle
import pytest

import jobcontainer
from jobcontainer.pickling import cloudpickle_internals as internals
from jobcontainer.pickling.pickler import NullFile

FACTOR = 2


class Plain:
    """A class that a test takes apart."""

    value = 5

    def double(self):
        return self.value * FACTOR


class Colour(enum.Enum):
    RED = 1


def outer():
    count = 0

    def inner(step=1):
        return count + step * FACTOR

    return inner


@pytest.fixture
def pickler():
    return internals.BasePickler(NullFile(), protocol=5)


def test_only_one_module_imports_cloudpickle_or_knows_its_private_names():
    """A change of cloudpickle changes one module."""
    private = {name for name in dir(cloudpickle.cloudpickle) if name.startswith("_") and not name.startswith("__")}
    private |= {name for name in vars(cloudpickle.Pickler) if name.startswith("_") and not name.startswith("__")}
    private |= {"globals_ref", "_cloudpickle_submodules"}
    for module in Path(jobcontainer.__file__).parent.rglob("*.py"):
        if module.name == "cloudpickle_internals.py":
            continue
        text = module.read_text()
        used = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
        own = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
        assert not (used - own) & private, module
        assert "import cloudpickle\n" not in text, module
        assert "_cloudpickle_submodules" not in text, module


def test_classes_of_its_own_streams_are_made_and_then_filled():
    """By the very functions that are replaced when such a stream is loaded; the id is the last argument but one."""
    make, arguments, state, _, _, fill = cloudpickle.cloudpickle._dynamic_class_reduce(Plain)
    assert (make, fill) == (internals.MAKE_CLASS, internals.SET_CLASS)
    assert arguments[-2:] == (internals.tracker_id(Plain), None)
    made = make(*arguments[:-2], None, arguments[-1])  # an id of None: it is not tracked
    assert made is not Plain
    fill(made, state)
    assert made().double() == 10


def test_enums_of_its_own_streams_are_made_in_one_step():
    """Their id is in the same place as that of a class."""
    make, arguments, *_ = cloudpickle.cloudpickle._dynamic_class_reduce(Colour)
    assert make is internals.MAKE_ENUM
    assert arguments[-2:] == (internals.tracker_id(Colour), None)
    assert make(*arguments[:-2], None, None).RED.value == 1


def test_a_live_class_is_found_by_its_id():
    """And has the same one each time it is asked for."""
    assert internals.live_class(internals.tracker_id(Plain)) is Plain
    assert internals.tracker_id(Plain) == internals.tracker_id(Plain)
    assert internals.live_class("no such id") is None


def test_classes_are_tracked_all_or_none():
    """One id that is taken refuses them all, unless they replace what is there."""
    first, second = (type(name, (), {}) for name in ("First", "Second"))
    assert internals.track([("id of first", first)], anew=False)
    assert not internals.track([("id of second", second), ("id of first", second)], anew=False)
    assert internals.live_class("id of second") is None
    assert internals.track([("id of first", second)], anew=True)
    assert internals.live_class("id of first") is second


def test_what_can_be_imported_goes_by_name():
    """Built-in types without a name of their own have a call."""
    assert internals.class_by_name(pickle.Pickler) is None
    assert internals.class_by_name(type(None)) == (type, (None,))
    assert internals.goes_by_name(pickle.Pickler)
    assert internals.goes_by_name(pickle)
    assert internals.goes_by_name(ast.parse)
    assert not internals.goes_by_name(outer())


def test_a_function_by_value_is_made_with_given_cells(pickler):
    """Its globals, attributes and submodules can be added to before it is pickled."""
    function = outer()
    function.note = "mine"
    make, arguments, parts = pickler.function_by_value(function, (types.CellType(7),))
    assert parts.globals == {"FACTOR": 2}
    assert parts.attributes == {"note": "mine"}
    assert parts.submodules == []
    parts.globals["FACTOR"] = 10
    made = make(*arguments)
    made.__globals__.update(parts.globals)
    assert made(step=2) == 27
    assert parts.given_members(function)["__defaults__"] == (1,)
    assert "__qualname__" not in parts.given_members(function)  # it is in the code


def test_the_globals_of_a_function_can_be_replaced(pickler):
    """Functions of a helper module share the module's namespace."""
    replacement = {"FACTOR": 100}
    function = outer()
    pickler.replace_namespace(function.__globals__, replacement)
    _, arguments, _ = pickler.function_by_value(function, (types.CellType(0),))
    assert any(argument is replacement for argument in arguments)


def test_a_code_object_keeps_the_name_of_its_file():
    """Whatever cloudpickle itself does with it."""
    code = outer.__code__
    make, arguments = internals.code_by_value(code)
    assert make(*arguments) == code
    assert make(*arguments).co_filename == __file__


def test_what_streams_call_is_known():
    """These functions are never pickled by value."""
    for function in (internals.MAKE_CLASS, internals.MAKE_ENUM, internals.MAKE_EMPTY_CELL, internals.SET_CLASS):
        assert function in internals.MACHINERY
        assert function.__module__ == internals.MODULE_NAME
    assert internals.IMPORT_MODULE("json.decoder").JSONDecoder
    with pytest.raises(ValueError, match="empty"):
        _ = internals.MAKE_EMPTY_CELL().cell_contents
