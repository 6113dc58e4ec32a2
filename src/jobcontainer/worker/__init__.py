"""What runs inside the container."""

import os
from typing import Final

MARK: Final = "JOBCONTAINER_SLOT"
"""An environment variable that every process of a slot has, by which it is found when its keeper is gone."""

_MOST = os.sysconf("SC_OPEN_MAX")
_HIGH = min(_MOST, 1024) if _MOST > 0 else 1024  # select() takes no higher one

CHANNEL_NUMBER: Final = _HIGH - 1
"""The descriptor of a job's process for its keeper; one that programs do not get by opening a few files."""

TRACE_NUMBER: Final = _HIGH - 2
"""The descriptor for tracebacks, which C code writes without a look at what it has become."""
