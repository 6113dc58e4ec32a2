"""What the searches share: a seed that is printed, a time that is bounded, and a key that child processes have too."""

from __future__ import annotations

import os
import secrets
import signal
import time
from random import Random

import pytest

from jobcontainer.jobfile import signing

SLACK = 120.0
"""Seconds that a search may take beside its own: it records before it begins, and ends what it began with."""


def pytest_collection_modifyitems(config, items):
    """Have a search fail when it hangs, however long it was asked to take, and leave it out of the quick run."""
    for item in items:
        if "search" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(config.getoption("search_seconds") + SLACK))


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
def nice():
    """What makes a child give way to all else on this machine."""

    def give_way():
        os.nice(10)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return give_way
