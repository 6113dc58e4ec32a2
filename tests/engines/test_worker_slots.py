"""The slots of the local engine when no keeper can be made for a moment; over keepers that a test moves by hand."""

from __future__ import annotations

import errno
import time
from typing import ClassVar

import pytest

from jobcontainer.engines.attempt import Attempt
from jobcontainer.engines.local import worker_slots
from jobcontainer.engines.local.worker_slots import WorkerSlots
from jobcontainer.events import JobState, Outcome
from jobcontainer.process import JobOptions
from jobcontainer.storage.store_folder import StoreFolder
from jobcontainer.worker.keeper_protocol import Order

NO_DESCRIPTORS = OSError(errno.EMFILE, "Too many open files")


class HandKeeper:
    """A keeper whose process can't be made, or whose jobs end, when the test says so."""

    made: ClassVar[list[HandKeeper]] = []
    can_be_made = True
    refusal: Exception | None = None

    def __init__(self, *, forks, threads):  # noqa: ARG002 -- those of a keeper
        if not HandKeeper.can_be_made:
            raise NO_DESCRIPTORS
        self.was_made = True
        self.order = None
        HandKeeper.made.append(self)

    def report_to(self, listener):
        self.listener = listener
        return True

    def start(self, at_exit):
        pass

    def want(self, modules):
        pass

    def run(self, order):
        if HandKeeper.refusal is not None:
            raise HandKeeper.refusal
        self.order = order

    def kill(self):
        pass

    def cancel(self, number):
        pass

    def finish(self):
        outcome = Outcome(state=JobState.SUCCEEDED, at=time.time(), attempt=self.order.attempt)
        self.listener.job_ended(self, self.order.number, outcome)

    def fail_to_start(self):
        self.was_made = False
        self.listener.keeper_ended(
            self, "No keeper process could be started: OSError: Too many open files.", JobState.LOST
        )

    def end(self):
        pass

    def join(self, timeout=None):  # noqa: ARG002 -- that of a keeper
        return True


@pytest.fixture
def slots(monkeypatch):
    monkeypatch.setattr(worker_slots, "KeeperProcess", HandKeeper)
    monkeypatch.setattr(HandKeeper, "made", [])
    monkeypatch.setattr(HandKeeper, "can_be_made", True)
    slots = WorkerSlots(2, forks=not worker_slots.FORKS)  # so that no spare keeper is taken
    yield slots
    worker_slots._open.discard(slots)


@pytest.fixture
def submit(slots, tmp_path):
    store = StoreFolder(tmp_path)
    return lambda: slots.submit(Attempt(store.new_job("job"), Order("", JobOptions().to_json(), None)))


def test_a_job_waits_for_a_slot_that_lives_where_no_other_can_be_had(submit):
    """No descriptors for a keeper: the job is not lost, and runs when a slot is free."""
    first = submit()
    HandKeeper.can_be_made = False
    second, third = submit(), submit()
    (keeper,) = HandKeeper.made
    for future in (first, second, third):
        assert not future.done()
        keeper.finish()
        assert future.result(0).state is JobState.SUCCEEDED


def test_a_job_waits_where_its_keepers_process_could_not_be_made(submit):
    """It goes to a slot that lives, and no other keeper is tried until something has changed."""
    first, second = submit(), submit()
    keeper, failing = HandKeeper.made
    failing.fail_to_start()
    assert not second.done()
    assert len(HandKeeper.made) == 2
    keeper.finish()
    assert first.result(0).state is JobState.SUCCEEDED
    assert not second.done()
    keeper.finish()
    assert second.result(0).state is JobState.SUCCEEDED


def test_another_keeper_is_tried_when_a_job_has_ended(submit):
    """A shortage that has passed costs no slot."""
    submit()
    HandKeeper.can_be_made = False
    second, third = submit(), submit()
    HandKeeper.can_be_made = True
    HandKeeper.made[0].finish()
    assert len(HandKeeper.made) == 2
    for keeper in HandKeeper.made:
        keeper.finish()
    assert second.done()
    assert third.done()


@pytest.mark.parametrize("how", ["no keeper", "no process"])
def test_a_job_that_no_slot_is_left_for_ends_and_says_why(submit, how):
    """Nobody waits for what will never come."""
    HandKeeper.can_be_made = how != "no keeper"
    future = submit()
    if how == "no process":
        HandKeeper.made[0].fail_to_start()
    outcome = future.result(0)
    assert outcome.state is JobState.LOST
    assert "Too many open files" in outcome.reason


def test_a_job_that_was_cancelled_before_its_keeper_was_made_is_cancelled(submit, slots):
    """And not lost, whatever became of the keeper."""
    future = submit()
    (attempt,) = slots._keepers.values()
    slots.cancel(attempt.folder.id)
    HandKeeper.made[0].fail_to_start()
    assert future.result(0).state is JobState.CANCELLED


@pytest.mark.parametrize("refusal", [MemoryError(), RecursionError("nested too deep")])
def test_a_job_that_can_not_be_sent_to_its_keeper_costs_no_slot(submit, monkeypatch, refusal):
    """It ends and says why; the next ones run, in keepers to which nothing was sent by half."""
    monkeypatch.setattr(HandKeeper, "refusal", refusal)
    refused = [submit().result(0) for _ in range(3)]
    assert all(outcome.state is JobState.LOST and repr(refusal) in outcome.reason for outcome in refused)
    monkeypatch.setattr(HandKeeper, "refusal", None)
    future = submit()
    HandKeeper.made[-1].finish()
    assert future.result(0).state is JobState.SUCCEEDED
