"""What a job on a Dask cluster costs over a plain task: run it with ``python tests/benchmarks/dask_overhead.py``.

A scheduler and one worker, each a process of its own. One after another, as a person would wait for them: a plain task
of Dask's, a job on the cluster (with a fresh process, a log, a result file), a job in a pool on this machine. Then many
at once. Medians; on a busy machine only their ratios mean something.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distributed

from jobcontainer import JobPool
from jobcontainer.engines.dask.engine import DaskEngine

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, MANY = 100, 300


def started(what: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *arguments]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def milliseconds_each(call: Callable[[], Any]) -> float:
    for _ in range(5):
        call()
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def per_second(pool: JobPool) -> float:
    begun = time.perf_counter()
    for job in [pool.submit(abs, -1) for _ in range(MANY)]:
        job.result()
    return MANY / (time.perf_counter() - begun)


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    file = str(folder / "scheduler.json")
    scheduler = started("scheduler", "--scheduler-file", file, "--host", "127.0.0.1", "--port", "0")
    worker = started("worker", "--scheduler-file", file, "--nthreads", "2", "--local-directory", str(folder))
    try:
        with distributed.Client(scheduler_file=file) as client:
            client.wait_for_workers(1)
            plain = milliseconds_each(lambda: client.submit(abs, -1, pure=False).result())
            with JobPool(engine=DaskEngine(client), store=folder / "dask") as pool:
                there = milliseconds_each(lambda: pool.submit(abs, -1).result())
                many_there = per_second(pool)
        with JobPool(2, store=folder / "loky") as pool:
            here = milliseconds_each(lambda: pool.submit(abs, -1).result())
            many_here = per_second(pool)
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait()
    print(f"a plain Dask task          {plain:6.1f} ms")
    print(f"a job on the Dask cluster  {there:6.1f} ms, {there - plain:.1f} ms over the plain task; {many_there:.0f}/s")
    print(f"a job on this machine      {here:6.1f} ms; {many_here:.0f}/s")


if __name__ == "__main__":
    main()
