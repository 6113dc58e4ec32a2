"""The source of a cell goes with its file."""

from __future__ import annotations

import functools
import importlib
import inspect
import linecache
import sys
import textwrap

import pytest

from jobcontainer import Serializer
from jobcontainer.pickling import source_code
from jobcontainer.pickling.source_code import source_of
from jobcontainer.process import Call

TRAIN = """\
import dataclasses

class Base:
    def shared(self):
        return 1 / self.zero

# a comment above
@dataclasses.dataclass
class Train(Base):
    \"\"\"Trains.\"\"\"

    zero: int = 0

    def run(self):
        return self.shared()  # the failing line

    class Inner:
        def method(self): ...

def fit(x):
    # how it is done
    return x
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "process.job"


def lines(first, last):
    return "".join(TRAIN.splitlines(keepends=True)[first - 1 : last])


def test_the_source_is_as_it_stood_in_the_cell(cell):
    """Of a class with its decorators and comments, of a nested one, of a function, however they are reached."""
    names = cell(TRAIN)
    cls, fit = names["Train"], names["fit"]
    for obj in (cls, cls(), Call(cls, (), {}), functools.partial(cls, 1)):
        assert source_of(obj) == lines(8, 18)
    assert source_of(cls.Inner()) == lines(17, 18)
    for obj in (fit, functools.partial(fit, 1), functools.partial(functools.partial(fit)), Call(fit, (1,), {})):
        assert source_of(obj) == lines(20, 22)
    assert source_of(cls().run) == lines(14, 15)
    assert source_of(functools.lru_cache(fit)) == lines(20, 22)


def test_a_cell_that_was_edited_and_run_again_is_another_source(cell):
    """Each object has the text of the cell that made it, also where both classes have the same name and line."""
    old = cell("class Same:\n    def run(self): return 'old'\n")["Same"]
    new = cell("class Same:\n    def run(self): return 'new'\n")["Same"]
    assert "old" in source_of(old)
    assert "new" in source_of(new)


def test_two_classes_of_one_name_in_one_cell_are_kept_apart(cell):
    """Each has the source of its own lines."""
    names = cell("class Same:\n    def a(self): ...\nfirst = Same\nclass Same:\n    def b(self): ...\n")
    assert source_of(names["first"]) == "class Same:\n    def a(self): ...\n"
    assert source_of(names["Same"]) == "class Same:\n    def b(self): ...\n"


def test_a_class_without_methods_is_found_by_its_name(cell):
    """In the latest cell that defines it."""
    cell("class Empty:\n    size = 1\n")
    cls = cell("class Empty:\n    size = 2\n")["Empty"]
    assert source_of(cls()) == "class Empty:\n    size = 2\n"


@pytest.mark.parametrize("obj", [5, int, len, type("Made", (), {}), None, [], print])
def test_what_has_no_source_has_an_empty_one(obj):
    """Built-in objects and generated code raise nothing."""
    assert source_of(obj) == ""


def test_a_class_of_a_file_has_its_source_too():
    """A class of an imported module, as one of a cell."""
    assert source_of(TestInAFile()).startswith("class TestInAFile:\n")


class TestInAFile:
    def test_nothing(self):
        """Stands for classes in modules."""


@pytest.mark.parametrize("generated", ["", "pass  # what attrs writes, and Python 3.13 for -c\n"])
def test_data_classes_without_methods_bring_their_source(cell, path, run_in_job, monkeypatch, generated):
    """What the decorator generates is in no cell, whatever lines its file has, so they are found by their name."""
    if generated:
        monkeypatch.setitem(linecache.cache, "<string>", (len(generated), None, [generated], "<string>"))
    names = cell(
        """\
        import dataclasses, inspect

        @dataclasses.dataclass
        class Settings:
            size: int = 1
        """
    )
    namespace = cell("class Asks:\n    def run(self): return inspect.getsource(Settings)\n")
    Serializer.serialize_to_file(namespace["Asks"](), path)
    assert (
        run_in_job(path)
        == source_of(names["Settings"])
        == "@dataclasses.dataclass\nclass Settings:\n    size: int = 1\n"
    )


def test_a_traceback_from_a_job_shows_the_failing_line(cell, path, run_in_job):
    """With the text of the cell, and what the class inherits from."""
    Serializer.serialize_to_file(cell(TRAIN)["Train"](), path)
    with pytest.raises(RuntimeError) as caught:
        run_in_job(path)
    text = str(caught.value)
    assert "return self.shared()  # the failing line" in text
    assert "return 1 / self.zero" in text
    assert "ZeroDivisionError" in text


def test_inspect_finds_source_inside_the_job(cell, path, run_in_job):
    """``inspect.getsource(type(self))``, of functions, of classes without methods; others are found as ever."""
    names = cell(
        """\
        import inspect, json

        class Settings:
            size = 1

        def helper():
            return 2

        class Asks:
            def run(self):
                made = type("Made", (), {})
                try:
                    inspect.getsource(made)
                except (OSError, TypeError) as error:
                    unknown = type(error).__name__
                return [
                    inspect.getsource(type(self)), inspect.getsource(Settings), inspect.getsource(helper),
                    inspect.getsource(json.JSONDecoder)[:18], inspect.getsource(self.run)[:18], unknown,
                ]
        """
    )
    Serializer.serialize_to_file(names["Asks"](), path)
    own, settings, helper, other, method, unknown = run_in_job(path)
    assert own == source_of(names["Asks"])
    assert own.startswith("class Asks:\n    def run(self):")
    assert settings == "class Settings:\n    size = 1\n"
    assert helper == "def helper():\n    return 2\n"
    assert other == "class JSONDecoder("
    assert method == "    def run(self):"
    assert unknown in {"OSError", "TypeError"}


def test_the_file_shows_the_source_without_being_loaded(cell, path):
    """Also after the cell was edited and run again; of a foreign file nothing is shown, as it proves nothing."""
    names = cell(TRAIN)
    Serializer.serialize_to_file(names["Train"](), path)
    cell(TRAIN.replace("zero: int = 0", "zero: int = 1"))
    assert Serializer.inspect(path).source == lines(8, 18)
    Serializer.serialize_to_file(Call(names["fit"], (1,), {}), path)
    facts = Serializer.inspect(path)
    assert (facts.class_name, facts.source) == ("fit", lines(20, 22))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobcontainer.jobfile.signing.is_signed", lambda *_, **__: False)
        assert Serializer.inspect(path).source == ""


def test_a_text_that_is_edited_on_disk_is_shown_as_it_was_at_submit(path, run_in_job, tmp_path, monkeypatch):
    """A helper's traceback in a queued job shows what runs, and not what the file holds by then."""
    file = tmp_path / "helper_edited.py"
    file.write_text("def fails():\n    raise ValueError('as submitted')  # line as submitted\n")
    monkeypatch.syspath_prepend(tmp_path)
    import helper_edited  # noqa: PLC0415 -- written just now

    Serializer.serialize_to_file(_Runs(helper_edited.fails), path)
    file.write_text("# edited\n\n\n")
    with pytest.raises(RuntimeError, match="# line as submitted"):
        run_in_job(path)


class _Runs:
    def __init__(self, function):
        self.function = function

    def run(self):
        return self.function()


def test_loading_in_a_notebook_leaves_what_is_known_alone(path, cell, tmp_path):
    """Texts of cells that are there, and of files on disk, stay; only a text that nobody knows is added."""
    namespace = cell("def here(): return 1\n")
    name = namespace["here"].__code__.co_filename
    gone = cell("def gone(): return 2\n")["gone"]
    Serializer.serialize_to_file([namespace["here"], gone, source_of], path)
    linecache.cache[name] = (3, None, ["# my own\n"], name)
    before = inspect.getfile
    del linecache.cache[gone.__code__.co_filename]
    on_disk = tmp_path / "on_disk.py"
    on_disk.write_text("# on disk\n")
    source_code.remember({str(on_disk): "# from a file"}, own_process=False)
    _, found, _ = Serializer.deserialize_from_file(path)
    assert linecache.getlines(name) == ["# my own\n"]
    assert linecache.getlines(str(on_disk)) == ["# on disk\n"]
    assert inspect.getsource(found) == "def gone(): return 2\n"
    assert inspect.getfile is before
    del linecache.cache[gone.__code__.co_filename]


def test_a_cell_that_is_no_python_any_more_does_no_harm(cell, path):
    """A text in linecache that can't be parsed is passed over."""
    namespace = cell("class Odd:\n    def run(self): return 5\n")
    name = namespace["Odd"].run.__code__.co_filename
    linecache.cache[name] = (1, None, ["class Odd(:\n"], name)
    Serializer.serialize_to_file(namespace["Odd"](), path)
    assert source_of(namespace["Odd"]()) == ""
    assert Serializer.deserialize_from_file(path).run() == 5


def test_a_module_that_is_half_edited_has_no_source(tmp_path, monkeypatch):
    """The tokenizer's error would come out of submit."""
    (tmp_path / "half_edited.py").write_text("def call(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("half_edited")
    (tmp_path / "half_edited.py").write_text("def call(: return 1\n")
    assert source_of(module.call) == ""
    del sys.modules["half_edited"]


def test_only_texts_of_code_in_the_file_are_in_it(cell, path):
    """Other cells may hold secrets."""
    cell("SECRET = 'keep secret'\n")
    namespace = cell(textwrap.dedent(TRAIN))
    Serializer.serialize_to_file(namespace["Train"](), path)
    assert b"failing line" in path.read_bytes()
    assert b"keep secret" not in path.read_bytes()
