"""Every test here has a signing key of its own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_key(key_file):
    """The user's key is never touched."""
