"""Progress of untouched user code: on the card, not in the log, at next to no cost."""

from __future__ import annotations

import itertools
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobcontainer.storage.folder import JobFolder
from jobcontainer.storage.progress_file import ProgressFile, read_bars
from jobcontainer.worker.reporting import progress as worker_progress
from jobcontainer.worker.reporting.progress import progress, report


@pytest.fixture
def folder(tmp_path):
    folder = JobFolder(tmp_path / "job")
    folder.create()
    return folder


@pytest.fixture
def job(folder):
    """This process as a job, until the test ends."""
    worker_progress.install(folder)
    yield folder
    worker_progress.finish()


def shown(folder):
    return [(bar.label, bar.level, bar.done, bar.total) for bar in read_bars(folder.progress_file)]


# --- progress() and report() ---------------------------------------------------------------------------------------


def test_outside_of_a_job_they_pass_through():
    """The same class runs in a script without a job, and nothing is written anywhere."""
    assert list(progress(iter("abc"), total=3, desc="letters")) == ["a", "b", "c"]
    assert report(1, 2, "half") is None


@pytest.mark.parametrize("bad", [None, [], "many"])
def test_a_report_that_is_no_number_is_refused_wherever_it_is_made(bad):
    """A mistake shows in the first try outside of a job, not hours into one."""
    with pytest.raises((TypeError, ValueError)):
        report(bad)


def test_progress_shows_each_item_and_yields_it(job):
    """An iterable goes through unchanged, with its length as the total."""
    seen = [(item, shown(job)[0][:2]) for item in progress(["a", "b", "c"], desc="letters")]
    assert seen == [(letter, ("letters", 0)) for letter in "abc"]
    assert shown(job) == [("letters", 0, 3, 3)]


def test_progress_takes_endless_iterables_and_given_totals(job):
    """No length is needed, and one that is given is believed."""
    for item in progress(itertools.count(), desc="endless"):
        if item == 5:
            break
    for _ in progress(iter(range(4)), total=8, desc="half"):
        pass
    assert shown(job) == [("endless", 0, 5, None), ("half", 0, 4, 8)]


def test_an_exception_in_the_loop_leaves_how_far_it_got(job):
    """The items that were done are shown, not the one that failed."""
    with pytest.raises(ZeroDivisionError):
        list(map((1).__truediv__, progress([1, 1, 0, 1])))
    assert shown(job) == [("", 0, 2, 4)]


def test_nested_loops_are_bars_within_bars(job):
    """An inner loop that begins anew takes the place of the one before, level by level."""
    for _ in progress(range(3), desc="epochs"):
        for _ in progress(range(2), desc="batches"):
            for _ in progress(range(4), desc="samples"):
                pass
    assert shown(job) == [("epochs", 0, 3, 3), ("batches", 1, 2, 2), ("samples", 2, 4, 4)]


def test_loops_one_after_another_are_all_kept(job):
    """The bars of earlier stages stay, six in all; then the earliest gives its place."""
    for stage in range(8):
        for _ in progress(range(stage), desc=f"stage {stage}"):
            pass
    assert [label for label, *_ in shown(job)] == [f"stage {stage}" for stage in range(2, 8)]


def test_a_seventh_bar_at_the_same_time_waits_for_a_place(job):
    """More than six loops at once show the first six, and the next once one has ended."""
    loops = [progress(range(3), desc=f"{number}") for number in range(7)]
    for loop in loops:
        next(loop)
    assert [label for label, *_ in shown(job)] == ["0", "1", "2", "3", "4", "5"]
    assert list(loops[0]) == [1, 2]
    assert list(loops[6]) == [1, 2]
    assert [(label, done) for label, _, done, _ in shown(job)][-1] == ("6", 3)


def test_each_report_is_written_before_it_returns(job):
    """Whatever happens next, the last report stands; what is not reported again stays."""
    report(1, total=4, message="loading")
    assert read_bars(job.progress_file)[0].message == "loading"
    for done in (2, 3.5):
        report(done)
        (bar,) = read_bars(job.progress_file)
        assert (bar.done, bar.total, bar.message) == (done, 4, "loading")
    report(4, message="")
    assert read_bars(job.progress_file)[0].message == ""


@pytest.mark.slow
def test_a_loop_that_reports_all_the_time_seldom_writes_and_ends_exactly(folder, monkeypatch):
    """A million reports cost next to nothing, and no more than a millisecond of them is ever missing on the card."""
    written = []
    write = ProgressFile.write
    monkeypatch.setattr(ProgressFile, "write", lambda file, bars: (written.append(1), write(file, bars)))
    worker_progress.install(folder)
    begun = time.monotonic()
    for done in range(60_001):
        report(done, total=60_000)
    assert shown(folder) == [("", 0, 60_000, 60_000)]
    assert len(written) <= 10_002 + 1000 * (time.monotonic() - begun)
    for done in range(30_000):
        report(done)
    worker_progress.finish()
    assert shown(folder) == [("", 0, 29_999, 60_000)]


def test_a_report_of_nonsense_costs_no_job(job):
    """Numbers that no card can show become ones it can."""
    report(float("nan"), total=float("inf"), message="\ud800\0")
    assert shown(job) == [("", 0, 0, None)]
    worker_progress.finish()
    assert b"NaN" not in job.events_file.read_bytes()


def test_threads_have_bars_of_their_own(job, in_threads):
    """Loops in threads are side by side, each with its own nested loop."""

    def work(name):
        for _ in progress(range(50), desc=name):
            for _ in progress(range(3), desc=f"{name} inner"):
                pass

    in_threads(work, "a", "b", "c")
    assert sorted(shown(job)) == sorted(
        [(name, 0, 50, 50) for name in "abc"] + [(f"{n} inner", 1, 3, 3) for n in "abc"]
    )


def test_threads_that_report_at_once_lose_nothing(job, in_threads):
    """Reports of many threads end with the last of one of them, whole."""

    def work(number):
        for done in range(500):
            report(done, total=number, message=str(number))

    in_threads(work, 1, 2, 3, 4)
    (bar,) = read_bars(job.progress_file)
    assert (bar.done, bar.message) == (499, str(int(bar.total)))


@pytest.fixture
def in_threads():
    def run(work, *arguments):
        with ThreadPoolExecutor(len(arguments)) as threads:
            list(threads.map(work, arguments))

    return run


def test_a_loop_that_outlives_its_job_goes_on(folder):
    """A thread that is still in its loop when the job ends is not disturbed, and writes nothing more."""
    worker_progress.install(folder)
    loop = progress(range(5), desc="left")
    next(loop)
    worker_progress.finish()
    written = {path: path.read_bytes() for path in folder.path.iterdir()}
    assert list(loop) == [1, 2, 3, 4]
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == written


# --- the record and the events of a job ----------------------------------------------------------------------------


def test_a_job_without_progress_leaves_no_record(folder):
    """Who does not use it does not pay for it."""
    worker_progress.install(folder)
    worker_progress.finish()
    assert list(folder.path.iterdir()) == []


def test_a_new_attempt_forgets_the_bars_of_the_last(folder):
    """A retried job begins without the bars of the attempt that failed."""
    worker_progress.install(folder)
    report(7)
    worker_progress.finish()
    worker_progress.install(folder)
    assert shown(folder) == []
    worker_progress.finish()


def test_events_are_few_and_the_last_one_holds_the_end(folder, monkeypatch):
    """However often a bar moves, the events grow a few times a minute, and at the end."""
    now = [1e9]
    monkeypatch.setattr("time.time", lambda: now[0])
    worker_progress.install(folder)
    for done in range(6000):
        now[0] += 0.01  # a minute in all
        report(done, total=6000)
    worker_progress.finish()
    events, _ = folder.read_events()
    assert [event.bars[0].done for event in events[-1:]] == [5999]
    assert 2 <= len(events) <= 4


def test_a_record_that_can_not_be_written_costs_no_job(in_job):
    """A full disk or a lost folder ends the progress, with one line in the log, and not the job."""
    ran = in_job("""
        import shutil
        from jobcontainer import report
        folder.path.rename(folder.path.with_name("elsewhere"))
        for done in range(3):
            report(done)
        folder.path.with_name("elsewhere").rename(folder.path)
        print("done")
    """)
    note, done = ran.log.splitlines()
    assert note.startswith("jobcontainer: no more progress, it can't be written: ")
    assert done == "done"


def test_the_last_bar_survives_a_kill(in_job):
    """A job killed in its loop shows the step it was at."""
    ran = in_job(
        """
        import os, signal
        from jobcontainer import progress, report
        for step in progress(range(10), desc="steps"):
            report(step, message="alive")
            if step == 4:
                os.kill(os.getpid(), signal.SIGKILL)
        """,
        returncode=-signal.SIGKILL,
    )
    assert [(bar.label, bar.message) for bar in ran.bars] == [("steps", ""), ("", "alive")]
    assert ran.bars[1].done == 4


# --- tqdm ----------------------------------------------------------------------------------------------------------


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    ("flavour", "preload"),
    [("tqdm", []), ("tqdm.auto", []), ("tqdm.notebook", []), ("tqdm.auto", ["tqdm.auto"])],
)
def test_every_tqdm_is_picked_up_without_a_trace_in_the_log(in_job, flavour, preload):
    """The card has the bars, the log has what was printed; no widget library is loaded and nothing warns."""
    ran = in_job(
        f"""
        import sys
        from {flavour} import tqdm, trange
        for epoch in tqdm(range(3), desc="epochs"):
            for batch in trange(2, desc="batches", leave=False):
                tqdm.write(f"epoch {{epoch}}, batch {{batch}}")
        with tqdm(total=100, initial=20, desc="by hand", unit="B", unit_scale=True) as bar:
            bar.update(30)
            bar.set_postfix(loss=0.25)
            bar.reset(total=60)
            bar.update(15)
            bar.clear()
            bar.refresh()
        assert "ipywidgets" not in sys.modules
        """,
        preload=preload,
    )
    assert ran.log.splitlines() == [f"epoch {epoch}, batch {batch}" for epoch in range(3) for batch in range(2)]
    epochs, by_hand = ran.bars
    assert (epochs.label, epochs.level, epochs.done, epochs.total) == ("epochs", 0, 3, 3)
    assert (by_hand.label, by_hand.done, by_hand.total, by_hand.message) == ("by hand", 15, 60, "loss=0.25")
    assert ran.progress[-1].bars == ran.bars


@pytest.mark.slow
def test_a_notebook_tqdm_that_was_loaded_with_its_widgets_makes_none(in_job):
    """Where ipywidgets is loaded already, tqdm.notebook's bars are still plain ones, and show nothing else."""
    ran = in_job(
        """
        from ipywidgets import Widget
        from tqdm.notebook import tqdm
        from tqdm.auto import tqdm as auto
        bar = tqdm(total=4, desc="left unfinished")
        bar.update(2)
        bar.close()
        for _ in auto(range(3), desc="auto"):
            pass
        assert not hasattr(bar, "container")
        """,
        preload=["ipywidgets", "tqdm.notebook"],
    )
    assert ran.log == ""
    assert [(bar.label, bar.done, bar.total) for bar in ran.bars] == [("left unfinished", 2, 4), ("auto", 3, 3)]
    assert ran.outputs == []


def test_nested_tqdm_bars_have_levels_and_inner_ones_take_turns(in_job):
    """Outer and inner loops are told apart; a bar that does not want to be left is wiped at its end."""
    ran = in_job("""
        from tqdm import tqdm
        for _ in tqdm(range(2), desc="outer", mininterval=0):
            for _ in tqdm(range(3), desc="inner", mininterval=0):
                for _ in tqdm(range(4), desc="wiped", leave=False):
                    levels = {bar.label: bar.level for bar in read_bars(folder.progress_file)}
        print(levels)
    """)
    assert ran.log == "{'outer': 0, 'inner': 1, 'wiped': 2}\n"
    assert [(bar.label, bar.done) for bar in ran.bars] == [("outer", 2), ("inner", 3)]


def test_what_tqdm_knows_is_on_the_card(in_job):
    """Description, counts, where it began, since when, and the postfix are on the card while the loop runs."""
    ran = in_job("""
        import time
        from tqdm import tqdm
        before = time.time()
        bar = tqdm(total=10, initial=4, desc="resumed", mininterval=0)
        bar.set_postfix(loss=0.5, acc="good")
        bar.update(3)
        (shown,) = read_bars(folder.progress_file)
        assert (shown.label, shown.done, shown.total, shown.initial) == ("resumed", 7, 10, 4), shown
        assert shown.message == "acc=good, loss=0.5", shown
        assert before <= shown.started <= shown.updated <= time.time(), shown
        assert shown.rate < 3 / (shown.updated - shown.started) * 1.01
        bar.set_description_str("renamed")
        assert read_bars(folder.progress_file)[0].label == "renamed"
    """)
    assert ran.log == ""


def test_tqdm_with_a_file_of_its_own_still_writes_there(in_job, tmp_path):
    """A bar with a file of the user's own is written there, and shown on the card as well; a disabled one is not."""
    ran = in_job(f"""
        from tqdm import tqdm
        with open({str(tmp_path / "mine")!r}, "w") as file:
            for _ in tqdm(range(3), desc="mine", file=file):
                pass
        for _ in tqdm(range(3), desc="disabled", disable=True):
            pass
    """)
    assert "mine: 100%" in (tmp_path / "mine").read_text()
    assert [(bar.label, bar.done) for bar in ran.bars] == [("mine", 3)]
    assert ran.log == ""


@pytest.mark.slow
def test_tqdm_in_threads_and_its_own_thread_map(in_job):
    """Bars that are made and moved by many threads are all shown, and none is mixed up."""
    ran = in_job("""
        from concurrent.futures import ThreadPoolExecutor
        from tqdm import tqdm
        from tqdm.contrib.concurrent import thread_map
        def work(name):
            for _ in tqdm(range(1000), desc=name, mininterval=0, miniters=1):
                pass
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, "abcd"))
        thread_map(str, range(100), desc="mapped", max_workers=4)
    """)
    assert sorted((bar.label, bar.done) for bar in ran.bars) == [*((name, 1000) for name in "abcd"), ("mapped", 100)]
    assert ran.log == ""


@pytest.mark.slow
def test_tqdm_over_asynchronous_work(in_job):
    """Asynchronous loops are loops too."""
    ran = in_job("""
        import asyncio
        from tqdm.asyncio import tqdm
        async def one(number):
            return number
        async def main():
            async def numbers():
                for number in range(3):
                    yield number
            async for _ in tqdm(numbers(), total=3, desc="async for"):
                pass
            await tqdm.gather(*map(one, range(4)), desc="gathered")
        asyncio.run(main())
    """)
    assert [(bar.label, bar.done, bar.total) for bar in ran.bars] == [("async for", 3, 3), ("gathered", 4, 4)]
    assert ran.log == ""


CHILD = """
from tqdm import tqdm
from jobcontainer import progress, report
for _ in tqdm(list(progress(range(500))), desc="child"):
    report(99, message="child")
"""


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_with_bars_do_not_touch_the_record(in_job, method):
    """Only the job's own process writes its record; a child's tqdm prints into the log, as in any script."""
    ran = in_job(f"""
        import multiprocessing
        from tqdm import tqdm
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            for _ in tqdm(pool.imap_unordered(exec, [{CHILD!r}] * 6), total=6, desc="parent", mininterval=0):
                assert [bar.label for bar in read_bars(folder.progress_file)] == ["parent"]
        with tqdm(total=4, desc="before") as bar:  # a bar that a child inherits is not moved by it
            bar.update(2)
            context = multiprocessing.get_context("fork")
            child = context.Process(target=bar.update, args=[2])
            child.start()
            child.join()
    """)
    assert [(bar.label, bar.done) for bar in ran.bars] == [("parent", 6), ("before", 2)]
    assert ran.log.count("child: 100%") >= 6
    assert "parent" not in ran.log
    assert "before" not in ran.log


def test_tqdm_is_itself_again_after_the_job(in_job):
    """Where the process lives on, tqdm and the import system are as they were."""
    ran = in_job("""
        import sys
        import tqdm, tqdm.notebook, rich.progress
        from jobcontainer.worker.reporting import progress as bars
        finders = list(sys.meta_path)
        bars.finish()
        for _ in tqdm.tqdm(range(3), desc="after"):
            pass
        for patched in (tqdm.tqdm.display, tqdm.notebook.tqdm.__init__, rich.progress.Progress.start):
            assert not patched.__module__.startswith("jobcontainer"), patched
        assert len(sys.meta_path) == len(finders) - 1
        bars.install(folder)
        for _ in tqdm.notebook.tqdm(range(4), desc="next job"):
            pass
    """)
    assert "after: 100%" in ran.log
    assert "next job" not in ran.log
    assert [(bar.label, bar.done) for bar in ran.bars] == [("next job", 4)]


# --- rich ----------------------------------------------------------------------------------------------------------


def test_rich_is_on_the_card_and_not_in_the_log(in_job):
    """Tasks of rich are on the card as they move, without a thread of ours, and nothing is painted into the log."""
    ran = in_job("""
        import threading
        from rich.progress import Progress
        def shown():
            return {bar.label: bar.done for bar in read_bars(folder.progress_file)}
        with Progress() as progress:
            download = progress.add_task("[red]Downloading[/red]", total=10)
            count = progress.add_task("Counting", total=None)
            hidden = progress.add_task("Hidden", visible=False)
            progress.update(download, advance=4)
            assert shown() == {"Downloading": 4, "Counting": 0}
            progress.remove_task(count)
            progress.update(task_id=download, completed=9, description="[[broken")
            assert shown() == {"[[broken": 9}
            progress.advance(download)
            progress.console.print("printed")
            assert threading.active_count() == 1
    """)
    assert [(bar.label, bar.done, bar.total) for bar in ran.bars] == [("[[broken", 10, 10)]
    assert ran.log == "printed\n"


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_rich_track_counts_to_the_end_and_keeps_out_of_the_log(in_job, env):
    """``track`` has a thread of its own, and a terminal may be forced: neither paints into the log."""
    ran = in_job(
        """
        from rich.progress import track
        for number in track(range(2000), description="tracked"):
            if number % 500 == 0:
                print(number)
        """,
        env=env,
    )
    assert [(bar.label, bar.done, bar.total) for bar in ran.bars] == [("tracked", 2000, 2000)]
    assert ran.log == "0\n500\n1000\n1500\n"


def test_rich_progress_within_a_live_of_the_users_own(in_job):
    """Several Progress in one Live, as rich's documents show, are all picked up; what is transient goes."""
    ran = in_job("""
        import io
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import Progress
        first, second = Progress(), Progress()
        with Live(Group(first, second), console=Console(file=io.StringIO())):
            one = first.add_task("one", total=2)
            two = second.add_task("two", total=2)
            first.advance(one)
            second.advance(two, 2)
        with Progress(transient=True) as third:
            third.add_task("three", total=1, completed=1)
        third.start()
        third.stop()
        with Progress(disable=True) as disabled:
            disabled.add_task("disabled", total=1, completed=1)
    """)
    assert sorted((bar.label, bar.done) for bar in ran.bars) == [("one", 1), ("two", 2)]
    assert ran.log == ""


# --- cost ----------------------------------------------------------------------------------------------------------


def test_installing_imports_nothing_and_leaves_modules_alone(in_job):
    """A fresh process per job pays for its hooks each time, so they load no library."""
    ran = in_job("""
        import sys
        heavy = {"tqdm", "rich", "IPython", "ipywidgets", "matplotlib", "numpy", "plotly", "importlib.resources"}
        print(sorted(heavy & set(sys.modules)))
    """)
    assert ran.log == "[]\n"
