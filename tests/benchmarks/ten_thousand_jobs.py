"""10,000 queued jobs: submissions a second, and this process's memory for each that waits, beside loky and Dask.

Both workers are busy with a job that ends when a file appears, so that all others wait. Submitting ends when all are in
the queue, Dask's in its scheduler, which a local cluster runs in this process too. Memory is resident (RSS), from
before the first submission to the end of the last; the processes themselves were made before. Only ours writes a folder
for each job. Then ours run to their end; what is measured beside it must stay flat, or quick, however many there were.

Run it alone::

    python tests/benchmarks/ten_thousand_jobs.py
"""

from __future__ import annotations

import contextlib
import os
import time

import measuring

WORKERS, JOBS, QUICK_JOBS = 2, 10_000, 1_000


class Adds:
    """A job that waits."""

    def __init__(self, number):
        self.number = number

    def run(self):
        return self.number + 1


class Holds:
    """A job that keeps its worker busy until a file is there."""

    def __init__(self, file):
        self.file = file

    def run(self):
        import os
        import time

        while not os.path.exists(self.file):  # noqa: PTH110 -- it is looked at often
            time.sleep(0.01)


@contextlib.contextmanager
def ours():
    from jobcontainer import JobPool

    with JobPool(WORKERS, store=measuring.new_folder(), isolation="reuse") as pool:
        yield pool.submit_all


@contextlib.contextmanager
def loky():
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda processes: [pool.submit(one.run) for one in processes]


@contextlib.contextmanager
def dask():
    from distributed import Client, LocalCluster

    with LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:

        def submit_all(processes):
            futures = client.map(lambda one: one.run(), processes, pure=False)
            while futures[-1].key not in cluster.scheduler.tasks:
                time.sleep(0.001)
            return futures

        yield submit_all


PEERS = {measuring.OURS: ours, "loky": loky, "Dask LocalCluster": dask}

FIGURES = [
    measuring.Figure("rate", "10,000 jobs, submitted", "jobs/s", more_is_better=True, goal=measuring.over(1000)),
    measuring.Figure("queued", "memory of one that waits", "bytes", goal=measuring.under(5000)),
    measuring.Figure("seconds", "until the last has ended", "s", goal=None, aside=True),
    measuring.Figure("descriptors", "more descriptors than before, at the most", "of them", goal=None, aside=True),
    measuring.Figure("left", "more memory than before, once all have ended", "MB", goal=None, aside=True),
    measuring.Figure("listed", "a listing of them in the store", "s", goal=measuring.under(0.5), aside=True),
]


def resident():
    """Bytes of this process that are in memory, after what is garbage has been freed."""
    import gc

    import psutil

    gc.collect()
    return psutil.Process().memory_info().rss


def run_to_the_end(jobs, release, before):
    """Let them run; what that leaves behind."""
    import psutil

    memory, descriptors = before
    begun, most, me = time.perf_counter(), 0, psutil.Process()
    release()
    while not jobs.wait(1.0):
        most = max(most, me.num_fds())
    seconds = time.perf_counter() - begun
    assert [job.result() for job in jobs[::100]] == list(range(1, len(jobs) + 1, 100))
    return {"seconds": seconds, "descriptors": max(most - descriptors, 0), "left": (resident() - memory) / 1e6}


def listed(folder, number):
    """Seconds to list the jobs of a store."""
    from jobcontainer import JobStore

    begun = time.perf_counter()
    assert len(JobStore(folder).jobs()) == number
    return time.perf_counter() - begun


def measure(name, given):
    import psutil

    number = QUICK_JOBS if given.quick else JOBS
    gate = os.path.join(measuring.new_folder(), "gate")  # noqa: PTH118 -- nothing else needs pathlib here
    with PEERS[name]() as submit_all:
        for future in submit_all([Adds(0), Adds(1)]):
            future.result()  # every worker has started
        busy = submit_all([Holds(gate) for _ in range(WORKERS)])
        processes, jobs = [Adds(one) for one in range(number)], []
        before = resident(), psutil.Process().num_fds()
        seconds = measuring.seconds_of(lambda: jobs.append(submit_all(processes)))
        found = {"rate": number / seconds, "queued": (resident() - before[0]) / number}

        def release():
            with open(gate, "w"):
                pass

        if name == measuring.OURS:
            found |= run_to_the_end(jobs[0], release, before)
            store = busy[0].folder.path.parent
            found["listed"] = measuring.middle([listed(store, number + 2 * WORKERS) for _ in range(5)])
        else:
            release()
            assert jobs[0][-1].result() == number
    return found


if __name__ == "__main__":
    options = measuring.parser(__doc__, rounds=3, quick_rounds=1).parse_args()
    measuring.compare(PEERS, measure, FIGURES, options)
