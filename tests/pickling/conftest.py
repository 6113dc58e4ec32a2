"""Every test here has a signing key of its own."""

from __future__ import annotations

import contextlib
import secrets

import pytest

from jobcontainer import JobPool
from jobcontainer.jobfile import signing


@pytest.fixture(autouse=True)
def _own_key(key_file):
    """The user's key is never touched."""


@pytest.fixture
def new_pool(key_file, monkeypatch, tmp_path):
    """Make pools whose jobs have this test's key."""
    signing.sign(signing.Purpose.JOB_FILE, b"")  # makes it
    monkeypatch.setenv(signing.KEY_VARIABLE, str(key_file))
    with contextlib.ExitStack() as pools:
        yield lambda **options: pools.enter_context(JobPool(1, store=tmp_path / "store", **options))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One pool for the tests that need none of their own, and the file of its key."""
    folder = tmp_path_factory.mktemp("shared")
    key = folder / "key"
    key.touch(0o600)
    key.write_text(secrets.token_hex(32))
    with JobPool(1, store=folder / "store") as pool:
        yield pool, key


@pytest.fixture
def pool(shared, key_file, monkeypatch):
    """A pool whose jobs have this test's key, which is that of its module: each job has its own process anyway."""
    pool, key = shared
    assert not key_file.exists()
    monkeypatch.setenv(signing.KEY_VARIABLE, str(key))
    return pool
