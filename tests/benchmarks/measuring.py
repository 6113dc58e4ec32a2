"""Us and our peers in turns: rounds, medians, ratios, and the table of them.

Each measurement runs in a process of its own, the same script once more, so that no peer leaves anything for the next
and one that hangs is ended. The order of a round is A B C, and rounds follow each other, so that all meet the same
conditions. A ratio is the median of the rounds' ratios, and says how many times better jobcontainer is: over 1, we win.
A peer that can't be imported, fails or hangs is shown as ``-``, with the reason below the table.

All files of a comparison, ours and the peers', lie in one folder on the disk that temporary files are on, and are
deleted when the comparison has ended, not before: see ``disk_latency.py``, which is asked before each measurement.

Children of the peers import the script again. So nothing but what is cheap is imported at the top, here and there: it
would be counted as theirs.
"""

from __future__ import annotations

import json
import os
import sys
import time

from goals import OURS, best, every, over, times, under, within

__all__ = ["OURS", "Figure", "best", "compare", "every", "over", "parser", "times", "under", "within"]


class Figure:
    """A column of the table.

    Args:
        key: what a measurement calls it.
        title: its heading.
        unit: of its values.
        more_is_better: whether it is a rate; else a time or an amount.
        goal: what is to be reached; None for a figure that is only shown.
        aside: whether it is left out of the published table.
    """

    def __init__(self, key, title, unit, *, more_is_better=False, goal=best(), aside=False):  # noqa: B008 -- it has no state
        self.key, self.title, self.unit, self.more_is_better = key, title, unit, more_is_better
        self.goal, self.aside = goal, aside

    def ratio(self, ours, theirs):
        return ours / theirs if self.more_is_better else theirs / ours


def parser(description, *, rounds=5, quick_rounds=2):
    """The options that all have; ``--quick`` is for trying a script, not for its figures."""
    import argparse

    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="few and small, to see that it works")
    made.add_argument("--rounds", type=int, help=f"of all peers in turns (default: {rounds}; {quick_rounds} if quick)")
    made.add_argument("--only", nargs="+", metavar="PEER", help="jobcontainer and these peers alone")
    made.add_argument("--patience", type=float, default=180.0, help="seconds after which a measurement is given up")
    made.add_argument("--json", help="write the figures to this file as well")
    made.add_argument("--folder", help="for all files, which stay; else a temporary one, deleted at the end")
    made.add_argument("--wait", type=float, help="seconds to wait in all for a slow disk (default: 360; 0 if quick)")
    made.add_argument("--measure", help=argparse.SUPPRESS)  # for the process of one measurement
    made.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    made.set_defaults(usual=(rounds, quick_rounds))
    return made


def compare(names, measure, figures, given, *, memory_of=None):
    """Measure all in turns and print the table; or, in a process of one measurement, measure.

    Args:
        names: of the peers, ours first.
        measure: takes a name and the options, returns values by the keys of the figures.
        figures: what is compared.
        given: the parsed options.
        memory_of: bytes of which the peak of memory is shown as a multiple, in one more round; None for no such round.
    """
    if given.measure:
        print(json.dumps(_attempt(measure, given)), flush=True)
        return
    names = [name for name in names if not given.only or name in {OURS, *given.only}]
    with folder_for(given) as folder:
        found, failed, circumstances = _all_rounds(names, given, memory_of, folder)
    shown = [_summary(figure, found, failed) for figure in figures]
    for figure in shown:
        _show(figure, failed)
    for name, reason in failed.items():
        print(f"-  {name}: {reason}")
    print(circumstances)
    if given.json:
        with open(given.json, "w") as file:
            figures = [one for one in shown if not one["aside"]]
            json.dump({"figures": figures, "failed": failed, "circumstances": circumstances}, file)


def new_folder():
    """A folder for a measurement's files, which nobody deletes before the comparison has ended."""
    import tempfile

    return tempfile.mkdtemp()


def middle(values):
    """The median."""
    import statistics

    return statistics.median(values)


def seconds_of(call):
    """How long one call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def memory_of_tree(pid):
    """The proportional share of memory (PSS) of a process and all below it, in bytes."""
    import psutil

    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            with open(f"/proc/{process.pid}/smaps_rollup") as facts:
                total += next((int(line.split()[1]) for line in facts if line.startswith("Pss:")), 0)
        except OSError:  # it has ended
            continue
    return total * 1024


def _attempt(measure, given):
    """Measure; where that fails, return the reason."""
    import contextlib

    with contextlib.redirect_stdout(sys.stderr):  # the last line of the output is ours
        try:
            return measure(given.measure, given)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is shown in the table
            return {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}


def folder_for(given):
    """The folder of a comparison, or of several; it is deleted at the end unless it was given."""
    import contextlib
    import tempfile

    if given.folder:
        return contextlib.nullcontext(given.folder)
    return tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)


def _all_rounds(names, given, memory_of, folder):
    """Measure all in turns; what was found, what failed, and the circumstances."""
    from disk_latency import DiskLatency

    found, failed, disk = (
        {name: [] for name in names},
        {},
        DiskLatency(given.wait if given.wait is not None else 0 if given.quick else 360),
    )
    rounds = given.rounds or given.usual[given.quick]
    for _ in range(rounds):
        _round(found, failed, lambda name: _run(name, given, _place(folder, disk)))
    if memory_of:
        _round(found, failed, lambda name: _peak(name, given, memory_of, _place(folder, disk)))
    return found, failed, f"medians of {rounds} rounds in turns; {_machine()}; {disk.summary()}"


def _place(folder, disk):
    """A new folder for the temporary files of a measurement, once the disk is calm."""
    import tempfile

    disk.wait(folder)
    return tempfile.mkdtemp(prefix="", dir=folder)


def _started(name, folder, *more):
    import subprocess

    return subprocess.Popen(
        [sys.executable, *sys.argv, "--measure", name, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": folder},
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _run(name, given, folder):
    """One measurement in a process of its own."""
    import subprocess

    process = _started(name, folder)
    try:
        return _answer(*process.communicate(timeout=given.patience))
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {given.patience:.0f} s"}
    finally:
        _end(process)


def _peak(name, given, size, folder):
    """One measurement whose memory is watched, as a multiple of a size beyond what was held when it began."""
    process = _started(name, folder, "--memory")
    until, peak = time.monotonic() + given.patience, 0
    try:
        while process.poll() is None and time.monotonic() < until:
            peak = max(peak, memory_of_tree(process.pid))
            time.sleep(0.005)
        if process.poll() is None:
            return {"failed": f"no answer within {given.patience:.0f} s"}
        answer = _answer(*process.communicate())
    finally:
        _end(process)
    return answer if "failed" in answer else {"memory": (peak - answer["held"]) / size}


def _answer(output, errors):
    try:
        return json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        return {"failed": f"it ended without an answer: {' '.join(errors.split())[-200:]}"}


def _end(process):
    """End a measurement and what it has left behind, be it in a group of its own."""
    import contextlib
    import signal

    import psutil

    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for one in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()


def _round(found, failed, run):
    """Measure each that has not failed."""
    for name in found:
        if name not in failed:
            answer = run(name)
            if "failed" in answer:
                failed[name] = answer["failed"]
            else:
                found[name].append(answer)


def _summary(figure, found, failed):
    """A figure's medians and ratios, as plain data."""
    values = {
        name: [answer[figure.key] for answer in answers if figure.key in answer]
        for name, answers in found.items()
        if name not in failed
    }
    ours = values.get(OURS, [])
    ratios = {
        name: middle([figure.ratio(*pair) for pair in zip(ours, theirs, strict=True)])
        for name, theirs in values.items()
        if theirs and ours and name != OURS
    }
    return {
        "title": figure.title,
        "unit": figure.unit,
        "aside": figure.aside,
        "medians": {name: middle(theirs) for name, theirs in values.items() if theirs},
        "ratios": ratios,
        "goal": figure.goal and figure.goal.text,
        "reached": figure.goal and figure.goal.reached(middle(ours) if ours else None, ratios),
    }


def _show(figure, failed):
    print(f"\n{figure['title'] + ', ' + figure['unit']:56}{'median':>10}{'we are':>12}")
    for name, value in figure["medians"].items():
        ratio = f"{figure['ratios'][name]:.2f}x" if name in figure["ratios"] else ""
        print(f"{name:56}{number(value):>10}{ratio:>12}")
    for name in failed:
        print(f"{name:56}{'-':>10}")
    if figure["goal"]:
        print(f"goal: {figure['goal']}: {figure['reached']}")


def number(value):
    """A value with three digits that count."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _machine():
    import platform

    return f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}"
