"""The stop button: an interrupt at any place of any call of a pool costs no slot and no job."""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

import jobcontainer
from echo_engine import EchoEngine, Works
from interrupts import interrupted
from jobcontainer import JobPool, JobStore
from waiting import wait_for

PACKAGE = Path(jobcontainer.__file__).parent
WHERE = (
    *(str(PACKAGE / name) for name in ("jobs", "engines", "worker")),
    *(sys.modules[name].__file__ for name in ("threading", "concurrent.futures._base")),
)
"""Code whose every step is interrupted: what moves jobs, and what it uses of the standard library."""


@pytest.fixture(autouse=True)
def _few_settings(monkeypatch):
    """No library whose settings go along, option by option: each would be a thousand steps of the same few lines."""
    for library in ("pandas", "matplotlib", "sklearn"):
        monkeypatch.delitem(sys.modules, library, raising=False)


@pytest.fixture
def engine():
    engine = EchoEngine()
    yield engine
    engine.close()


def several(pool):
    return pool.submit_all([Works(), Works()])


CALLS = {
    "submit": lambda pool: lambda: pool.submit(Works()),
    "submit_all": lambda pool: lambda: several(pool),
    "map": lambda pool: lambda: list(pool.map(abs, [1, 2])),
    "rerun": lambda pool: pool.submit(Works()).rerun,
    "cancel": lambda pool: pool.submit(Works()).cancel,
    "cancel a group": lambda pool: several(pool).cancel,
    "result": lambda pool: pool.submit(Works()).result,
    "exception": lambda pool: pool.submit(Works()).exception,
    "wait": lambda pool: several(pool).wait,
    "as_completed": lambda pool: partial(list, several(pool).as_completed()),
}
"""Each call of a pool: a function that prepares it."""


STRIDES = {"line": 3, "opcode": 31}
"""Steps from one that is interrupted to the next, of a call that has a thousand: with every one, it takes minutes."""

LONG = {"submit", "submit_all", "map", "rerun"}

SLOW = [name for name in CALLS if name not in {"cancel", "wait"}]


@pytest.mark.parametrize("kind", ["line", pytest.param("opcode", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CALLS])
def test_an_interrupt_anywhere_costs_no_slot_and_no_job(tmp_path, engine, name, kind):
    """The pool runs the next job, never two in one slot, and every job that is in the store ends."""
    pool = JobPool(engine=engine, store=tmp_path)
    stride = STRIDES[kind] if name in LONG else 1 if kind == "line" else 11  # others in each process
    number = first = os.getpid() % stride
    while interrupted(CALLS[name](pool), number, kind, WHERE):
        assert pool.submit(Works()).result(20) == 1, f"dead after step {number}"
        number += stride
    assert number - first > 9
    assert engine.most == 1
    wait_for(lambda: all(job.done() for job in JobStore(tmp_path).jobs()))
    pool.shutdown()
    assert not pool._control.scheduler.unfinished()
    assert engine.closed.wait(20)


class StartsEarly(EchoEngine):
    """An engine that starts workers before it needs them."""

    threads_of_start: ClassVar[list[threading.Thread]] = []

    def warm_up(self):
        self.threads_of_start.append(threading.current_thread())

    def wait_until_started(self):
        """Return: there is nothing to start."""


def test_workers_are_started_early_where_no_interrupt_is_raised(tmp_path):
    """Whoever makes a pool may be interrupted; half a worker would be nobody's."""
    with JobPool(engine=StartsEarly(), store=tmp_path):
        assert threading.main_thread() not in StartsEarly.threads_of_start
        assert len(StartsEarly.threads_of_start) == 1


@pytest.mark.parametrize(
    "leave", [JobPool.shutdown, lambda pool: pool.__exit__(None, None, None)], ids=["call", "with"]
)
def test_an_interrupt_anywhere_of_a_shutdown_leaves_nothing_open(tmp_path, leave):
    """The jobs run to their end, the engine is closed, and shutting down once more waits for that."""
    number, has_more = 0, True
    while has_more:
        engine = EchoEngine()
        pool = JobPool(engine=engine, store=tmp_path)
        job = pool.submit(Works())
        has_more = interrupted(partial(leave, pool), number, "line", WHERE)
        pool.shutdown()
        assert job.result(20) == 1
        assert engine.closed.wait(20), f"open after step {number}"
        number += 1
    assert number > 9


@pytest.mark.slow
def test_an_interrupt_anywhere_of_a_job_in_this_process_ends_that_job_alone(tmp_path):
    """The submission that was cut off ends with its job, and the next one runs."""
    pool = JobPool(engine="inline", store=tmp_path)
    where = tuple(str(PACKAGE / name) for name in ("jobs", "worker/interrupts.py"))  # not within run()
    number = 0
    while interrupted(partial(pool.submit, Works()), number, "line", where):
        assert pool.submit(Works()).result(20) == 1, f"dead after step {number}"
        number += 1
    assert number > 30
    wait_for(lambda: all(job.done() for job in JobStore(tmp_path).jobs()))
    pool.shutdown()
    assert not pool._control.scheduler.unfinished()


def test_a_job_whose_submitter_was_cut_off_holds_up_no_other(tmp_path, monkeypatch):
    """Cancelled before it began, it leaves its turn to the one behind it, whose own submission has returned."""
    pool = JobPool(engine="inline", store=tmp_path)
    with monkeypatch.context() as cut_off:
        cut_off.setattr(type(pool._control.scheduler.engine), "run_submitted", lambda _: None)
        first, second = pool.submit(Works()), pool.submit(Works())
    assert (first.state.value, second.state.value) == ("running", "queued")
    assert first.cancel()
    assert second.result(20) == 1


def test_a_job_in_this_process_may_submit_another(tmp_path, monkeypatch):
    """Each runs once, the other after it, as there is one slot."""
    pool = JobPool(engine="inline", store=tmp_path)
    monkeypatch.setattr(sys, "pool_of_the_test", pool, raising=False)
    inner = pool.submit(lambda: sys.pool_of_the_test.submit(Works()).id).result(20)
    assert [(job.id == inner, job.state.value) for job in JobStore(tmp_path).jobs()] == [
        (False, "succeeded"),
        (True, "succeeded"),
    ]
