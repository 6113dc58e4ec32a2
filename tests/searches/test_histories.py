"""Random histories of one store with several kernels, shells and a host: every job has one end, and keeps it."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import shutil
from typing import ClassVar

import pytest
from histories import GARBAGE, FoundError, History, Nursery
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from jobcontainer.events import JobState

KERNEL = st.integers(0, 1)
KINDS = st.sampled_from(["returns", "waits", "raises", "exits", "retried"])
STATES = st.sets(st.sampled_from([state.value for state in JobState if state.ended]), min_size=1)
STOPS = st.one_of(st.none(), st.none(), st.floats(0, 0.03))
SIZES = st.sampled_from([0, 100, 600, 5000])

SETTINGS = settings(
    max_examples=2,  # the first of them has hardly a step
    stateful_step_count=30,
    phases=[Phase.generate],  # what depends on time can't be made shorter by running it again
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


class Histories(RuleBasedStateMachine):
    """One history in each instance; a subclass says on what.

    Attributes:
        nursery: where kernels and shells come from.
        below: the folder of all stores.
        search: counts.
        found: what was found first.
    """

    nursery = below = search = None
    found: ClassVar[list[str]] = []

    def __init__(self):
        super().__init__()
        self.folder = self.below / secrets.token_hex(4)
        self.history = History(self.nursery, self.folder)
        self.steps = []

    def do(self, name, *given, **options):
        self.steps.append(f"{name}{given}{options or ''}")
        self.search.count("steps")
        self.tried(getattr(self.history, name), *given, **options)

    def tried(self, call, *given, **options):
        try:
            call(*given, **options)
        except BaseException as error:
            if not self.found:
                self.found.append(f"{error!r}\nafter\n" + "\n".join(self.steps))
            raise

    def job(self, number):
        return list(self.history.jobs)[number % len(self.history.jobs)]

    def has_jobs(self):
        return bool(self.history.jobs)

    @rule(which=KERNEL, kind=KINDS, stop_after=STOPS)
    def submit(self, which, kind, stop_after):
        self.do("submit", which, kind, stop_after=stop_after)

    @rule(which=KERNEL, kind=KINDS)
    def submit_again(self, which, kind):
        self.do("submit", which, kind)

    @rule(which=KERNEL, kind=KINDS)
    def submit_detached(self, which, kind):
        self.do("submit", which, kind, detach=True)

    @precondition(has_jobs)
    @rule(which=KERNEL, kind=KINDS, number=st.integers(0, 99), detach=st.booleans(), stop_after=STOPS)
    def submit_with_input(self, which, kind, number, detach, stop_after):
        self.do("submit", which, kind, detach=detach, stop_after=stop_after, needs=self.job(number))

    @precondition(has_jobs)
    @rule(which=KERNEL, number=st.integers(0, 99), stop_after=STOPS)
    def rerun(self, which, number, stop_after):
        if self.history.jobs[self.job(number)].needs is None:  # else those above it may run again too
            self.do("rerun", which, self.job(number), stop_after=stop_after)

    @precondition(has_jobs)
    @rule(number=st.integers(0, 99))
    def release(self, number):
        self.do("release", self.job(number))

    @precondition(has_jobs)
    @rule(which=KERNEL, number=st.integers(0, 99), timeout=st.sampled_from([0, 0.3, 2]), stop_after=STOPS)
    def result(self, which, number, timeout, stop_after):
        self.do("result", which, self.job(number), timeout, stop_after=stop_after)

    @precondition(has_jobs)
    @rule(which=KERNEL, number=st.integers(0, 99), stop_after=STOPS)
    def cancel(self, which, number, stop_after):
        self.do("cancel", which, self.job(number), stop_after=stop_after)

    @precondition(has_jobs)
    @rule(number=st.integers(0, 99))
    def cancel_in_shell(self, number):
        self.do("cancel_in_shell", self.job(number))

    @rule(which=KERNEL, stop_after=STOPS)
    def list_jobs(self, which, stop_after):
        self.do("list", which, stop_after=stop_after)

    @precondition(lambda self: self.history.store.exists())
    @rule()
    def list_in_shell(self):
        self.do("list_in_shell")

    @rule(which=st.one_of(KERNEL, st.none()), states=STATES, stop_after=STOPS)
    def prune(self, which, states, stop_after):
        self.do("prune", which, sorted(states), stop_after=stop_after)

    @rule(which=KERNEL)
    def kill_kernel(self, which):
        if self.history.kernels[which] is not None:
            self.do("kill_kernel", which)

    @rule(which=KERNEL)
    def kill_kernel_and_keepers(self, which):
        if self.history.kernels[which] is not None:
            self.do("kill_kernel", which, with_keepers=True)

    @rule(which=KERNEL)
    def end_kernel(self, which):
        if self.history.kernels[which] is not None and not self.history.kernels[which].disk_is_full:
            self.do("end_kernel", which)

    @rule(which=KERNEL, number=st.integers(0, 3))
    def stop_keeper(self, which, number):
        if self.history.kernels[which] is not None:
            self.do("stop_keeper", which, number)

    @rule(which=KERNEL, number=st.integers(0, 3))
    def kill_keeper(self, which, number):
        if self.history.kernels[which] is not None:
            self.do("kill_keeper", which, number)

    @rule()
    def kill_host(self):
        self.do("kill_host")

    @rule(which=KERNEL, size=SIZES)
    def fill_disk(self, which, size):
        self.do("fill_disk", which, size)

    @rule(which=KERNEL)
    def free_disk(self, which):
        self.do("free_disk", which)

    @rule(how=st.sampled_from(["deleted", *GARBAGE]))
    def damage_journal(self, how):
        self.do("damage_journal", how)

    @precondition(has_jobs)
    @rule(number=st.integers(0, 99), how=st.sampled_from(list(GARBAGE)))
    def damage_events(self, number, how):
        self.do("damage_events", self.job(number), how)

    @rule(how=st.sampled_from(["empty", *GARBAGE]))
    def litter(self, how):
        self.do("litter", how)

    def teardown(self):
        try:
            if not self.found:
                self.steps.append("settle")
                self.tried(self.history.settle)
        finally:
            self.history.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        self.search.count("histories")
        self.search.count("jobs", len(self.history.jobs))


def test_in_any_history_each_job_has_one_end_and_keeps_it(search, script, tmp_path):
    """Whatever is killed, interrupted, full, damaged or pruned: no end is missing or changes, no result is lost."""
    nursery, found = Nursery(tmp_path, script), []
    given = {"nursery": nursery, "below": tmp_path / "stores", "search": search, "found": found}
    try:
        for number in itertools.count(search.seed):
            # What is found stands in the list. Which steps are possible depends on the processes, too, so that
            # hypothesis may complain that they were others the second time.
            with contextlib.suppress(FoundError, Flaky):
                run_state_machine_as_test(seed(number)(type("Store", (Histories,), given)), settings=SETTINGS)
            if found:
                pytest.fail(f"--search-seed {number} found {found[0]}", pytrace=False)
            if not search.goes_on():
                break
    finally:
        nursery.close()
