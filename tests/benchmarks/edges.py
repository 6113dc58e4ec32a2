"""A job that has another one's result: seconds from the call to its end, for 1 GiB and for a number, beside the peers.

The upstream job has ended, and its result is an array of 1 GiB, or a number. The other job reads one number of every
hundredth page. With Dask the array stays in the worker that made it, which runs the other job too; with the others it
goes through the caller.

Run it alone::

    python tests/benchmarks/edges.py
"""

from __future__ import annotations

import contextlib

import measuring

STEP = 100 * 4096 // 8  # numbers in a hundred pages


def makes(size):
    """The upstream job."""
    import numpy as np

    return np.ones(size // 8) if size else 1.0


def reads(value):
    """The job that has its result."""
    return float(value) if isinstance(value, float) else float(value[::STEP].sum())


@contextlib.contextmanager
def ours():
    import tempfile

    from jobcontainer import JobPool

    with tempfile.TemporaryDirectory() as folder, JobPool(2, store=folder) as pool:
        yield pool.submit, lambda job: job._wait(), lambda job: pool.submit(reads, job).result()


@contextlib.contextmanager
def dask():
    from distributed import Client, LocalCluster, wait

    with (
        LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        yield client.submit, wait, lambda future: client.submit(reads, future, pure=False).result()


@contextlib.contextmanager
def executorlib():
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=2) as executor:
        yield executor.submit, lambda future: future.result(), lambda future: executor.submit(reads, future).result()


@contextlib.contextmanager
def joblib():
    from joblib import Parallel, delayed

    with Parallel(2) as parallel:

        def call(function, value):
            return parallel([delayed(function)(value)])[0]

        yield call, lambda value: value, lambda value: call(reads, value)


@contextlib.contextmanager
def concurrent_futures():
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:
        yield pool.submit, lambda future: future.result(), lambda future: pool.submit(reads, future.result()).result()


PEERS = {
    measuring.OURS: ours,
    "Dask LocalCluster": dask,
    "executorlib": executorlib,
    "joblib": joblib,
    "concurrent.futures": concurrent_futures,
}

FIGURES = [
    measuring.Figure("large", "an edge of 1 GiB", "s", goal=measuring.times(10)),
    measuring.Figure("small", "an edge of a number", "s", goal=None),
]


def measure(name, given):
    size = 2**26 if given.quick else 2**30
    with PEERS[name]() as (submit, wait, read):
        seconds = {}
        for key, amount in (("warm", 8 * STEP), ("large", size), ("small", 0)):
            upstream = submit(makes, amount)
            wait(upstream)
            found = []
            seconds[key] = measuring.seconds_of(lambda: found.append(read(upstream)))  # noqa: B023 -- called at once
            assert found == [-(-amount // 8 // STEP) or 1.0]
    return seconds


if __name__ == "__main__":
    options = measuring.parser(__doc__, rounds=3, quick_rounds=1).parse_args()
    measuring.compare(PEERS, measure, FIGURES, options)
