"""What runs inside the container."""

from typing import Final

MARK: Final = "JOBCONTAINER_SLOT"
"""An environment variable that every process of a slot has, by which it is found when its keeper is gone."""
