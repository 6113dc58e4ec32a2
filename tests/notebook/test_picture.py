"""The picture in the README: a real cell with its card, in both themes.

``JOBCONTAINER_SCREENSHOTS=.github pytest tests/notebook/test_picture.py`` takes new pictures.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELL = """\
%%jobcontainer --timeout 600 --memory 2GB
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from tqdm.auto import tqdm


class ReadDigits:
    def run(self):
        X, y = load_digits(return_X_y=True)
        model, curve = MLPClassifier(32, random_state=0), []
        for epoch in tqdm(range(12), desc="epochs"):
            for rows in tqdm(np.array_split(np.arange(1200), 40), desc="batches"):
                model.partial_fit(X[rows], y[rows], classes=range(10))
            curve.append(model.score(X[1200:], y[1200:]))
            print(f"epoch {epoch + 1}: {curve[-1]:.1%}")
        plt.figure(figsize=(6.2, 1.8))
        plt.plot(range(1, 13), curve, "o-")
        plt.show()
        return {"model": model, "accuracy": round(curve[-1], 3)}
"""


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_picture_of_the_readme_is_what_a_user_sees(open_notebook, lab, page, theme):
    """A job that succeeds shows its card with two bars, its plot, and its result."""
    lab.theme(theme)
    page.set_viewport_size({"width": 860, "height": 1000})
    tab = open_notebook(CELL.strip())
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached")
    tab.run(1)
    cell = tab.cell(1)
    cell.locator(".jobcontainer[data-card][data-state=succeeded]:not([data-snapshot])").wait_for(timeout=60_000)
    assert cell.locator("progress").count() == 2
    cell.locator("img[src^='data:image/png']").wait_for()
    cell.get_by_text("'accuracy'").last.wait_for()
    folder = os.environ.get("JOBCONTAINER_SCREENSHOTS")
    if folder:
        page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
        cell.screenshot(path=Path(folder) / f"card-{theme.split()[-1].lower()}.png")
