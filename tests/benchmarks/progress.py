"""What progress costs: a tqdm loop inside a job beside the same loop outside of one.

Each figure is the median of several fresh processes, all kinds in turns, so that they see the same weather. The loop
outside of a job paints its bar into ``os.devnull``, which is the cheapest place there is.

Run it alone::

    python tests/benchmarks/progress.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SETUP = """
import json, os, sys, time
from jobcontainer.events import Bar
from jobcontainer.files.folder import JobFolder
from jobcontainer.files.progress import ProgressRecord, read_bars
from jobcontainer.worker import display, progress as bars
folder, steps = JobFolder(sys.argv[1]), int(sys.argv[2])
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
def timed(loop):
    begun = time.perf_counter()
    loop()
    return time.perf_counter() - begun
def in_job(loop):
    bars.install(folder)
    seconds = timed(loop)
    bars.finish()
    return seconds
def of_tqdm():
    from tqdm import tqdm
    return lambda: [None for _ in tqdm(range(steps))]
def of_ours():
    return lambda: [None for _ in bars.progress(range(steps))]
def of_reports():
    return lambda: [bars.report(step) for step in range(steps)]
"""

LOOPS = {
    "bare loop": "timed(lambda: [None for _ in range(steps)])",
    "tqdm, outside of a job": "timed(of_tqdm())",
    "tqdm, in a job": "in_job(of_tqdm())",
    "progress(), in a job": "in_job(of_ours())",
    "report() at each step, in a job": "in_job(of_reports())",
}

# Nanoseconds of one call, each the best of five rounds.
CALLS = """
import timeit
record = ProgressRecord(folder.path / "record")
record.put(0, Bar(label="epochs", total=10, message="loss=0.1"))
def both():
    bars.install(folder); display.install(folder); display.finish(); bars.finish()
def nanoseconds(call, number):
    return min(timeit.repeat(call, number=number, repeat=5)) / number * 1e9
installed = nanoseconds(both, 200)
bars.install(folder)
print(json.dumps({
    "an update of the counts": nanoseconds(lambda: record.advance(0, 5.0, 6.0), 20_000),
    "report()": nanoseconds(lambda: bars.report(5.0), 20_000),
    "an update of the whole bar": nanoseconds(lambda: record.put(0, Bar(label="epochs", done=5.0)), 20_000),
    "a read of all bars": nanoseconds(lambda: read_bars(folder.progress_file), 2_000),
    "install and finish of a job that shows nothing": installed,
}))
"""


def run(code: str, steps: int) -> str:
    """Run code in a fresh process with a job folder of its own, and return what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SETUP + code, folder, str(steps)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="steps of each loop (default: 1,000,000)")
    parser.add_argument("--rounds", type=int, default=7, help="fresh processes of each kind (default: 7)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    for _ in range(options.rounds):
        for name, loop in LOOPS.items():
            seconds[name].append(float(run(f"print({loop})", options.steps)))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    plain = medians["tqdm, outside of a job"]
    print(f"| {options.steps:,} steps, median of {options.rounds} | ns a step | to plain tqdm |\n| --- | ---: | ---: |")
    for name, median in medians.items():
        print(f"| {name} | {median / options.steps * 1e9:,.0f} | {median / plain:.2f} |")
    calls: dict[str, float] = json.loads(run(CALLS, options.steps))
    print("\n| one call | us |\n| --- | ---: |")
    for name, nanoseconds in calls.items():
        print(f"| {name} | {nanoseconds / 1000:.2f} |")
    if options.json:
        options.json.write_text(json.dumps({"seconds": medians, "steps": options.steps, "nanoseconds": calls}))


if __name__ == "__main__":
    main()
