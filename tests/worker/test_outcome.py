"""Every end of a job: from what its process reported and its keeper saw to state and reason of its outcome."""

from __future__ import annotations

import signal

import pytest

from jobcontainer.events import JobState, Usage
from jobcontainer.worker.outcome import EXITED_WITHOUT_ERROR, ExitFacts, classify

RETURNED = {"state": "succeeded"}
RAISED = {"state": "failed", "error_type": "ValueError", "error_message": "no such row"}
INTERRUPTED = {"state": "cancelled", "stopped": True}
LOG = "job/log.txt"
SEE_LOG = f" The end of its log may show where: {LOG}"

CLASSIFIED = {
    "it returned": (ExitFacts(RETURNED, exit_code=0), "succeeded", ""),
    "it returned, and an exit handler crashed": (ExitFacts(RETURNED, exit_code=-11), "succeeded", ""),
    "it returned, and a destructor hung until it was killed": (ExitFacts(RETURNED, exit_code=-9), "succeeded", ""),
    "it returned, and the OOM killer came afterwards": (
        ExitFacts(RETURNED, exit_code=-9, oom_killed=True),
        "succeeded",
        "",
    ),
    "it returned just before a cancel": (ExitFacts(RETURNED, JobState.CANCELLED, 0), "succeeded", ""),
    "it returned just before its timeout": (ExitFacts(RETURNED, JobState.TIMED_OUT, 0), "succeeded", ""),
    "it returned just before it was over its memory limit": (
        ExitFacts(RETURNED, JobState.OUT_OF_MEMORY, -9, limit="memory=1 GB, and it held 2 GB"),
        "succeeded",
        "",
    ),
    "it wrote its result and died before it could report": (
        ExitFacts(exit_code=-9, result=JobState.SUCCEEDED),
        "succeeded",
        "",
    ),
    "it wrote its result and was stopped before it could report": (
        ExitFacts(stopped=JobState.CANCELLED, exit_code=-9, result=JobState.SUCCEEDED),
        "succeeded",
        "",
    ),
    "it returned something after it was interrupted by a cancel": (
        ExitFacts({**RETURNED, "stopped": True}, JobState.CANCELLED, 0),
        "cancelled",
        "It was cancelled.",
    ),
    "it raised": (
        ExitFacts(RAISED, exit_code=0),
        "failed",
        f"run() raised ValueError. The traceback is in its log: {LOG}",
    ),
    "it raised something else while it was interrupted": (
        ExitFacts({**RAISED, "stopped": True}, JobState.TIMED_OUT, 0, limit="timeout=5 s"),
        "timed_out",
        f"It ran longer than timeout=5 s allows.{SEE_LOG}",
    ),
    "it wrote its exception and died before it could report": (
        ExitFacts(exit_code=1, result=JobState.FAILED),
        "failed",
        f"run() raised what is in its result file. The traceback is in its log: {LOG}",
    ),
    "it was interrupted by someone else": (
        ExitFacts(INTERRUPTED, exit_code=0),
        "failed",
        f"It was interrupted by a SIGINT that did not come from its pool. Its log shows where: {LOG}",
    ),
    "it was cancelled and reported it": (
        ExitFacts(INTERRUPTED, JobState.CANCELLED, 0),
        "cancelled",
        "It was cancelled.",
    ),
    "it was cancelled and had to be killed": (
        ExitFacts(stopped=JobState.CANCELLED, exit_code=-9),
        "cancelled",
        "It was cancelled.",
    ),
    "it was out of time and reported it": (
        ExitFacts(INTERRUPTED, JobState.TIMED_OUT, 0, limit="timeout=5 s"),
        "timed_out",
        f"It ran longer than timeout=5 s allows.{SEE_LOG}",
    ),
    "it was out of time and had to be killed": (
        ExitFacts(stopped=JobState.TIMED_OUT, exit_code=-9, limit="timeout=5 s"),
        "timed_out",
        f"It ran longer than timeout=5 s allows.{SEE_LOG}",
    ),
    "it was over its memory limit": (
        ExitFacts(stopped=JobState.OUT_OF_MEMORY, exit_code=-9, limit="memory=1 GB, and it held 1.2 GB"),
        "out_of_memory",
        f"It held more memory than it may: memory=1 GB, and it held 1.2 GB.{SEE_LOG}",
    ),
    "the machine was out of memory": (
        ExitFacts(exit_code=-9, oom_killed=True),
        "out_of_memory",
        f"The machine ran out of memory, and the kernel's OOM killer ended it.{SEE_LOG}",
    ),
    "it was stopped while the OOM killer was active": (
        ExitFacts(stopped=JobState.CANCELLED, exit_code=-9, oom_killed=True),
        "cancelled",
        "It was cancelled.",
    ),
    "it called sys.exit": (
        ExitFacts({"state": "crashed", "exit_code": 3, "exit_argument": "3"}, exit_code=0),
        "crashed",
        f"It called sys.exit(3) before run() returned.{SEE_LOG}",
    ),
    "it called sys.exit without an error": (
        ExitFacts({"state": "failed", "error_type": "SystemExit", "exit_code": 0, "exit_argument": "0"}, exit_code=0),
        "failed",
        EXITED_WITHOUT_ERROR,
    ),
    "it called sys.exit when it was interrupted by a cancel": (
        ExitFacts({"state": "crashed", "exit_code": 1, "exit_argument": "1", "stopped": True}, JobState.CANCELLED, 0),
        "cancelled",
        "It was cancelled.",
    ),
    "it called os._exit": (
        ExitFacts(exit_code=7),
        "crashed",
        f"Its process ended with exit code 7 before run() returned.{SEE_LOG}",
    ),
    "it called os._exit(0)": (
        ExitFacts(exit_code=0),
        "crashed",
        f"Its process ended with exit code 0 before run() returned.{SEE_LOG}",
    ),
    "it died of a segmentation fault": (
        ExitFacts(exit_code=-11),
        "crashed",
        f"Its process died of signal 11 (SIGSEGV) before run() returned.{SEE_LOG}",
    ),
    "someone killed it": (
        ExitFacts(exit_code=-9),
        "crashed",
        f"Its process died of signal 9 (SIGKILL) before run() returned.{SEE_LOG}",
    ),
    "it died of a real-time signal": (
        ExitFacts(exit_code=-(signal.SIGRTMIN + 1)) if hasattr(signal, "SIGRTMIN") else ExitFacts(exit_code=-99),
        "crashed",
        f"(a real-time signal) before run() returned.{SEE_LOG}",
    ),
    "nobody knows how it ended": (
        ExitFacts(),
        "crashed",
        f"Its process ended before run() returned.{SEE_LOG}",
    ),
    "its result file is not complete": (
        ExitFacts(exit_code=-9, result=None),
        "crashed",
        f"Its process died of signal 9 (SIGKILL) before run() returned.{SEE_LOG}",
    ),
}


@pytest.mark.parametrize(("facts", "state", "reason"), CLASSIFIED.values(), ids=CLASSIFIED)
def test_an_end_has_the_state_and_the_sentence_that_its_facts_give(facts, state, reason):
    """A complete result decides, then why the keeper stopped the job, then how its process exited."""
    facts.log = LOG
    outcome = classify(facts, Usage(), attempt=1)
    assert outcome.state == state
    assert outcome.reason.endswith(reason) if reason else outcome.reason == ""


def test_every_end_that_a_worker_can_see_is_in_the_table():
    """A job whose worker saw its end is never lost, nor did it end before it began; each other state is among them."""
    unseen = {JobState.LOST, JobState.UPSTREAM_FAILED}
    assert {state for _, state, _ in CLASSIFIED.values()} == {state for state in JobState if state.ended} - unseen


def test_what_the_process_reported_is_in_the_outcome():
    """Type and text of an exception, the exit code, what was used and the attempt's number reach whoever asks."""
    usage = Usage(wall=1.0, cpu=0.5, peak_memory=7)
    outcome = classify(ExitFacts(RAISED, exit_code=0), usage, attempt=2)
    assert (outcome.error_type, outcome.error_message) == ("ValueError", "no such row")
    assert (outcome.usage, outcome.attempt, outcome.exit_code) == (usage, 2, 0)


def test_the_exit_code_is_what_sys_exit_asked_for():
    """The process of a job that called ``sys.exit(3)`` ends orderly, with 0; the outcome says 3."""
    facts = ExitFacts({"state": "crashed", "exit_code": 3, "exit_argument": "3"}, exit_code=0)
    assert classify(facts, Usage(), attempt=1).exit_code == 3
