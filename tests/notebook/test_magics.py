"""The magics in a shell of this process: which processes a cell has, what is submitted, and what errors say."""

from __future__ import annotations

import atexit
import sys
import threading

import pytest
from IPython.core import async_helpers
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from jobcontainer import Job, JobGroup, JobState, JobStore, SerializationError, Serializer
from jobcontainer.jobs.mapping import MapResults
from jobcontainer.notebook import magics

TASK = """
class Task:
    def __init__(self, value=1): self.value = value
    def run(self): return self.value
"""


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A shell without history, in a folder of its own, whose jobs run in this process."""
    monkeypatch.setenv("JOBCONTAINER_HOME", str(tmp_path / "jobs"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the shell puts its own there
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.InteractiveShell.colors = "nocolor"
    settings.JobContainerMagics.engine = "inline"
    shell = InteractiveShell(config=settings)
    shell.run_cell("%load_ext jobcontainer")
    yield shell
    magics.unload(shell)
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)
    if async_helpers._asyncio_event_loop is not None:  # IPython's own, made for a cell that awaits
        async_helpers._asyncio_event_loop.close()
        async_helpers._asyncio_event_loop = None


@pytest.fixture
def run(shell):
    """A function that runs a cell and returns its result, which may have failed."""
    return lambda cell: shell.run_cell(cell, store_history=True)


def complete(shell, line):
    with provisionalcompleter():
        return [found.text for found in shell.Completer.completions(line, len(line))]


def jobs(tmp_path):
    return [path for path in (tmp_path / "jobs").glob("*") if path.is_dir()] if (tmp_path / "jobs").exists() else []


def test_a_class_of_the_cell_runs_once_and_stays_bound(shell, run, capsys):
    """The cell runs as usual, one instance is submitted, and ``_job`` is the job; a terminal shows two lines."""
    assert run(f"%%jobcontainer --wait{TASK}").success
    assert isinstance(shell.user_ns["_job"], Job)
    assert shell.user_ns["_job"].result() == 1
    assert shell.user_ns["Task"]().value == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(f"Task: submitted as {shell.user_ns['_job'].id}")
    assert printed[1].startswith("✔ Task succeeded")


def test_the_last_expression_says_what_runs(shell, run):
    """A process, or a list of them, takes precedence over the classes of the cell; a list of one is a group too."""
    run(f"%%jobcontainer --wait{TASK}Task(7)")
    assert shell.user_ns["_job"].result() == 7
    run("%%jobcontainer --as sweep --wait\n(Task(n) for n in range(3))")
    assert isinstance(shell.user_ns["sweep"], JobGroup)
    assert shell.user_ns["sweep"].results() == [0, 1, 2]
    run("%%jobcontainer --wait\n[Task(5)]")
    assert shell.user_ns["_job"].results() == [5]


def test_the_line_magic_evaluates_its_expression_as_it_was_typed(shell, run):
    """Braces, quotes and blanks of the expression are Python's; flags come before it."""
    run(TASK)
    assert run("%jobcontainer --name 'my job' --as one --wait Task({'a b': [1, 2]}['a b'])").success
    assert shell.user_ns["one"].result() == [1, 2]
    assert shell.user_ns["one"].name == "my job"


def test_a_cell_with_a_key_runs_once(shell, run, tmp_path):
    """Run again it shows the job of before; ``--rerun`` runs it anew; a changed source is said."""
    cell = f"%%jobcontainer --key train-v3 --wait{TASK}"
    for _ in range(2):
        assert run(cell).success
        assert shell.user_ns["_job"].result() == 1
    with pytest.warns(UserWarning, match=r"\+    def __init__\(self, value=2\)") as warned:
        assert run(cell.replace("value=1", "value=2")).success
    assert warned[0].filename == "%jobcontainer"  # not a file of IPython's
    assert len(JobStore(tmp_path / "jobs").jobs()) == 1
    assert run(cell.replace("value=1", "value=2").replace("--wait", "--wait --rerun")).success
    assert shell.user_ns["_job"].result() == 2


def test_a_job_that_a_cell_ends_with_is_a_card_in_a_terminal(run, capsys):
    """So is what ``%jobs show`` returns; a job in a list is one line."""
    run(f"%%jobcontainer --wait{TASK}")
    for cell in ("_job", "%jobs show 2"):
        capsys.readouterr()
        run(cell)
        assert "✔ Task succeeded · " in capsys.readouterr().out
    run("[_job]")
    assert "[<Job " in capsys.readouterr().out


MAP = """%%jobcontainer --wait --as halves
from jobcontainer import JobPool
pool = JobPool(engine="inline")
def half(number): return 6 // number
pool.map(half, [3, 0, 2, 0])"""


def test_the_calls_of_a_map_have_one_card_and_keep_their_results(shell, run, capsys):
    """No result is taken by the card; an error of a call is raised where its result is taken, not by the cell."""
    assert run(MAP).success
    assert isinstance(shell.user_ns["halves"], MapResults)
    assert shell.user_ns["_job"] is shell.user_ns["halves"]
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(("○ half, 4 calls", "▶ half, 4 calls", "✖ half, 4 calls"))
    assert others[0].startswith("✖ half, 4 calls 2 succeeded, 2 failed · ")
    assert "4/4" in others[1]
    assert others[2].startswith("  ✖ ZeroDivisionError: ")
    assert others[2].endswith("(2 times, last call 4)")
    assert len(jobs(shell.user_ns["pool"].store.parent)) == len(shell.user_ns["halves"].jobs)
    assert next(shell.user_ns["halves"]) == 2
    with pytest.raises(ZeroDivisionError):
        next(shell.user_ns["halves"])
    assert next(shell.user_ns["halves"]) == 3


def test_a_map_whose_results_make_room_for_others_is_not_waited_for(shell, run):
    """It would never end: ``buffersize`` has calls made as results are taken, which no cell does that waits."""
    assert run(MAP.replace("[3, 0, 2, 0])", "[3] * 50, buffersize=10)")).success
    assert list(shell.user_ns["_job"]) == [2] * 50


def test_options_for_a_map_are_those_of_its_pool(shell, run):
    """The calls are submitted already when the magic sees them; the message says where options go."""
    result = run(MAP.replace("--wait", "--timeout 5"))
    assert isinstance(result.error_in_exec, UsageError)
    assert "with_options(timeout=60).map" in str(result.error_in_exec)
    assert "halves" not in shell.user_ns


def test_of_classes_that_inherit_from_each_other_only_the_leaves_run(shell, run):
    """A base class, an abstract class and a protocol are not run."""
    run("""%%jobcontainer --wait
import abc, typing
class Base:
    def run(self): return "base"
class Left(Base):
    def run(self): return "left"
class Right(Base):
    def run(self): return "right"
class Abstract(abc.ABC):
    @abc.abstractmethod
    def run(self): ...
class Shape(typing.Protocol):
    def run(self): ...
class NoProcess: ...
""")
    assert shell.user_ns["_job"].results() == ["left", "right"]


def test_the_value_of_the_last_expression_is_displayed_as_usual(run, capsys):
    """A value that is no process goes to the display hook, unless a semicolon ends it; the classes are submitted."""
    run(f"%%jobcontainer --wait{TASK}1234 + 1")
    assert "1235" in capsys.readouterr().out
    run(f"%%jobcontainer --wait{TASK}1234 + 1;")
    assert "1235" not in capsys.readouterr().out


def test_jobs_resume_runs_every_lost_job_again_from_its_checkpoint(shell, run, capsys, monkeypatch):
    """Once; it says how many, and leaves out the calls of a map, whose results nobody waits for."""
    run("from jobcontainer import JobPool, checkpoint")
    run("class Saves:\n    def run(self):\n        checkpoint.save(2)\n        return checkpoint.load()")
    run("class Goes:\n    def run(self): return checkpoint.load(1)")
    run("with JobPool(engine='inline') as pool: jobs = pool.submit(Saves()), pool.submit(Goes()), pool.map(abs, [1])")
    jobs = [*shell.user_ns["jobs"][:2], shell.user_ns["jobs"][2].jobs[0]]
    monkeypatch.setattr(
        "jobcontainer.notebook.jobs_magic._lost_jobs", lambda _: [j for j in jobs if not j.folder.was_rerun()]
    )
    capsys.readouterr()
    again = run("%jobs resume").result
    out = capsys.readouterr().out
    assert "Resumed 2 lost jobs, 1 of them from a checkpoint and 1 anew." in out
    assert f"{jobs[2].id} has calls of map()" in out
    assert again.results() == [2, 1]
    assert run("%jobs resume").result is None
    assert "There is no lost job to resume." in capsys.readouterr().out
    assert run(f"%jobs resume {jobs[0].id}").result.result(60) == 2


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            "x = 1",
            "looked for an object with a run() method as the cell's last expression, a list or dict of such objects",
        ),
        ("import subprocess\nsubprocess", "nothing to run"),
        ("class A:\n    def __init__(self, lr, *, depth, seed=0): ...\n    def run(self): ...", "A needs lr and depth"),
        (f"{TASK}[Task(), 5]", "Item 1 of the last expression, of type int, has no run()"),
    ],
)
def test_the_error_of_a_cell_without_a_process_is_one_sentence(run, tmp_path, cell, message):
    """It says what was looked for, which arguments are missing, or which item has no run(); nothing is submitted."""
    result = run(f"%%jobcontainer\n{cell}")
    assert isinstance(result.error_in_exec, UsageError)
    assert message in str(result.error_in_exec)
    assert str(result.error_in_exec).count(". ") == 0
    assert jobs(tmp_path) == []


def test_a_class_that_needs_arguments_names_an_instance_to_end_the_cell_with(run):
    """The end of the sentence can be pasted."""
    result = run("%%jobcontainer\nclass A:\n    def __init__(self, lr): ...\n    def run(self): ...")
    assert str(result.error_in_exec) == "A needs lr: end the cell with an instance, A(lr=...)."


def test_an_error_of_the_cell_is_the_cells_error_with_its_own_frames(run, tmp_path, capsys):
    """IPython's traceback begins in the cell and numbers lines as the notebook does; nothing is submitted."""
    result = run("%%jobcontainer\ndef inner():\n    1 / 0\ninner()")
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    shown = capsys.readouterr().out
    assert "----> 4" in shown
    assert "----> 3" in shown
    assert "jobcontainer" not in shown.replace("%%jobcontainer", "")
    assert jobs(tmp_path) == []


def test_a_syntax_error_is_shown_once_and_fails_the_cell(run, tmp_path, capsys):
    """It is shown as IPython shows one, without a frame of this package."""
    result = run("%%jobcontainer\nx = 1\ny = (2\n")
    assert isinstance(result.error_before_exec, SyntaxError)
    shown = capsys.readouterr().out
    assert shown.count(type(result.error_before_exec).__name__) == 1
    assert ":3\n    y = (2" in shown
    assert "magics.py" not in shown
    assert jobs(tmp_path) == []


def test_a_process_that_can_not_be_pickled_leaves_no_folder(run, tmp_path, capsys):
    """Only the message of the error is shown."""
    result = run(
        "%%jobcontainer\nimport threading\nclass A:\n    def __init__(self): self.lock = threading.Lock()\n"
        "    def run(self): ..."
    )
    assert isinstance(result.error_in_exec, SerializationError)
    assert "Traceback" not in capsys.readouterr().out
    assert jobs(tmp_path) == []


@pytest.mark.parametrize("line", ["--frobnicate", "--timeout soon", "--isolation none", "--retries", "'"])
def test_an_unknown_or_bad_flag_shows_the_usage(run, tmp_path, line):
    """Nothing runs, not even the cell."""
    result = run(f"%%jobcontainer {line}\nran = True")
    assert isinstance(result.error_in_exec, UsageError)
    assert "usage: %%jobcontainer" in str(result.error_in_exec)
    assert jobs(tmp_path) == []


@pytest.mark.parametrize("line", ["--timeout -1", "--engine warp", "--as 1x"])
def test_a_value_out_of_range_is_an_error(run, tmp_path, line):
    """The cell fails with a usage error, and nothing is submitted."""
    result = run(f"%%jobcontainer {line}{TASK}")
    assert isinstance(result.error_in_exec, UsageError)
    assert jobs(tmp_path) == []


def test_help_lists_every_flag(run, capsys):
    """``--help`` and ``?`` show the same text, with examples that can be pasted."""
    assert run("%%jobcontainer --help\n1").success
    shown = capsys.readouterr().out
    for flag in (
        "--as",
        "--wait",
        "--engine",
        "--save",
        "--timeout",
        "--memory",
        "--retries",
        "--env",
        "--cwd",
        "--name",
    ):
        assert flag in shown
    assert "\n    %%jobcontainer\n    class Train:" in shown
    assert "[Train(rate) for rate in (0.1, 0.2, 0.3)]" in shown
    assert "%%%" not in shown
    assert magics.JobContainerMagics.submit_cell.__doc__ in shown


def test_options_reach_the_job(shell, run):
    """Every flag becomes an option of the job."""
    run(f"%%jobcontainer --wait --timeout 60 --memory 2GB --env A=1 --env B=2 --retries 3 --grace 0.5{TASK}")
    options = shell.user_ns["_job"].record.options
    assert (options["timeout"], options["memory"], options["env"]) == (60.0, 2 * 10**9, {"A": "1", "B": "2"})
    assert (options["retries"], options["grace"]) == (3, 0.5)


def test_defaults_come_from_the_configuration(shell, run):
    """``%config`` sets them from the next job on; a flag overrides them."""
    run('%config JobContainerMagics.options = {"timeout": 60, "retries": 2}')
    run(f"%%jobcontainer --wait --timeout 5{TASK}")
    options = shell.user_ns["_job"].record.options
    assert (options["timeout"], options["retries"]) == (5.0, 2)
    run("%config JobContainerMagics.options = {}")
    run(f"%%jobcontainer --wait{TASK}")
    assert shell.user_ns["_job"].record.options["retries"] == 0


def test_save_writes_the_process_and_runs_nothing(shell, run, tmp_path, capsys):
    """``JobContainer`` can run the file."""
    assert run(f"%%jobcontainer --save saved.job{TASK}Task(9)").success
    assert Serializer.deserialize_from_file(tmp_path / "saved.job").run() == 9
    assert str(tmp_path / "saved.job") in capsys.readouterr().out
    assert jobs(tmp_path) == []
    assert "_job" not in shell.user_ns
    assert isinstance(run("%%jobcontainer --save saved.job\n[Task(), Task()]").error_in_exec, UsageError)


def test_wait_raises_what_the_job_raised(run, capsys):
    """The traceback is the job's, without a frame of this package."""
    result = run("%%jobcontainer --wait\nclass Bad:\n    def run(self):\n        raise KeyError('row 37')")
    assert isinstance(result.error_in_exec, KeyError)
    shown = capsys.readouterr().out
    assert "raise KeyError('row 37')" in shown
    assert "magics.py" not in shown


def test_a_cell_that_awaits_is_run_in_the_event_loop(shell, run):
    """``await`` works at the top level of the cell, and its last expression is submitted."""
    assert run(f"import asyncio\n{TASK}").success
    result = run("%%jobcontainer --wait\nvalue = await asyncio.sleep(0, 11)\nTask(value)")
    assert result.success
    assert shell.user_ns["_job"].result() == 11
    result = run("%%jobcontainer\nawait asyncio.sleep(0)\n1 / 0")
    assert isinstance(result.error_in_exec, ZeroDivisionError)


def test_jobs_lists_and_manages_the_jobs_of_the_store(shell, run, capsys):
    """The beginning of an id is enough; the error for an unknown id names the known ones."""
    run(f"%%jobcontainer --wait{TASK}Task(3)")
    job = shell.user_ns["_job"]
    assert job.id in repr(run("%jobs").result)
    assert run(f"%jobs show {job.id[:-3]}").result.id == job.id
    run("%%jobcontainer --wait\nclass Loud:\n    def run(self): print('out loud')")
    capsys.readouterr()
    run(f"%jobs log {shell.user_ns['_job'].id}")
    assert capsys.readouterr().out == "out loud\n"
    assert run(f"%jobs cancel {job.id}").success
    assert job.state is JobState.SUCCEEDED
    assert job.id in str(run("%jobs show nothing").error_in_exec)
    assert "takes the id" in str(run("%jobs log").error_in_exec)
    assert "deletes nothing without a condition" in str(run("%jobs prune").error_in_exec)
    assert run("%jobs prune --all").success
    assert repr(run("%jobs").result).startswith("There are no jobs in ")


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("%%jobcontainer --mem", ["--memory"]),
        ("%%jobcontainer --timeout 5 --i", ["--isolation"]),
        ("%jobcontainer --wa", ["--wait"]),
        ("%jobs s", ["show"]),
        ("%jobs prune --k", ["--keep"]),
        ("%timeit --mem", []),
    ],
)
def test_flags_and_actions_are_completed(shell, line, completed):
    """Completion offers the flags and actions of the magic that the line begins with."""
    assert [word for word in complete(shell, line) if word.startswith("--") or completed] == completed


def test_job_ids_are_completed(shell, run):
    """They are offered after an action that takes one."""
    run(f"%%jobcontainer --wait{TASK}[Task(), Task()]")
    ids = [job.id for job in shell.user_ns["_job"]]
    assert complete(shell, "%jobs log 20") == sorted(ids)


def test_reload_and_unload_leave_no_hook_behind(shell, run):
    """After ten reloads there is one hook of each kind; after unloading, none."""

    def hooks():
        return {
            "configurables": [c for c in shell.configurables if type(c).__name__ == "JobContainerMagics"],
            "registry": [name for name in shell.magics_manager.registry if name == "JobContainerMagics"],
            "transformers": [t for t in shell.input_transformers_post if "jobcontainer" in str(t).lower()],
            "matchers": [m for m in shell.Completer.custom_matchers if "jobcontainer" in str(m).lower()],
            "magics": [
                name for names in shell.magics_manager.magics.values() for name in names if name.startswith("job")
            ],
        }

    for _ in range(10):
        assert run("%reload_ext jobcontainer").success
    assert {name: len(found) for name, found in hooks().items()} == {
        "configurables": 1,
        "registry": 1,
        "transformers": 1,
        "matchers": 1,
        "magics": 3,
    }
    assert run(f"%%jobcontainer --wait{TASK}").success
    run("%unload_ext jobcontainer")
    assert not any(hooks().values())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("jobcontainer")]


def test_a_dict_of_processes_is_a_sweep_whose_keys_name_the_jobs(run, shell):
    """As the cell's last expression, and behind the line magic."""
    run("%%jobcontainer\n" + TASK + "{rate: Task(rate) for rate in (0.1, 0.2)}")
    assert [(job.name, job.result()) for job in shell.user_ns["_job"]] == [("0.1", 0.1), ("0.2", 0.2)]
    run('%jobcontainer {"small": Task(1)}')
    assert [(job.name, job.result()) for job in shell.user_ns["_job"]] == [("small", 1)]


def test_jobs_and_pools_of_a_session_share_its_store(run, tmp_path):
    """After ``%cd`` and ``%env`` too, and ``%jobs`` says where it looks; ``%config`` names another, for good."""
    run(TASK + "%jobcontainer Task(1)")
    (tmp_path / "elsewhere").mkdir()
    run("%cd elsewhere")
    run(f"%env JOBCONTAINER_HOME={tmp_path / 'other'}")
    run("%jobcontainer Task(2)")
    listing = run("%jobs").result
    assert len(listing.jobs) == 2
    assert f"Store: {tmp_path / 'jobs'}" in repr(listing)
    assert f"Store: {tmp_path / 'jobs'}" in listing._repr_html_()
    run("%config JobContainerMagics.store = 'relative'")
    run("%cd ..")
    assert repr(run("%jobs").result) == f"There are no jobs in {tmp_path / 'elsewhere' / 'relative'}."
    run("%jobcontainer Task(3)")
    assert [job.result() for job in run("%jobs").result.jobs] == [3]


def test_a_directory_that_is_gone_is_told_in_a_sentence(run, tmp_path, monkeypatch, capsys):
    """Without a traceback through this package; the same cell runs once there is one."""
    run(TASK)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    capsys.readouterr()
    assert isinstance(run("%jobcontainer Task(1)").error_in_exec, FileNotFoundError)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("FileNotFoundError: The working directory of this process was deleted. Go to one that is")
    run(f"%cd {tmp_path}")
    assert run("%jobcontainer Task(1)").success


def test_completion_settles_no_store(shell, tmp_path, monkeypatch):
    """A key that is pressed by chance, before the first job, decides nothing."""
    complete(shell, "%jobcontainer --mem")
    complete(shell, "import o")
    monkeypatch.setenv("JOBCONTAINER_HOME", str(tmp_path / "later"))
    assert JobStore().path == tmp_path / "later"
