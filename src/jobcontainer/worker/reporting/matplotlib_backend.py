"""A matplotlib backend that draws by Agg and shows figures on the job's card.

matplotlib loads this module by the name that :mod:`jobcontainer.worker.reporting.display` puts into ``MPLBACKEND``. As
with a notebook's inline backend, ``plt.show()`` shows every open figure and closes it; figures that are open at the end
of the job are shown then, unless ``display(figure)`` or ``figure.show()`` showed them as they are.

Private names of matplotlib are used here alone: ``Gcf``, pyplot's register of open figures, which every backend needs
(``pyplot_show`` has no other way to them), and ``pyplot._backend_mod``, as ``pyplot.switch_backend`` would load the
backend that is put back after the job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcontainer.worker.reporting.import_hooks import Hooks


_display: Callable[[object], object] = print  # until choose() is given the one of the job


class FigureManager(FigureManagerBase):
    """Shows its figure on the card."""

    def show(self) -> None:
        """Show the figure; called by ``figure.show()``."""
        _display(self.canvas.figure)

    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:  # noqa: ARG003 -- matplotlib's signature
        """Show all open figures, oldest first, and close them; called by ``plt.show()``."""
        for manager in Gcf.get_all_fig_managers():
            manager.show()
        Gcf.destroy_all()


class FigureCanvas(FigureCanvasAgg):
    """An Agg canvas whose manager shows figures on the card."""

    manager_class = FigureManager


def choose(pyplot: Any, hooks: Hooks, display: Callable[[object], object]) -> None:
    """Use this backend in a pyplot that may have read its settings before the job, until the job's end.

    Args:
        pyplot: the module ``matplotlib.pyplot``.
        hooks: undoes what is changed here at the job's end.
        display: shows a figure on the card.

    The dict below RcParams is used, as RcParams itself would load a backend to find out which it is.
    """
    global _display  # noqa: PLW0603 -- matplotlib makes the managers
    _display = display
    settings = pyplot.rcParams
    before = dict.__getitem__(settings, "backend")
    if before != f"module://{__name__}":
        hooks.at_undo(dict.__setitem__, settings, "backend", before)
        dict.__setitem__(settings, "backend", f"module://{__name__}")
        hooks.replace(pyplot, "_backend_mod", None)  # is chosen anew at the next figure


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
