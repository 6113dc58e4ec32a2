"""A large result: seconds from the call to an array of 1 GiB that can be read and written, beside the peers.

The job makes the array, which all of them pay for alike, and the caller reads a number of every page. Ours comes back
as a file that is mapped; the others' comes through a pipe or a socket.

Run it alone::

    python tests/benchmarks/large_result.py
"""

from __future__ import annotations

import contextlib

import measuring

PAGE = 4096 // 8  # numbers in one


class Makes:
    """The job."""

    def __init__(self, size):
        self.size = size

    def run(self):
        import numpy as np

        return np.ones(self.size // 8)


@contextlib.contextmanager
def ours():
    import tempfile

    from jobcontainer import JobPool

    with tempfile.TemporaryDirectory() as folder, JobPool(1, store=folder) as pool:
        yield lambda one: pool.submit(one).result()


@contextlib.contextmanager
def loky():
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        yield lambda one: pool.submit(one.run).result()


@contextlib.contextmanager
def concurrent_futures():
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        yield lambda one: pool.submit(one.run).result()


@contextlib.contextmanager
def multiprocessing_pool():
    from multiprocessing import Pool

    with Pool(1) as pool:
        yield lambda one: pool.apply(one.run)


@contextlib.contextmanager
def dask():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(1, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        yield lambda one: client.submit(one.run, pure=False).result()


PEERS = {
    measuring.OURS: ours,
    "loky": loky,
    "concurrent.futures": concurrent_futures,
    "multiprocessing.Pool": multiprocessing_pool,
    "Dask LocalCluster": dask,
}

FIGURES = [measuring.Figure("seconds", "a result of 1 GiB", "s", goal=measuring.times(5))]


def measure(name, given):
    size = 2**26 if given.quick else 2**30
    with PEERS[name]() as run_once:
        run_once(Makes(8 * PAGE))  # the worker has started, and has loaded numpy
        sums = []
        seconds = measuring.seconds_of(lambda: sums.append(run_once(Makes(size))[::PAGE].sum()))
        assert sums == [size / 8 / PAGE]
    return {"seconds": seconds}


if __name__ == "__main__":
    options = measuring.parser(__doc__, rounds=3, quick_rounds=1).parse_args()
    measuring.compare(PEERS, measure, FIGURES, options)
