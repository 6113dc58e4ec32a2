"""What loading a large array costs: a job file beside a plain pickle, each in a process of its own.

A load maps the file. A process that has the file's identity from its writer, as a job and its parent have, need not
hash it; any other hashes it once. Every figure is of a fresh process; the kinds take turns, so that they meet the same
conditions, and the files are in the page cache for all. Memory is the proportional share (PSS) of two readers at the
same time, each of which has read every number of the array.

Run it alone::

    python tests/benchmarks/loading_large.py --gigabytes 1
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from jobcontainer import Serializer

READER = """
import json, re, sys, time
import numpy
from jobcontainer.jobfile.identity import FileIdentity
from jobcontainer.jobfile.loading import load_file
import pickle
def by_pickle(path):
    with open(path, "rb") as file:
        return pickle.load(file)
def share():
    with open("/proc/self/smaps_rollup") as facts:
        return int(re.search(r"^Pss: +(\\d+)", facts.read(), re.M)[1])
def vouched_for(path):
    return load_file(path, identity=FileIdentity.of(path))
load = {"pickle": by_pickle, "hashed": load_file, "vouched for": vouched_for}[sys.argv[1]]
before = share()
begun = time.perf_counter()
array = load(sys.argv[2])
seconds = time.perf_counter() - begun
print(json.dumps({"seconds": seconds}), flush=True)
array.sum()
print("read", flush=True)
sys.stdin.readline()
print(json.dumps({"kilobytes": share() - before}), flush=True)
sys.stdin.readline()
"""


def started(kind, path):
    return subprocess.Popen(
        [sys.executable, "-c", READER, kind, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def seconds_of(kind, path):
    """Load in a fresh process."""
    with started(kind, path) as reader:
        seconds = json.loads(reader.stdout.readline())["seconds"]
        reader.kill()
    return seconds


def shares_of(kind, path):
    """Load in two processes at once, and return their shares of memory in kilobytes."""
    with started(kind, path) as first, started(kind, path) as second:
        readers = (first, second)
        for reader in readers:
            reader.stdout.readline()
            reader.stdout.readline()
        shares = []
        for reader in readers:
            reader.stdin.write("\n")
            reader.stdin.flush()
            shares.append(json.loads(reader.stdout.readline())["kilobytes"])
        for reader in readers:
            reader.kill()
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    size = int(given.gigabytes * 2**30)
    with tempfile.TemporaryDirectory() as folder:
        job, plain = (Path(folder) / name for name in ("array.job", "array.pickle"))
        array = np.arange(size // 8)
        Serializer.serialize_to_file(array, job)
        with plain.open("wb") as file:
            pickle.dump(array, file, protocol=5)
        del array
        files = {"pickle": plain, "hashed": job, "vouched for": job}
        rounds = [[seconds_of(kind, path) for kind, path in files.items()] for _ in range(given.rounds)]
        by_pickle, hashed, vouched_for = (statistics.median(times) for times in zip(*rounds, strict=True))
        shares = {kind: shares_of(kind, path) for kind, path in files.items()}
    print(f"{'loading ' + str(given.gigabytes) + ' GiB':32}{'seconds':>10}{'to pickle.load':>16}")
    times = {"pickle.load": by_pickle, "job file, hashed": hashed, "job file, vouched for": vouched_for}
    for name, seconds in times.items():
        print(f"{name:32}{seconds:10.4f}{seconds / by_pickle:15.4f}x")
    print(f"pickle.load takes {by_pickle / vouched_for:.0f} times as long as a load that is vouched for")
    print(f"\n{'two readers, MiB each':32}{'total / size':>26}")
    for kind, both in shares.items():
        print(f"{kind:32}{both[0] // 1024:8} {both[1] // 1024:8}{sum(both) * 1024 / size:9.2f}")


if __name__ == "__main__":
    main()
