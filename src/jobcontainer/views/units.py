"""Quantities as a person would write them.

They come from files that a job can write into. So what is no number, or larger than any quantity, is written as ``?``.
"""

from __future__ import annotations

import time
from typing import Final

from jobcontainer.process import memory_text

UNKNOWN: Final = "?"

_MINUTE = 60
_HOUR = 3600
_LARGEST = 1e18  # more than any memory, count or time


def sound(amount: object) -> float | None:
    """Return a number that can be written; None for anything else.

    Example:
        >>> sound(2), sound(10**400), sound(float("nan")), sound("2"), sound(True)
        (2, None, None, None, None)
    """
    if not isinstance(amount, int | float) or isinstance(amount, bool):
        return None
    return amount if -_LARGEST < amount < _LARGEST else None


def seconds(amount: object) -> str:
    """Write a duration with two figures that matter.

    Example:
        >>> [seconds(value) for value in (0.0321, 7.94, 83, 7500, None)]
        ['0.03 s', '7.9 s', '1 min 23 s', '2 h 5 min', '?']
    """
    amount = sound(amount)
    if amount is None:
        return UNKNOWN
    if amount < 1:
        return f"{amount:.2f} s"
    if amount < _MINUTE - 0.05:
        return f"{amount:.1f} s"
    whole = round(amount)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR:,} h {whole % _HOUR // _MINUTE} min"


def number(amount: object) -> str:
    """Write a count; whole ones without a point.

    Example:
        >>> number(12345), number(2.5), number(1e7)
        ('12,345', '2.5', '10,000,000')
    """
    amount = sound(amount)
    if amount is None:
        return UNKNOWN
    return f"{int(amount):,}" if float(amount).is_integer() else f"{amount:,.4g}"


def count(amount: int, noun: str) -> str:
    """Write how many there are of something.

    Example:
        >>> count(1, "line"), count(1200, "line")
        ('1 line', '1,200 lines')
    """
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def memory(amount: object) -> str:
    """Write an amount of memory with three figures.

    Example:
        >>> memory(53_400_000), memory("53")
        ('53.4 MB', '?')
    """
    amount = sound(amount)
    return UNKNOWN if amount is None else memory_text(amount)


def share(fraction: float) -> str:
    """Write a part of a whole.

    Example:
        >>> share(0.672)
        '67 %'
    """
    return f"{fraction:.0%}".replace("%", " %")


def rate(per_second: float) -> str:
    """Write a speed; slow ones as the seconds that one step takes.

    Example:
        >>> rate(31.42), rate(0.25), rate(123456)
        ('31.4/s', '4.0 s each', '123,456/s')
    """
    if per_second < 1:
        return f"{seconds(1 / per_second)} each"
    return f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"  # noqa: PLR2004 -- three figures


def clock(at: object) -> str:
    """Write a moment in local time.

    Example:
        >>> len(clock(0.0)), clock(1e300)
        (19, '?')
    """
    at = sound(at)
    try:
        return UNKNOWN if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):  # a year that the system can't write
        return UNKNOWN


def present(*facts: str) -> tuple[str, ...]:
    """Leave out the facts that are empty."""
    return tuple(filter(None, facts))
