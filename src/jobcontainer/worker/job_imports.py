"""The one place that changes how ``import`` finds modules: in the process of a job, and never in the user's.

There :class:`~jobcontainer.pickling.source_importer.SourceFinder` finds the modules beside the notebook in the sources
that came with the process file.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from jobcontainer.jobfile import loading

if TYPE_CHECKING:
    import os

    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.pickling.source_importer import SourceFinder


def load_in_job(file_path: str | os.PathLike[str], identity: FileIdentity | None = None) -> Any:
    """Load the process of a job in the process that is the job's own.

    See :func:`jobcontainer.jobfile.loading.load_process`.
    """
    return loading.load_process(file_path, identity, add_finder=put_first)


def import_sources(file_path: str | os.PathLike[str]) -> None:
    """Let ``import`` find the sources of a process file, in a process that its job has started.

    See :func:`jobcontainer.jobfile.loading.import_sources`.
    """
    loading.import_sources(file_path, put_first)


def put_first(finder: SourceFinder, earlier: SourceFinder) -> None:
    """Have ``import`` ask a finder before all others, and no longer an earlier one."""
    if earlier in sys.meta_path:
        sys.meta_path.remove(earlier)
    sys.meta_path.insert(0, finder)
