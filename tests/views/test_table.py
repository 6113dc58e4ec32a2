"""Jobs as records and as a table: from their files alone, bounded and escaped."""

from __future__ import annotations

import json
import math
import shutil
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobcontainer.events import JobState, Outcome, Started, Usage
from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.job import Job
from jobcontainer.storage.folder import JobFolder, JobRecord
from jobcontainer.storage.preview import Preview, write_preview
from jobcontainer.views.group_card import GroupSummary
from jobcontainer.views.parameters import differing
from jobcontainer.views.records import FACTS, columns_of, records_of, short_ids
from jobcontainer.views.render import Listing, group_html
from jobcontainer.views.snapshot import JobSnapshot
from jobcontainer.views.table import MOST_COLUMNS, MOST_ROWS, JobTable

ENDED = 1_800_000_000.0
HOSTILE = {
    "long": "x" * 500,
    "control": "a\x1b[2J\nb\r\u202e",
    "html": "<script>alert(1)</script>",
    "maths": "$x$",
    "nan": math.nan,
    "infinite": -math.inf,
    "huge": 2**255,
    "nested": {"a": ["<b>", {"c": 1}]},
}


@pytest.fixture
def job(tmp_path):
    """A function that makes a job in a folder: queued, or ended in a state."""
    made = []

    def make(parameters=None, state=None, fields=None, name="Train", **outcome):
        folder = JobFolder(tmp_path / f"20270115-080000.{len(made):06d}-{name}-abcdef")
        folder.create()
        folder.write_record(JobRecord(id=folder.id, name=name, submitted=1.0, parameters=parameters or {}))
        made.append(Job(folder, name=name, submitted=1.0, control=None))
        if state is not None:
            made[-1]._dispatched(1)
            folder.append_event(Started(at=ENDED - 2, pid=1))
            usage = Usage(wall=2.0, cpu=1.5, peak_memory=1000)
            made[-1]._settle(Outcome(state=state, at=ENDED, usage=usage, **outcome))
            if fields is not None:
                write_preview(folder.preview_file, Preview(fields=fields))
        return made[-1]

    return make


def look(job):
    return JobSnapshot(id=job.id, name=job.name, state=job.state)


def test_a_record_has_the_job_its_parameters_its_facts_and_its_result(job):
    """In this order, for a job that succeeded."""
    done = job({"rate": 0.1, "depth": 2}, JobState.SUCCEEDED, {"loss": 0.5, "note": "good"})
    assert list(records_of([done])[0].items()) == [
        ("job", "20270115-080000.000000"),
        ("rate", 0.1),
        ("depth", 2),
        ("state", "succeeded"),
        ("seconds", 2.0),
        ("cpu", 1.5),
        ("peak_memory", 1000),
        ("error", None),
        ("loss", 0.5),
        ("note", "good"),
    ]


def test_jobs_that_have_no_result_stay_in_the_table(job):
    """Failed, crashed, cancelled and queued ones, with their parameters and what went wrong."""
    failed = job({"rate": 1}, JobState.FAILED, error_type="ValueError", error_message="bad row")
    crashed = job({"rate": 2}, JobState.CRASHED, reason="It was killed by SIGSEGV.")
    cancelled = job({"rate": 3}, JobState.CANCELLED)
    records = records_of([failed, crashed, cancelled, job({"rate": 4})])
    assert [(row["rate"], row["state"], row["error"]) for row in records] == [
        (1, "failed", "ValueError: bad row"),
        (2, "crashed", "It was killed by SIGSEGV."),
        (3, "cancelled", None),
        (4, "queued", None),
    ]
    assert records[3]["seconds"] is records[3]["cpu"] is records[3]["peak_memory"] is None
    assert columns_of(records) == ["job", "rate", *FACTS]


def test_a_job_that_returned_none_has_a_result(job):
    """It has no preview; what it returned is known all the same."""
    assert records_of([job({}, JobState.SUCCEEDED)])[0]["result"] is None


def test_a_result_that_repeats_the_parameters_adds_no_columns(job):
    """A sweep often returns what it was given; what is not a number repeats itself too."""
    fields = {"depth": 1, "rate": math.nan, "loss": 0.5}
    same = job({"depth": 1, "rate": math.nan}, JobState.SUCCEEDED, fields)
    assert columns_of(records_of([same])) == ["job", "depth", "rate", *FACTS, "loss"]


def test_a_result_that_is_another_than_the_parameter_of_its_name_has_a_column_of_its_own(job):
    """In every row, so that a column means one thing."""
    same = job({"depth": 1}, JobState.SUCCEEDED, {"depth": 1})
    other = job({"depth": 1}, JobState.SUCCEEDED, {"depth": 5})
    assert [(row["depth"], row["result.depth"]) for row in records_of([same, other])] == [(1, 1), (1, 5)]


def test_names_that_records_have_themselves_are_told_apart(job):
    """A parameter or a field that is called ``state`` hides nothing."""
    done = job({"state": "mine", "result": 1}, JobState.SUCCEEDED, {"job": 7, "error": "none", "result": 3})
    record = records_of([done])[0]
    assert (record["state"], record["process.state"], record["process.result"]) == ("succeeded", "mine", 1)
    assert (record["result.job"], record["result.error"], record["result"]) == (7, "none", 3)


def test_short_ids_find_their_jobs():
    """They are the times of the ids; where two jobs have the same, the whole."""
    ids = ["20270115-080000.000001-a-b-c-123456", "20270115-080000.000002-a-123456", "20270115-080000.000002-b-123456"]
    assert short_ids(ids) == ["20270115-080000.000001", *ids[1:]]


def test_a_folder_that_is_gone_or_spoilt_costs_its_own_row(job):
    """The row says what is not known, the others are whole."""
    gone, spoilt, good = (job({"rate": n}, JobState.SUCCEEDED, {"loss": n}) for n in range(3))
    shutil.rmtree(gone.folder.path)
    spoilt.folder.record_file.write_text("{")
    spoilt.folder.preview_file.write_text('{"fields": {"loss": [[[[[1]]]]], "a": ' + "9" * 5000 + "}}")
    records = records_of([gone, spoilt, good])
    assert [row["state"] for row in records] == ["succeeded"] * 3
    assert [row.get("rate") for row in records] == [None, None, 2]
    assert "result.loss" not in columns_of(records)
    assert "2" in repr(JobTable([gone, spoilt, good])).splitlines()[-1]


def test_a_table_shows_the_first_jobs_and_says_how_many_more_there_are(job):
    """Twenty rows; only their files are read."""
    jobs = [job({"rate": n}, JobState.SUCCEEDED, {"loss": n / 7}) for n in range(MOST_ROWS + 2)]
    for unread in jobs[MOST_ROWS:]:
        shutil.rmtree(unread.folder.path)
    lines = repr(JobTable(JobGroup(jobs))).splitlines()
    assert lines[0].split() == ["job", "rate", "state", "seconds", "cpu", "peak_memory", "loss"]
    assert lines[2].split()[1:] == ["1", "✔", "succeeded", "2.0", "s", "1.5", "s", "1", "kB", "0.142857"]
    assert lines[-1] == "2 more jobs: to_frame() has all."
    assert len(lines) == MOST_ROWS + 2


def test_a_table_has_a_bounded_number_of_columns(job):
    """The others are counted."""
    table = JobTable([job({f"n{n}": n for n in range(30)}, JobState.SUCCEEDED, {"loss": 1})])
    assert len(repr(table).splitlines()[0].split()) == MOST_COLUMNS
    assert repr(table).endswith("more columns: to_frame() has all.")
    assert table._repr_html_().count("<th>") == MOST_COLUMNS


@pytest.mark.parametrize("where", ["parameters", "fields"])
def test_hostile_values_are_shown_bounded_and_escaped(job, where):
    """Wherever a value of a job is shown: as text no control character, as HTML no tag, and never much of it."""
    hostile = {f"{name}\x1b<i>": value for name, value in HOSTILE.items()}
    jobs = [
        job(hostile if where == "parameters" else {}, JobState.SUCCEEDED, hostile if where == "fields" else {"a": 1}),
        job({"other": 1}, JobState.RUNNING),
    ]
    group, summary = JobGroup(jobs), GroupSummary(jobs)
    listing = Listing(jobs, how_to_see_all="")
    labels = "\n".join(map(summary.label, jobs))
    for text in (repr(group), repr(listing), labels):
        assert text.replace("\n", "").isprintable()
        assert len(text) < 5000
        assert max(map(len, text.splitlines())) < 1000
    for html in (group._repr_html_().partition("</style>")[2], listing._repr_html_()):
        assert "<script" not in html
        assert "<i>" not in html
        assert "<b>&lt;" not in html
        assert "\x1b" not in html
        assert "mathjax_ignore" in html or "tex2jax_ignore" in html
        assert len(html) < 10_000


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.floats() | st.text(), max_size=8))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_job_writes_its_table_is_text_and_html(job, fields):
    """No value keeps a group from being shown."""
    done = job({}, JobState.SUCCEEDED, fields)
    table = JobTable([done])
    assert "Cc" not in map(unicodedata.category, repr(table).replace("\n", ""))
    assert "</table>" in table._repr_html_()
    assert len(JobGroup([done]).to_frame()) == 1


def test_parameters_that_differ_name_the_rows_of_a_live_card(job):
    """Those that all jobs share say nothing; a group whose jobs are the same has numbers."""
    jobs = [job({"rate": rate, "depth": depth, "epochs": 3}) for rate in (0.1, 0.2) for depth in (1, 2)]
    for one in jobs:
        one._dispatched(1)
    card = GroupSummary(jobs).card(ENDED, look)
    titles = ["rate=0.1 depth=1", "rate=0.1 depth=2", "rate=0.2 depth=1", "rate=0.2 depth=2"]
    assert [row.title for row in card.rows] == titles
    same = [job({"epochs": 3}), job({"epochs": 3})]
    assert [GroupSummary(same).label(one) for one in same] == ["Train #1", "Train #2"]


def test_jobs_of_several_names_keep_them(job):
    """The name comes before the parameters; a job without any has its number."""
    jobs = [job({"rate": 1}), job({"rate": 2}, name="Test"), job(name="Plot")]
    summary = GroupSummary(jobs)
    assert [summary.label(one) for one in jobs] == ["Train rate=1", "Test rate=2", "Plot #3"]


def test_a_failure_names_the_parameters_of_the_newest_job(job):
    """So that a person need not look it up by its number."""
    error = {"error_type": "ValueError", "error_message": "bad"}
    jobs = [job({"rate": rate}, JobState.FAILED, **error) for rate in (0.1, 0.2)]
    (failure,) = GroupSummary(jobs).card(ENDED, look).failures
    assert failure.facts == ("2 times", "last rate=0.2")


def test_what_differs_in_a_large_group_is_found_in_a_sample(job, monkeypatch):
    """The files of a few of them are read, in even steps."""
    monkeypatch.setattr("jobcontainer.views.parameters.MOST_COMPARED", 4)
    read = []
    monkeypatch.setattr(JobFolder, "read_record", lambda folder: read.append(folder) or JobRecord(
        id="1", name="a", submitted=0.0, parameters={"n": len(read) % 2, "lists": [1], "same": {"a": 1}}
    ))  # fmt: skip
    assert differing([job({}) for _ in range(10)]) == ["n"]
    assert len(read) <= 5


def test_a_group_shows_a_card_and_the_table(job):
    """As HTML, escaped once."""
    html = group_html([job({"note": "a & b"}, JobState.SUCCEEDED, {"loss": 0.5})])
    assert html.startswith('<div class="jobcontainer')
    assert html.endswith("<td>0.5</td></tr></tbody></table>")
    assert '<td style="white-space:nowrap">a &amp; b</td>' in html


def test_a_listing_has_the_parameters(job):
    """``%jobs`` and ``jobcontainer list`` show them at the end of each line."""
    listing = Listing([job({"rate": 0.1, "file": None}), job()], how_to_see_all="")
    lines = repr(listing).splitlines()
    assert lines[0].split()[-1] == "parameters"
    assert lines[1].endswith("  rate=0.1 file=None")
    assert ">rate=0.1 file=None</td>" in listing._repr_html_()


def test_records_are_plain_data(job):
    """They go through JSON as they are."""
    records = records_of([job({"rate": 0.1}, JobState.SUCCEEDED, HOSTILE), job()])
    assert str(json.loads(json.dumps(records))) == str(records)
