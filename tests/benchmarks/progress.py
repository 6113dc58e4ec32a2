"""Progress from a tqdm loop of 1,000,000 steps inside a job, beside the same loop under plain tqdm.

It is the same ``run()``, which times its loop itself: sent off as a job, whose bar reaches the card and the disk, and
called in a fresh process, where plain tqdm paints into ``os.devnull``, the cheapest place there is. Aside, what our own
``progress()`` and ``report()`` cost, and the floor: the loop without any bar.

Run it alone::

    python tests/benchmarks/progress.py
"""

from __future__ import annotations

import measuring

STEPS = 1_000_000
PLAIN = "plain tqdm"
BARE = "floor: no bar"


class Loops:
    """The job: a loop that does nothing but step, as a list comprehension is the fastest there is."""

    def __init__(self, steps):
        self.steps = steps

    def run(self):
        import time

        loop = self.loop()
        begun = time.perf_counter()
        loop()
        return time.perf_counter() - begun


class Tqdm(Loops):
    def loop(self):
        from tqdm import tqdm

        return lambda: [None for _ in tqdm(range(self.steps))]


class Ours(Loops):
    def loop(self):
        from jobcontainer import progress

        return lambda: [None for _ in progress(range(self.steps))]


class Reports(Loops):
    def loop(self):
        from jobcontainer import report

        return lambda: [report(step, self.steps) for step in range(self.steps)]


class Bare(Loops):
    def loop(self):
        return lambda: [None for _ in range(self.steps)]


LOOPS = {
    measuring.OURS: Tqdm,
    PLAIN: Tqdm,
    f"{measuring.OURS}, progress()": Ours,
    f"{measuring.OURS}, report() at each step": Reports,
    BARE: Bare,
}

FIGURES = [
    measuring.Figure("step", "a tqdm loop of 1,000,000 steps in a job", "ns a step", goal=measuring.within(1.1, PLAIN))
]


def in_a_job(process, times):
    """Seconds, as measured by the job itself."""
    from jobcontainer import JobPool

    with JobPool(1, store=measuring.new_folder()) as pool:
        return [pool.submit(process).result() for _ in range(times)]


def in_this_process(process, times):
    """Seconds without a job, standard error going nowhere."""
    import contextlib
    import os

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        return [process.run() for _ in range(times)]


def measure(name, given):
    steps, times = (STEPS // 10, 2) if given.quick else (STEPS, 3)
    run = in_a_job if name.startswith(measuring.OURS) else in_this_process
    return {"step": measuring.middle(run(LOOPS[name](steps), times)) / steps * 1e9}


if __name__ == "__main__":
    options = measuring.parser(__doc__, rounds=7).parse_args()
    measuring.compare(LOOPS, measure, FIGURES, options)
