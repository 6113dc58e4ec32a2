"""Trivial jobs in workers that are used again: jobs a second and latency of ``isolation="reuse"`` beside the peers.

Two workers, one job per task (no peer batches), its class in ``__main__``. Jobs a second: all are submitted, all
results are taken. Latency: one after another in a warm pool. Only ours writes a folder for each job. Each peer is used
as it is fastest by its documentation: Dask's jobs go by ``map``, executorlib's without looking for dependencies.

Run it alone::

    python tests/benchmarks/reused_workers.py
"""

from __future__ import annotations

import contextlib

import measuring

WORKERS = 2


class Adds:
    """The job.

    The class goes by value with us, loky, ipyparallel, Dask and executorlib, as a notebook's must; by reference
    with the standard library and pebble, which works only as children can import this script.
    """

    def __init__(self, number):
        self.number = number

    def run(self):
        return self.number + 1


@contextlib.contextmanager
def ours():
    from jobcontainer import JobPool

    with JobPool(WORKERS, store=measuring.new_folder(), isolation="reuse") as pool:
        yield lambda processes: pool.submit_all(processes).results()


@contextlib.contextmanager
def loky():
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda processes: [future.result() for future in [pool.submit(one.run) for one in processes]]


@contextlib.contextmanager
def concurrent_futures():
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda processes: [future.result() for future in [pool.submit(one.run) for one in processes]]


@contextlib.contextmanager
def multiprocessing_pool():
    from multiprocessing import Pool

    with Pool(WORKERS) as pool:
        yield lambda processes: [there.get() for there in [pool.apply_async(one.run) for one in processes]]


@contextlib.contextmanager
def pebble():
    from pebble import ProcessPool

    with ProcessPool(WORKERS) as pool:
        yield lambda processes: [future.result() for future in [pool.schedule(one.run) for one in processes]]


@contextlib.contextmanager
def ipyparallel():
    from ipyparallel import Cluster

    with Cluster(n=WORKERS, log_level=40) as client:  # 40: errors alone
        client[:].use_cloudpickle().get()  # else engines look for the class in their own __main__
        view = client.load_balanced_view()
        yield lambda processes: [there.get() for there in [view.apply_async(one.run) for one in processes]]


@contextlib.contextmanager
def dask():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        # Not pure: else Dask takes equal calls for one, and runs it once.
        yield lambda processes: client.gather(client.map(lambda one: one.run(), processes, pure=False))


@contextlib.contextmanager
def executorlib():
    from executorlib import SingleNodeExecutor

    # Workers that stay, and no arguments that are futures.
    with SingleNodeExecutor(max_workers=WORKERS, block_allocation=True, disable_dependencies=True) as pool:
        yield lambda processes: [future.result() for future in [pool.submit(one.run) for one in processes]]


PEERS = {  # with how many jobs are run for jobs a second
    measuring.OURS: (ours, 2000),
    "loky": (loky, 2000),
    "concurrent.futures": (concurrent_futures, 2000),
    "multiprocessing.Pool": (multiprocessing_pool, 2000),
    "pebble": (pebble, 2000),
    "ipyparallel": (ipyparallel, 500),
    "Dask LocalCluster": (dask, 500),
    "executorlib, block_allocation": (executorlib, 2000),
}

FIGURES = [
    measuring.Figure(
        "rate", "reused workers, trivial jobs", "jobs/s", more_is_better=True, goal=measuring.times(1, "loky")
    ),
    measuring.Figure("latency", "reused workers, warm latency", "ms", goal=measuring.times(1, "loky")),
]


def measure(name, given):
    peer, jobs = PEERS[name]
    jobs, times = (jobs // 10, 20) if given.quick else (jobs, 200)
    with peer() as run_all:
        run_all([Adds(number) for number in range(10 * WORKERS)])  # every worker has started, and seen the class
        processes, results = [Adds(number) for number in range(jobs)], []
        seconds = measuring.seconds_of(lambda: results.extend(run_all(processes)))
        assert results == list(range(1, jobs + 1))
        latency = measuring.middle([measuring.seconds_of(lambda: run_all([Adds(1)])) for _ in range(times)])
    return {"rate": jobs / seconds, "latency": latency * 1e3}


if __name__ == "__main__":
    options = measuring.parser(__doc__).parse_args()
    measuring.compare(PEERS, measure, FIGURES, options)
