"""Warnings that point at the line of the user's code, however deep in this package they arise."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Final

_OWN_FOLDER: Final = str(Path(__file__).parent.parent)


def warn(message: str) -> None:
    """Warn about something; the line shown is the innermost one outside of this package.

    Args:
        message: what happened and what to do next.
    """
    level = 1
    frame = sys._getframe()  # noqa: SLF001 -- warnings counts frames; skip_file_prefixes is there from Python 3.12 on
    while frame.f_code.co_filename.startswith(_OWN_FOLDER) and frame.f_back is not None:
        frame = frame.f_back
        level += 1
    warnings.warn(message, UserWarning, stacklevel=level)
