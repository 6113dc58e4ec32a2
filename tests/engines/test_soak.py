"""Thousands of jobs on the same two keepers, some of which crash: nothing is lost, and nothing grows."""

from __future__ import annotations

import ctypes
import os
import signal

import psutil
import pytest

from jobcontainer import JobCrashedError, JobPool, JobState
from jobcontainer.worker import subreaper

JOBS = 2_000
CRASHES = 20
"""Every so many-th job crashes: 5 %."""
WARM = 200
"""Jobs after which what keepers hold should stay as it is."""
MOST_GROWTH = 2 * 2**20


class Works:
    def __init__(self, number):
        self.number = number

    def run(self):
        print("job", self.number)
        if self.number % CRASHES:
            return self.number
        crash = (lambda: ctypes.string_at(0), lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL))
        return crash[self.number // CRASHES % 3]()


def keepers():
    """The keepers and the processes above them, and what each holds: descriptors, and memory of its own."""
    above = [child for child in psutil.Process().children() if child.name() == subreaper.NAME]
    found = [*above, *(keeper for one in above for keeper in one.children())]
    return {child.pid: (child.num_fds(), child.memory_full_info().uss) for child in found}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("isolation", ["fresh", "reuse"])
def test_two_thousand_jobs_of_which_some_crash(tmp_path, isolation):
    """Each ends as it must, on the keepers of the first; these hold no more descriptors and memory than before."""
    with JobPool(2, store=tmp_path, isolation=isolation) as pool:
        assert pool.submit_all([Works(number) for number in range(WARM)]).wait(60)
        before = keepers()
        group = pool.submit_all([Works(number) for number in range(JOBS)])
        assert group.wait(240)
        after = keepers()
        assert group.summary() == {JobState.SUCCEEDED: JOBS - JOBS // CRASHES, JobState.CRASHED: JOBS // CRASHES}
        for number, job in enumerate(group):
            if number % CRASHES:
                assert job.result() == number
            else:
                assert isinstance(job.exception(), JobCrashedError)
            assert job.log.startswith(f"job {number}\n")
    assert len(before) == 4  # two slots
    assert before.keys() == after.keys()
    for pid, (descriptors, memory) in after.items():
        assert descriptors <= before[pid][0]
        assert memory - before[pid][1] < MOST_GROWTH
