"""What was put into a file is not kept alive by it, and what was not is not left."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

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


def test_an_interrupt_while_the_pickler_is_made_leaves_no_file(tmp_path, monkeypatch):
    """Neither on the disk nor open: a pickler that was cut off is part of a cycle, and holds what it writes to."""

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("jobcontainer.pickling.names_in_texts.NamesInTexts.__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Serializer.serialize_to_file([], tmp_path / "list.job")
    assert not list(tmp_path.iterdir())
