"""A Dask cluster of real processes on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobcontainer.engines.dask.engine import DaskEngine
from waiting import wait_for


def end(processes):
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Dask:
    """A scheduler and its workers, each a process of its own, as ``dask scheduler`` and ``dask worker`` start them.

    Attributes:
        address: the scheduler's.
    """

    def __init__(self, folder):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.log = (folder / "log.txt").open("wb")
        self.processes = []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")

        wait_for(lambda: self.is_ready or self.scheduler.poll() is not None, within=60)

    @property
    def is_ready(self):
        """Whether the scheduler has written all of its file."""
        return self.file.exists() and self.file.read_text().rstrip().endswith("}")

    @property
    def address(self):
        return json.loads(self.file.read_text())["address"]

    def start_worker(self, *arguments, nanny=False, threads=1, cwd=None, env=None, file=None):
        """Start a worker; it need not be there yet when this returns."""
        where = "--nanny" if nanny else "--no-nanny"
        return self._start(
            "worker", where, "--no-dashboard", "--nthreads", str(threads), *arguments, cwd=cwd, env=env or {}, file=file
        )

    def engine(self, slots):
        """Return an engine that has so many slots, once the workers are there."""
        engine = DaskEngine(self.address)
        wait_for(lambda: engine.slots == slots, within=60)  # an interpreter and Dask, on a machine that is busy
        return engine

    def stop(self):
        """End the workers, and then the scheduler, which they would wait for."""
        scheduler, *workers = self.processes
        end(workers)
        end([scheduler])
        self.log.close()

    def _start(self, what, *arguments, cwd=None, env=None, file=None):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_" + what,
                "--scheduler-file",
                str(file or self.file),
                *arguments,
            ],
            cwd=cwd or self.folder,
            env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(self.folder), **(env or {})},
            stdout=self.log,
            stderr=self.log,
        )
        self.processes.append(process)
        return process


RELAY = """
import socket, sys, threading

def forward(source, target):
    while data := source.recv(2**16):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    client, server = listener.accept()[0], socket.create_connection((sys.argv[1], int(sys.argv[2])))
    for ends in ((client, server), (server, client)):
        threading.Thread(target=forward, args=ends, daemon=True).start()
"""


class Relay:
    """A line to a cluster's scheduler that a test can cut: a process that forwards its bytes.

    Attributes:
        address: of the scheduler, through this line.
        file: the same as a scheduler file.
    """

    def __init__(self, dask, folder):
        target = dask.address.removeprefix("tcp://").split(":")
        self._process = subprocess.Popen([sys.executable, "-c", RELAY, *target], stdout=subprocess.PIPE, text=True)
        self.address = f"tcp://127.0.0.1:{self._process.stdout.readline().strip()}"
        self.file = folder / "through-relay.json"
        self.file.write_text(json.dumps(json.loads(dask.file.read_text()) | {"address": self.address}))

    def cut(self):
        """End every connection; no new one comes to be."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def relay(dask_cluster, tmp_path):
    """A line to the module's cluster."""
    line = Relay(dask_cluster, tmp_path)
    yield line
    line.cut()


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory):
    """A scheduler and two workers, of which one has a nanny."""
    dask = Dask(tmp_path_factory.mktemp("dask"))
    dask.start_worker(nanny=True)
    dask.start_worker()
    yield dask
    dask.stop()


@pytest.fixture
def dask_class():
    """Starts a cluster of a test's own."""
    return Dask


@pytest.fixture
def seen_from_here_only():
    """Name a folder by a path that leads nowhere in other processes: through a descriptor that they do not have."""
    opened = []

    def name(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        opened.append(os.dup2(descriptor, 900 + len(opened), inheritable=False))
        os.close(descriptor)
        return Path(f"/proc/self/fd/{opened[-1]}")

    yield name
    for descriptor in opened:
        os.close(descriptor)
