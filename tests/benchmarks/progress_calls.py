"""What one call costs of those that progress is made of: microseconds, each the best of five rounds.

Run it alone::

    python tests/benchmarks/progress_calls.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

CALLS = """
import json, os, sys, timeit
from jobcontainer.events import Bar
from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.progress_file import ProgressFile, read_bars
from jobcontainer.worker.reporting import display, progress as bars
folder, rounds = JobFolder(sys.argv[1]), int(sys.argv[2])
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
file, bar = ProgressFile(folder.path / "file"), Bar(label="epochs", total=10, message="loss=0.1")
def both():
    bars.install(folder); display.install(folder); display.finish(); bars.finish()
def nanoseconds(call, number):
    return min(timeit.repeat(call, number=number // rounds, repeat=5)) / (number // rounds) * 1e9
installed = nanoseconds(both, 200)
bars.install(folder)
print(json.dumps({
    "a write of one bar": nanoseconds(lambda: file.write([bar]), 20_000),
    "a write of six bars": nanoseconds(lambda: file.write([bar] * 6), 20_000),
    "report(), at first": nanoseconds(lambda: bars.report(5.0), 5_000),
    "report(), a million in a row": nanoseconds(lambda: bars.report(5.0), 1_000_000),
    "report() with a new message": nanoseconds(lambda: bars.report(5.0, message=str(os.times())), 5_000),
    "a read of all bars": nanoseconds(lambda: read_bars(folder.progress_file), 2_000),
    "install and finish of a job that shows nothing": installed,
}))
"""


def main():
    fewer = "10" if "--quick" in sys.argv[1:] else "1"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CALLS, folder, fewer]
        calls = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{'one call':48}{'us':>8}")
    for name, nanoseconds in calls.items():
        print(f"{name:48}{nanoseconds / 1000:8.2f}")


if __name__ == "__main__":
    main()
