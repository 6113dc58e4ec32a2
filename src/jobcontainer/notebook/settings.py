"""What uses traitlets: the settings of the magics, and the panel's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import traitlets


class Settings(traitlets.HasTraits):
    """The defaults of the magics: ``%config JobContainerMagics.max_workers = 4``, or a line in an IPython profile."""

    max_workers = traitlets.Int(
        None, allow_none=True, min=1, help="How many jobs run at the same time; None for one per available CPU."
    ).tag(config=True)
    engine = traitlets.Unicode("loky", help="Where jobs run; what JobPool(engine=...) takes as a string.").tag(
        config=True
    )
    store = traitlets.Unicode(
        None, allow_none=True, help="The folder of the jobs' files; None for JOBCONTAINER_HOME or .jobcontainer."
    ).tag(config=True)

    @traitlets.validate("store")
    def _make_absolute(self, proposal: Any) -> str | None:
        """Settle a path when it is set, so that it means the same after the working directory changed."""
        return str(Path(proposal.value).expanduser().absolute()) if proposal.value else None

    preload = traitlets.Union(
        [traitlets.List(traitlets.Unicode()), traitlets.Enum(["auto"])],
        default_value="auto",
        allow_none=True,
        help='What is loaded before jobs are forked: "auto", what they import, where that is safe; a list of modules '
        "for these as well; None for nothing.",
    ).tag(config=True)
    options = traitlets.Dict(
        help='Options of every job, e.g. {"timeout": 60, "memory": "2GB"}; flags of a cell override them.'
    ).tag(config=True)

    def pool_arguments(self) -> dict[str, Any]:
        """Return the arguments of a pool; when one of these settings changes, the next job gets a new pool."""
        store = self.store or None
        return {"max_workers": self.max_workers, "store": store, "preload": self.preload, **self.options}


def synced_json() -> Any:
    """Return a trait for JSON data that the browser receives too."""
    return traitlets.Dict().tag(sync=True)
