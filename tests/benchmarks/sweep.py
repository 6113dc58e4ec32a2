"""A sweep: 20 scikit-learn fits that hold the same array of 128 MB, twice in one pool, and what it leaves on disk.

The first figure begins in a process that has the array and no pool, and ends with the last result: it includes the
import of the library, the start of the workers, and in them the import of scikit-learn. The second is the same list
again. Ours has a fresh process for each job; the peers use theirs again. joblib maps the array from one file; the
others send a copy to each call. What is on disk after both, in multiples of the array, is shown for those that keep
their files.

Run it alone::

    python tests/benchmarks/sweep.py
"""

from __future__ import annotations

import contextlib

import measuring

JOBS, WORKERS = 20, 2
COLUMNS = 100


class Fits:
    """The job."""

    def __init__(self, rows, targets, alpha):
        self.rows, self.targets, self.alpha = rows, targets, alpha

    def run(self):
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=self.alpha).fit(self.rows[::50], self.targets[::50])
        return float(model.score(self.rows[:1000], self.targets[:1000]))


@contextlib.contextmanager
def ours():
    from jobcontainer import JobPool

    with JobPool(WORKERS, store=measuring.new_folder()) as pool:
        yield lambda fits: pool.submit_all(fits).results(), pool.store


@contextlib.contextmanager
def joblib():
    from joblib import Parallel, delayed

    folder = measuring.new_folder()
    with Parallel(WORKERS, temp_folder=folder) as parallel:
        yield lambda fits: parallel(delayed(one.run)() for one in fits), folder


@contextlib.contextmanager
def loky():
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda fits: [future.result() for future in [pool.submit(one.run) for one in fits]], None


@contextlib.contextmanager
def dask():
    import warnings

    from distributed import Client, LocalCluster

    warnings.simplefilter("ignore")  # that the graph is large, which is what is measured
    with (
        LocalCluster(WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        yield lambda fits: client.gather([client.submit(one.run, pure=False) for one in fits]), None


@contextlib.contextmanager
def submitit():
    from submitit import LocalExecutor

    folder = measuring.new_folder()
    executor = LocalExecutor(folder)
    yield lambda fits: [job.result() for job in [executor.submit(one.run) for one in fits]], folder


@contextlib.contextmanager
def executorlib():
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=WORKERS, block_allocation=True) as pool:
        yield lambda fits: [future.result() for future in [pool.submit(one.run) for one in fits]], None


MAPS = "joblib, memory-mapped"
PEERS = {
    measuring.OURS: ours,
    MAPS: joblib,
    "loky": loky,
    "Dask LocalCluster": dask,
    "submitit local": submitit,
    "executorlib, block_allocation": executorlib,
}

FIGURES = [
    measuring.Figure("first", "20 fits over 128 MB, from a new process", "s", goal=measuring.within(1.3, MAPS)),
    measuring.Figure("again", "the same list again", "s", goal=measuring.within(8, MAPS)),
    measuring.Figure("disk", "on disk after both", "times the array", goal=measuring.under(1.5)),
]


def on_disk(folder):
    """The bytes of a folder, files of several names counted once."""
    import pathlib

    found = [path.lstat() for path in pathlib.Path(folder).rglob("*")]
    return sum({status.st_ino: status.st_blocks * 512 for status in found}.values())


def measure(name, given):
    import numpy as np

    rows = np.random.default_rng(1).random((10_000 if given.quick else 160_000, COLUMNS))
    targets = rows @ np.arange(COLUMNS)
    fits = [Fits(rows, targets, 0.1 * number) for number in range(1, JOBS + 1)]
    with contextlib.ExitStack() as stack:
        folders, results = [], []

        def first():
            run_all, folder = stack.enter_context(PEERS[name]())
            folders.append((run_all, folder))
            results.append(run_all(fits))

        found = {"first": measuring.seconds_of(first)}
        [(run_all, folder)] = folders
        found["again"] = measuring.seconds_of(lambda: results.append(run_all(fits)))
        assert results[0] == results[1]
        assert len(set(results[0])) == JOBS
        if folder is not None:
            found["disk"] = on_disk(folder) / rows.nbytes
    return found


if __name__ == "__main__":
    options = measuring.parser(__doc__, rounds=3, quick_rounds=1).parse_args()
    measuring.compare(PEERS, measure, FIGURES, options)
