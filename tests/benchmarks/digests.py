"""How fast digests are: the choice of BLAKE3 for job files.

A signature needs a digest that nobody can aim at: not xxh3 or a CRC, which stand here for comparison where installed.
GiB/s of one thread over data in memory, and microseconds for a small header.

Run it alone::

    python tests/benchmarks/digests.py
"""

from __future__ import annotations

import hashlib
import importlib
import os
import timeit
import zlib

from blake3 import blake3

SIZE = 256 * 2**20


def kinds():
    yield "sha256", lambda data: hashlib.sha256(data).digest()
    yield "sha1, broken", lambda data: hashlib.sha1(data, usedforsecurity=False).digest()
    yield "blake2b", lambda data: hashlib.blake2b(data).digest()
    yield "blake3", lambda data: blake3(data).digest()
    yield "crc32, no signature", zlib.crc32
    try:
        xxhash = importlib.import_module("xxhash")
    except ImportError:
        return
    yield "xxh3, no signature", lambda data: xxhash.xxh3_128(data).digest()


def main():
    large, small = memoryview(os.urandom(SIZE)), os.urandom(500)
    print(f"{'digest':24}{'GiB/s':>8}{'500 bytes us':>14}")
    for name, digest in kinds():
        seconds = min(timeit.repeat(lambda digest=digest: digest(large), number=1, repeat=5))
        micro = min(timeit.repeat(lambda digest=digest: digest(small), number=2000, repeat=5)) / 2000 * 1e6
        print(f"{name:24}{SIZE / 2**30 / seconds:8.2f}{micro:14.2f}")


if __name__ == "__main__":
    main()
