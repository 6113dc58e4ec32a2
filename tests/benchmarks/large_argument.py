"""A process that holds a large array, two jobs at once: seconds to both results, and memory, beside the peers.

The array is made before the clock starts; each job reads a number of every page of it. Ours goes into one file, of
which both jobs map the same pages. joblib does the same with a memory-mapped copy; the others send a copy to each job.
Memory is the peak of the proportional share (PSS) of all processes, beyond what was held when the clock started, which
includes the array itself, as a multiple of its size.

Run it alone::

    python tests/benchmarks/large_argument.py
"""

from __future__ import annotations

import contextlib
import os

import measuring

JOBS = 2
PAGE = 4096 // 8  # numbers in one


class Sums:
    """The job; its class goes by value with all of them."""

    def __init__(self, array):
        self.array = array

    def run(self):
        return float(self.array[::PAGE].sum())


@contextlib.contextmanager
def ours():
    import tempfile

    from jobcontainer import JobContainer, Serializer

    with tempfile.TemporaryDirectory() as folder:
        os.environ["JOBCONTAINER_HOME"] = folder

        def run_all(process):
            file = os.path.join(folder, "process.job")  # noqa: PTH118 -- nothing else needs pathlib here
            Serializer.serialize_to_file(process, file)
            jobs = [JobContainer(file).submit() for _ in range(JOBS)]
            return [job.result() for job in jobs]

        yield run_all


@contextlib.contextmanager
def loky():
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(JOBS) as pool:
        yield lambda one: [future.result() for future in [pool.submit(one.run) for _ in range(JOBS)]]


@contextlib.contextmanager
def joblib():
    from joblib import Parallel, delayed

    with Parallel(JOBS) as parallel:
        yield lambda one: parallel(delayed(one.run)() for _ in range(JOBS))


@contextlib.contextmanager
def dask():
    import warnings

    from distributed import Client, LocalCluster

    warnings.simplefilter("ignore")  # that the graph is large, which is what is measured
    with (
        LocalCluster(JOBS, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        yield lambda one: client.gather([client.submit(one.run, pure=False) for _ in range(JOBS)])


@contextlib.contextmanager
def submitit():
    import tempfile

    from submitit import LocalExecutor

    with tempfile.TemporaryDirectory() as folder:
        executor = LocalExecutor(folder, max_pickle_size_gb=2.0)  # it refuses more than one, unless asked
        yield lambda one: [job.result() for job in [executor.submit(one.run) for _ in range(JOBS)]]


@contextlib.contextmanager
def executorlib():
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=JOBS, block_allocation=True) as pool:
        yield lambda one: [future.result() for future in [pool.submit(one.run) for _ in range(JOBS)]]


PEERS = {
    measuring.OURS: ours,
    "loky": loky,
    "joblib, memory-mapped": joblib,
    "Dask LocalCluster": dask,
    "submitit local": submitit,
    "executorlib, block_allocation": executorlib,
}

MAPS = "joblib, memory-mapped"

FIGURES = [
    measuring.Figure("seconds", "an argument of 1 GiB to two jobs at once", "s", goal=measuring.times(5, but=[MAPS])),
    measuring.Figure("memory", "peak memory beyond the argument", "times its size", goal=measuring.under(1.2)),
]


def measure(name, given):
    import numpy as np

    size = 2**26 if given.quick else 2**30
    with PEERS[name]() as run_all:
        run_all(Sums(np.ones(PAGE)))  # every worker has started
        process = Sums(np.ones(size // 8))
        held = measuring.memory_of_tree(os.getpid()) if given.memory else 0
        results = []
        seconds = measuring.seconds_of(lambda: results.extend(run_all(process)))
        assert results == [size / 8 / PAGE] * JOBS
    return {"seconds": seconds, "held": held}


if __name__ == "__main__":
    options = measuring.parser(__doc__, rounds=3, quick_rounds=1).parse_args()
    measuring.compare(PEERS, measure, FIGURES, options, memory_of=2**26 if options.quick else 2**30)
