"""JobContainer: one file, one run, and what Ctrl-C does to it."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import textwrap

import pytest

from jobcontainer import JobContainer, JobStore, Serializer, UntrustedFileError


class Works:
    def run(self):
        print("Task is running")
        return 42


class Fails:
    def run(self):
        raise ZeroDivisionError("on purpose")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes a process to a file, in a folder of its own where the store will be too."""
    monkeypatch.chdir(tmp_path)

    def write(process):
        path = tmp_path / "process.job"
        Serializer.serialize_to_file(process, path)
        return path

    return write


def test_execute_prints_the_log_and_returns_the_result(file, capfd):
    """``execute()`` shows what the process prints, and returns what ``run()`` returned."""
    assert JobContainer(file(Works())).execute() == 42
    assert capfd.readouterr().out == "Task is running\n"


@pytest.mark.slow
def test_execute_raises_what_run_raised(file):
    """The error itself, with the job's own traceback as its cause."""
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        JobContainer(file(Fails())).execute()
    assert "test_container.py" in str(caught.value.__cause__)


def test_a_file_is_kept_as_it_is_when_it_is_submitted(file):
    """What happens to it later is no matter."""
    path = file(Works())
    job = JobContainer(path).submit()
    path.unlink()
    assert job.result() == 42


def test_what_can_not_run_is_told_before_there_is_a_job(file, tmp_path):
    """No file, a wrong option, a file of somebody else."""
    with pytest.raises(FileNotFoundError, match=r"Serializer\.serialize_to_file"):
        JobContainer(tmp_path / "none.job")
    with pytest.raises(ValueError, match="timeout"):
        JobContainer(file(Works()), timeout=-1)
    with pytest.raises(TypeError, match="colour"):
        JobContainer(file(Works()), colour="red")
    (tmp_path / "foreign.job").write_bytes(pickle.dumps(print))
    with pytest.raises(UntrustedFileError):
        JobContainer(tmp_path / "foreign.job").execute()
    assert len(JobStore().jobs()) == 0


@pytest.mark.slow
def test_an_interrupt_at_the_worst_moment_of_a_wait_ends_the_job(tmp_path):
    """It comes when the wait has just asked to be woken."""
    script = """
        import signal, time
        from jobcontainer import Job, JobContainer, Serializer

        class Sleeps:
            def run(self):
                time.sleep(600)

        asking, times = Job._when_ended, iter(range(10))

        def interrupted(self, call):
            asking(self, call)
            if next(times, None) == 5:
                signal.raise_signal(signal.SIGINT)

        Job._when_ended = interrupted
        Serializer.serialize_to_file(Sleeps(), "sleeps.job")
        try:
            JobContainer("sleeps.job").execute()
        except KeyboardInterrupt:
            print("interrupted")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["interrupted"]), done.stderr
    assert [job.cancelled() for job in JobStore(tmp_path / ".jobcontainer").jobs()] == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
