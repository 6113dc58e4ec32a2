"""What a small file costs: saved and loaded as a job file, and with ``cloudpickle.dump`` and ``pickle.load``.

Each time a new file, in turns, so that both meet the same conditions. A job file is signed and checked, appears whole
or not at all, and has a header and the source. All that is a sum of microseconds, so the ratio is the better the more
there is to pickle and the slower the file system is.

Run it alone::

    python tests/benchmarks/small_files.py
"""

from __future__ import annotations

import argparse
import itertools
import pickle
import statistics
import tempfile
import time
from pathlib import Path

import cloudpickle
import numpy as np

from jobcontainer import Serializer


class Train:
    """A process as a notebook has it."""

    def __init__(self, rate):
        self.rate = rate
        self.layers = [64, 32, 16]

    def run(self):
        total = 0.0
        for step, width in enumerate(self.layers):
            total += self.rate * width / (step + 1)
        return self.rounded(total)

    def rounded(self, total):
        return round(total, 3)


SUBJECTS = {
    "a process of the notebook": Train(0.1),
    "a list of such": [Train(rate / 10) for rate in range(10)],
    "a dict of numbers": {"loss": 0.25, "steps": list(range(10))},
    "an array of 100 numbers": np.zeros(100),
}


def as_job_file(value, path):
    Serializer.serialize_to_file(value, path)
    return Serializer.deserialize_from_file(path)


def by_cloudpickle(value, path):
    with path.open("wb") as file:
        cloudpickle.dump(value, file)
    with path.open("rb") as file:
        return pickle.load(file)


def timed(round_trip, value, path):
    begun = time.perf_counter()
    round_trip(value, path)
    return (time.perf_counter() - begun) * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    given = parser.parse_args()
    print(f"{'microseconds, median':32}{'cloudpickle':>14}{'job file':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        numbers = itertools.count()
        for name, value in SUBJECTS.items():
            rounds = [
                tuple(timed(trip, value, Path(folder) / f"{next(numbers)}") for trip in (by_cloudpickle, as_job_file))
                for _ in range(given.rounds)
            ]
            plain, ours = (statistics.median(times) for times in zip(*rounds[given.rounds // 10 :], strict=True))
            print(f"{name:32}{plain:14.0f}{ours:12.0f}{ours / plain:8.2f}")


if __name__ == "__main__":
    main()
