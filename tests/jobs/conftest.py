"""Pools that several modules of tests use."""

from __future__ import annotations

import pytest

from jobcontainer import JobPool


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One pool for the tests that need none of their own: two slots, started once."""
    with JobPool(2, store=tmp_path_factory.mktemp("store")) as pool:
        yield pool


@pytest.fixture
def gate(tmp_path):
    """A file that waiting jobs or calls wait for; opened at the end of the test in any case."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture(params=["inline", "loky"])
def pool(request, tmp_path, shared):
    """A pool without processes, and one with them."""
    if request.param == "loky":
        return shared
    return JobPool(engine="inline", store=tmp_path / "store")
