"""Quantities as a person would write them."""

from __future__ import annotations

import time

_MINUTE = 60
_HOUR = 3600


def seconds(amount: float) -> str:
    """Write a duration with two figures that matter.

    Example:
        >>> [seconds(value) for value in (0.0321, 7.94, 83, 7500)]
        ['0.03 s', '7.9 s', '1 min 23 s', '2 h 5 min']
    """
    if amount < 1:
        return f"{amount:.2f} s"
    if amount < _MINUTE - 0.05:
        return f"{amount:.1f} s"
    whole = round(amount)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR:,} h {whole % _HOUR // _MINUTE} min"


def number(amount: float) -> str:
    """Write a count; whole ones without a point.

    Example:
        >>> number(12345), number(2.5), number(1e7)
        ('12,345', '2.5', '10,000,000')
    """
    return f"{int(amount):,}" if float(amount).is_integer() else f"{amount:,.4g}"


def count(amount: int, noun: str) -> str:
    """Write how many there are of something.

    Example:
        >>> count(1, "line"), count(1200, "line")
        ('1 line', '1,200 lines')
    """
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def rate(per_second: float) -> str:
    """Write a speed; slow ones as the seconds that one step takes.

    Example:
        >>> rate(31.42), rate(0.25), rate(123456)
        ('31.4/s', '4.0 s each', '123,456/s')
    """
    if per_second < 1:
        return f"{seconds(1 / per_second)} each"
    return f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"  # noqa: PLR2004 -- three figures


def clock(at: float) -> str:
    """Write a moment in local time.

    Example:
        >>> len(clock(0.0))
        19
    """
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def present(*facts: str) -> tuple[str, ...]:
    """Leave out the facts that are empty."""
    return tuple(filter(None, facts))
