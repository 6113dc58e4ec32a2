"""How long it takes to say why an object can't go into a file.

Beside it the time of one dump of the same object without its culprits, by the same pickler: a diagnosis should be a
few of those, whatever the number of culprits and however large the arrays.

Run it alone::

    python tests/benchmarks/diagnosing.py
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time

import numpy as np

from jobcontainer import diagnose
from jobcontainer.pickling.pickler import NullFile, Pickler


class Model:
    def __init__(self, *held):
        self.held = held

    def run(self):
        return self.held


def with_and_without(make):
    return Model(make(), *(threading.Lock() for _ in range(5))), Model(make())


SUBJECTS = {
    "nothing else": dict,
    "512 MiB in an array": lambda: np.zeros(512 * 2**20, dtype=np.uint8),
    "512 MiB of bytes": lambda: bytes(512 * 2**20),
    "1,000,000 numbers in a list": lambda: list(range(10**6)),
    "100,000 objects": lambda: [Model(number) for number in range(10**5)],
}


def median_of(call, value, rounds):
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call(value)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"{'five locks and':32}{'dump ms':>10}{'diagnosis ms':>14}{'ratio':>8}")
    for name, make in SUBJECTS.items():
        broken, whole = with_and_without(make)
        assert len(diagnose(broken)) == 5
        dump = median_of(lambda value: Pickler(NullFile()).dump(value), whole, given.rounds)
        diagnosis = median_of(diagnose, broken, given.rounds)
        print(f"{name:32}{dump * 1e3:10.2f}{diagnosis * 1e3:14.2f}{diagnosis / dump:8.1f}")


if __name__ == "__main__":
    main()
