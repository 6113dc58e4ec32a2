"""What children that user code forks inherit of this package: nothing that acts.

A forked child has a copy of every pool, engine and lock of its parent, and none of its threads. It must neither wait
for its parent's jobs nor end them, and no lock that another thread held at the fork may stop it. So whatever has
threads or jobs is :class:`BoundToProcess` and does nothing in a child, and what a module holds is renewed there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class BoundToProcess:
    """Something that works only in the process that made it.

    Example:
        >>> BoundToProcess().is_inherited
        False
    """

    def __init__(self) -> None:
        """Note this process as the one that made it."""
        self._maker = os.getpid()

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a child that was forked from the one that made it."""
        return self._maker != os.getpid()

    def refuse_if_inherited(self) -> None:
        """Raise in a forked child.

        Raises:
            RuntimeError: this process was forked from the one that made it.
        """
        if self.is_inherited:
            raise RuntimeError("This process was forked from the one that made the pool: make a new JobPool here.")


def renew_in_forked_child(renew: Callable[[], object]) -> None:
    """Have something called in each child that is forked from this process, before user code runs there."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
