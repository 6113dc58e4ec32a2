"""Many small calls of one function: ``map`` in fresh processes beside joblib's automatic batches and other pools.

Two workers, warm, the function in ``__main__``. All results are taken, in order. Only ours runs each chunk of calls in
a process that was never used, keeps the results on disk, and loses one call with a crash. joblib and ours choose by
themselves how many calls go together; Dask and executorlib send each alone, and have the smallest number only.
submitit, which starts an interpreter for each call, is not here.

Run it alone::

    python tests/benchmarks/many_calls.py
"""

from __future__ import annotations

import contextlib
import time

import measuring

WORKERS = 2
CALLS = (2_000, 20_000, 200_000)


def add_one(number):
    return number + 1


def wait_a_little(number):
    time.sleep(0.01)
    return number + 1


@contextlib.contextmanager
def ours():
    from jobcontainer import JobPool

    with JobPool(WORKERS, store=measuring.new_folder()) as pool:
        yield lambda function, numbers: list(pool.map(function, numbers))


@contextlib.contextmanager
def joblib():
    from joblib import Parallel, delayed

    with Parallel(WORKERS) as parallel:
        yield lambda function, numbers: parallel(delayed(function)(number) for number in numbers)


@contextlib.contextmanager
def concurrent_futures():
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda function, numbers: list(pool.map(function, numbers, chunksize=max(1, len(numbers) // 16)))


@contextlib.contextmanager
def loky():
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda function, numbers: list(pool.map(function, numbers, chunksize=max(1, len(numbers) // 16)))


@contextlib.contextmanager
def dask():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        yield lambda function, numbers: client.gather(client.map(function, numbers, pure=False))


@contextlib.contextmanager
def executorlib():
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=WORKERS, block_allocation=True) as pool:
        yield lambda function, numbers: list(pool.map(function, numbers))


PEERS = {
    measuring.OURS: ours,
    "joblib": joblib,
    "tuned concurrent.futures": concurrent_futures,
    "tuned loky": loky,
    "Dask LocalCluster": dask,
    "executorlib, block_allocation": executorlib,
}
ONE_BY_ONE = {"Dask LocalCluster", "executorlib, block_allocation"}

FIGURES = [
    *(
        measuring.Figure(
            f"rate {calls}",
            f"{calls:,} calls of a tiny function",
            "calls/s",
            more_is_better=True,
            goal=measuring.times(share, "joblib"),
        )
        for calls, share in zip(CALLS, (1 / 6, 1 / 3, 1), strict=True)
    ),
    measuring.Figure("waiting", "300 calls of 10 ms", "s", goal=measuring.times(0.95, "joblib")),
]


def measure(name, given):
    figures = {}
    with PEERS[name]() as run_all:
        run_all(add_one, range(100 * WORKERS))  # every worker has started
        for calls in CALLS[:1] if name in ONE_BY_ONE else CALLS:
            numbers, results = range(calls // 10 if given.quick else calls), []
            seconds = measuring.seconds_of(
                lambda numbers=numbers, results=results: results.extend(run_all(add_one, numbers))
            )
            assert results == list(range(1, len(numbers) + 1))
            figures[f"rate {calls}"] = len(numbers) / seconds
        figures["waiting"] = measuring.seconds_of(lambda: run_all(wait_a_little, range(300)))
    return figures


if __name__ == "__main__":
    options = measuring.parser(__doc__).parse_args()
    measuring.compare(PEERS, measure, FIGURES, options)
