"""What was put into a file is not kept alive by it."""

from __future__ import annotations

import gc
import weakref

import numpy as np

from jobcontainer.jobfile.serializer import Serializer


class Holder:
    def __init__(self):
        self.array = np.zeros(100_000)


def test_an_object_that_was_written_can_go_at_once(tmp_path):
    """A large array that was sent off does not stay in the notebook's memory until a garbage collection."""
    held = Holder()
    seen = weakref.ref(held), weakref.ref(held.array)
    gc.disable()
    try:
        Serializer.serialize_to_file(held, tmp_path / "object.job")
        del held
        assert [reference() for reference in seen] == [None, None]
    finally:
        gc.enable()
