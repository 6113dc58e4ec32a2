"""The watchdog of a keeper, in looks that the test counts."""

from __future__ import annotations

from jobcontainer.engines.local.watchdog import LOOK_SECONDS, PATIENCE, Watchdog
from jobcontainer.process import JobOptions
from jobcontainer.worker import process_tree

STOPPED = 9


def test_a_chunk_of_calls_has_the_time_of_all_of_them():
    """The watchdog takes no keeper for one that hangs, whose calls each take less than their timeout."""
    for calls, hangs in ((0, True), (100, False)):
        watchdog = Watchdog(list)
        watchdog.answered()
        watchdog.job_sent(JobOptions(timeout=1.0, grace=1.0).to_json() | {"calls": calls})
        seconds, seen = 0.0, False
        while seconds < 1 + 30 + 1 + PATIENCE + 1 and not seen:
            watchdog.answered()
            seen = watchdog.look(LOOK_SECONDS)
            seconds += LOOK_SECONDS
        assert seen is hangs


def test_a_keeper_that_is_stopped_before_it_says_which_one_it_is_is_noticed(monkeypatch):
    """It was stopped while it started; one that only takes long is waited for, however slow the machine is."""
    monkeypatch.setattr(process_tree, "is_stopped", lambda pid: pid == STOPPED)
    for starting, hangs in (([7, STOPPED], True), ([7, 8], False)):
        watchdog = Watchdog(lambda pids=starting: pids)
        watchdog.job_sent(JobOptions(grace=1.0).to_json())
        looks = int(100 / LOOK_SECONDS)
        assert any(watchdog.look(LOOK_SECONDS) for _ in range(looks)) is hangs
        assert watchdog.reason == ("was stopped (SIGSTOP)" if hangs else "")
