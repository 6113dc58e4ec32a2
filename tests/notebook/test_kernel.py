"""The magics in a real kernel: what the front end receives, and what is left of a job when things go wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobcontainer.events import JobState
from jobcontainer.jobs.store import JobStore

pytestmark = pytest.mark.slow

WIDGET = "application/vnd.jupyter.widget-view+json"
LONG = "%%jobcontainer --as long\nimport time\nclass Long:\n    def run(self):\n        time.sleep(600)\n"


def test_a_class_of_the_notebook_runs_in_a_process_of_its_own_with_all_it_uses(kernel):
    """Helpers, globals and imports of earlier cells are available in the job; the card shows its log and its end."""
    kernel.run("import os, math\nFACTOR = 6\ndef helper(x):\n    return math.floor(x) * FACTOR")
    cell = kernel.run(
        "%%jobcontainer\nclass Task:\n    def run(self):\n        print('Task is running')\n"
        "        return {'value': helper(7.5), 'pid': os.getpid()}"
    )
    assert cell["status"] == "ok"
    assert "Task is running" in kernel.ended(cell["id"], "succeeded")
    assert kernel.value("_job.result()['value']") == 42
    assert kernel.value("_job.result()['pid'] == os.getpid()") is False
    assert kernel.value("Task.__name__") == "Task"


def test_loading_the_extension_starts_the_first_worker(kernel):
    """The first job runs below a worker that was started in the background before there was a job."""
    kernel.run(
        "import psutil\ndef workers():\n    children = psutil.Process().children()\n"
        "    return [child.pid for child in children if 'resource_tracker' not in ' '.join(child.cmdline())]"
    )
    (worker,) = kernel.until(lambda: kernel.value("workers()"))
    kernel.run("%%jobcontainer\nimport os\nclass Task:\n    def run(self):\n        return os.getppid()")
    above = "[process.pid for process in [psutil.Process(_job.result()), *psutil.Process(_job.result()).parents()]]"
    assert worker in kernel.value(above)


def test_another_cell_executes_at_once_and_outputs_land_under_their_own_cell(kernel):
    """While a job runs the kernel is free; what the job displays appears under the cell that submitted it."""
    cell = kernel.run(
        "%%jobcontainer\nimport time, pathlib\nclass Task:\n    def run(self):\n"
        "        while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
        "        display({'text/plain': 'shown by the job'}, raw=True)\n        return 'returned'"
    )
    other = kernel.run("1 + 1")
    assert kernel.text(other["id"]) == "2"
    blocked = kernel.send(
        "import time, pathlib\npathlib.Path('go').touch()\nwhile not _job.done(): time.sleep(0.01)\ntime.sleep(1)"
    )
    shown = kernel.ended(cell["id"], "succeeded")
    assert "shown by the job" in shown
    assert shown.endswith("'returned'")
    kernel.reply(blocked)
    assert kernel.outputs(blocked) == []


def test_async_cells_can_await_jobs(kernel):
    """They can in a cell of their own, and at the top level of a cell that submits one."""
    kernel.run("class Task:\n    def __init__(self, n): self.n = n\n    def run(self): return self.n")
    kernel.run("%jobcontainer Task(20)")
    cell = kernel.run("(await _job) + 1")
    assert kernel.text(cell["id"]) == "21"
    assert kernel.run("%%jobcontainer\nvalue = await _job\nTask(value * 2)")["status"] == "ok"
    assert kernel.value("(_job.result())") == 40


def test_a_segfault_leaves_the_kernel_and_a_neighbour_alone(kernel):
    """The card names the signal; the other job succeeds."""
    kernel.run(
        "%%jobcontainer --as neighbour\nimport time\nclass Calm:\n    def run(self):\n        time.sleep(1); return 5"
    )
    cell = kernel.run("%%jobcontainer\nimport ctypes\nclass Wild:\n    def run(self):\n        ctypes.string_at(0)")
    assert "SIGSEGV" in kernel.ended(cell["id"], "crashed")
    assert kernel.value("neighbour.result()") == 5


def test_an_interrupt_returns_a_cell_that_waits_and_leaves_jobs_running(kernel):
    """The stop button ends the cell's waiting, not its job."""
    begun = kernel.send(LONG.replace("--as", "--wait --as"))
    kernel.until(lambda: "running" in kernel.text(begun))
    asked = time.monotonic()
    kernel.manager.interrupt_kernel()
    assert kernel.reply(begun)["ename"] == "KeyboardInterrupt"
    assert time.monotonic() - asked < 2
    assert kernel.value("long.state") == "running"
    kernel.run("long.cancel()")
    assert "cancelled" in kernel.ended(begun, "cancelled")


def test_running_a_cell_again_mentions_the_earlier_run_that_goes_on(kernel):
    """The new card says so, and offers to cancel the earlier run."""

    def again():
        content = {"code": LONG, "silent": False, "store_history": True, "allow_stdin": True, "stop_on_error": True}
        message = kernel.client.session.msg("execute_request", content | {"user_expressions": {}})
        message["metadata"] = {"cellId": "one-cell"}
        kernel.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    first = again()
    kernel.reply(first)
    kernel.run("earlier = long")
    second = again()
    kernel.reply(second)
    assert "The earlier run of this cell goes on." in kernel.text(second)
    opened = kernel.until(
        lambda: next(
            (
                message["content"]
                for message in kernel.messages
                if message["msg_type"] == "comm_open"
                and "cancel_earlier" in message["content"]["data"]["state"].get("card", {}).get("actions", ())
            ),
            None,
        )
    )
    kernel.until(
        lambda: any(opened["comm_id"] in json.dumps(data) for data in kernel.outputs(second))
    )  # a page sees it
    message = {"method": "custom", "content": {"action": "cancel_earlier"}}
    kernel.client.shell_channel.send(
        kernel.client.session.msg("comm_msg", {"comm_id": opened["comm_id"], "data": message})
    )
    kernel.until(lambda: kernel.value("earlier.state") == "cancelled")
    assert kernel.value("long.state") in {"queued", "running"}
    kernel.run("long.cancel()")


@pytest.mark.parametrize("death", ["shutdown", "SIGKILL"])
def test_no_process_is_left_when_the_kernel_ends(start_kernel, death):
    """Neither the job nor a process that it started outlives a kernel that is shut down or killed."""
    kernel = start_kernel()
    kernel.run(
        "%%jobcontainer\nimport subprocess, os, pathlib, time\nclass Parent:\n    def run(self):\n"
        "        child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "        pathlib.Path('pids').write_text(f'{os.getpid()} {child.pid}')\n        time.sleep(600)"
    )
    pids = Path("pids")
    kernel.until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    processes = [int(pid) for pid in pids.read_text().split()]
    if death == "SIGKILL":
        kernel.manager.signal_kernel(9)
    else:
        kernel.manager.shutdown_kernel(now=False)
    end = time.monotonic() + 5
    while any(is_alive(pid) for pid in processes):
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_without_widgets_the_static_card_is_refreshed(kernel):
    """Without anywidget no widget message is sent; the card follows the job, and its end is the same."""
    kernel.run("import sys; sys.modules['anywidget'] = None")
    cell = kernel.run(
        "%%jobcontainer\nimport time, pathlib\nclass Task:\n    def run(self):\n"
        "        print('begun', flush=True)\n        while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
        "        return 3"
    )
    kernel.until(lambda: "begun" in kernel.text(cell["id"]))
    assert " running · " in kernel.text(cell["id"])
    Path("go").touch()
    assert kernel.ended(cell["id"], "succeeded").endswith("\n3")
    assert not [message for message in kernel.messages if message["msg_type"].startswith("comm")]
    assert not any(WIDGET in json.dumps(message["content"]) for message in kernel.messages)


def test_a_job_that_is_displayed_is_a_live_card_in_that_cell(kernel):
    """A job as the last expression of a cell and ``%jobs show`` both display one."""
    kernel.run(LONG)
    shown = kernel.run("long")
    assert "Long" in kernel.text(shown["id"])
    by_id = kernel.run("%jobs show {long.id}")
    assert "Long" in kernel.text(by_id["id"])
    kernel.run("long.cancel()")
    kernel.ended(shown["id"], "cancelled")
    kernel.ended(by_id["id"], "cancelled")


def test_two_jobs_displayed_by_one_cell_both_have_their_end(kernel):
    """The second card does not close the first, which belongs to the same run of the cell."""
    message = kernel.client.session.msg(
        "execute_request",
        {
            "code": "from jobcontainer import JobPool\npool = JobPool(2)\n"
            "for n in (7, 8): display(pool.submit(pow, n, 2))",
            "silent": False,
            "store_history": True,
            "allow_stdin": True,
            "stop_on_error": True,
            "user_expressions": {},
        },
    )
    message["metadata"] = {"cellId": "one-cell"}
    kernel.client.shell_channel.send(message)
    request = message["header"]["msg_id"]
    kernel.reply(request)
    kernel.until(lambda: kernel.text(request).count("succeeded") == 2)
    kernel.until(lambda: all(str(n * n) in kernel.text(request) for n in (7, 8)))
    kernel.run("pool.shutdown()")


def test_the_card_of_a_group_ends_with_its_table(kernel):
    """Parameters, results, and of an error the first line; the card and the job say more."""
    cell = kernel.run(
        "%%jobcontainer --as sweep\nclass Half:\n    def __init__(self, n): self.n = n\n    def run(self):\n"
        "        if self.n == 1: raise ValueError('row 7\\nand much more')\n        return {'half': self.n / 2}\n"
        "[Half(n) for n in range(3)]"
    )
    kernel.until(lambda: "half" in kernel.text(cell["id"]))
    *_, titles, first, second, third = kernel.text(cell["id"]).splitlines()
    assert (titles.split()[:2], titles.split()[-2:]) == (["job", "n"], ["error", "half"])
    assert (first.split()[1], first.split()[-1], third.split()[1], third.split()[-1]) == ("0", "0", "2", "1")
    assert second.endswith("ValueError: row 7")
    html = kernel.outputs(cell["id"])[-1]["text/html"]
    assert html.count("<tr>") == 4
    kernel.until(lambda: "last n=1" in kernel.text(cell["id"]))
    assert kernel.value("sweep.to_frame()['half'].tolist()[::2]") == [0.0, 1.0]
    assert kernel.value("str(sweep.summary())") == "{'succeeded': 2, 'failed': 1}"


def test_the_card_is_complete_though_the_result_can_not_be_loaded_here(kernel):
    """The job made the text of its result, so that the notebook need not load it."""
    cell = kernel.run(
        "%%jobcontainer\nclass Fussy:\n    def run(self):\n        return Only()\n"
        "class Only:\n    def __reduce__(self):\n        return check, ()\n"
        "    def __repr__(self): return 'only there'\n"
        "def check():\n    import os\n"
        "    if 'JOBCONTAINER_SLOT' not in os.environ: raise LookupError('not in a notebook')\n"
    )
    shown = kernel.ended(cell["id"], "succeeded")
    kernel.until(lambda: "only there" in kernel.text(cell["id"]))
    assert "Fussy" in shown


def test_a_large_result_costs_the_kernel_nothing_until_it_is_asked_for(kernel):
    """Its card shows the first entries and its size; result() loads it."""
    kernel.run("import psutil; before = psutil.Process().memory_info().rss")
    cell = kernel.run("%%jobcontainer\nclass Big:\n    def run(self): return {n: str(n) for n in range(2_000_000)}\n")
    shown = kernel.ended(cell["id"], "succeeded")
    assert re.search(r" · result \d\d\.\d MB · ", shown)
    kernel.until(lambda: "(2,000,000 in all)" in kernel.text(cell["id"]))
    assert kernel.value("psutil.Process().memory_info().rss - before") < 40_000_000
    assert kernel.value("len(_job.result())") == 2_000_000
    assert kernel.value("psutil.Process().memory_info().rss - before") > 100_000_000


UNSHOWABLE = """\
import time
class Raises:
    def __repr__(self): raise SystemExit(3)
class Hangs:
    def __repr__(self):
        while True: time.sleep(1)
class Half:
    def __repr__(self): return "half \\ud83d"
    def _repr_html_(self): return "html \\ud83d"
class Shown:
    def run(self):
        display({"text/plain": "shown \\ud83d"}, raw=True)
        return "sound"
class Mute(Exception):
    def __str__(self): raise SystemExit
class Fails:
    def run(self): raise Mute
class Makes:
    def __init__(self, kind): self.kind = kind
    def run(self): return self.kind()
"""


@pytest.mark.parametrize("together", [False, True], ids=["each of a cell", "as a group"])
def test_no_result_and_no_error_stops_a_card(kernel, together):
    """Each hostile one says on its own card what failed; the others, earlier and later ones, show what they have."""
    processes = ["Makes(Raises)", "Makes(Hangs)", "Makes(Half)", "Shown()", "Fails()"]
    kernel.run(UNSHOWABLE)
    cells = [f"[{', '.join(processes)}]"] if together else processes
    ids = [kernel.run(f"%%jobcontainer\n{cell}")["id"] for cell in cells]
    last = kernel.run("%%jobcontainer\nclass Sound:\n    def run(self): return 'unharmed'")["id"]
    kernel.until(lambda: "unharmed" in kernel.text(last))
    if together:
        kernel.until(lambda: "half \\ud83d" in kernel.text(ids[0]), seconds=60)
        rows = kernel.text(ids[0]).splitlines()[-5:]
        ends = ["<Raises object>", "<Hangs object>", "half \\ud83d", "sound", "Mute: (its message can't be had"]
        assert all(end in row for row, end in zip(rows, ends, strict=True)), rows
        assert "shown ?" in kernel.text(ids[0])
        return
    raises, hangs, half, shown, fails = ids
    assert "Its __repr__() raised SystemExit: 3. job.result() loads it." in kernel.ended(raises, "succeeded")
    kernel.until(lambda: "Its __repr__() took longer than" in kernel.text(hangs), seconds=60)
    kernel.until(lambda: "half \\ud83d" in kernel.text(half))
    assert [data["text/html"] for data in kernel.outputs(half)][-1] == "html \\ud83d"
    kernel.until(lambda: "shown ?" in kernel.text(shown))
    assert "Mute: (its message can't be had: its __str__() raised SystemExit)" in kernel.ended(fails, "failed")


def test_an_older_kernel_does_the_same(start_kernel, older_ipykernel):
    """An ipykernel without subshells runs, shows and ends a job, with a widget and without."""
    kernel = start_kernel(PYTHONPATH=str(older_ipykernel))
    assert kernel.value("__import__('ipykernel').__version__").startswith("6.")
    task = "%%jobcontainer\nclass Task:\n    def run(self):\n        print('in the job')\n        return 12"
    for _ in range(2):
        cell = kernel.run(task)
        shown = kernel.ended(cell["id"], "succeeded")
        assert "in the job" in shown
        assert shown.endswith("\n12")
        kernel.run("import sys; sys.modules['anywidget'] = None")
    failed = kernel.run("%%jobcontainer\nclass Bad:\n    def run(self): raise KeyError('row')", stdin=False)
    assert (failed["status"], failed["ename"]) == ("error", "KeyError")


def test_a_headless_cell_waits_for_its_jobs_and_has_no_widget(kernel):
    """Such a run saves the final card, the outputs and the result."""
    cell = kernel.run(
        "%%jobcontainer\nimport time\nclass Task:\n    def run(self):\n        time.sleep(0.5)\n        return 42",
        stdin=False,
    )
    assert cell["status"] == "ok"
    shown = kernel.text(cell["id"])
    assert " succeeded · " in shown
    assert shown.endswith("\n42")
    assert all(WIDGET not in data for data in kernel.outputs(cell["id"]))
    failed = kernel.run(
        "%%jobcontainer\nclass Bad:\n    def run(self):\n        raise ValueError('bad row')", stdin=False
    )
    assert (failed["status"], failed["ename"], failed["evalue"]) == ("error", "ValueError", "bad row")
    assert "raise ValueError('bad row')" in "\n".join(failed["traceback"])


def test_executing_a_notebook_whose_job_fails_fails_and_saves_the_failure(tmp_path):
    """``jupyter execute`` exits non-zero; the notebook has the final card of the failed job, and its error."""
    import nbformat  # noqa: PLC0415 -- it takes seconds, which the fast suite does not have

    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("%load_ext jobcontainer"),
            nbformat.v4.new_code_cell("%%jobcontainer\nclass Good:\n    def run(self): return 1"),
            nbformat.v4.new_code_cell("%%jobcontainer\nclass Bad:\n    def run(self): raise ValueError('bad row')"),
            nbformat.v4.new_code_cell("print('never reached')"),
        ]
    )
    path = tmp_path / "failing.ipynb"
    nbformat.write(notebook, path)
    script = (
        "import sys, nbformat\nfrom nbclient import NotebookClient\n"
        "notebook = nbformat.read(sys.argv[1], 4)\n"
        "try:\n    NotebookClient(notebook, kernel_name='python3').execute()\n"
        "finally:\n    nbformat.write(notebook, sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env=os.environ | {"JOBCONTAINER_HOME": str(tmp_path / "jobs"), "IPYTHONDIR": str(tmp_path / "ipython")},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode != 0
    assert "ValueError: bad row" in done.stderr
    _, good, bad, after = nbformat.read(path, 4).cells
    assert "succeeded" in good.outputs[0]["data"]["text/plain"]
    assert good.outputs[-1]["data"]["text/plain"] == "1"
    assert "failed" in bad.outputs[0]["data"]["text/plain"]
    assert bad.outputs[-1]["ename"] == "ValueError"
    assert after.outputs == []
    assert {job.state for job in JobStore(tmp_path / "jobs").jobs()} == {JobState.SUCCEEDED, JobState.FAILED}


HOSTILE = """\
%%jobcontainer
import os
class Hostile:
    def run(self):
        class Broken:
            def _repr_html_(self): raise RuntimeError('broken form')
            def __repr__(self): return 'plain form'
        display(Broken())
        for number in range(10_000):
            display({'text/plain': f'output {number}', 'image/png': 'A' * 10_000}, raw=True)
        os.write(1, b'\\xff\\xfe no UTF-8, \\x1b[2J\\x1b]0;title\\x07 no text \\x07\\n')
        print('y' * 10_000_000)
        for number in range(1_000_000): print('line', number)
        return Broken()
"""


def test_a_job_that_displays_and_prints_without_end_leaves_the_page_usable(kernel):
    """There are few outputs and small messages; the whole log is on disk; a broken ``_repr_html_`` is in the log."""
    cell = kernel.run(HOSTILE)
    blocked = kernel.send("while not _job.done(): pass\nimport time; time.sleep(1)")
    kernel.until(lambda: " succeeded · " in kernel.text(cell["id"]), seconds=100)
    kernel.reply(blocked)
    assert kernel.outputs(blocked) == []
    assert not [message for message in kernel.messages if message["msg_type"] == "error"]
    shown = [data["text/plain"] for data in kernel.outputs(cell["id"])]
    assert "Log, last 40 lines of" in shown[0]
    assert shown[1:4] == ["plain form", "output 0", "output 1"]
    assert shown[-1] == "plain form"
    assert "more outputs: job.outputs" in shown[-2]
    assert len(shown) < 50
    assert max(len(json.dumps(message["content"])) for message in kernel.messages) < 50_000
    log = kernel.value("_job.log")
    assert "RuntimeError: broken form" in log
    assert log.endswith("line 999999\n")


def wire(kernel, begin, end):
    """Return the messages and bytes per second that were sent to the browser between two moments."""
    during = [message for message in kernel.messages if begin < message["received"] < end]
    size = sum(len(json.dumps(message["content"])) for message in during)
    return len(during) / (end - begin), size / (end - begin)


@pytest.mark.parametrize("jobs", [1, 10_000])
def test_a_card_sends_little_however_much_its_jobs_print(kernel, jobs):
    """Fewer than five messages and 25 kB a second: for one job that never stops printing, and for ten thousand jobs."""
    cell = kernel.run(
        f"%%jobcontainer --as work\nimport time\nfrom tqdm import tqdm\nclass Chatty:\n    def run(self):\n"
        f"        until = time.time() + {600 if jobs == 1 else 0.2}\n"
        "        for number in tqdm(range(10**9), desc='steps'):\n"
        "            print('a line of the log that is not exactly short, and another', number)\n"
        f"            if time.time() > until: return\n"
        f"{'Chatty()' if jobs == 1 else f'[Chatty() for _ in range({jobs})]'}"
    )
    kernel.until(lambda: "running" in kernel.text(cell["id"]), seconds=60)
    begin = time.monotonic() + 1
    kernel.until(lambda: time.monotonic() > begin + 5)
    messages, size = wire(kernel, begin, begin + 5)
    assert 0 < messages < 5, (messages, size)
    assert size < 25_000, (messages, size)
