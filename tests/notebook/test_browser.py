"""The card in a real JupyterLab, driven in headless Chromium.

With ``JOBCONTAINER_SCREENSHOTS=folder`` each test saves screenshots.
"""

from __future__ import annotations

import json
import re
import time

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDGET = "application/vnd.jupyter.widget-view+json"

TRAIN = """\
%%jobcontainer
import time
import matplotlib.pyplot as plt
from tqdm.auto import tqdm

class Train:
    def run(self):
        print("loading \\x1b[32mdata\\x1b[0m <b>now</b>")
        loss = []
        for epoch in tqdm(range(3), desc="epochs"):
            for step in tqdm(range(20), desc="steps", leave=False):
                time.sleep(0.02)
                loss.append(2.7 ** -(len(loss) / 20))
            print(f"epoch {epoch}: loss={loss[-1]:.3f}")
        plt.figure(figsize=(5, 2)); plt.plot(loss); plt.show()
        return {"final": round(loss[-1], 3)}
"""

LONG = """\
%%jobcontainer
import time
class Long:
    def run(self):
        print("begun", flush=True)
        time.sleep(600)
"""


def panel(cell):
    return cell.locator(".jc-panel")


def final(cell, state):
    card = cell.locator(f".jobcontainer[data-card][data-state={state}]:not([data-snapshot])")
    card.wait_for(timeout=60_000)
    return card


def shown(tab):
    """Return all text that is visible in the notebook's outputs."""
    return "\n".join(tab.page.locator(".jp-Cell-outputArea").all_inner_texts())


def test_a_job_runs_with_live_progress_and_leaves_a_final_card_its_plot_and_its_result(open_notebook):
    """The panel is there while the job runs; the saved notebook has no widget."""
    tab = open_notebook(TRAIN)
    tab.run(1)
    cell = tab.cell(1)
    bars = panel(cell).locator("progress")
    bars.first.wait_for()
    tab.page.wait_for_function("() => document.querySelectorAll('.jc-panel progress').length === 2")
    assert panel(cell).locator("[role=log]").inner_text().startswith("loading data <b>now</b>")
    assert not cell.locator("[data-snapshot]").is_visible()
    tab.shot("run-live")
    card = final(cell, "succeeded")
    assert card.locator("progress").first.get_attribute("value") == "1.0000"
    cell.locator("img[src^='data:image/png']").wait_for()
    assert "{'final': 0.053}" in cell.inner_text()
    assert panel(cell).count() == 0
    tab.shot("run-final")
    outputs = tab.outputs(1)
    assert [sorted(output.data) for output in outputs] == [
        ["text/html", "text/plain"],
        [],
        ["image/png", "text/plain"],
        ["text/plain"],
    ]


def test_cancel_ends_a_job_and_rerun_runs_it_again(open_notebook):
    """Cancelling is shown at once; the Rerun button of the final card starts the job again in the same place."""
    tab = open_notebook(LONG)
    tab.run(1)
    cell = tab.cell(1)
    panel(cell).get_by_text("begun").wait_for()
    button = panel(cell).get_by_role("button", name="Cancel")
    button.click()
    assert panel(cell).locator("[data-action=cancel]").inner_text() == "Cancelling…"
    card = final(cell, "cancelled")
    tab.shot("cancelled")
    card.get_by_role("button", name="Rerun").click()
    panel(cell).get_by_text("begun").wait_for()
    assert cell.locator(".jobcontainer:visible").count() == 1
    panel(cell).get_by_role("button", name="Cancel").click()
    final(cell, "cancelled")


def test_cancel_works_while_another_cell_runs_and_an_interrupt_of_that_cell_leaves_jobs_alone(open_notebook):
    """The stop button ends only its cell, and a Cancel button only its job."""
    tab = open_notebook(LONG, LONG, "import time\nprint('blocking')\ntime.sleep(600)")
    tab.run(1)
    tab.run(2)
    for index in (1, 2):
        panel(tab.cell(index)).get_by_text("begun").wait_for()
    tab.start(3)
    tab.cell(3).locator(".jp-OutputArea-output").get_by_text("blocking").wait_for()
    asked = time.monotonic()
    panel(tab.cell(1)).get_by_role("button", name="Cancel").click()
    final(tab.cell(1), "cancelled")
    assert time.monotonic() - asked < 10
    tab.shot("cancelled-while-busy")
    tab.page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    tab.cell(3).get_by_text("KeyboardInterrupt").first.wait_for()
    assert panel(tab.cell(2)).get_attribute("data-state") == "running"
    panel(tab.cell(2)).get_by_role("button", name="Cancel").click()
    final(tab.cell(2), "cancelled")


def test_a_failure_shows_message_own_line_and_folded_traceback(open_notebook):
    """Type and message are shown as text, with the user's own line; the traceback opens on demand."""
    tab = open_notebook(
        "%%jobcontainer\nclass Broken:\n    def run(self):\n"
        "        raise ValueError('bad <script>alert(1)</script> row')\n"
    )
    tab.run(1)
    card = final(tab.cell(1), "failed")
    assert card.locator(".jc-error").inner_text() == "ValueError: bad <script>alert(1)</script> row"
    assert card.locator(".jc-where").inner_text().startswith("notebook, line 4, in run\n    raise ValueError(")
    traceback = card.locator("details").first
    assert not traceback.locator(".jc-code").is_visible()
    traceback.locator("summary").click()
    assert "Traceback (most recent call last)" in traceback.inner_text()
    tab.shot("failed")


MATHS = """\
%%jobcontainer --name "cost $a$ of \\\\(b\\\\)"
from pathlib import Path
import time
class Dear:
    def run(self):
        print("paid $5 and $6, $$x^2$$ \\\\[y\\\\]", flush=True)
        while not Path("go").exists(): time.sleep(0.05)
        raise ValueError("between $7 and $8\\x1b[31m \\u202eback")
"""


def test_dollars_in_a_card_are_no_formulas_and_controls_are_shown(open_notebook, lab):
    """MathJax typesets other outputs of the notebook, and passes over live panel, final card, labels and lists."""
    tab = open_notebook(MATHS, "from IPython.display import HTML\nHTML('<p>$x^2$</p>')", "%jobs")
    tab.run(1)
    panel(tab.cell(1)).get_by_text("paid $5 and $6, $$x^2$$").wait_for()
    (lab.root / "go").touch()
    card = final(tab.cell(1), "failed")
    tab.run(2)
    tab.run(3)
    tab.cell(2).locator("mjx-container").first.wait_for()
    tab.cell(3).get_by_text("cost $a$ of").first.wait_for()
    assert tab.page.locator("mjx-container").count() == tab.cell(2).locator("mjx-container").count() == 1
    assert card.locator(".jc-name").inner_text() == r"cost $a$ of \(b\)"
    assert card.locator(".jc-error").inner_text() == r"ValueError: between $7 and $8\x1b[31m \u202eback"
    (lab.root / "go").unlink()
    tab.shot("dollars")


def test_a_thousand_jobs_are_one_panel(open_notebook):
    """It shows one total, a few rows, and failures by error; Cancel all ends every job."""
    tab = open_notebook(
        """\
%%jobcontainer --as sweep
import time
class Fit:
    def __init__(self, n): self.n = n
    def run(self):
        if self.n % 3 == 2: raise RuntimeError(f"no convergence")
        time.sleep(0.02 if self.n < 30 else 0.3)
        return self.n
[Fit(n) for n in range(1000)]
"""
    )
    tab.run(1)
    cell = tab.cell(1)
    panel(cell).locator(".jc-failure", has_text="RuntimeError: no convergence").wait_for()
    panel(cell).locator(".jc-row").first.wait_for()
    assert panel(cell).locator(".jc-row").count() <= 8
    assert tab.page.locator(".jc-panel *").count() < 200
    tab.shot("group-live")
    panel(cell).get_by_role("button", name="Cancel all").click()
    card = cell.locator(".jobcontainer[data-card]:not([data-snapshot])")
    card.wait_for(timeout=60_000)
    assert "1,000/1,000" in card.inner_text()
    card.get_by_role("button", name="Rerun failed").wait_for()
    tab.shot("group-final")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_calls_of_a_map_are_one_card(open_notebook, lab, theme):
    """Calls done, rate, time left and failures by kind, live; at the end a static card, and the results are there."""
    lab.theme(theme)
    tab = open_notebook(
        """\
%%jobcontainer --as results
import os, time
from pathlib import Path
from jobcontainer import JobPool
pool = JobPool(2)
def simulate(seed):
    if seed % 40 == 7: raise ValueError("no convergence")
    if seed == 31: os._exit(3)
    while seed >= 300 and not Path("go").exists(): time.sleep(0.02)
    time.sleep(0.005)
    return seed
pool.map(simulate, range(400), chunksize=50)
""",
        "sum(1 for _ in range(7) if next(results) >= 0)",
    )
    tab.run(1)
    cell = tab.cell(1)
    panel(cell).locator(".jc-failure", has_text="ValueError: no convergence").wait_for()
    panel(cell).get_by_text(re.compile(r"\d/s$")).wait_for()
    panel(cell).get_by_text(re.compile("left$")).wait_for()
    assert "simulate, 400 calls" in panel(cell).inner_text()
    panel(cell).get_by_role("button", name="Cancel all").wait_for()
    shade = theme.split()[-1].lower()
    tab.shot(f"calls-live-{shade}")
    (lab.root / "go").touch()
    card = final(cell, "failed")
    (lab.root / "go").unlink()
    assert "389 succeeded, 10 failed, 1 crashed" in card.inner_text()
    assert "400/400" in card.inner_text()
    assert panel(cell).count() == 0
    tab.shot(f"calls-final-{shade}")
    assert all(WIDGET not in output.data for output in tab.outputs(1))
    tab.run(2)
    tab.cell(2).locator(".jp-OutputArea-output").get_by_text("7", exact=True).wait_for()


def test_a_page_that_was_reloaded_in_mid_run_is_repaired(open_notebook):
    """The job goes on without a page; the page that returns shows everything, and saves it."""
    go = "import pathlib\n            while epoch == 1 and not pathlib.Path('go').exists(): time.sleep(0.05)\n"
    tab = open_notebook(TRAIN.replace("            print(f", f"            {go}            print(f"), "1 + 1")
    tab.run(1)
    panel(tab.cell(1)).locator("progress").first.wait_for()
    tab.save()
    tab.open()
    panel(tab.cell(1)).locator("progress").first.wait_for()
    tab.shot("reloaded-live")
    (tab.lab.root / "go").touch()
    final(tab.cell(1), "succeeded")
    tab.cell(1).get_by_text("{'final': 0.053}").wait_for()
    tab.shot("reloaded-final")
    outputs = tab.outputs(1)
    assert all(WIDGET not in output.data for output in outputs)
    assert any("image/png" in output.data for output in outputs)


def test_a_page_that_left_unsaved_and_came_back_after_the_end_is_repaired(open_notebook):
    """Outputs that were never saved appear under their cell again."""
    tab = open_notebook(TRAIN, "1 + 1")
    tab.save()
    tab.run(1)
    panel(tab.cell(1)).wait_for()
    tab.page.goto("about:blank")  # the server is not notified, as when a laptop is closed
    newest = max((tab.lab.root.parent / "jobs").glob("*-Train-*"))
    result = newest / "result.job"
    tab.lab.until(result.exists, what="the job's result")
    tab.open()
    final(tab.cell(1), "succeeded")
    tab.cell(1).get_by_text("{'final': 0.053}").wait_for()


def test_notebook_7_shows_the_same(open_notebook):
    """It shows a live panel, a final card with its button, and the result."""
    pytest.importorskip("notebook")
    tab = open_notebook(TRAIN, where="notebooks")
    tab.run(1)
    cell = tab.cell(1)
    panel(cell).locator("progress").first.wait_for()
    card = final(cell, "succeeded")
    cell.get_by_text("{'final': 0.053}").wait_for()
    card.get_by_role("button", name="Rerun").wait_for()
    assert panel(cell).count() == 0
    tab.shot("notebook-7")


def test_the_classic_notebook_shows_a_live_panel_and_a_final_card(lab, page):
    """The old front end works too; this is a smoke test."""
    pytest.importorskip("nbclassic")
    lab.write("classic.ipynb", "%load_ext jobcontainer", TRAIN)
    page.goto(f"{lab.url}nbclassic/notebooks/classic.ipynb")
    page.wait_for_function(
        "() => window.Jupyter?.notebook?._fully_loaded && Jupyter.notebook.kernel?.info_reply?.status === 'ok'"
        " && require.defined('nbextensions/jupyter-js-widgets/extension')",
        timeout=60_000,
    )
    page.evaluate("() => Jupyter.notebook.execute_cells([0, 1])")
    cell = page.locator(".code_cell").nth(1)
    panel(cell).locator("progress").first.wait_for()
    final(cell, "succeeded")
    cell.get_by_text("{'final': 0.053}").wait_for()
    assert cell.locator(".jobcontainer:visible").count() == 1
    page.evaluate("() => new Promise(done => Jupyter.notebook.session.delete(done, done))")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_saved_notebook_is_true_without_a_kernel(open_notebook, lab, theme):
    """After reopening, the final card and a snapshot from mid-run are both shown, and no widget is missing."""
    tab = open_notebook(TRAIN, LONG)
    tab.run(1)
    final(tab.cell(1), "succeeded")
    tab.cell(1).get_by_text("{'final': 0.053}").wait_for()
    tab.run(2)
    panel(tab.cell(2)).get_by_text("begun").wait_for()
    tab.save()
    tab.shut_down()
    lab.theme(theme)
    tab.page.goto(f"{lab.url}lab/tree/{tab.path.name}?reset")
    tab.page.locator(".jobcontainer[data-snapshot]").wait_for()
    tab.page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached")
    assert tab.page.locator(".jobcontainer[data-state=succeeded]").is_visible()
    assert "As of 20" in tab.page.locator(".jobcontainer[data-snapshot]").inner_text()
    assert "Error displaying widget" not in shown(tab)
    assert tab.page.locator(".jc-panel").count() == 0
    tab.shot(f"saved-{theme.split()[-1].lower()}")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_an_accessibility_check_finds_nothing_serious(open_notebook, lab, theme):
    """Roles, names and contrast are right for a live panel, a group, a failure and a final card, in both themes."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    lab.theme(theme)
    tab = open_notebook(
        TRAIN,
        LONG.replace(
            "begun", "\\x1b[31mred \\x1b[32mgreen \\x1b[33myellow \\x1b[34mblue \\x1b[35mmagenta \\x1b[36mcyan"
        ),
        "%%jobcontainer\nclass Broken:\n    def run(self): raise ValueError('bad row')\n",
        "%jobcontainer [Broken(), Train(), Long()]",
    )
    tab.run(1)
    final(tab.cell(1), "succeeded")
    tab.run(3)
    final(tab.cell(3), "failed").locator("summary").first.click()
    tab.run(2)
    panel(tab.cell(2)).get_by_text("magenta").wait_for()
    tab.run(4)
    panel(tab.cell(4)).get_by_text("ValueError: bad row").wait_for()
    tab.shot(f"accessible-{theme.split()[-1].lower()}")
    found = axe.run(tab.page, context={"include": [".jobcontainer"]}).response["violations"]
    serious = [violation for violation in found if violation["impact"] in {"serious", "critical"}]
    assert serious == [], json.dumps(serious, indent=1)[:4000]
    assert tab.page.locator(".jc-panel [role=status]").first.inner_text() == "Long running"


def test_the_log_keeps_its_position_and_the_button_its_focus_while_the_panel_is_updated(open_notebook):
    """A log that is scrolled up stays there, one that is scrolled down follows; a focused button keeps its focus."""
    tab = open_notebook(
        """\
%%jobcontainer
import time
class Chatty:
    def run(self):
        for number in range(2000):
            print("line", number)
            time.sleep(0.01)
"""
    )
    tab.run(1)
    log = panel(tab.cell(1)).locator("[role=log]")
    log.filter(has_text=re.compile(r"line [1-9]\d\d")).wait_for()  # any of them: which ones are shown varies
    assert log.evaluate("box => box.scrollHeight - box.scrollTop - box.clientHeight") < 8
    tab.page.keyboard.press("Escape")
    panel(tab.cell(1)).get_by_role("button", name="Cancel").focus()
    log.evaluate("box => { box.scrollTop = 5; }")
    before = log.inner_text()
    tab.page.wait_for_function("before => document.querySelector('[role=log]').innerText !== before", arg=before)
    assert log.evaluate("box => box.scrollTop") == 5
    assert tab.page.evaluate("() => document.activeElement.dataset.action") == "cancel"
    assert re.search(r"Log, last 40 lines of [\d.]+ k?B", panel(tab.cell(1)).inner_text())
    panel(tab.cell(1)).get_by_role("button", name="Cancel").click()
    final(tab.cell(1), "cancelled")
