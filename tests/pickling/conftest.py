"""Every test here has a signing key of its own."""

from __future__ import annotations

import contextlib

import pytest

from jobcontainer import JobPool
from jobcontainer.jobfile import signing


@pytest.fixture(autouse=True)
def _own_key(key_file):
    """The user's key is never touched."""


@pytest.fixture
def new_pool(key_file, monkeypatch, tmp_path):
    """Make pools whose jobs have this test's key."""
    signing.sign(b"")  # makes it
    monkeypatch.setenv(signing.KEY_VARIABLE, str(key_file))
    with contextlib.ExitStack() as pools:
        yield lambda **options: pools.enter_context(JobPool(1, store=tmp_path / "store", **options))


@pytest.fixture
def pool(new_pool):
    """A pool whose jobs have this test's key."""
    return new_pool()
