"""A thousand stops: an interrupt at any instant of any public call costs that call alone."""

from __future__ import annotations

import json
import subprocess

import pytest

SHOWN = 10


def test_a_stop_in_any_call_of_a_pool_costs_that_call_alone(search, script, tmp_path):
    """Afterwards the pool runs a job, every job comes to its end, and nothing is left over."""
    begun = script("stopped_calls.py", search.seed, search.seconds, tmp_path / "store")
    with subprocess.Popen(**begun, stdout=subprocess.PIPE, text=True) as child:
        lines = [json.loads(line) for line in child.stdout]
    finds = [f"stop {line['stop']}, {line['call']}: {line['find']}" for line in lines if "find" in line]
    if child.returncode != 0:
        finds.append(f"the process ended with {child.returncode}")
    for line in lines:
        for what, number in line.get("counts", {}).items():
            search.count(what, number)
    if finds:
        shown = "\n".join(finds[:SHOWN])
        pytest.fail(f"--search-seed {search.seed} found {len(finds)}:\n{shown}", pytrace=False)
