"""What a figure is to reach, and whether it does."""

from __future__ import annotations

OURS = "jobcontainer"
FLOOR = "floor"
"""How the names of those begin that do less than any peer could, to show what is left to win."""


class Goal:
    """What our median, or its ratio to the peers', is to reach.

    Args:
        text: how it is shown.
        miss: takes our median and the ratios by peer (over 1 where we are better), returns by how much it is missed, or
            an empty text.
    """

    def __init__(self, text, miss):
        self.text, self._miss = text, miss

    def reached(self, ours, ratios):
        if ours is None:
            return "missed: there is no figure of ours"
        missed = self.missed_by(ours, ratios)
        return f"missed: {missed}" if missed else "met"

    def missed_by(self, ours, ratios):
        return self._miss(ours, ratios)


def rivals_in(ratios, beginning=""):
    """The peers among those that were measured, or those of them whose names begin so."""
    return {
        name: ratio
        for name, ratio in ratios.items()
        if not name.startswith((OURS, FLOOR)) and name.startswith(beginning)
    }


def every(*goals):
    """All of several goals."""

    def miss(ours, ratios):
        return "; ".join(filter(None, (goal.missed_by(ours, ratios) for goal in goals)))

    return Goal(", ".join(goal.text for goal in goals), miss)


def times(factor, beginning="", *, but=()):
    """So many times as good as the best of the peers, or of those whose names begin so."""
    of = beginning or ("the best peer that copies" if but else "the best peer")

    def miss(_ours, ratios):
        rivals = {name: ratio for name, ratio in rivals_in(ratios, beginning).items() if name not in but}
        if not rivals:
            return "it has no figure"
        ratio, best = min((ratio, name) for name, ratio in rivals.items())
        return f"{ratio:.2f}x {best}" if ratio < factor else ""

    return Goal(f"{factor}x {of}", miss)


def best():
    """No peer is better."""

    def miss(_ours, ratios):
        rivals = rivals_in(ratios)
        better = sorted((ratio, name) for name, ratio in rivals.items() if ratio < 1)
        if not better:
            return ""
        ratio, best = better[0]
        return f"{best} is {1 / ratio:.2f}x as good" + (f", {len(better) - 1} more are better" if better[1:] else "")

    return Goal("ahead of every peer", miss)


def within(times, peer):
    """It is no more than so many times that of a peer."""

    def miss(_ours, ratios):
        found = 1 / ratios[peer] if peer in ratios else 0
        return f"it is {found:.2f}x" if found > times else ""

    return Goal(f"under {times}x {peer}", miss)


def under(limit):
    """It is less than a limit, whatever the peers do."""
    return Goal(f"under {limit:,}", lambda ours, _rivals: f"it is {ours / limit:.2f}x that" if ours >= limit else "")


def over(limit):
    """It is more than a limit, whatever the peers do."""
    return Goal(f"over {limit:,}", lambda ours, _rivals: f"it is {ours / limit:.2f}x that" if ours <= limit else "")
