"""The table at the end: records and a frame of a group, and of a store after a restart."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from jobcontainer import JobPool, JobStore
from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.submission import Submitter, write_records
from jobcontainer.process import JobOptions
from jobcontainer.storage.store_folder import StoreFolder


@dataclasses.dataclass
class Score:
    loss: float
    weights: object


class Train:
    def __init__(self, rate, depth):
        self.rate, self.depth = rate, depth
        self.data = np.zeros(3)

    def run(self):
        if self.depth == 3:
            raise ValueError("too deep")
        return Score(np.float64(self.rate * self.depth), np.ones(2_000_000))


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def sweep(store):
    """An ended sweep, one job of which failed."""
    with JobPool(engine="inline", store=store) as pool:
        yield pool.submit_all([Train(rate, depth) for rate in (0.1, 0.2) for depth in (1, 3)])


def test_a_sweep_ends_as_a_frame(sweep):
    """A row for each job, the failed ones too, with parameters, facts and the fields of results."""
    frame = sweep.to_frame()
    first = ["job", "rate", "depth", "state", "seconds", "cpu", "peak_memory", "error", "loss"]
    assert list(frame.columns) == [*first, "weights"]
    assert frame[["rate", "depth"]].to_numpy().tolist() == [[0.1, 1], [0.1, 3], [0.2, 1], [0.2, 3]]
    assert frame["state"].tolist() == ["succeeded", "failed", "succeeded", "failed"]
    assert frame["error"].dropna().unique().tolist() == ["ValueError: too deep"]
    assert frame.loc[frame["state"] == "succeeded", "loss"].tolist() == [0.1, 0.2]
    assert frame["loss"].dtype == float
    assert (frame["seconds"] > 0).all()


@pytest.mark.slow
def test_a_store_has_the_same_frame_after_a_restart_and_loads_no_result(sweep, store):
    """Another process reads it from small files alone: neither results nor processes need be there any more."""
    expected = sweep.to_frame()
    for job in sweep:
        job.folder.result_file.unlink(missing_ok=True)
        job.folder.process_file.unlink()
    code = f"import jobcontainer; print(jobcontainer.JobStore({os.fspath(store)!r}).jobs().to_frame().to_json())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected.to_json()
    pd.testing.assert_frame_equal(JobStore(store).jobs().to_frame(), expected)


def test_the_ids_of_records_open_their_jobs(sweep, store):
    """They are short, and enough for ``open()``."""
    assert [JobStore(store).open(row["job"]).id for row in sweep.records()] == [job.id for job in sweep]


@pytest.mark.usefixtures("sweep")
def test_records_import_no_pandas(store):
    """Only ``to_frame()`` does."""
    code = (
        f"import sys, jobcontainer; jobs = jobcontainer.JobStore({os.fspath(store)!r}).jobs()\n"
        "jobs.records(); repr(jobs); jobs._repr_html_(); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_pandas_a_sentence_says_what_to_do(sweep, monkeypatch):
    """And that records() has the same."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"`pip install pandas`\. records\(\) has the same"):
        sweep.to_frame()


def test_an_empty_group_is_a_frame_without_rows():
    """With the columns that every frame has."""
    frame = JobGroup([]).to_frame()
    assert (len(frame), list(frame.columns)) == (0, ["job", "state", "seconds", "cpu", "peak_memory", "error"])
    assert JobGroup([]).records() == []
    assert repr(JobGroup([])) == "<JobGroup of 0: no jobs>"


def test_jobs_that_have_not_ended_are_in_the_table(store):
    """What is not known of them is missing."""
    submitter = Submitter(StoreFolder(store))
    write_records([submitter.of_process(Train(0.1, 1), JobOptions())])
    (record,) = JobStore(store).jobs().records()
    assert (record["rate"], record["state"], record["seconds"], record["error"]) == (0.1, "queued", None, None)


def test_a_rerun_has_the_parameters_of_the_job(sweep, store):
    """Its process is the same."""
    again = sweep.rerun_failed()
    assert [row["rate"] for row in again.records()] == [0.1, 0.2]
    assert len(JobStore(store).jobs().records()) == 6


def test_the_arguments_of_a_function_are_its_parameters(store):
    """By the names that they have in the function."""
    with JobPool(engine="inline", store=store) as pool:
        record = JobGroup([pool.submit(pow, 2, exp=5)]).records()[0]
    assert (record["base"], record["exp"], record["result"]) == (2, 5, 32)


def test_a_group_shows_itself_as_a_table(sweep):
    """As text and as HTML, after how many jobs are in which state."""
    head, titles, first, second, *_ = repr(sweep).splitlines()
    assert head == "<JobGroup of 4: 2 succeeded, 2 failed>"
    assert titles.split()[:4] == ["job", "rate", "depth", "state"]
    assert first.split()[1:5] == ["0.1", "1", "✔", "succeeded"]
    assert "✖ failed" in second
    assert second.endswith("ValueError: too deep")
    assert ">ValueError: too deep</td>" in sweep._repr_html_()


def test_a_summary_prints_as_plain_text(sweep):
    """A dict of states and counts, without the names of classes; members of JobState find their counts too."""
    assert str(sweep.summary()) == "{'succeeded': 2, 'failed': 2}"
