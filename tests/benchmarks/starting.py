"""What it costs to begin: the import, and a new interpreter's way to its first result, beside the peers.

The first result is that of a trivial job, of a class in ``__main__``, with two workers; the clock runs from the start
of the interpreter until it has the result, whatever it takes to end. The floor is an interpreter that prints.

Run it alone::

    python tests/benchmarks/starting.py
"""

from __future__ import annotations

import measuring

JOB = """
class Adds:
    def run(self):
        return 1 + 1

if __name__ == "__main__":
"""

FIRST_RESULTS = {
    measuring.OURS: """
    from jobcontainer import JobPool
    with JobPool(2, store=sys.argv[1]) as pool:
        show(pool.submit(Adds()).result())
""",
    "loky": """
    from loky import ProcessPoolExecutor
    with ProcessPoolExecutor(2) as pool:
        show(pool.submit(Adds().run).result())
""",
    "joblib": """
    from joblib import Parallel, delayed
    show(Parallel(2)([delayed(Adds().run)()])[0])
""",
    "concurrent.futures": """
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2) as pool:
        show(pool.submit(Adds().run).result())
""",
    "submitit local": """
    import asyncio
    from submitit import LocalExecutor
    job = LocalExecutor(sys.argv[1]).submit(Adds().run)
    show(asyncio.run(job.awaitable().result(poll_interval=0.01)))
""",
    "Dask LocalCluster": """
    from distributed import Client, LocalCluster
    with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        show(client.submit(Adds().run).result())
""",
    "floor: bare Python": """
    show(Adds().run())
""",
}

IMPORTS = {
    measuring.OURS: "jobcontainer",
    "loky": "loky",
    "joblib": "joblib",
    "concurrent.futures": "concurrent.futures.process",
    "submitit local": "submitit",
    "Dask LocalCluster": "distributed",
}

IMPORT = """
import time
begun = time.perf_counter()
import {module}
print(time.perf_counter() - begun)
"""

EXTENSION = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
begun = time.perf_counter()
shell.run_line_magic("load_ext", "jobcontainer")
print(time.perf_counter() - begun)
"""

FIGURES = [
    measuring.Figure("import", "import", "ms", goal=measuring.under(50)),
    measuring.Figure("first", "first result in a new process", "ms", goal=measuring.times(1, "loky")),
    measuring.Figure("extension", "%load_ext beside IPython's own", "ms", goal=measuring.under(150)),
]


def printed(*command):
    """The number that a new interpreter prints."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def first_result(name):
    """Seconds from the start of an interpreter to its first result."""
    import time
    from pathlib import Path

    folder = measuring.new_folder()
    script = Path(folder, "script.py")
    head = "import sys, time\ndef show(result):\n    assert result == 2\n    print(time.time(), flush=True)\n"
    script.write_text(head + JOB + FIRST_RESULTS[name])
    begun = time.time()
    return printed(str(script), folder) - begun


def measure(name, given):
    times = 1 if given.quick else 5
    found = {"first": measuring.middle([first_result(name) for _ in range(times)]) * 1e3}
    if name in IMPORTS:
        code = IMPORT.format(module=IMPORTS[name])
        found["import"] = measuring.middle([printed("-c", code) for _ in range(times)]) * 1e3
    if name == measuring.OURS:
        found["extension"] = measuring.middle([printed("-c", EXTENSION) for _ in range(times)]) * 1e3
    return found


if __name__ == "__main__":
    options = measuring.parser(__doc__, rounds=3, quick_rounds=1).parse_args()
    measuring.compare(FIRST_RESULTS, measure, FIGURES, options)
