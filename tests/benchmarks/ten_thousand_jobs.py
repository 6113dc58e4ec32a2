"""Ten thousand jobs through one pool: what a queued one costs, what is left behind, how fast they are listed.

Run it alone: ``python tests/benchmarks/ten_thousand_jobs.py``. The goals are more than 1,000 submitted a second, under
5 kB of this process's memory per queued job, descriptors and memory flat while they run, a listing under 0.5 s.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import psutil

from jobcontainer import JobPool, JobState, JobStore

JOBS = 10_000


class Adds:
    def __init__(self, number: int) -> None:
        self.number = number

    def run(self) -> int:
        return self.number + 1


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, JobPool(2, store=folder, isolation="reuse") as pool:
        pool.submit(Adds(0)).result()
        me = psutil.Process()
        memory, descriptors = me.memory_info().rss, me.num_fds()
        begun = time.perf_counter()
        group = pool.submit_all([Adds(number) for number in range(JOBS)])
        submitted = time.perf_counter() - begun
        queued = me.memory_info().rss - memory
        most = []
        while not group.wait(1.0):
            most.append(me.num_fds())
        seconds = time.perf_counter() - begun
        assert group.summary() == {JobState.SUCCEEDED: JOBS}
        assert [job.result() for job in group[:: JOBS // 100]] == [n + 1 for n in range(0, JOBS, JOBS // 100)]
        listings = []
        for _ in range(5):
            begun = time.perf_counter()
            assert len(JobStore(Path(folder)).jobs()) == JOBS + 1
            listings.append(time.perf_counter() - begun)
        print(f"submitted       {JOBS / submitted:8,.0f} jobs/s")
        print(f"queued          {queued / JOBS:8,.0f} bytes a job")
        print(f"done            {JOBS / seconds:8,.0f} jobs/s, submission included")
        print(
            f"descriptors     {descriptors} before, {max(most, default=descriptors)} at the most, {me.num_fds()} after"
        )
        print(f"memory after    {(me.memory_info().rss - memory) / 1e6:8.1f} MB more than before")
        print(f"listed in       {statistics.median(listings):8.2f} s, median of 5")


if __name__ == "__main__":
    main()
