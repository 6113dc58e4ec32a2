"""All comparisons with peers, as the table in the README: ``python tests/benchmarks/peers.py``.

It needs what ``pip install -e ".[bench]"`` brings, and a machine that does nothing else. ``--quick`` writes nothing and
only tries whether everything runs.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
SCRIPTS = ("fresh_jobs.py", "reused_workers.py")
PLACE = re.compile(r"(<!-- benchmarks -->\n).*(<!-- /benchmarks -->)", re.DOTALL)


def measured(script, options):
    """Run a comparison, and return its figures and what failed, by peer."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "figures.json")
        subprocess.run([sys.executable, str(HERE / script), "--json", str(file), *options], check=True, cwd=HERE)
        found = json.loads(file.read_text())
    return found["figures"], found["failed"]


def rows(figures, failed):
    """The table's rows of one comparison: each peer with its figures, and how many times better we are."""
    for name in [*figures[0]["medians"], *failed]:
        cells = [cell(figure, name, failed) for figure in figures]
        if any(cells):
            yield f"| {name} | {' | '.join(cells)} |"


def cell(figure, name, failed):
    if name in failed:
        return "-"
    if name not in figure["medians"]:
        return ""
    value = measuring.number(figure["medians"][name])
    return f"{value} ({figure['ratios'][name]:.2f}x)" if name in figure["ratios"] else f"**{value}**"


def table(comparisons):
    """The text between the markers."""
    now = dt.datetime.now(tz=dt.UTC).date()
    cpus = len(os.sched_getaffinity(0))
    lines = [
        f"`python tests/benchmarks/peers.py`, {now}, Python {platform.python_version()}, {cpus} CPUs, {cpus} workers:",
        "",
    ]
    for figures, failed in comparisons:
        titles = [f"{figure['title']}, {figure['unit']}" for figure in figures]
        lines += [f"| | {' | '.join(titles)} |", f"| --- |{' ---: |' * len(titles)}", *rows(figures, failed), ""]
        lines += [f"{name}: {reason}" for name, reason in failed.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    options = ["--rounds", str(given.rounds), *(["--quick"] if given.quick else [])]
    text = table([measured(script, options) for script in SCRIPTS])
    if given.quick:
        print(text)
    else:
        README.write_text(PLACE.sub(lambda place: f"{place[1]}{text}{place[2]}", README.read_text()))
