"""What a card shows of a result or an exception, made by the job whatever their methods do."""

from __future__ import annotations

import base64
import json
import os
import time
from collections import Counter, OrderedDict, deque
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcontainer.storage.preview import LARGEST, LONGEST_TEXT, Preview, read_preview, write_preview
from jobcontainer.worker.reporting.bounded_repr import bounded_repr
from jobcontainer.worker.reporting.preview import described, preview_error, preview_result

RAISED = [ValueError("bad"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), RecursionError(), MemoryError()]


def call(function):
    """Call without a limit, as the inline engine does."""
    return function()


@pytest.fixture
def preview(tmp_path):
    """Make the preview of a value, and read it."""

    def make(value):
        preview_result(tmp_path / "preview.json", value, 7, call)
        return read_preview(tmp_path / "preview.json")

    return make


class Text(str):
    """A text that defends itself."""

    __slots__ = ()

    def __len__(self):
        raise SystemExit

    def __getitem__(self, _):
        raise SystemExit


def having(**methods):
    """Make an object of a class with these methods."""
    return type("Made", (), methods)()


def raising(error):
    def method(*_, **__):
        raise error

    return method


def test_a_result_has_its_type_size_and_text(preview):
    """As the job's own classes make it."""
    made = preview({"loss": 0.5})
    assert (made.type_name, made.size, made.data, made.problem) == ("dict", 7, {"text/plain": "{'loss': 0.5}"}, "")


def test_none_has_no_preview_and_replaces_one(preview):
    """That of an earlier attempt is gone."""
    assert preview(1) is not None
    assert preview(None) is None


def test_every_form_that_a_notebook_knows_is_kept(preview):
    """With the metadata of each; bytes as base64."""
    made = preview(
        having(
            __repr__=lambda _: "plain",
            _repr_html_=lambda _: "<b>html</b>",
            _repr_png_=lambda _: (b"\x89PNG", {"width": 3}),
            _repr_json_=lambda _: {"a": [1]},
            _repr_mimebundle_=lambda _, **__: ({"text/plain": "not this", "application/x": "own"}, {"text/html": 1}),
        )
    )
    assert made.data == {
        "text/plain": "plain",
        "text/html": "<b>html</b>",
        "image/png": base64.b64encode(b"\x89PNG").decode(),
        "application/json": {"a": [1]},
        "application/x": "own",
    }
    assert made.metadata == {"text/html": 1, "image/png": {"width": 3}}


@pytest.mark.parametrize("error", RAISED, ids=repr)
@pytest.mark.parametrize("name", ["__repr__", "_repr_html_", "_repr_mimebundle_"])
def test_a_method_that_raises_costs_its_own_form(preview, name, error):
    """Whatever it raises; the others are kept, and the preview says which it was."""
    sound = {"__repr__": lambda _: "plain", "_repr_markdown_": lambda _: "*kept*"}
    made = preview(having(**sound | {name: raising(error)}))
    assert made.data["text/markdown"] == "*kept*"
    assert made.data["text/plain"] == ("<test_preview.Made object>" if name == "__repr__" else "plain").replace(
        "test_preview", __name__
    )
    assert made.problem.startswith(f"Its {name}() raised {type(error).__name__}")


class Meta(type):
    """Its classes hide everything, and raise where they are asked for it."""

    def __getattribute__(cls, name):
        if name in {"__qualname__", "__module__", "_repr_html_"}:
            raise SystemExit(name)
        return super().__getattribute__(name)


class Hidden(metaclass=Meta):
    pass


class Liar:
    @property
    def __class__(self):
        raise SystemExit("no class")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(having(__repr__=lambda _: 5), id="text that is none"),
        pytest.param(having(_repr_html_=lambda _: object()), id="html that is none"),
        pytest.param(having(_repr_html_=lambda _: ("a", "b", "c")), id="a tuple of three"),
        pytest.param(having(_repr_json_=lambda _: {1: float("nan")}), id="no JSON"),
        pytest.param(having(_repr_html_=lambda _: "x" * 10_000_000), id="ten million characters"),
        pytest.param(having(__repr__=raising(having)), id="raises what is no exception"),
        pytest.param(having(__repr__=raising(type("E", (Exception,), {"__str__": raising(SystemExit())}))), id="mute"),
        pytest.param(Hidden(), id="metaclass"),
        pytest.param(Liar(), id="no class"),
    ],
)
def test_nonsense_is_named_and_the_rest_is_shown(preview, value):
    """There is a text in any case, and a sentence about what is missing."""
    made = preview(value)
    assert made.problem
    assert made.data["text/plain"]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(having(__repr__=lambda _: Text("own text")), id="a text of its own class"),
        pytest.param(having(__repr__=lambda _: "half \ud83d"), id="half a character"),
        pytest.param("half \ud83d", id="half a character itself"),
        pytest.param(having(__repr__=lambda _: "x" * 10_000_000), id="ten million characters"),
        pytest.param(MagicMock(), id="answers to every name"),
        pytest.param(dict.fromkeys(range(100), "x" * 10_000), id="long texts"),
        pytest.param(10**100_000, id="a large number"),
        pytest.param(having, id="a function"),
        pytest.param(Hidden, id="a class that hides"),
    ],
)
def test_odd_values_have_a_bounded_text(preview, value):
    """Nothing went wrong, and the file is small."""
    made = preview(value)
    assert 0 < len(made.data["text/plain"]) < 3 * LONGEST_TEXT


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda part: (
        st.lists(part) | st.tuples(part) | st.tuples(part, part) | st.dictionaries(st.text(), part) | st.just(set())
    ),
)


@given(PLAIN)
def test_the_text_of_plain_data_is_its_repr(value):
    """But for the ends of its lines."""
    assert "".join(bounded_repr(value, 10**6).split()) == "".join(repr(value).split())


@pytest.mark.parametrize(
    "make",
    [dict.fromkeys, list, tuple, set, frozenset, deque, Counter, OrderedDict.fromkeys],
    ids=["dict", "list", "tuple", "set", "frozenset", "deque", "Counter", "OrderedDict"],
)
def test_the_text_of_a_large_container_costs_nothing(make):
    """Not its size counts, but what is shown of it."""
    value = make(range(1_000_000))
    begun = time.process_time()
    for nested in (value, [value], {"a": (value,)}):
        assert len(bounded_repr(nested, LONGEST_TEXT)) < 10_000
        assert "1,000,000" in bounded_repr(nested, LONGEST_TEXT)
    assert time.process_time() - begun < 0.1


def test_a_container_that_holds_itself_ends():
    """As Python writes it."""
    value = [1]
    value.append({"self": value})
    assert bounded_repr(value, 100) == "[1, {'self': [...]}]"


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_an_exception_whose_message_raises_has_a_traceback(error):
    """It says where it was raised, and that the message can't be had."""
    mute = type("Mute", (Exception,), {"__str__": raising(error)})
    with pytest.raises(mute) as caught:
        raising(mute())()
    message, text = described(caught.value, call)
    assert f"its __str__() raised {type(error).__name__}" in message
    assert "test_preview.py" in text
    assert text.startswith("Traceback (most recent call last):\n")


def test_the_end_of_a_long_traceback_is_kept(tmp_path):
    """With a note of what is missing."""
    preview_error(tmp_path / "preview.json", "x" * 10**6 + "the end")
    text = read_preview(tmp_path / "preview.json").traceback
    assert text.endswith("the end")
    assert text.startswith("… (1,000,007 characters) ")
    assert len(text) < LONGEST_TEXT + 100


def test_of_a_preview_that_is_too_large_the_text_is_kept(tmp_path):
    """Whatever the other forms are."""
    path = tmp_path / "preview.json"
    forms = {f"image/{number}": "x" * 900_000 for number in range(5)}
    write_preview(path, Preview(data={"text/plain": "kept"} | forms))
    assert path.stat().st_size < LARGEST
    assert read_preview(path).data == {"text/plain": "kept"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff", b"x" * (LARGEST + 1), b'"text"'])
def test_what_is_no_preview_is_none(tmp_path, content):
    """A job can write anything there."""
    path = tmp_path / "preview.json"
    path.write_bytes(content)
    assert read_preview(path) is None


def test_a_field_of_another_type_is_left_out(tmp_path):
    """The others are kept."""
    path = tmp_path / "preview.json"
    path.write_text(json.dumps({"size": "7", "data": [], "problem": None, "type_name": "T", "unknown": 1}))
    assert read_preview(path) == Preview(type_name="T")


def test_nobody_waits_for_a_pipe_or_follows_a_link(tmp_path):
    """In place of a preview there is none then."""
    for name, make in (("pipe", os.mkfifo), ("link", lambda path: path.symlink_to("/dev/zero")), ("folder", os.mkdir)):
        make(tmp_path / name)
        assert read_preview(tmp_path / name) is None
