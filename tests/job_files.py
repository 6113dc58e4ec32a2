"""What tests of files share: a key of their own, cells of a notebook, and processes that are a job's own."""

from __future__ import annotations

import itertools
import json
import linecache
import os
import subprocess
import sys
import textwrap
import types
import uuid

import pytest

from jobcontainer import Serializer
from jobcontainer.jobfile import reader, signing
from jobcontainer.pickling import package_versions

NUMBERS = itertools.count()

# Forks for each file, so that each is loaded by a process that has never loaded one.
NURSERY = """
import importlib, json, os, sys, traceback, types
for library in sys.argv[1:]:
    importlib.import_module(library)
from jobcontainer.jobfile.serializer import write_file
from jobcontainer.worker.job_imports import load_in_job
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(order["cwd"])
            sys.path[:0] = order["path"]
            os.environ.update(order["env"])
            sys.modules["__main__"] = types.ModuleType("__main__")  # as each job's process has its own
            write_file(load_in_job(order["file"]).run(), order["result"], kind="result")
            answer = ""
        except BaseException:
            answer = traceback.format_exc()
        os.write(1, json.dumps(answer).encode() + b"\\n")
        os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.fixture
def key_file(tmp_path_factory, monkeypatch):
    """A key that belongs to this test alone; the user's own is never touched."""
    folder = tmp_path_factory.getbasetemp() / "keys" / str(next(NUMBERS))  # ``mktemp`` would list all that are there
    folder.mkdir(0o700, parents=True)
    monkeypatch.setattr(signing, "_own_key_file", lambda: str(folder / "key"))
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    monkeypatch.setattr(signing, "_known", [])
    monkeypatch.setattr(signing, "_holds", False)
    monkeypatch.setattr(package_versions, "_compared", set())
    return folder / "key"


@pytest.fixture(scope="module")
def nursery(request):
    """A process that forks for each file; what a test module calls its ``LIBRARIES`` is loaded before, once."""
    command = [sys.executable, "-c", NURSERY, *getattr(request.module, "LIBRARIES", ())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def run_in_job(nursery, key_file, tmp_path):
    """Run the process of a file in a fresh process; give what it returned, or raise its traceback as an error."""
    numbers = itertools.count()
    (tmp_path / "elsewhere").mkdir()

    def run(file, *, path=(), env=None):
        signing.sign(signing.Purpose.JOB_FILE, b"")  # there must be a key before two processes want the same
        result = tmp_path / f"result-{next(numbers)}.job"
        order = {
            "file": str(file),
            "result": str(result),
            "cwd": str(tmp_path / "elsewhere"),
            "path": list(map(str, path)),
            "env": {signing.KEY_VARIABLE: str(key_file)} | (env or {}),
        }
        nursery.stdin.write(json.dumps(order).encode() + b"\n")
        nursery.stdin.flush()
        trace = json.loads(nursery.stdout.readline())
        if trace:
            raise RuntimeError(trace)
        return Serializer.deserialize_from_file(result)

    return run


@pytest.fixture
def cell(monkeypatch):
    """Run source as a notebook's cell: in a ``__main__`` of its own, which cells share, known to linecache."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    namespace = vars(main)
    names = []

    def run(source):
        text = textwrap.dedent(source)
        name = f"/tmp/ipykernel_{os.getpid()}/{uuid.uuid4().int % 10**10}.py"  # noqa: S108 -- as ipykernel calls cells
        names.append(name)
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec", dont_inherit=True), namespace)  # noqa: S102 -- a cell
        return namespace

    yield run
    for name in names:
        linecache.cache.pop(name, None)


@pytest.fixture
def as_notebook(request, monkeypatch):
    """Let the module of a test be ``__main__``, as if its code stood in cells."""
    module = request.module
    name = module.__name__
    for attribute in ("__spec__", "__package__", "__file__"):  # which a job that is played here may change
        monkeypatch.setattr(module, attribute, getattr(module, attribute))
    monkeypatch.setattr(module, "__name__", "__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.delitem(sys.modules, name)
    for value in list(vars(module).values()):
        if isinstance(value, type | types.FunctionType) and value.__module__ == name:
            monkeypatch.setattr(value, "__module__", "__main__")


@pytest.fixture
def checks(monkeypatch):
    """Count how often buffers are checked."""
    done = []
    check = reader.FileReader.check_buffers

    def count(self, header, views):
        done.append(self.path)
        check(self, header, views)

    monkeypatch.setattr(reader.FileReader, "check_buffers", count)
    return done
