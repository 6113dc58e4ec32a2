"""How a keeper begins, before it imports any module of its own; so nothing but the simplest is imported here.

A keeper starts in the notebook's folder and with the notebook's paths. A ``random.py`` there is for the notebook and
its jobs, not for the libraries that a keeper itself needs.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SAFE_START: Final = {"PYTHONSAFEPATH": "1"}
"""Environment variables with which Python does not look for modules in the working directory when it starts.

A job has them no more: it takes over the variables of the notebook.
"""


def begin_keeper(lifeline: Connection, forks: bool) -> None:  # noqa: FBT001 -- loky passes no names
    """Make this worker a keeper; the initializer of its executor.

    Until it takes over the environment of a job, ``import`` finds the standard library before anything else.
    """
    library = os.path.dirname(os.__file__)  # noqa: PTH120 -- a text is compared
    sys.path.sort(key=lambda entry: entry not in {library, f"{library}{os.sep}lib-dynload"})
    from jobcontainer.worker import keeper  # noqa: PLC0415 -- with all that it imports, from these paths

    keeper.begin(lifeline, forks=forks)
