"""Why an object can't go into a file: every culprit, by its path, its type and what to do."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import copyreg
import csv
import ctypes
import dataclasses
import functools
import hashlib
import io
import logging
import mmap
import multiprocessing
import os
import queue
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import types
import weakref
import zipfile
from pathlib import Path

import ipywidgets
import numpy as np
import pytest

from jobcontainer import SerializationError, Serializer, diagnose
from jobcontainer.pickling import diagnosis
from jobcontainer.process import Call

pytestmark = pytest.mark.usefixtures("as_notebook")


class Holder:
    """A process that holds something."""

    def __init__(self, **given):
        vars(self).update(given)

    def run(self):
        return self


class Raises:
    def __reduce__(self):
        raise ValueError("not today")


class RaisesInState:
    def __getstate__(self):
        raise KeyError("state")


class ReturnsNonsense:
    def __reduce__(self):
        return 5


class ReturnsWrongTuple:
    def __reduce__(self):
        return "not a function", ()


class NamesAnother:
    def __reduce__(self):
        return "Holder"


class MakesLockWhenAsked:
    def __getstate__(self):
        return {"inner": [threading.Lock()]}


class WeakReferenced:
    pass


def _generator():
    yield 1


async def _coroutine():
    pass


async def _async_generator():
    yield 1


def _frame():
    return sys._getframe()


def _trace():
    try:
        return 1 / 0
    except ZeroDivisionError as error:
        return error.__traceback__


@contextlib.contextmanager
def _closing(thing):
    try:
        yield thing
    finally:
        thing.close()


def _of(make):
    """Make something that needs no end."""
    return lambda stack: make()  # noqa: ARG005 -- as those that do


def _closed(make):
    """Make something that is closed at the end."""
    return lambda stack: stack.enter_context(_closing(make()))


def _popen(stack):
    return stack.enter_context(subprocess.Popen([sys.executable, "-c", ""]))


def _executor(stack):
    return stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))


def _mp_queue(stack):
    made = multiprocessing.get_context("fork").SimpleQueue()
    return stack.enter_context(_closing(made))


def _dir_entry(_):
    with os.scandir("/") as entries:
        return next(entries)


def _scandir(stack):
    return stack.enter_context(os.scandir("/"))


def _loop(stack):
    return stack.enter_context(_closing(asyncio.new_event_loop()))


def _closed_coroutine(stack):
    return stack.enter_context(_closing(_coroutine()))


def _handler(stack):
    return stack.enter_context(_closing(logging.StreamHandler(io.StringIO())))


def _widget():
    """One that is shown somewhere, as far as pickle is concerned."""
    made = ipywidgets.IntSlider()
    made.shown = threading.Lock()
    return made


def _file(stack, mode):
    return stack.enter_context(Path(os.devnull).open(mode))


# what, its maker, the name of its type, words of the hint
TABLE = [
    ("lock", _of(threading.Lock), "_thread.lock", "make it inside run()"),
    ("reentrant lock", _of(threading.RLock), "_thread.RLock", "make it inside run()"),
    ("condition", _of(threading.Condition), "threading.Condition", "make it inside run()"),
    ("event", _of(threading.Event), "threading.Event", "make it inside run()"),
    ("semaphore", _of(lambda: threading.Semaphore(2)), "threading.Semaphore", "make it inside run()"),
    ("barrier", _of(lambda: threading.Barrier(2)), "threading.Barrier", "make it inside run()"),
    ("thread", _of(threading.Thread), "threading.Thread", "make it inside run()"),
    ("thread-local", _of(threading.local), "_thread._local", "make it inside run()"),
    ("queue", _of(queue.Queue), "queue.Queue", "make it inside run()"),
    ("simple queue", _of(queue.SimpleQueue), "_queue.SimpleQueue", "make it inside run()"),
    ("queue between processes", _mp_queue, "multiprocessing.queues.SimpleQueue", "make it inside run()"),
    ("executor", _executor, "concurrent.futures.thread.ThreadPoolExecutor", "make it inside run()"),
    ("future", _of(concurrent.futures.Future), "concurrent.futures._base.Future", "result()"),
    ("program", _popen, "subprocess.Popen", "start it inside run()"),
    ("binary file", lambda stack: _file(stack, "rb"), "_io.BufferedReader", "open it inside run()"),
    ("file to write", lambda stack: _file(stack, "w"), "_io.TextIOWrapper", "open it inside run()"),
    ("temporary file", _closed(tempfile.NamedTemporaryFile), "tempfile._TemporaryFileWrapper", "open it inside run()"),
    ("zip file", _closed(lambda: zipfile.ZipFile(io.BytesIO(), "w")), "zipfile.ZipFile", "open it inside run()"),
    ("memory map", _closed(lambda: mmap.mmap(-1, 10)), "mmap.mmap", "open it inside run()"),
    ("csv writer", _of(lambda: csv.writer(io.StringIO())), "_csv.writer", "open it inside run()"),
    ("directory entry", _dir_entry, "posix.DirEntry", "entry.path"),
    ("directory listing", _scandir, "posix.ScandirIterator", "a list of what is left"),
    ("database", _closed(lambda: sqlite3.connect(":memory:")), "sqlite3.Connection", "make it inside run()"),
    ("socket", _closed(socket.socket), "socket.socket", "make it inside run()"),
    ("tls context", _of(ssl.create_default_context), "ssl.SSLContext", "make it inside run()"),
    ("generator", _of(_generator), "generator", "pass a list"),
    ("async generator", _of(_async_generator), "async_generator", "pass a list"),
    ("coroutine", _closed_coroutine, "coroutine", "asyncio.run()"),
    ("event loop", _loop, "asyncio.unix_events._UnixSelectorEventLoop", "asyncio.run()"),
    ("frame", _of(_frame), "frame", "traceback.format_exc()"),
    ("traceback", _of(_trace), "traceback", "traceback.format_exc()"),
    ("weak reference", _of(lambda: weakref.ref(Holder)), "weakref.ReferenceType", "pass the object itself"),
    ("widget", _of(_widget), "ipywidgets.widgets.widget_int.IntSlider", "slider.value"),
    ("log handler", _handler, "logging.StreamHandler", "set up logging inside run()"),
    ("digest", _of(hashlib.sha256), "_hashlib.HASH", "hexdigest()"),
    ("context variable", _of(lambda: contextvars.ContextVar("name")), "_contextvars.ContextVar", "inside run()"),
    ("context", _of(contextvars.copy_context), "_contextvars.Context", "inside run()"),
    ("pointer", _of(lambda: ctypes.pointer(ctypes.c_int(1))), None, "memory of this process"),
    ("__reduce__ that raises", _of(Raises), "Raises", "raised ValueError: not today"),
    ("__getstate__ that raises", _of(RaisesInState), "RaisesInState", "raised KeyError: 'state'"),
    ("__reduce__ of nonsense", _of(ReturnsNonsense), "ReturnsNonsense", "__reduce__() returned 5"),
    ("__reduce__ of a wrong tuple", _of(ReturnsWrongTuple), "ReturnsWrongTuple", "__reduce__() returned"),
    ("name of another object", _of(NamesAnother), "NamesAnother", "Holder"),
]


@pytest.mark.parametrize(("make", "type_name", "hint"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_of_the_table_is_named(make, type_name, hint, tmp_path, monkeypatch):
    """Where it hangs, what it is, what to do; in the error and its culprits, by ``diagnose`` too; no file is left."""
    monkeypatch.delitem(copyreg.dispatch_table, types.TracebackType, raising=False)  # distributed makes them fit
    with contextlib.ExitStack() as stack:
        thing = make(stack)
        process = Holder(cfg={"deep": [1, thing]}, fine=np.zeros(3))
        found = diagnose(process)
        with pytest.raises(SerializationError) as caught:
            Serializer.serialize_to_file(process, tmp_path / "process.job")
        del process, thing
    assert [culprit.path for culprit in found] == ["process.cfg['deep'][1]"]
    [culprit] = found
    assert type_name in {None, culprit.type_name}
    assert hint is None or hint in culprit.hint
    assert caught.value.culprits == tuple(found)
    assert f"Holder can't go into a file, because of:\n  {culprit}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_long_enough():
    """It has the types that people have lost time with."""
    assert len(TABLE) >= 30


connection = sqlite3.connect(":memory:")
settings = {"db": {"main": [connection]}}
handles = {}


def connect():
    return connection.execute("select 1")


def connect_deeply():
    return connect()


def with_default(first, second=handles, *, third=(connection,)):
    return first, second, third


def closing_over():
    secret = threading.Lock()

    def inner():
        return secret

    return inner


class Model:
    shared = threading.RLock()

    def __init__(self):
        self.lock = threading.Lock()

    def fit(self):
        return settings

    @property
    def setting(self):
        return settings["db"]

    @staticmethod
    def helper():
        return settings

    @functools.cached_property
    def cached(self):
        return settings


class UsesGlobal:
    def run(self):
        return connection


class UsesFunction:
    def run(self):
        return connect_deeply()


class UsesLambda:
    def run(self):
        return sorted(range(3), key=lambda _: settings)


class UsesModel:
    def run(self):
        return Model


class HasClassAttribute:
    pool = connection

    def run(self):
        return 1


class Inherits(HasClassAttribute):
    pass


class Slots:
    __slots__ = ("inner",)


@dataclasses.dataclass
class Data:
    name: str
    handle: object = None


class Items(list):
    pass


class Texts(dict):
    pass


def _slots():
    made = Slots()
    made.inner = threading.Lock()
    return made


def _function_with_attribute():
    def made():
        return 1

    made.handle = threading.Lock()
    return made


PATHS = {
    "attribute": (
        lambda: Holder(inner=Holder(lock=threading.Lock())),
        {"process.inner.lock"},
    ),
    "attributes of attributes": (
        lambda: Holder(model=Model()),
        {"process.model.lock", "Model.shared", "Model.fit() -> global settings['db']['main'][0]"},
    ),
    "dict, list, tuple": (lambda: Holder(cfg={"db": [(0, threading.Lock())]}), {"process.cfg['db'][0][1]"}),
    "dict with odd keys": (lambda: Holder(cfg={(1, "a"): {None: threading.Lock()}}), {"process.cfg[(1, 'a')][None]"}),
    "key of a dict": (lambda: Holder(cfg={Holder: {threading.Lock: 1}, connection: 2}), {"process.cfg key <it>"}),
    "set": (lambda: Holder(tags={connection}), {"process.tags member <it>"}),
    "slots": (lambda: Holder(slots=_slots()), {"process.slots.inner"}),
    "data class": (lambda: Holder(data=Data("a", threading.Lock())), {"process.data.handle"}),
    "list subclass": (lambda: Holder(items=Items([1, threading.Lock()])), {"process.items[1]"}),
    "dict subclass": (lambda: Holder(texts=Texts(a=threading.Lock())), {"process.texts['a']"}),
    "partial": (
        lambda: Holder(call=functools.partial(print, threading.Lock(), sep=threading.Lock())),
        {"process.call.args[0]", "process.call.keywords['sep']"},
    ),
    "bound method": (lambda: Holder(call=Holder(lock=threading.Lock()).run), {"process.call.__self__.lock"}),
    "closure": (lambda: Holder(call=closing_over()), {"process.call -> closure secret"}),
    "default arguments": (lambda: Holder(call=with_default), {"process.call -> default third[0]"}),
    "attribute of a function": (lambda: Holder(call=_function_with_attribute()), {"process.call.handle"}),
    "global of a method": (UsesGlobal, {"run() -> global connection"}),
    "global of a function that a method calls": (
        UsesFunction,
        {"run() -> connect_deeply() -> connect() -> global connection"},
    ),
    "global of a lambda in a method": (UsesLambda, {"run() -> global settings['db']['main'][0]"}),
    "class attribute": (HasClassAttribute, {"HasClassAttribute.pool"}),
    "class attribute of a base": (Inherits, {"HasClassAttribute.pool"}),
    "class that a method uses": (UsesModel, {"Model.shared", "Model.fit() -> global settings['db']['main'][0]"}),
    "object array": (
        lambda: Holder(array=np.array([1, threading.Lock()], dtype=object)),
        {"process.array.flat[1]"},
    ),
    "made while it is asked": (lambda: Holder(odd=MakesLockWhenAsked()), {"process.odd.inner[0]"}),
    "function with arguments": (
        lambda: Call(print, (1, threading.Lock()), {"sep": threading.Lock()}),
        {"args[1]", "kwargs['sep']"},
    ),
    "function that is called": (lambda: Call(connect, (), {}), {"connect() -> global connection"}),
    "several at once": (
        lambda: Holder(a=threading.Lock(), b=[threading.Lock()], c={"d": _generator()}),
        {"process.a", "process.b[0]", "process.c['d']"},
    ),
}


@pytest.mark.parametrize(("make", "expected"), PATHS.values(), ids=PATHS)
def test_paths_lead_through_all_that_holds_things(make, expected):
    """Attributes, slots, containers, closures, defaults, class attributes, partials, globals of methods and so on."""
    found = {re.sub(r"<sqlite3[^>]*(>|\.\.\.)", "<it>", culprit.path) for culprit in diagnose(make())}
    assert found == expected


def test_what_can_be_pickled_has_no_culprits():
    """Nothing is named without reason."""
    assert diagnose(Holder(a=1, b=[np.zeros(3)], c=len, d=Data)) == []


def test_an_object_that_is_its_own_culprit():
    """Its path is its name."""
    assert [culprit.path for culprit in diagnose(threading.Lock())] == ["obj"]


class SaysAName:
    """Something that goes by a name under which there is something else."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return self.name


def test_a_name_that_leads_elsewhere_is_named():
    """Each object that says so, whether the name is taken or missing; and nothing beside them."""
    holder = {"taken": SaysAName("SaysAName"), "kinds": [type(None), 5], "missing": [SaysAName("no_such_name")]}
    assert [culprit.path for culprit in diagnose(holder)] == ["obj['taken']", "obj['missing'][0]"]


def test_a_chain_that_is_too_long_is_named():
    """Pickle goes down into it until the stack is full."""
    chain = None
    for _ in range(100_000):
        chain = [chain]
    [culprit] = diagnose(chain)
    assert "nested too deeply" in culprit.hint
    with pytest.raises(SerializationError, match="nested too deeply"):
        Serializer.serialize_to_file(chain, os.devnull + "-not-there")


def test_an_object_whose_attributes_raise_does_no_harm():
    """Nothing is asked of an object but what pickle asks."""

    class Touchy:
        def __getattribute__(self, name):
            if name.startswith("__"):
                return object.__getattribute__(self, name)
            raise RuntimeError("hands off")

        def __repr__(self):
            raise RuntimeError("hands off")

    held = {Touchy(): threading.Lock(), "touchy": Touchy()}
    assert len(diagnose(held)) == 1


def test_a_long_list_of_culprits_is_cut_in_the_message_only():
    """The error's ``culprits`` has all of them."""
    held = [threading.Lock() for _ in range(50)]
    with pytest.raises(SerializationError, match="and 40 more") as caught:
        Serializer.serialize_to_file(held, os.devnull + "-not-there")
    assert len(caught.value.culprits) == 50
    assert len(str(caught.value).splitlines()) == 12


def test_the_cause_is_what_pickle_raised(tmp_path):
    """The error of the object itself is not lost."""
    with pytest.raises(SerializationError) as caught:
        Serializer.serialize_to_file(Holder(bad=Raises()), tmp_path / "object.job")
    assert isinstance(caught.value.__cause__, ValueError)


def test_each_object_is_asked_once_in_each_pass(monkeypatch):
    """All culprits are found in one; their number does not matter."""
    passes = []
    dump = diagnosis.Probe.dump
    monkeypatch.setattr(diagnosis.Probe, "dump", lambda self, obj: passes.append(1) or dump(self, obj))
    assert len(diagnose([threading.Lock() for _ in range(100)])) == 100
    assert len(passes) == 1


def test_large_payloads_are_not_copied():
    """Neither arrays nor bytes."""
    import tracemalloc  # noqa: PLC0415 -- only here

    held = {"array": np.zeros(30 * 2**20, dtype=np.uint8), "bytes": bytes(30 * 2**20), "lock": threading.Lock()}
    tracemalloc.start()
    assert len(diagnose(held)) == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_running_generator_function_is_fine_but_its_generator_is_not():
    """A function travels, a running frame does not."""
    assert diagnose(_generator) == []
    [culprit] = diagnose({"rows": _generator()})
    assert culprit.path == "obj['rows']"


@pytest.fixture(scope="module", autouse=True)
def _close():
    yield
    connection.close()


class Odd:
    """Nobody can look at it."""

    @property
    def __class__(self):
        raise RuntimeError("odd")

    def __repr__(self):
        raise RuntimeError("odd")

    def __reduce__(self):
        raise TypeError("not me")


class UnspeakableError(Exception):
    """An error that can't be shown."""

    def __str__(self):
        raise RuntimeError("unspeakable")


class RaisesUnspeakably:
    """Can't be pickled, for a reason that can't be said."""

    def __reduce__(self):
        raise UnspeakableError


class OddKey:
    """A key that is unequal even to itself, and has no text."""

    def __eq__(self, other):
        raise RuntimeError("odd")

    def __hash__(self):
        return 1

    def __repr__(self):
        raise RuntimeError("odd")


@pytest.mark.parametrize(
    "part",
    [
        (int, type(None)),
        (type(...), type(NotImplemented)),
        [Odd()],
        {"raises": RaisesUnspeakably()},
        {OddKey(): Odd()},
        type,
    ],
    ids=["NoneType", "other singletons", "odd", "unspeakable", "odd key", "metaclass"],
)
def test_diagnosis_never_raises(part):
    """Beside what can't be pickled may lie anything: the culprits are found, or pickle's own words are."""
    found = diagnose({"part": part, "deeper": {"lock": threading.Lock()}})
    assert any(culprit.type_name == "_thread.lock" or "odd" in culprit.hint for culprit in found), found


def test_where_the_search_fails_pickles_own_words_are_named(monkeypatch):
    """At worst there is one culprit, the whole, with what pickle said of it; and none where pickle takes it."""

    def fail(*_):
        raise IndexError("of the search")

    monkeypatch.setattr(diagnosis, "find_paths", fail)
    (culprit,) = diagnose([threading.Lock()])
    assert (culprit.path, culprit.type_name) == ("obj", "list")
    assert "cannot pickle '_thread.lock' object" in culprit.hint
    with pytest.raises(SerializationError, match="cannot pickle"):
        raise diagnosis.explained([threading.Lock()], TypeError("cannot pickle it"))
    assert diagnose([1, 2]) == []
