"""What the searches share: a seed that is printed, a time that is bounded, and a key that child processes have too."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from random import Random

import pytest

from jobcontainer.jobfile import signing

HERE = Path(__file__).parent
SLACK = 120.0
"""Seconds that a search may take beside its own: it records before it begins, and ends what it began with."""


def pytest_collection_modifyitems(config, items):
    """Leave searches out where nobody asked for them, and have one fail when it hangs."""
    searches = [item for item in items if "search" in item.fixturenames]
    for item in searches:
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.timeout(config.getoption("search_seconds") + SLACK))
    if not config.getoption("search_seconds"):
        config.hook.pytest_deselected(items=searches)
        items[:] = [item for item in items if item not in searches]


class Search:
    """One search: until its time is over, with what its seed gives.

    Attributes:
        seed: the number that it began with.
        random: what it chooses with.
    """

    def __init__(self, seed, seconds):
        self.seed = seed
        self.random = Random(seed)  # noqa: S311 -- it is to be replayed
        self.counts = {}
        self._until = time.monotonic() + seconds
        self.seconds = seconds

    def begin(self):
        """Start the clock, when all is prepared."""
        self._until = time.monotonic() + self.seconds

    def goes_on(self):
        return time.monotonic() < self._until

    def count(self, what, times=1):
        self.counts[what] = self.counts.get(what, 0) + times


@pytest.fixture
def search(request, capsys):
    """The seed and the time of a search; what it did is printed in any case, as a find is worth nothing without."""
    given = request.config.getoption("search_seed")
    search = Search(secrets.randbelow(10**9) if given is None else given, request.config.getoption("search_seconds"))
    yield search
    counts = ", ".join(f"{number} {what}" for what, number in search.counts.items())
    with capsys.disabled():
        print(f"\n{request.node.name}: --search-seed {search.seed}: {counts}")


@pytest.fixture
def key(tmp_path, monkeypatch):
    """A key of the test's own, for it and for all that it starts."""
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_text(secrets.token_hex(32))
    monkeypatch.setenv(signing.KEY_VARIABLE, os.fspath(file))
    return file


@pytest.fixture
def script(key):
    """Return the command that runs a script of this folder, and its environment; it gives way to all else that runs."""
    assert key.exists()
    paths = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])

    def of(name, *arguments):
        command = ["nice", "-n", "10", sys.executable, str(HERE / name), *map(str, arguments)]
        return {"args": command, "env": os.environ | {"PYTHONPATH": paths}}

    return of
