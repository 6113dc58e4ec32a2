"""The watchdog of a keeper, in looks that the test counts."""

from __future__ import annotations

from jobcontainer.engines.local.watchdog import LOOK_SECONDS, PATIENCE, Watchdog
from jobcontainer.process import JobOptions


def test_a_chunk_of_calls_has_the_time_of_all_of_them():
    """The watchdog takes no keeper for one that hangs, whose calls each take less than their timeout."""
    for calls, hangs in ((0, True), (100, False)):
        watchdog = Watchdog()
        watchdog.answered()
        watchdog.job_sent(JobOptions(timeout=1.0, grace=1.0).to_json() | {"calls": calls})
        seconds, seen = 0.0, False
        while seconds < 1 + 30 + 1 + PATIENCE + 1 and not seen:
            watchdog.answered()
            seen = watchdog.look(LOOK_SECONDS)
            seconds += LOOK_SECONDS
        assert seen is hangs
