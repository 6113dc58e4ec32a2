"""Jobs that import a large library in ``run()``: what one takes, beside pools that import it once per worker.

Twenty jobs, two at once, in a pool that has run such jobs before. Only ours has a process for each that no job has
used; the peers' workers have the library from the job before.

Run it alone::

    python tests/benchmarks/importing.py
"""

from __future__ import annotations

import contextlib

import measuring

JOBS, WORKERS = 20, 2


class Pandas:
    def run(self):
        import pandas as pd

        return int(pd.Series([1, 2]).sum())


class ScikitLearn:
    def run(self):
        from sklearn.linear_model import Ridge

        return Ridge(alpha=3).alpha


@contextlib.contextmanager
def ours():
    from jobcontainer import JobPool

    with JobPool(WORKERS, store=measuring.new_folder()) as pool:
        yield lambda jobs: pool.submit_all(jobs).results()


@contextlib.contextmanager
def joblib():
    from joblib import Parallel, delayed

    with Parallel(WORKERS) as parallel:
        yield lambda jobs: parallel(delayed(one.run)() for one in jobs)


@contextlib.contextmanager
def loky():
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda jobs: [future.result() for future in [pool.submit(one.run) for one in jobs]]


@contextlib.contextmanager
def dask():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        yield lambda jobs: client.gather([client.submit(one.run, pure=False) for one in jobs])


@contextlib.contextmanager
def submitit():
    from submitit import LocalExecutor

    executor = LocalExecutor(measuring.new_folder())

    def run_all(jobs):
        results = []
        for start in range(0, len(jobs), WORKERS):
            results += [job.result() for job in [executor.submit(one.run) for one in jobs[start : start + WORKERS]]]
        return results

    yield run_all


@contextlib.contextmanager
def executorlib():
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=WORKERS, block_allocation=True) as pool:
        yield lambda jobs: [future.result() for future in [pool.submit(one.run) for one in jobs]]


PEERS = {
    measuring.OURS: ours,
    "joblib": joblib,
    "loky": loky,
    "Dask LocalCluster": dask,
    "submitit local": submitit,
    "executorlib, block_allocation": executorlib,
}

FIGURES = [
    measuring.Figure("pandas", "a job that imports pandas", "ms", goal=measuring.under(25)),
    measuring.Figure("sklearn", "a job that imports scikit-learn", "ms", goal=measuring.under(30)),
]


def measure(name, given):
    count = 4 if given.quick else JOBS
    found = {}
    with PEERS[name]() as run_all:
        for figure, job, result in (("pandas", Pandas, 3), ("sklearn", ScikitLearn, 3)):
            jobs = [job() for _ in range(count)]
            for _ in range(2):  # every worker has imported it
                assert run_all(jobs[:WORKERS]) == [result] * WORKERS
            results = []
            seconds = measuring.seconds_of(lambda jobs=jobs, results=results: results.extend(run_all(jobs)))
            assert results == [result] * count
            found[figure] = 1000 * seconds / count
    return found


if __name__ == "__main__":
    options = measuring.parser(__doc__, rounds=3, quick_rounds=1).parse_args()
    measuring.compare(PEERS, measure, FIGURES, options)
