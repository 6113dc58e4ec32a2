"""A matplotlib backend that draws by Agg and shows figures on the job's card.

matplotlib loads this module by the name that :mod:`jobcontainer.worker.reporting.display` puts into ``MPLBACKEND``. As
with a notebook's inline backend, ``plt.show()`` shows every open figure and closes it; figures that are open at the end
of the job are shown then, unless ``display(figure)`` or ``figure.show()`` showed them as they are.

``Gcf``, pyplot's register of open figures, is in a private module of matplotlib, but every backend needs it:
``pyplot_show`` has no other way to the figures.
"""

from __future__ import annotations

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jobcontainer.worker.reporting.display import display


class FigureManager(FigureManagerBase):
    """Shows its figure on the card."""

    def show(self) -> None:
        """Show the figure; called by ``figure.show()``."""
        display(self.canvas.figure)

    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:  # noqa: ARG003 -- matplotlib's signature
        """Show all open figures, oldest first, and close them; called by ``plt.show()``."""
        for manager in Gcf.get_all_fig_managers():
            manager.show()
        Gcf.destroy_all()


class FigureCanvas(FigureCanvasAgg):
    """An Agg canvas whose manager shows figures on the card."""

    manager_class = FigureManager


def show_left_open() -> None:
    """Show the open figures that were not shown as they are now, and close all; called at the end of the job."""
    managers = Gcf.get_all_fig_managers()
    if not managers:
        return
    from jobcontainer.worker.reporting.mime_bundle import drawn  # noqa: PLC0415 -- imports IPython

    for manager in managers:
        figure = manager.canvas.figure
        if figure.stale or figure not in drawn:
            manager.show()
    Gcf.destroy_all()
