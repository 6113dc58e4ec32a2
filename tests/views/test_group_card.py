"""Many jobs as one card."""

from __future__ import annotations

import pytest

from jobcontainer.events import JobState, Outcome
from jobcontainer.jobs.job import Job
from jobcontainer.storage.folder import JobFolder
from jobcontainer.views import group_card
from jobcontainer.views.failure_kinds import MOST_KINDS
from jobcontainer.views.group_card import MOST_ROWS, GroupSummary
from jobcontainer.views.render import card_html, card_text
from jobcontainer.views.snapshot import JobSnapshot

START = 1_800_000_000.0


@pytest.fixture
def jobs(tmp_path):
    """A function that makes queued jobs, which a test moves as a scheduler would."""

    def make(count, name="Train"):
        return [
            Job(JobFolder(tmp_path / f"{name}-{number}"), name=name, submitted=START, control=None)
            for number in range(count)
        ]

    return make


def end(job, state, at=START + 10, **more):
    job._dispatched(1)
    job._settle(Outcome(state=state, at=at, **more))


def look(job):
    return JobSnapshot(id=job.id, name=job.name, state=job.state)


def test_a_change_counts_once_however_often_it_is_told(jobs):
    """The counts always add up to the number of jobs."""
    group = jobs(5)
    summary = GroupSummary(group)
    for job in group[:3]:
        job._dispatched(1)
        summary.note(job)
        summary.note(job)
    end(group[3], JobState.SUCCEEDED)
    summary.note(group[3])
    assert dict(+summary.counts) == {JobState.RUNNING: 3, JobState.SUCCEEDED: 1, JobState.QUEUED: 1}
    assert summary.card(START, look).words == "1 succeeded, 3 running, 1 queued"


def test_a_retry_goes_back_to_the_queue(jobs):
    """A job that is tried again is no longer counted as running."""
    group = jobs(2)
    summary = GroupSummary(group)
    group[0]._dispatched(1)
    summary.note(group[0])
    group[0]._requeued()
    summary.note(group[0])
    assert not summary.running
    assert summary.counts[JobState.QUEUED] == 2


def test_the_whole_has_a_bar_with_the_time_left(jobs):
    """A quarter done in ten seconds leaves thirty."""
    group = jobs(4)
    summary = GroupSummary(group)
    end(group[0], JobState.SUCCEEDED)
    summary.note(group[0])
    assert summary.card(START + 10, look).bars[0].facts == ("25 %", "1/4", "10.0 s each", "30.0 s left")


def test_failures_are_grouped_by_what_they_say_newest_first(jobs):
    """A thousand equal errors are one line with a count, and the newest job to look at."""
    group = jobs(1000)
    for number, job in enumerate(group):
        message = f"kind {number % 7}"
        end(job, JobState.FAILED, at=START + number, error_type="ValueError", error_message=message)
    card = GroupSummary(group).card(START, look)
    assert len(card.failures) == MOST_KINDS
    assert card.failures[0].title == "ValueError: kind 5"
    assert card.failures[0].facts == ("143 times", "last Train #1000")
    assert card.notes == ("2 more kinds of failure; job.exception() has each.",)
    assert card.actions == ("rerun_failed",)
    assert card.state is JobState.FAILED


def test_of_very_many_jobs_only_the_newest_ends_are_read(jobs, monkeypatch):
    """The first look at a store of a hundred thousand jobs counts them all, and does not read each one's events."""
    monkeypatch.setattr(group_card, "_MOST_READ", 2)
    group = jobs(5)
    for number, job in enumerate(group):
        end(job, JobState.FAILED, at=START + number, error_type="ValueError", error_message=f"kind {number}")
        if number < 3:
            monkeypatch.setattr(job, "_outcome", None)
            monkeypatch.setattr(job, "_read_outcome", None)
    card = GroupSummary(group).card(START, look)
    assert card.words == "5 failed"
    assert [row.title for row in card.failures] == ["ValueError: kind 4", "ValueError: kind 3", "failed"]
    assert card.failures[2].facts == ("3 times", "last Train #3")


def test_only_a_few_running_jobs_have_rows(jobs):
    """Eight rows, and how many more there are."""
    group = jobs(20)
    for job in group:
        job._dispatched(1)
    card = GroupSummary(group).card(START, look)
    assert len(card.rows) == MOST_ROWS
    assert card.notes == ("12 more jobs running.",)


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        ([JobState.SUCCEEDED, JobState.SUCCEEDED], JobState.SUCCEEDED),
        ([JobState.SUCCEEDED, JobState.CANCELLED], JobState.CANCELLED),
        ([JobState.CRASHED, JobState.FAILED, JobState.FAILED], JobState.FAILED),
    ],
)
def test_the_state_of_the_whole_is_the_most_frequent_kind_of_failure(jobs, states, whole):
    """Success only where all succeeded."""
    group = jobs(len(states))
    for job, state in zip(group, states, strict=True):
        end(job, state)
    summary = GroupSummary(group)
    assert summary.ended
    assert summary.card(START, look).state is whole


def test_a_group_reads_as_text_and_html(jobs):
    """Counts, running jobs and failures, with what jobs say escaped."""
    group = jobs(3, name="<b>Fit</b>")
    end(group[0], JobState.FAILED, error_type="E", error_message="<i>")
    group[1]._dispatched(1)
    card = GroupSummary(group).card(START, look)
    assert "1 failed, 1 running, 1 queued" in card_text(card)
    html = card_html(card, START)
    assert "&lt;b&gt;Fit&lt;/b&gt;" in html
    assert "<b>Fit" not in html
    assert "E: &lt;i&gt;" in html


def test_jobs_that_crashed_alike_are_one_kind(jobs):
    """Each reason names the log of its own job, which is not what the failures are told apart by."""
    group = jobs(3)
    summary = GroupSummary(group)
    for job in group:
        end(job, JobState.CRASHED, reason=f"Its process died. The end of its log may show where: {job.folder.log_file}")
        summary.note(job)
    (row,) = summary.card(START, look).failures
    assert (row.title, row.facts[0]) == ("Its process died. The end of its log may show where.", "3 times")
