"""What saving a large array costs: a job file, with digests and signature, beside ``pickle.dump`` with protocol 5.

Both write a new file each time, in turns, so that they meet the same conditions. The digests are taken in other threads
while the bytes are written: a machine whose cores are all busy has no room for that. On a disk the kernel's writing
back hides everything; a folder in memory (``--folder /dev/shm``) is the hardest comparison.

Run it alone::

    python tests/benchmarks/saving_large.py --folder /dev/shm
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from jobcontainer import Serializer


def by_pickle(array, path):
    with path.open("wb") as file:
        pickle.dump(array, file, protocol=5)


def timed(save, array, path):
    begun = time.perf_counter()
    save(array, path)
    seconds = time.perf_counter() - begun
    path.unlink()
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    given = parser.parse_args()
    array = np.arange(int(given.gigabytes * 2**30) // 8)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "array"
        rounds = []
        for _ in range(given.rounds):
            os.sync()
            rounds.append((timed(by_pickle, array, path), timed(Serializer.serialize_to_file, array, path)))
    pickled, ours = zip(*rounds, strict=True)
    print(f"{'saving ' + str(given.gigabytes) + ' GiB':24}{'median s':>10}{'best s':>10}")
    print(f"{'pickle.dump, protocol 5':24}{statistics.median(pickled):10.3f}{min(pickled):10.3f}")
    print(f"{'job file':24}{statistics.median(ours):10.3f}{min(ours):10.3f}")
    print(f"{'ratio':24}{statistics.median(ours) / statistics.median(pickled):10.2f}{min(ours) / min(pickled):10.2f}")
    cores = len(os.sched_getaffinity(0))
    print(f"load {os.getloadavg()[0]:.1f} on {cores} cores")


if __name__ == "__main__":
    main()
