"""What traitlets keeps: the settings of the magics, and the panel's model."""

from __future__ import annotations

from typing import Any

import traitlets

_SAME = "what every job gets unless its cell says otherwise"


class Settings(traitlets.HasTraits):
    """The defaults of the magics: ``%config JobContainerMagics.max_workers = 4``, or a line in an IPython profile."""

    max_workers = traitlets.Int(
        None, allow_none=True, min=1, help="Jobs that run at the same time; None for the CPUs that are available."
    ).tag(config=True)
    engine = traitlets.Unicode("loky", help="Where jobs run; what JobPool(engine=...) takes as a text.").tag(
        config=True
    )
    store = traitlets.Unicode(
        None, allow_none=True, help="The folder of the jobs' files; None for JOBCONTAINER_HOME or .jobcontainer."
    ).tag(config=True)
    preload = traitlets.List(traitlets.Unicode(), help="Modules that each slot imports once, before any job.").tag(
        config=True
    )
    options = traitlets.Dict(help=f'Options of jobs, e.g. {{"timeout": 60, "memory": "2GB"}}; {_SAME}.').tag(
        config=True
    )

    def pool_arguments(self) -> dict[str, Any]:
        """Return what a pool is made with; when one of these changes, the next job gets a new pool."""
        store = self.store or None
        return {"max_workers": self.max_workers, "store": store, "preload": tuple(self.preload), **self.options}


def synced_json() -> Any:
    """Return a trait for plain data that the browser sees too."""
    return traitlets.Dict().tag(sync=True)
