"""A job as text and as static HTML."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcontainer.events import Bar, JobState, Outcome, Usage
from jobcontainer.notebook.card import card_model
from jobcontainer.storage.preview import Preview
from jobcontainer.views.card import MOST_BARS, Card, job_card, own_line
from jobcontainer.views.render import card_html, card_text
from jobcontainer.views.snapshot import JobSnapshot

NOW = 1_800_000_000.0
SCRIPT = '<script>alert("x")</script>'
TRACEBACK = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.11/site-packages/jobcontainer/worker/run.py", line 120, in run_process
    value = process.run()
            ^^^^^^^^^^^^^
  File "/tmp/ipykernel_77/4239059178.py", line 7, in run
    if row == 37: raise ValueError("bad row")
  File "/srv/venv/lib/python3.11/site-packages/pandas/core/frame.py", line 4, in inner
    raise ValueError(text)
ValueError: bad row
"""


def facts(state=JobState.RUNNING, **more):
    return JobSnapshot(id="20270115-080000.000000-Train-abcdef", name="Train", state=state, **more)


def ended(state, **more):
    outcome = Outcome(state=state, at=NOW, usage=Usage(wall=7.94, cpu=6.1, peak_memory=153_000_000), **more)
    return facts(state, outcome=outcome, started=NOW - 8)


class Elements(HTMLParser):
    """The elements and the text of some HTML, as a browser would take it."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if self.tags[-1] != "style":
            self.text += data


@pytest.mark.parametrize("field", ["name", "bars", "log", "error", "traceback", "preview", "notes", "log_file"])
def test_nothing_a_job_says_becomes_markup(field):
    """A script in a name, a label, a log line, a message, a traceback, a note or a path is shown as the text it is."""
    outcome = Outcome(state=JobState.FAILED, at=NOW, error_type=SCRIPT, error_message=SCRIPT)
    hostile = {
        "name": {"name": SCRIPT},
        "bars": {"bars": (Bar(label=SCRIPT, done=1, total=2, message=SCRIPT),)},
        "log": {"log": (f"\x1b[31m{SCRIPT}\x1b[0m", SCRIPT)},
        "error": {"outcome": outcome, "state": JobState.FAILED},
        "traceback": {"outcome": outcome, "state": JobState.FAILED, "preview": Preview(traceback=SCRIPT)},
        "preview": {"state": JobState.SUCCEEDED, "preview": Preview(problem=SCRIPT)},
        "notes": {"outcome": replace(outcome, state=JobState.CANCELLED, reason=SCRIPT), "state": JobState.CANCELLED},
        "log_file": {"log": ("a",), "log_file": Path(SCRIPT)},
    }[field]
    told = {"id": '"><script>', "name": "Train", "state": JobState.RUNNING} | hostile
    parsed = Elements(card_html(job_card(JobSnapshot(**told), NOW), NOW, card_id='"><script>'))
    assert "script" not in parsed.tags
    assert 'alert("x")' in parsed.text


ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    (
        *(
            "\x1b[2J\x1b]0;title\x07",
            "100%\r  0%",
            "spam\b\b\b\b",
            "gro\u202eabc\u2066",
            "half \ud83d of one",
            "two\nlines",
        ),
        *(SCRIPT, "$x^2$ \\\\(y\\\\)", "\u2028\x85\x0c", "x" * 300_000, "\x9b31m" * 50_000, "\U000e0041\ufeff"),
    )
)
ANY_NUMBER = st.floats() | st.integers() | st.sampled_from((10**400, -1, None, "text", [], {}, True, 1e300))
ANY_BAR = st.builds(
    Bar,
    **dict.fromkeys(("label", "message"), ANY_TEXT),
    **dict.fromkeys(("done", "total", "initial", "started", "updated", "level"), ANY_NUMBER),
)
ANY_OUTCOME = st.builds(
    Outcome,
    state=st.sampled_from([state for state in JobState if state.ended]),
    **dict.fromkeys(("reason", "error_type", "error_message"), ANY_TEXT),
    **dict.fromkeys(("at", "attempt", "exit_code"), ANY_NUMBER),
    usage=st.builds(Usage, wall=ANY_NUMBER, cpu=ANY_NUMBER, peak_memory=ANY_NUMBER),
)
ANY_SNAPSHOT = st.builds(
    JobSnapshot,
    id=ANY_TEXT,
    name=ANY_TEXT | ANY_NUMBER,
    state=st.sampled_from(list(JobState)),
    started=ANY_NUMBER,
    attempts=ANY_NUMBER,
    options=st.dictionaries(st.sampled_from(["memory", "timeout", "retries"]), ANY_NUMBER | ANY_TEXT),
    bars=st.lists(ANY_BAR, max_size=9).map(tuple),
    log=st.lists(ANY_TEXT, max_size=3).map(tuple),
    log_file=st.none() | ANY_TEXT.map(lambda text: Path(text.replace("\0", ""))),
    outcome=st.none() | ANY_OUTCOME,
    preview=st.none() | st.builds(Preview, size=ANY_NUMBER, traceback=ANY_TEXT, problem=ANY_TEXT),
)
HARMFUL = re.compile("[^\n\u200c\u200d\x20-\x7e\xa0-\U0010ffff]|[\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@given(ANY_SNAPSHOT)
def test_whatever_a_snapshot_holds_its_card_is_sound(told):
    """Any text and any number in any field gives bounded, escaped UTF-8, and nothing that acts on a terminal."""
    card = job_card(told, NOW)
    html = card_html(card, NOW, "card")
    assert len(html.encode("utf-8")) < 1_000_000
    known = {"div", "style", "span", "b", "progress", "details", "summary"}
    parsed = Elements(html)
    assert set(parsed.tags) <= known
    assert all(html.count(f"<{tag}") == html.count(f"</{tag}>") for tag in known - {"b"})
    for shown in (parsed.text.replace("\t", ""), card_text(card).replace("\t", "")):
        assert HARMFUL.findall(shown) == []
    json.dumps(card_model(card), allow_nan=False, ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize("state", JobState)
def test_every_state_is_told_by_icon_and_word(state):
    """No state is told by colour alone."""
    card = job_card(facts(state, started=NOW), NOW)
    text = Elements(card_html(card, NOW)).text
    assert card.icon in text
    assert state.words in text
    assert card_text(card).startswith(f"{card.icon} Train {state.words}")


def test_a_running_job_shows_its_bars_nested_with_share_count_speed_and_time_left():
    """67 %, 2/3, the speed and the time left; the inner bar under the outer."""
    bars = (
        Bar(label="epochs", done=2, total=3, started=NOW - 4, updated=NOW),
        Bar(label="steps", done=33, total=40, started=NOW - 1, updated=NOW, level=1, message="loss 0.41"),
        Bar(label="rows", done=12_345, started=NOW - 1, updated=NOW),
    )
    card = job_card(facts(started=NOW - 8.64, bars=bars), NOW)
    assert [bar.facts for bar in card.bars] == [
        ("67 %", "2/3", "2.0 s each", "2.0 s left"),
        ("82 %", "33/40", "33/s", "0.21 s left", "loss 0.41"),
        ("12,345", "12,345/s"),
    ]
    assert card.clock == pytest.approx(8.64)
    html = card_html(card, NOW)
    assert re.search(r'<progress max="1" value="0.6667" aria-label="epochs" aria-valuetext="67 %, 2/3', html)
    assert 'data-level="1"' in html
    assert 'aria-label="rows"' in html


def test_of_many_bars_the_outermost_and_the_newest_are_shown():
    """Six at the most."""
    card = job_card(facts(bars=tuple(Bar(label=str(number)) for number in range(20))), NOW)
    assert [bar.label for bar in card.bars] == ["0", "15", "16", "17", "18", "19"]
    assert len(card.bars) == MOST_BARS


def test_a_snapshot_is_dated_and_an_end_is_final():
    """What was saved while the work went on says when; what was saved at the end does not need to."""
    snapshot = card_html(job_card(facts(), NOW), NOW)
    assert "As of 20" in snapshot
    assert "data-snapshot" in snapshot
    final = card_html(job_card(ended(JobState.SUCCEEDED), NOW), NOW)
    assert "As of" not in final
    assert "data-snapshot" not in final


def test_a_failure_shows_type_message_and_the_users_own_line_first():
    """The line of the notebook that failed stands open, the whole traceback is folded."""
    told = ended(JobState.FAILED, error_type="builtins.ValueError", error_message="bad row")
    card = job_card(
        JobSnapshot(
            **{name: getattr(told, name) for name in told.__slots__} | {"preview": Preview(traceback=TRACEBACK)}
        ),
        NOW,
    )
    assert card.error == "ValueError: bad row"
    assert card.where == 'notebook, line 7, in run\n    if row == 37: raise ValueError("bad row")'
    html = card_html(card, NOW)
    assert html.index("ValueError: bad row") < html.index("notebook, line 7") < html.index("<summary>Traceback")


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("/home/me/work/train.py", "/home/me/work/train.py, line 3, in fit"),
        ("<ipython-input-3-abc>", "notebook, line 3, in fit"),
        ("/usr/lib/python3.11/json/decoder.py", ""),
        ("<frozen importlib._bootstrap>", ""),
    ],
)
def test_the_users_own_line_is_told_from_a_librarys(file, place):
    """Only files that the user wrote count."""
    assert own_line(f'Traceback (most recent call last):\n  File "{file}", line 3, in fit\nE: x') == place


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (JobState.CRASHED, "Killed by SIGSEGV (a segmentation fault)."),
        (JobState.TIMED_OUT, "It ran longer than 5 s."),
        (JobState.OUT_OF_MEMORY, "It held 2.1 GB, more than the 2 GB it may."),
        (JobState.LOST, "The kernel that ran it went away; %jobs rerun runs it again."),
        (JobState.CANCELLED, "Cancelled."),
    ],
)
def test_every_other_end_gives_its_reason(state, reason):
    """Signal, limit, or what to do next, in the outcome's own words, in HTML and in text."""
    card = job_card(ended(state, reason=reason), NOW)
    assert reason in Elements(card_html(card, NOW)).text
    assert reason in card_text(card)


def test_usage_is_told_against_its_limit():
    """Duration, CPU, and the peak of memory beside what was allowed."""
    told = ended(JobState.SUCCEEDED)
    card = job_card(
        JobSnapshot(**{n: getattr(told, n) for n in told.__slots__} | {"options": {"memory": 2 * 10**9}}), NOW
    )
    assert card.facts[:3] == ("7.9 s", "CPU 6.1 s", "peak 153 MB of 2 GB")


def test_a_running_job_tells_how_busy_it_is():
    """In percent of one CPU."""
    assert job_card(facts(started=NOW, load=1.5, memory=10**6), NOW).facts == ("CPU 150 %", "1 MB")


@pytest.mark.parametrize(
    ("held", "limit", "told"),
    [
        (120_000_000, 2 * 10**9, ("120 MB of 2 GB",)),
        (120_000_000, None, ("120 MB",)),
        (0, 2 * 10**9, ("at most 2 GB",)),
        (0, None, ()),
    ],
)
def test_a_running_job_tells_its_memory_against_its_limit(held, limit, told):
    """What there is to tell of both."""
    card = job_card(facts(started=NOW, memory=held, options={"memory": limit}), NOW)
    assert card.facts == told


def test_a_queued_job_says_what_it_waits_for():
    """Its place in the queue, in words."""
    assert job_card(facts(JobState.QUEUED, position=2), NOW).notes == ("2 jobs start before it.",)
    assert job_card(facts(JobState.QUEUED, position=1), NOW).notes == ("1 job starts before it.",)
    assert "as soon as a slot is free" in job_card(facts(JobState.QUEUED, position=0), NOW).notes[0]


def test_the_log_says_which_part_of_it_is_shown():
    """All of a short one, the last lines of a long one."""
    whole = job_card(facts(log=("a", "b"), log_size=4, log_file=Path("log.txt")), NOW)
    assert whole.log_title == "Log, 2 lines"
    part = job_card(facts(log=("a", "b"), log_size=1_200_000, log_file=Path("log.txt")), NOW)
    assert part.log_title == "Log, last 2 lines of 1.2 MB"
    assert "log.txt" in card_text(part)


def test_a_message_of_any_length_makes_a_small_card():
    """Megabytes in a name, a message and a traceback are cut, each with a note."""
    huge = "x" * 5_000_000
    told = Preview(traceback=huge)
    outcome = Outcome(state=JobState.FAILED, at=NOW, error_type="E", error_message=huge)
    card = job_card(
        JobSnapshot(id="1", name=huge, state=JobState.FAILED, outcome=outcome, preview=told, log=(huge,)), NOW
    )
    html = card_html(card, NOW)
    assert len(html) < 40_000
    assert html.count("5,000,0") >= 4


def test_the_style_needs_no_theme():
    """Every variable of the notebook's theme has a fallback, so that a card is readable in any page."""
    html = card_html(Card(id="1", state=JobState.RUNNING, icon="▶", words="running", name="T"), time.time())
    assert re.findall(r"var\(--jp-[^,)]*\)", html) == []
