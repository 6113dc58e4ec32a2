"""A fresh process for each job: jobs a second, and what one takes to its result, beside the peers that can do it.

Two workers, a trivial job, its class in ``__main__``. Jobs a second: all are submitted, all results are taken. Latency:
one after another in a warm pool, as a person would wait for them. Only ours writes a folder with process, log, events
and result for each job (submitit writes files too); the others' stay in pipes. The floor is a process with what a
keeper has imported, which forks, exits in the child at once, and waits for it.

Each peer runs as it comes, and once more, "tuned", with what it has to offer: a fork server that has imported what
the peer's children import, and a pebble that looks every 2 ms for what there is to do, rather than every 100. submitit
looks for results every 10 ms rather than every second.

Run it alone::

    python tests/benchmarks/fresh_jobs.py
"""

from __future__ import annotations

import contextlib
import sys

import measuring

WORKERS = 2


class Adds:
    """The job.

    Where its class is pickled by reference (pebble, the standard library), that works as this is a script that
    children can import; a notebook's class could not go that way at all.
    """

    def __init__(self, number):
        self.number = number

    def run(self):
        return self.number + 1


@contextlib.contextmanager
def ours():
    from jobcontainer import JobPool

    with JobPool(WORKERS, store=measuring.new_folder()) as pool:
        yield lambda processes: pool.submit_all(processes).results()


def context_of(method, imported):
    """The start method's context; a fork server imports a module once, rather than each of its children."""
    import multiprocessing

    if imported:
        multiprocessing.set_forkserver_preload(["__main__", imported])
    return multiprocessing.get_context(method)


def pebble(method, *, tuned=False):
    @contextlib.contextmanager
    def peer():
        from pebble import CONSTS, ProcessPool

        if tuned:
            CONSTS.sleep_unit = 0.002
        context = context_of(method, "pebble.pool.process" if tuned else None)
        with ProcessPool(WORKERS, max_tasks=1, context=context) as pool:
            yield lambda processes: [future.result() for future in [pool.schedule(one.run) for one in processes]]

    return peer


def concurrent_futures(method, *, tuned=False):
    @contextlib.contextmanager
    def peer():
        from concurrent.futures import ProcessPoolExecutor

        context = context_of(method, "concurrent.futures.process" if tuned else None)
        with ProcessPoolExecutor(WORKERS, mp_context=context, max_tasks_per_child=1) as pool:
            yield lambda processes: [future.result() for future in [pool.submit(one.run) for one in processes]]

    return peer


def multiprocessing_pool(method, *, tuned=False):
    @contextlib.contextmanager
    def peer():
        with context_of(method, "multiprocessing.pool" if tuned else None).Pool(WORKERS, maxtasksperchild=1) as pool:
            yield lambda processes: [there.get() for there in [pool.apply_async(one.run) for one in processes]]

    return peer


@contextlib.contextmanager
def submitit():
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from submitit import LocalExecutor

    executor = LocalExecutor(measuring.new_folder())

    def run(one):
        return asyncio.run(executor.submit(one.run).awaitable().result(poll_interval=0.01))

    with ThreadPoolExecutor(WORKERS) as threads:  # it has no workers, and would start all at once
        yield lambda processes: list(threads.map(run, processes))


@contextlib.contextmanager
def executorlib():
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=WORKERS) as pool:  # a process for each call, unless block_allocation is given
        yield lambda processes: [future.result() for future in [pool.submit(one.run) for one in processes]]


@contextlib.contextmanager
def loky_respawned():
    from concurrent.futures import ThreadPoolExecutor

    from loky import ProcessPoolExecutor

    def in_an_executor_of_its_own(one):
        with ProcessPoolExecutor(1) as executor:
            return executor.submit(one.run).result()

    with ThreadPoolExecutor(WORKERS) as threads:
        yield lambda processes: list(threads.map(in_an_executor_of_its_own, processes))


FLOOR = "floor: a bare fork"

PEERS = {  # with how many jobs are run for jobs a second
    measuring.OURS: (ours, 400),
    "pebble max_tasks=1, spawn": (pebble("spawn"), 30),
    "pebble max_tasks=1, forkserver": (pebble("forkserver"), 60),
    "concurrent.futures, spawn": (concurrent_futures("spawn"), 40),
    "concurrent.futures, forkserver": (concurrent_futures("forkserver"), 100),
    "multiprocessing.Pool, spawn": (multiprocessing_pool("spawn"), 60),
    "multiprocessing.Pool, forkserver": (multiprocessing_pool("forkserver"), 200),
    "tuned pebble, forkserver": (pebble("forkserver", tuned=True), 200),
    "tuned concurrent.futures, forkserver": (concurrent_futures("forkserver", tuned=True), 200),
    "tuned multiprocessing.Pool, forkserver": (multiprocessing_pool("forkserver", tuned=True), 200),
    "submitit local": (submitit, 10),
    "executorlib": (executorlib, 30),
    "loky respawned": (loky_respawned, 30),
}

FIGURES = [
    measuring.Figure(
        "rate",
        "fresh process per job",
        "jobs/s",
        more_is_better=True,
        goal=measuring.every(measuring.times(5), measuring.times(20, "pebble")),
    ),
    measuring.Figure(
        "latency",
        "fresh process per job, warm latency",
        "ms",
        goal=measuring.every(measuring.under(5), measuring.within(3, FLOOR)),
    ),
]

FORKS = """
import gc, os, statistics, sys, time
import joblib.externals.loky
from jobcontainer.worker import isolation, job_process, limits
isolation.take_out_joblib()
job_process.preload_for_jobs(())
limits.find_thread_pools()
gc.collect(); gc.freeze(); gc.disable()
times = []
for _ in range(int(sys.argv[1])):
    begun = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    times.append(time.perf_counter() - begun)
print(statistics.median(times))
"""


def bare_fork(times):
    """Seconds of a fork in a process that is no larger and no smaller than a keeper."""
    import subprocess

    command = [sys.executable, "-c", FORKS, str(times)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(name, given):
    times = 4 if given.quick else 40
    if name == FLOOR:
        return {"latency": bare_fork(5 * times) * 1e3}
    peer, jobs = PEERS[name]
    if given.quick:
        jobs = max(4, jobs // 10)
    with peer() as run_all:
        assert run_all([Adds(number) for number in range(2 * WORKERS)]) == [1, 2, 3, 4]  # every worker has started
        processes, results = [Adds(number) for number in range(jobs)], []
        seconds = measuring.seconds_of(lambda: results.extend(run_all(processes)))
        assert results == list(range(1, jobs + 1))
        times = min(times, jobs)
        latency = measuring.middle([measuring.seconds_of(lambda: run_all([Adds(1)])) for _ in range(times)])
    return {"rate": jobs / seconds, "latency": latency * 1e3}


if __name__ == "__main__":
    options = measuring.parser(__doc__).parse_args()
    measuring.compare([*PEERS, FLOOR], measure, FIGURES, options)
