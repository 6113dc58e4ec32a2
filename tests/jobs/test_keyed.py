"""The same work once: jobs with a key."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from jobcontainer import (
    CorruptFileError,
    JobContainer,
    JobPool,
    JobState,
    JobStore,
    SerializationError,
    Serializer,
    checkpoint,
)
from jobcontainer.process import JobOptions
from jobcontainer.storage.store_folder import StoreFolder

CELL = "class Fit:\n    def run(self):\n        return {}\n"


class Fit:
    def __init__(self, rate, data=None):
        self.rate, self.data = rate, data

    def run(self):
        if type(self.data) is str:
            raise RuntimeError(self.data)
        return self.rate * 2


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def inline(store):
    """A pool whose jobs run in this process."""
    with JobPool(engine="inline", store=store) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _differences_are_errors():
    """A warning of a difference, which a test does not expect, fails it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def ids(jobs):
    return [job.id for job in jobs]


def jobs_in(store):
    return StoreFolder(store).job_ids()


def test_of_one_key_a_job_runs_once(inline, store):
    """Run All again, in this process or another, returns the job of before, and nothing runs."""
    first = inline.with_options(key="train-v3").submit(Fit(1))
    assert inline.with_options(key="train-v3").submit(Fit(1)).id == first.id
    with JobPool(engine="inline", store=store) as after_a_restart:
        again = after_a_restart.with_options(key="train-v3").submit(Fit(1))
    assert (again.id, again.result()) == (first.id, 2)
    assert jobs_in(store) == [first.id]


class Goes:
    """Fails until it has saved so often."""

    def __init__(self, most):
        self.most = most

    def run(self):
        begun = checkpoint.load(default=0)
        checkpoint.save(begun + 1)
        if begun < self.most:
            raise RuntimeError("on purpose")
        return begun


def test_a_new_job_of_a_key_goes_on_from_the_checkpoint_of_the_last(inline):
    """Run All goes on where a job failed; ``rerun`` and another key begin anew."""
    pool = inline.with_options(key="train")
    assert [pool.submit(Goes(2)).state for _ in range(2)] == [JobState.FAILED] * 2
    assert pool.submit(Goes(2)).result() == 2
    assert pool.with_options(rerun=True).submit(Goes(0)).result() == 0
    assert inline.with_options(key="other").submit(Goes(0)).result() == 0


def test_a_checkpoint_of_a_key_that_is_lost_leaves_no_job(inline, store):
    """The error says so; nothing begins anew unasked."""
    job = inline.with_options(key="train").submit(Goes(1))
    job.folder.checkpoint_file.rename(store / "elsewhere")
    job.folder.checkpoint_file.symlink_to(store / "elsewhere")
    with pytest.raises(CorruptFileError, match="link"):
        inline.with_options(key="train").submit(Goes(1))
    assert jobs_in(store) == [job.id]


@pytest.mark.parametrize("count", [1, 3])
def test_jobs_that_run_or_are_queued_are_returned(shared, gate, count):
    """A second submission meanwhile gets the very handles of the first."""

    def work(number, path):
        import os  # noqa: PLC0415 -- the job's
        import time  # noqa: PLC0415

        while not os.path.exists(path):  # noqa: PTH110
            time.sleep(0.01)
        return number

    pools = [shared.with_options(key=f"{gate}-{number}") for number in range(count)]
    first = [pool.submit(work, number, str(gate)) for number, pool in enumerate(pools)]
    assert [pool.submit(work, number, str(gate)) for number, pool in enumerate(pools)] == first
    gate.touch()
    assert [job.result(60) for job in first] == list(range(count))


@pytest.mark.parametrize("end", ["failed", "cancelled", "result deleted", "folder deleted"])
def test_work_that_has_no_result_is_done_anew(inline, store, end):
    """A job that did not succeed, or whose result is gone, is none that a key stands for."""
    keyed = inline.with_options(key="k")
    first = keyed.submit(Fit(1, "fails" if end == "failed" else None))
    if end == "cancelled":
        first.folder.append_event(first.outcome.__class__(state="cancelled", at=0.0, attempt=1))
    elif end == "result deleted":
        first.folder.result_file.unlink()
    elif end == "folder deleted":
        first.folder.delete()
    with JobPool(engine="inline", store=store) as pool:
        second = pool.with_options(key="k").submit(Fit(1))
    assert second.id != first.id
    assert second.result() == 2


def test_a_key_is_for_one_job_between_processes_and_threads(tmp_path, store):
    """Whoever submits the same key at the same moment, one job is made."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from jobcontainer import JobPool\n"
        "with JobPool(engine='inline', store=sys.argv[1]) as pool:\n"
        "    sys.stdin.read(1)\n"
        "    print(pool.with_options(key='k').submit(pow, 2, 3).id)\n"
    )
    command = [sys.executable, script, store]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = []
    with JobPool(engine="inline", store=store) as pool:
        threads = [
            threading.Thread(target=lambda: found.append(pool.with_options(key="k").submit(pow, 2, 3).id))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        found += [other.communicate("\n", timeout=60)[0].strip() for other in others]
        for thread in threads:
            thread.join()
    assert len(found) == 6
    assert set(found) == {*jobs_in(store)}
    assert len(jobs_in(store)) == 1


def test_a_sweep_that_grew_by_one_value_runs_one_job(inline, store):
    """Each process adds its own arguments to the key of ``submit_all``."""
    first = inline.submit_all([Fit(rate, np.arange(3.0)) for rate in (1, 2)], key="sweep")
    second = inline.submit_all([Fit(rate, np.arange(3.0)) for rate in (1, 2, 3)], key="sweep")
    assert ids(second)[:2] == ids(first)
    assert second.results() == [2, 4, 6]
    assert len(jobs_in(store)) == 3
    named = inline.submit_all({"one": Fit(7), "two": Fit(7)}, key="sweep")
    assert ids(named)[0] == ids(named)[1], "the same work twice is one job"


def test_an_array_that_changed_is_another_argument(inline):
    """Arrays count by their content."""
    data = np.arange(3.0)
    [first] = inline.submit_all([Fit(1, data)], key="sweep")
    data[0] = 5
    assert inline.submit_all([Fit(1, data)], key="sweep")[0].id != first.id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pool: pool.submit(Fit(2)), "differs: arguments rate"),
        (lambda pool: pool.submit(Fit(1, threading.Lock)), "differs: arguments data"),
        (lambda pool: pool.with_options(timeout=9).submit(Fit(1)), r"timeout=9, before None"),
        (lambda pool: pool.with_options(env={"A": "1"}).submit(Fit(1)), r"env={'A': '1'}, before {}"),
        (lambda pool: pool.submit(pow, 2, 3), "arguments rate, data, base, exp, mod; the source"),
    ],
)
def test_what_differs_is_said_and_how_to_run_it_anew(inline, change, said):
    """The job is returned as it is, with the names of arguments and options that are others now."""
    keyed = inline.with_options(key="k")
    first = keyed.submit(Fit(1))
    with pytest.warns(UserWarning, match=said) as warned:
        assert change(keyed).id == first.id
    assert "with_options(key=..., rerun=True)" in str(warned[0].message)
    assert warned[0].filename == __file__


def test_source_that_changed_is_shown_line_by_line(inline, tmp_path):
    """The lines that went and that came, and no others."""
    keyed = inline.with_options(key="k")
    for number, said in ((1, None), (2, r"the source\n    -        return 1\n    \+        return 2\n")):
        file = tmp_path / f"cell{number}.py"
        file.write_text(CELL.format(number))
        names = {"__name__": "__main__"}
        exec(compile(file.read_text(), file, "exec"), names)  # noqa: S102 -- a cell that was run again
        if said is None:
            keyed.submit(names["Fit"]())
        else:
            with pytest.warns(UserWarning, match=said):
                assert keyed.submit(names["Fit"]()).result() == 1


def test_what_can_not_be_compared_is_named_as_such(inline):
    """It is neither taken for the same nor for another."""
    keyed = inline.with_options(key="k")
    cyclic = []
    cyclic.append(cyclic)
    first = keyed.submit(Fit(1, cyclic))
    with pytest.warns(UserWarning, match="arguments that can't be compared, data"):
        assert keyed.submit(Fit(1, cyclic)).id == first.id
    with pytest.raises(ValueError, match=r"Fit has arguments that can't be compared, data, so that"):
        inline.submit_all([Fit(1), Fit(1, cyclic)], key="sweep")


def test_rerun_runs_it_anew_and_stands_for_the_key_from_then_on(inline):
    """By the option, or by ``rerun()`` of the job."""
    keyed = inline.with_options(key="k")
    first = keyed.submit(Fit(1))
    second = keyed.with_options(rerun=True).submit(Fit(2))
    third = second.rerun()
    assert len({first.id, second.id, third.id}) == 3
    assert keyed.submit(Fit(2)).id == third.id


def test_a_file_has_a_key_too(inline, tmp_path, monkeypatch, store):
    """``JobContainer`` and ``submit_file`` run the process of a file once."""
    Serializer.serialize_to_file(Fit(4), tmp_path / "fit.job")
    keyed = inline.with_options(key="file")
    first = keyed.submit_file(tmp_path / "fit.job")
    assert keyed.submit_file(tmp_path / "fit.job").id == first.id
    monkeypatch.setenv("JOBCONTAINER_HOME", str(store))
    assert JobContainer(tmp_path / "fit.job", key="file").submit().id == first.id


def test_a_job_inside_a_job_may_have_the_same_key(inline):
    """The keys are locked while jobs are written, not while they run."""

    def outer(pool):
        return pool.with_options(key="inner").submit(pow, 2, 3).result()

    class Outer:
        def run(self):
            return outer(JobPool(engine="inline", store=os.environ["STORE_OF_TEST"]))

    os.environ["STORE_OF_TEST"] = str(inline.store)
    try:
        assert inline.with_options(key="outer").submit(Outer()).result(60) == 8
    finally:
        del os.environ["STORE_OF_TEST"]


def test_a_key_that_is_given_to_submit_is_shown_its_place(inline):
    """As any other option is."""
    with pytest.raises(TypeError, match=r"pool\.with_options\(timeout=\.\.\., key=\.\.\.\)\.submit\(Goes"):
        inline.submit(Goes(1), key="k", timeout=1)


@pytest.mark.parametrize("key", ["", " a", "two\nlines", "\u202eright to left", "k" * 10_000, 7, b"k"])
def test_a_key_that_is_none_is_refused(key):
    """With what a key is, and no more of it than a line shows."""
    with pytest.raises(ValueError, match=r"^key=.{0,210}: it takes a text of 1 to 200 printable characters, with no"):
        JobOptions(key=key)


def test_options_that_need_a_key_or_can_have_none_say_so(inline):
    """``rerun`` without a key, and a key with ``map``."""
    with pytest.raises(ValueError, match="it is for jobs that have a key"):
        JobOptions(rerun=True)
    with pytest.raises(ValueError, match=r"the calls of map\(\) have no key"):
        inline.with_options(key="k").map(abs, [1])
    with pytest.raises(ValueError, match="for several processes it has 167 characters at most"):
        inline.submit_all([Fit(1)], key="k" * 168)


def test_prune_forgets_the_keys_of_jobs_that_are_gone(inline, store):
    """And keeps those of the others."""
    for key in ("a", "b"):
        inline.with_options(key=key).submit(Fit(1))
    kept = inline.with_options(key="a", rerun=True).submit(Fit(1))
    JobStore(store).prune(keep=1)
    lines = {file.name: file.read_text() for file in (store / "keys").iterdir() if file.name != "lock"}
    assert [re.findall(r'"job": "(.*)"', text) for text in lines.values()] == [[kept.id]]
    assert inline.with_options(key="a").submit(Fit(1)).id == kept.id


@pytest.mark.parametrize("what", ["garbage", "another key", "a folder", "a job that is none"])
def test_a_spoilt_index_costs_a_run_and_no_lie(inline, store, what):
    """A job is of the key that its ``job.json`` says."""
    first = inline.with_options(key="a").submit(Fit(1))
    [file] = [one for one in (store / "keys").iterdir() if one.name != "lock"]
    if what == "another key":
        other = inline.submit(Fit(3))
        file.write_text(f'{{"job": "{other.id}"}}\n')
    elif what == "a folder":
        file.unlink()
        file.mkdir()
        with pytest.raises(OSError, match="can't be used"):
            inline.with_options(key="a").submit(Fit(1))
        return
    else:
        file.write_bytes(b"\xff{\n[]\n" if what == "garbage" else b'{"job": "../x"}\n{"job": 7}\n{}\n')
    second = inline.with_options(key="a").submit(Fit(1))
    assert second.id != first.id
    assert second.result() == 2


def test_a_submission_that_fails_leaves_the_key_free(inline):
    """What can't be pickled, and an interrupt while it is: the next one is not kept waiting."""

    class Hostile:
        def __init__(self, error):
            self.error = error

        def __reduce__(self):
            raise self.error

        def run(self):
            """Nothing."""

    keyed = inline.with_options(key="k")
    for error in (ValueError("no"), KeyboardInterrupt()):
        with pytest.raises(Exception if isinstance(error, ValueError) else KeyboardInterrupt):
            keyed.submit(Hostile(error))
    assert keyed.submit(Fit(1)).result() == 2


def test_a_job_that_is_submitted_while_another_is_pickled_is_refused(inline):
    """It would wait for ever for the keys that its own thread holds; the next submission finds them free."""

    class Submits:
        def __reduce__(self):
            inline.with_options(key="inner").submit(pow, 2, 3)

        def run(self):
            """Nothing."""

    keyed = inline.with_options(key="outer")
    with pytest.raises(SerializationError, match="submit it before"):
        keyed.submit(Submits())
    assert keyed.submit(Fit(1)).result() == 2
