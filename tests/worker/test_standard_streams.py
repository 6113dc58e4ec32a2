"""The notebook's standard streams, wherever an object holds them, and files that it holds open."""

from __future__ import annotations

import io
import logging
import sys
import threading

import pytest

from jobcontainer import JobPool, SerializationError, diagnose
from jobcontainer.jobfile.serializer import Serializer


class Holds:
    """Holds streams as an attribute, as one of its class, as a default argument and through a method."""

    of_class = sys.stderr

    def __init__(self):
        self.out, self.write = sys.stdout, sys.stdout.write

    def run(self, default=sys.stdout):
        print("attribute", file=self.out)
        print("default", file=default)
        print("of class", file=self.of_class)
        self.write("method\n")
        return self.out is sys.stdout, self.of_class is sys.stderr, default is sys.stdout


class Logs:
    """Holds a handler of logging, with a formatter, which writes to standard error."""

    def __init__(self, handler):
        self.handler = handler
        self.handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        self.handler.setLevel(logging.INFO)

    def run(self):
        logger = logging.getLogger("of the job")
        logger.addHandler(self.handler)
        logger.warning("one")
        logger.debug("not shown")
        return type(self.handler).__name__, self.handler.stream is sys.stderr


class Loud(logging.StreamHandler):
    """A handler of the notebook's own."""

    def format(self, record):
        return super().format(record).upper()


class Sink:
    """As loguru keeps a stream: in a slot of an object that is held by another."""

    __slots__ = ("stream",)

    def __init__(self, stream):
        self.stream = stream

    def run(self):
        self.stream.write("sunk\n")
        return [self.stream is sys.stderr]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with JobPool(1, store=tmp_path_factory.mktemp("store")) as pool:
        yield pool


def test_a_stream_that_an_object_holds_is_the_jobs_own(pool):
    """What is written to it is in the job's log, whoever holds it."""
    Holds.of_class = sys.stderr
    Holds.run.__defaults__ = (sys.stdout,)
    job = pool.submit(Holds())
    assert job.result() == (True, True, True)
    assert job.log.splitlines() == ["attribute", "default", "of class", "method"]


@pytest.mark.parametrize("kind", [logging.StreamHandler, Loud])
def test_a_handler_of_logging_writes_to_the_jobs_own(pool, kind):
    """It keeps its level and its formatter, and has a lock of its own."""
    job = pool.submit(Logs(kind(sys.stderr)))
    assert job.result() == (kind.__name__, True)
    assert job.log == ("WARNING: ONE\n" if kind is Loud else "WARNING: one\n")


def test_streams_of_the_start_and_of_a_kernel_are_the_jobs_own_too(pool):
    """``sys.__stderr__`` while standard error is redirected, and a kernel's stream while its cell captures output."""
    stream = sys.__stderr__
    job = pool.submit(Sink(stream))
    assert (job.result(), job.log) == ([True], "sunk\n")
    kernels = type("OutStream", (io.TextIOBase,), {"__module__": "ipykernel.iostream", "name": "stderr"})
    job = pool.submit(Sink(kernels()))
    assert (job.result(), job.log) == ([True], "sunk\n")


def test_a_stream_in_a_result_is_the_notebooks(pool):
    """The way back is the same: what the job held becomes this process's stream."""
    assert pool.submit(lambda: [sys.stdout, sys.__stderr__]).result() == [sys.stdout, sys.stderr]


@pytest.mark.parametrize("mode", ["r", "w", "a", "rb"])
def test_an_open_file_is_refused(tmp_path, mode):
    """A text file that is read, of which cloudpickle makes a copy in memory, as well as any other."""
    path = tmp_path / "data.txt"
    path.write_text("text")
    with path.open(mode) as file:
        (culprit,) = diagnose({"file": file})
        with pytest.raises(SerializationError, match="pass its path"):
            Serializer.serialize_to_file([file], tmp_path / "file.job")
    assert culprit.path == "obj['file']"


def test_files_in_memory_and_streams_that_are_none_go_as_before(tmp_path, monkeypatch):
    """A ``StringIO`` travels with its text, also where it stands for standard output; a lock in a subclass is named."""
    memory = io.StringIO("text")
    Serializer.serialize_to_file(memory, tmp_path / "memory.job")
    assert Serializer.deserialize_from_file(tmp_path / "memory.job").read() == "text"
    monkeypatch.setattr(sys, "stdout", None)
    assert diagnose([None, memory]) == []
    handler = logging.StreamHandler(io.StringIO())
    assert [culprit.path for culprit in diagnose([handler, threading.Lock()])] == ["obj[0]", "obj[1]"]
