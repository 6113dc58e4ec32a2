"""All comparisons with peers, as the tables in README.md beside this file: ``python tests/benchmarks/peers.py``.

It needs what ``pip install -e ".[bench]"`` brings, and a machine that does nothing else. Each comparison has a block of
its own between markers, written as soon as it is done; ``--only-scripts card progress`` writes these alone. ``--quick``
writes nothing and only tries whether everything runs. All files lie in one folder, which is deleted at the very end:
see ``disk_latency.py``.
"""

from __future__ import annotations

import argparse
import ast
import datetime as dt
import json
import re
import subprocess
import sys
from pathlib import Path

import measuring

HERE = Path(__file__).parent
README = HERE / "README.md"
SCRIPTS = (
    "fresh_jobs",
    "reused_workers",
    "ten_thousand_jobs",
    "sweep",
    "importing",
    "many_calls",
    "large_argument",
    "large_result",
    "progress",
    "card",
    "starting",
)
PLACE = re.compile(r"(<!-- benchmarks -->\n).*(<!-- /benchmarks -->)", re.DOTALL)
BLOCK = re.compile(r"<!-- benchmarks: (\w+) -->\n(.*?)<!-- /benchmarks: \1 -->\n", re.DOTALL)


def measured(script, options, folder):
    """Run a comparison; what it found, or None where it failed."""
    file = Path(folder, f"{script}.json")
    command = [sys.executable, f"{script}.py", "--json", str(file), "--folder", folder, *options]
    print(f"\n== {' '.join([f'{script}.py', *options])}", flush=True)
    return json.loads(file.read_text()) if subprocess.run(command, check=False, cwd=HERE).returncode == 0 else None


def block(script, found, options):
    """The text of one comparison: what it compares, the command and its circumstances, the table, what failed."""
    claim = ast.get_docstring(ast.parse((HERE / f"{script}.py").read_text())).splitlines()[0]
    command = " ".join(["python", f"tests/benchmarks/{script}.py", *options])
    now = dt.datetime.now(tz=dt.UTC).date()
    failures = [f"\\- {name}: {reason}  " for name, reason in found["failed"].items()]
    lines = [f"**{claim}**", f"`{command}`, {now}, {found['circumstances']}:", "", *table(found), ""]
    return "\n".join([*lines, *failures, ""] if failures else lines) + "\n"


def table(found):
    """The lines of one comparison's table."""
    figures, failed = found["figures"], found["failed"]
    titles = [f"{figure['title']}, {figure['unit']}" for figure in figures]
    yield f"| | {' | '.join(titles)} |"
    yield f"| --- |{' ---: |' * len(titles)}"
    for name in dict.fromkeys([*(name for figure in figures for name in figure["medians"]), *failed]):
        shown = f"**{name}**" if name == measuring.OURS else name
        yield f"| {shown} | {' | '.join(cell(figure, name, failed) for figure in figures)} |"
    yield f"| *goal* | {' | '.join(goal(figure) for figure in figures)} |"


def cell(figure, name, failed):
    if name in failed:
        return "-"
    if name not in figure["medians"]:
        return ""
    value = measuring.number(figure["medians"][name])
    return f"{value} ({figure['ratios'][name]:.2f}x)" if name in figure["ratios"] else f"**{value}**"


def goal(figure):
    return f"{figure['goal']}: **{figure['reached']}**" if figure["goal"] else ""


def write(script, text):
    """Put a comparison's block into the README, and leave the others as they are."""
    readme = README.read_text()
    blocks = dict(BLOCK.findall(PLACE.search(readme)[0])) | {script: text}
    shown = [
        f"<!-- benchmarks: {name} -->\n{blocks[name]}<!-- /benchmarks: {name} -->\n"
        for name in SCRIPTS
        if name in blocks
    ]
    README.write_text(PLACE.sub(lambda place: f"{place[1]}{''.join(shown)}{place[2]}", readme))


def main():
    """Run the comparisons, and return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and small, to see that it works; writes nothing")
    parser.add_argument("--rounds", type=int, help="of each comparison; else what each has for its own")
    parser.add_argument("--only-scripts", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="SCRIPT")
    parser.add_argument("--folder", help="for all files, which stay; else a temporary one, deleted at the end")
    given = parser.parse_args()
    options = [*(["--rounds", str(given.rounds)] if given.rounds else []), *(["--quick"] if given.quick else [])]
    failed = 0
    with measuring.folder_for(given) as folder:
        for script in given.only_scripts:
            found = measured(script, options, folder)
            if found is None:
                failed += 1
            elif given.quick:
                print(f"\n{block(script, found, options)}")
            else:
                write(script, block(script, found, options))
    return failed


if __name__ == "__main__":
    sys.exit(main())
