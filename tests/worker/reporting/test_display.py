"""Rich output from inside a job: as a notebook shows it, without IPython unless user code wants it, and bounded."""

from __future__ import annotations

import base64
import builtins
import os
import threading

import pytest
from IPython.display import DisplayHandle, update_display

from jobcontainer.events import Display, Started, fold, folded
from jobcontainer.storage.folder import JobFolder
from jobcontainer.worker.reporting import display as worker_display
from jobcontainer.worker.reporting import output_quota
from jobcontainer.worker.reporting.display import clear_output, display
from jobcontainer.worker.reporting.mime_bundle import forms_of

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path):
    folder = JobFolder(tmp_path / "job")
    folder.create()
    return folder


@pytest.fixture
def job(folder):
    """This process as a job, until the test ends."""
    worker_display.install(folder)
    yield folder
    worker_display.finish()


def displays(folder):
    return [event for event in folder.read_events()[0] if isinstance(event, Display)]


def texts(folder):
    return [output.data["text/plain"] for output in folded(displays(folder))]


class Rich:
    """Has every form that a notebook knows."""

    def __repr__(self):
        return "plain"

    def _repr_html_(self):
        return "<b>html</b>"

    def _repr_png_(self):
        return PNG, {"width": 3}

    def _repr_svg_(self):
        return "<svg/>"

    def _repr_latex_(self):
        return "$x$"

    def _repr_json_(self):
        return {"a": [1, None]}

    def _repr_markdown_(self):
        return None


# --- the forms of an object ----------------------------------------------------------------------------------------


def test_every_form_of_an_object_is_shown(job):
    """What a notebook would show under a cell is in the output: text as it is, bytes as base64, JSON as JSON."""
    display(Rich())
    (output,) = displays(job)
    assert output.data == {
        "text/plain": "plain",
        "text/html": "<b>html</b>",
        "image/png": base64.b64encode(PNG).decode(),
        "image/svg+xml": "<svg/>",
        "text/latex": "$x$",
        "application/json": {"a": [1, None]},
    }
    assert output.metadata == {"image/png": {"width": 3}}


def test_a_mime_bundle_goes_before_single_forms():
    """An object that gives a bundle is asked for the rest only."""

    class Bundle(Rich):
        def _repr_mimebundle_(self, **_):
            return {"text/html": "<i>bundle</i>", "application/vnd.own+json": {"b": 1}}, {
                "text/html": {"isolated": True}
            }

    data, metadata = forms_of(Bundle())
    assert data["text/html"] == "<i>bundle</i>"
    assert data["application/vnd.own+json"] == {"b": 1}
    assert data["image/svg+xml"] == "<svg/>"
    assert metadata["text/html"] == {"isolated": True}


def test_include_and_exclude_choose_the_forms():
    """As with IPython, only what is wanted is computed."""
    assert set(forms_of(Rich(), include=["text/html"])[0]) == {"text/html"}
    assert set(forms_of(Rich(), exclude=["image/png", "application/json"])[0]) == {
        "text/plain",
        "text/html",
        "image/svg+xml",
        "text/latex",
    }


def test_a_class_is_shown_by_its_plain_form():
    """The methods of a class belong to its objects."""
    assert set(forms_of(Rich)[0]) == {"text/plain"}


def test_an_object_that_has_every_attribute_is_not_believed():
    """A mock, or a proxy that answers to any name, is shown by its plain form."""

    class Anything:
        def __getattr__(self, name):
            return lambda *_, **__: {"text/html": name}

    assert set(forms_of(Anything())[0]) == {"text/plain"}


class Hostile:
    """An object whose every answer is some kind of trouble."""

    def __init__(self, answer):
        self.answer = answer

    def __repr__(self):
        return "hostile"

    def _repr_html_(self):
        return self.answer()

    _repr_mimebundle_ = _repr_json_ = _repr_html_


def explode():
    raise ValueError("broken form")


def forever():
    return forever()


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize(
    "answer",
    [
        explode,
        forever,
        object,
        lambda: 5,
        lambda: float("nan"),
        lambda: ({}, object()),
        lambda: {1: 2},
        lambda: ((), (), ()),
    ],
)
def test_a_broken_form_is_in_the_log_and_the_plain_form_shown(job, capsys, answer):
    """Whatever a ``_repr_*_`` does, the job goes on, its traceback is in the log, and the object is shown."""
    display(Hostile(answer))
    (output,) = displays(job)
    assert output.data["text/plain"] == "hostile"
    assert set(output.data) <= {"text/plain", "application/json"}
    assert "Traceback" in capsys.readouterr().err


def test_a_broken_repr_is_in_the_log_and_replaced(job, capsys):
    """Even an object that can't say what it is can be displayed."""

    class Mute:
        __repr__ = explode

    display(Mute())
    assert "Mute object at 0x" in texts(job)[0]
    assert "TypeError" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.usefixtures("job")
def test_a_job_that_is_stopped_in_a_form_stops(stop):
    """Cancelling reaches user code wherever it is."""

    def answer():
        raise stop

    with pytest.raises(stop):
        display(Hostile(answer))


def test_an_object_may_display_itself(job, capsys):
    """``_ipython_display_`` takes over, and where it fails the other forms are shown."""

    class Itself(Rich):
        def __init__(self, show):
            self._ipython_display_ = show

    display(Itself(lambda: display("itself")))
    assert texts(job) == ["'itself'"]
    display(Itself(explode))
    assert texts(job) == ["'itself'", "plain"]
    assert "broken form" in capsys.readouterr().err


def test_a_live_widget_is_shown_as_text(job):
    """A widget of the job's process has no browser to live in, so its plain form stands, never a broken view."""
    display({"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider()"}, raw=True)
    assert displays(job)[0].data == {"text/plain": "IntSlider()"}


# --- updates and clearing ------------------------------------------------------------------------------------------


def test_updates_replace_what_stands_under_their_name(job):
    """``display_id``, handles and ``update_display`` work as in a notebook, in place and for every place."""
    handle = display("first", display_id=True)
    display("second")
    again = DisplayHandle("named")
    again.display("third")
    again.display("third again")
    handle.update("first updated")
    update_display("both", display_id="named")
    update_display("nobody", display_id="unknown")
    assert texts(job) == ["'first updated'", "'second'", "'both'", "'both'"]
    assert all(not output.update for output in folded(displays(job)))


def test_a_place_can_be_kept_for_later(job):
    """A display without an object is a place, that shows nothing until it is filled."""
    place = display(display_id="place")
    display("after")
    assert texts(job) == ["'after'"]
    place.update("filled")
    assert texts(job) == ["'filled'", "'after'"]


def test_clear_output_takes_all_away_at_once_or_with_the_next(job):
    """With ``wait``, what was shown stands until there is something instead, so that nothing flickers."""
    display("one")
    clear_output(wait=True)
    assert texts(job) == ["'one'"]
    update_display("nothing", display_id="unknown")
    display("two")
    assert texts(job) == ["'two'"]
    clear_output()
    assert texts(job) == []
    display("three")
    display("four", clear=True)
    assert texts(job) == ["'four'"]


@pytest.mark.usefixtures("job")
def test_an_update_without_a_name_is_refused():
    """The mistake is reported where it is made."""
    with pytest.raises(TypeError, match="display_id"):
        display("what", update=True)


# --- the log, and life outside of a job ----------------------------------------------------------------------------


@pytest.mark.usefixtures("job")
def test_the_log_has_one_line_for_each_output(capsys):
    """A reader of the log alone sees what was shown and when; the whole of it is on the card."""
    handle = display("short", display_id=True)
    display({"text/plain": "   a  b\n0  1  2\n1  3  4"}, {"text/html": "<p>"}, {"text/plain": "x" * 999}, raw=True)
    handle.update("moved")
    assert capsys.readouterr().out.splitlines() == ["'short'", "a  b … (3 lines)", "<text/html>", "x" * 199 + "…"]


def test_outside_of_a_job_objects_are_printed(capsys):
    """The same class runs in a script without a job."""
    display(Rich(), "text")
    clear_output()
    assert capsys.readouterr().out == "plain\n'text'\n"


def test_display_is_a_builtin_only_while_the_job_runs(folder, monkeypatch):
    """As in a notebook, ``display`` needs no import; nothing is left of it afterwards."""
    monkeypatch.delattr(builtins, "display", raising=False)  # IPython leaves one where a shell was made
    worker_display.install(folder)
    exec("display('builtin')", {})  # noqa: S102 -- as user code finds it
    worker_display.finish()
    assert texts(folder) == ["'builtin'"]
    with pytest.raises(NameError):
        exec("display('gone')", {})  # noqa: S102 -- as user code does not find it


def test_a_job_that_closed_its_streams_still_shows_things(in_job):
    """Without a log to write to, outputs and bars are still recorded, and nothing is raised for the lack of it."""
    ran = in_job("""
        import builtins, sys
        from jobcontainer import report
        class Broken:
            def _repr_html_(self):
                raise ValueError
        sys.stdout.close()
        sys.stderr.close()
        display(Broken())
        report(1)
        del builtins.display
    """)
    assert [output.data["text/plain"][:17] for output in ran.outputs] == ["<__main__.Broken "]
    assert [bar.done for bar in ran.bars] == [1]


# --- bounds --------------------------------------------------------------------------------------------------------


def test_an_output_that_is_too_large_keeps_what_fits(job):
    """The largest forms go first, what is small stays, and the plain form says what happened."""
    display({"text/html": "x" * 11_000_000, "image/png": "y" * 100, "text/plain": "a table"}, raw=True)
    (output,) = displays(job)
    assert set(output.data) == {"text/plain", "image/png"}
    first, note = output.data["text/plain"].splitlines()
    assert first == "a table"
    assert "11 MB" in note
    assert "Save it to a file" in note
    display("z" * 12_000_000)
    assert job.events_file.stat().st_size < 10_000


def test_no_more_than_500_outputs_stand_and_one_note_says_so(job, capsys):
    """Ten thousand figures are not drawn, not stored and not sent; updates and a clearing still work."""
    drawn = []

    class Figure:
        def _repr_html_(self):
            drawn.append(1)
            return "<img>"

    first = display("first", display_id=True)
    for _ in range(1200):
        display(Figure())
    assert len(drawn) == output_quota.MAX_OUTPUTS - 1
    standing = texts(job)
    assert len(standing) == output_quota.MAX_OUTPUTS + 1
    assert (
        standing[-1] == "jobcontainer: this job shows 500 outputs, no more are kept. Save the rest to files in run()."
    )
    first.update("updated")
    assert texts(job)[0] == "'updated'"
    assert capsys.readouterr().err.count("no more are kept") == 1
    clear_output()
    display("again")
    assert texts(job) == ["'again'"]


@pytest.fixture
def small_total(monkeypatch):
    monkeypatch.setattr(output_quota, "MAX_TOTAL", 20_000)
    monkeypatch.setattr(output_quota, "MAX_BYTES", 5_000)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["update", "clear and display", "display with clear"])
@pytest.mark.usefixtures("small_total")
def test_an_output_redrawn_for_ever_stays_within_the_total_and_ends_true(folder, how):
    """A live plot costs bounded disk, however long it is redrawn, and its last state stands at the end."""
    worker_display.install(folder)
    handle = display("", display_id=True)
    for number in range(2000):
        picture = f"{number}:" + "x" * 100
        if how == "update":
            handle.update(picture)
        elif how == "display with clear":
            display(picture, clear=True)
        else:
            clear_output(wait=True)
            display(picture)
            display("below")
    worker_display.finish()
    shown = [text for text in texts(folder) if not text.startswith("jobcontainer:")]
    assert shown == [repr("1999:" + "x" * 100)] + ["'below'"] * (how == "clear and display")
    assert sum(len(output.data["text/plain"]) for output in displays(folder)) < 20_000 + 5_000


@pytest.mark.slow
@pytest.mark.usefixtures("small_total")
@pytest.mark.parametrize("size", [1, 100])
def test_what_is_redrawn_slows_down_long_before_the_total(job, size):
    """At the same pace, each tenth of the total lasts twice as long; a counter costs its readers as a plot does."""
    handle = display("", display_id=True)
    for _ in range(2000):
        handle.update("x" * size)
    assert 200 < job.events_file.stat().st_size < 10_000


@pytest.mark.usefixtures("small_total")
def test_outputs_beyond_the_total_are_dropped_with_one_note(job, capsys):
    """What does not replace anything ends at the total, and the card and the log say so."""
    for number in range(30):
        display({"text/plain": f"{number}" + "x" * 1000}, raw=True)
    *kept, note = texts(job)
    assert [text[0] for text in kept] == [*"0123456789"[: len(kept)]] or len(kept) > 10
    assert sum(map(len, kept)) <= 20_000
    assert "no more are kept but the last state of those that are updated" in note
    assert capsys.readouterr().err.count("no more are kept") == 1


def test_outputs_that_can_not_be_written_cost_no_job(job, capsys):
    """A full disk or a lost folder is reported once, and the job goes on."""
    job.path.rename(job.path.with_name("elsewhere"))
    display("one")
    display("two")
    job.path.with_name("elsewhere").rename(job.path)
    assert capsys.readouterr().err.count("outputs can't be written") == 1


def test_threads_show_their_outputs_whole(job):
    """Outputs of many threads are all there, each of them whole."""
    threads = [threading.Thread(target=lambda: [display("x" * 5000) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts(job) == [repr("x" * 5000)] * 200


# --- what stands at the end ----------------------------------------------------------------------------------------


def test_a_new_attempt_begins_without_the_outputs_of_the_last(job):
    """What a retried job showed before it failed is not taken for its outputs."""
    job.append_event(Started(at=1.0, pid=1))
    display("first attempt")
    job.append_event(Started(at=2.0, pid=2, attempt=2))
    assert folded(job.read_events()[0]) == []
    display("second attempt")
    assert [output.data["text/plain"] for output in folded(job.read_events()[0])] == ["'second attempt'"]


def test_folding_is_the_same_in_one_go_and_bit_by_bit(job):
    """A reader that has seen some of the outputs comes to the same end as one that reads all."""
    handle = display("a", display_id=True)
    display("b")
    handle.update("c")
    display("d", clear=True)
    display("e", display_id="x")
    update_display("f", display_id="x")
    clear_output()
    display("g")
    events, standing = displays(job), []
    for seen, event in enumerate(events, start=1):
        standing = fold(standing, event)
        assert standing == folded(events[:seen])


# --- matplotlib ----------------------------------------------------------------------------------------------------

INLINE = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def test_figures_are_shown_by_show_and_at_the_end(in_job):
    """``plt.show()`` shows and closes every figure, ``display(figure)`` shows one, and those left open come last."""
    ran = in_job(
        """
        import matplotlib.pyplot as plt
        for number in (1, 2):
            plt.figure()
            plt.plot([number])
        plt.show()
        assert not plt.get_fignums()
        figure, axes = plt.subplots()
        axes.plot([3])
        display(figure)
        figure, axes = plt.subplots(figsize=(2, 1))
        axes.plot([4])
        figure.show()
        axes.set_title("changed since")
        plt.figure(figsize=(1, 1))  # has nothing to draw
        print("end of run()")
        """,
        env=INLINE,
    )
    large, small = "<Figure size 640x480 with 1 Axes>", "<Figure size 200x100 with 1 Axes>"
    empty = "<Figure size 100x100 with 0 Axes>"
    assert [output.data["text/plain"] for output in ran.outputs] == [large, large, large, small, small, empty]
    assert ran.log.splitlines() == [large, large, large, small, "end of run()", small, empty]
    assert [base64.b64decode(output.data.get("image/png", ""))[:8] for output in ran.outputs] == [PNG] * 5 + [b""]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("agg", "agg"),
        ("module://my.backend", "module://my.backend"),
        ("inline", "module://jobcontainer.worker.reporting.matplotlib_backend"),
        ("module://ipykernel.pylab.backend_inline", "module://jobcontainer.worker.reporting.matplotlib_backend"),
        ("", "module://jobcontainer.worker.reporting.matplotlib_backend"),
    ],
)
def test_only_a_notebooks_backend_is_replaced(folder, monkeypatch, chosen, expected):
    """Who chose Agg gets Agg; what a kernel hands down is no choice."""
    monkeypatch.setenv("MPLBACKEND", chosen)
    worker_display.install(folder)
    assert os.environ["MPLBACKEND"] == expected
    worker_display.finish()
    assert os.environ["MPLBACKEND"] == chosen


@pytest.mark.slow
def test_a_figure_that_can_not_be_drawn_costs_no_job_and_all_is_put_back(in_job):
    """Bad mathtext is found out when the figure is drawn: its traceback is in the log, the other figures are shown.

    Where the process lives on, its environment and matplotlib's choice of a backend are then as they were.
    """
    ran = in_job(
        """
        import os
        import matplotlib
        import matplotlib.pyplot as plt
        from jobcontainer.worker.reporting import display as outputs
        plt.title(r"$\\frac{$")
        plt.figure()
        plt.plot([1])
        outputs.finish()
        print(os.environ["MPLBACKEND"], dict.get(matplotlib.rcParams, "backend"), plt._backend_mod)
        """,
        env=INLINE,
        preload=["matplotlib.pyplot"],
    )
    assert [sorted(output.data) for output in ran.outputs] == [["text/plain"], ["image/png", "text/plain"]]
    assert "Traceback" in ran.log
    assert "frac" in ran.log
    assert ran.log.splitlines()[-1] == f"{INLINE['MPLBACKEND']} {INLINE['MPLBACKEND']} None"


# --- IPython, and libraries that show things -----------------------------------------------------------------------


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "preload", [[], ["IPython.display", "ipywidgets"]], ids=["imported by user code", "loaded before"]
)
def test_the_functions_of_ipython_show_things_on_the_card(in_job, preload):
    """Where user code imports IPython, all that it displays by it, or by what uses it, is on the card."""
    ran = in_job(
        """
        from IPython.display import (HTML, JSON, DisplayHandle, Image, Latex, Markdown, Video, clear_output, display,
                                     display_html, publish_display_data, update_display)
        import ipywidgets
        display("cleared")
        clear_output()
        handle = display(HTML("<b>html</b>"), display_id=True)
        handle.update(Markdown("*updated*"))
        display(Latex("$x$"), JSON({"a": 1}))
        display(Image(b"\\x89PNG\\r\\n\\x1a\\n" + b"0" * 8 + b"\\0\\0\\0\\3\\0\\0\\0\\4", format="png", width=10))
        display_html("<i>raw</i>", raw=True)
        publish_display_data({"text/plain": "published"}, transient={"display_id": "p"})
        update_display(HTML("<b>published</b>"), display_id="p")
        DisplayHandle("own").display(Markdown("own"))
        ipywidgets.widgets.interaction.display(Markdown("by another module"))
        display(ipywidgets.IntSlider())
        """,
        preload=preload,
    )
    forms = [{mime: form for mime, form in output.data.items() if mime != "text/plain"} for output in ran.outputs]
    assert forms == [
        {"text/markdown": "*updated*"},
        {"text/latex": "$x$"},
        {"application/json": {"a": 1}},
        {"image/png": base64.b64encode(PNG + b"0" * 8 + b"\0\0\0\3\0\0\0\4").decode()},
        {"text/html": "<i>raw</i>"},
        {"text/html": "<b>published</b>"},
        {"text/markdown": "own"},
        {"text/markdown": "by another module"},
        {},
    ]
    assert ran.outputs[3].metadata == {"image/png": {"width": 10}}
    assert ran.outputs[-1].data["text/plain"].startswith("IntSlider(")


@pytest.mark.slow
def test_tables_and_charts_of_common_libraries_are_shown_whole(in_job):
    """Tables of pandas and styled ones, Plotly by both of its ways, and Altair give what they give in a notebook."""
    ran = in_job("""
        import altair, pandas
        import plotly.graph_objects as plotly
        table = pandas.DataFrame({"a": [1, 2]})
        display(table)
        display(table.style.highlight_max(color="gold"))
        figure = plotly.Figure(plotly.Scatter(y=[1, 3, 2]))
        display(figure)
        figure.show()
        display(altair.Chart(table).mark_bar().encode(x="a:Q"))
    """)
    table, styled, plot, again, chart = ran.outputs
    assert '<table border="1" class="dataframe">' in table.data["text/html"]
    assert table.data["text/plain"] == "   a\n0  1\n1  2"
    assert "background-color: gold" in styled.data["text/html"]
    for figure in (plot, again):
        assert figure.data["application/vnd.plotly.v1+json"]["data"][0]["y"] == [1, 3, 2]
        assert "Plotly.newPlot" in figure.data["text/html"]
    assert "vega-embed" in chart.data["text/html"]
    assert len(ran.log.splitlines()) == 5


@pytest.mark.slow
def test_a_forked_child_shows_things_too(in_job):
    """What a child process displays is on the card, whole, beside what the job displays at the same time."""
    ran = in_job("""
        import multiprocessing
        def show(name):
            for _ in range(50):
                display(name * 2000)
        children = [multiprocessing.get_context("fork").Process(target=show, args=[name]) for name in "ab"]
        for child in children:
            child.start()
        show("c")
        for child in children:
            child.join()
            assert child.exitcode == 0
    """)
    assert sorted(output.data["text/plain"] for output in ran.outputs) == sorted(
        repr(name * 2000) for name in "abc" for _ in range(50)
    )
