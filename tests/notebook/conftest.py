"""Real kernels; and a real JupyterLab on loopback, driven in headless Chromium, with notebooks to open in it."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_event_loop

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
OLDER_IPYKERNEL = "ipykernel==6.31.0"
READY = """() => {
  const panel = window.jupyterapp?.shell?.currentWidget;
  return Boolean(panel?.sessionContext?.isReady && panel.sessionContext.session?.kernel?.info);
}"""
RUN = """async (index) => {
  const app = window.jupyterapp, panel = app.shell.currentWidget;
  panel.content.activeCellIndex = index;
  panel.content.deselectAll();
  await app.commands.execute("notebook:run-cell");
}"""


class Lab:
    """A JupyterLab server with folders of its own."""

    @staticmethod
    def until(condition, *, what, seconds=30.0):
        """Wait for a condition with a deadline, where the browser has nothing to wait for."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            time.sleep(0.02)

    def __init__(self, home: Path) -> None:
        self.root = home / "notebooks"
        self.root.mkdir()
        environment = os.environ | {
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "IPYTHONDIR": str(home / "ipython"),
            "JOBCONTAINER_HOME": str(home / "jobs"),
        }
        settings = home / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text(
            json.dumps({"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True})
        )
        self.settings = settings
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--ip=127.0.0.1"]
        options = [
            "--IdentityProvider.token=",
            "--ServerApp.password=",
            "--ServerApp.disable_check_xsrf=True",
            f"--ServerApp.root_dir={self.root}",
            "--LabApp.expose_app_in_browser=True",
            "--JupyterNotebookApp.expose_app_in_browser=True",
        ]
        self.log = (home / "server.log").open("wb")
        self.process = subprocess.Popen(command + options, env=environment, stdout=self.log, stderr=self.log)
        runtime = home / "runtime"
        self.until(
            lambda: any(file.read_text().endswith("}") for file in runtime.glob("jpserver-*.json")),
            what="the server's address",
            seconds=60.0,
        )
        self.url = json.loads(next(runtime.glob("jpserver-*.json")).read_text())["url"]

    def theme(self, name: str) -> None:
        (self.settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": name}))

    def write(self, name: str, *cells: str) -> Path:
        import nbformat  # noqa: PLC0415 -- it takes seconds, which the fast suite does not have

        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.root / name
        nbformat.write(notebook, path)
        return path

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.log.close()


class Tab:
    """One notebook, open in the browser."""

    def __init__(self, page, lab: Lab, path: Path, where: str) -> None:
        self.page, self.lab, self.path, self.where = page, lab, path, where
        self.open()

    def open(self) -> None:
        self.page.goto(f"{self.lab.url}{self.where}/{self.path.name}?reset")
        self.page.wait_for_function(READY, timeout=60_000)

    def run(self, index: int) -> None:
        """Run one cell, and return when it has been executed."""
        self.page.evaluate(RUN, index)

    def start(self, index: int) -> None:
        """Start one cell, and return at once."""
        self.page.evaluate(f"(index) => {{ ({RUN})(index) }}", index)

    def cell(self, index: int):
        return self.page.locator(".jp-Notebook-cell").nth(index)

    def save(self) -> None:
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")

    def outputs(self, index: int) -> list[dict]:
        """Return the saved outputs of a cell."""
        import nbformat  # noqa: PLC0415 -- it takes seconds, which the fast suite does not have

        self.save()
        return nbformat.read(self.path, 4).cells[index].outputs

    def shut_down(self) -> None:
        """End the kernel."""
        self.page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")

    def shot(self, name: str) -> None:
        folder = os.environ.get("JOBCONTAINER_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab server for the browser tests."""
    server = Lab(tmp_path_factory.mktemp("lab"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; a skip without it, but a failure in CI. Its event loop ends with the module."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI runs the browser tests, and there is no Chromium: apt-get install chromium")
        pytest.skip("there is no Chromium on the PATH")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page with a profile of its own."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def open_notebook(lab, page, request):
    """A function that opens a notebook with these cells, the extension loaded by the first."""
    name = request.node.name.replace("[", "_").replace("]", "")
    tabs = []

    def open_it(*cells: str, where: str = "lab/tree") -> Tab:
        tab = Tab(page, lab, lab.write(f"{name}.ipynb", "%load_ext jobcontainer", *cells), where)
        tabs.append(tab)
        tab.run(0)
        return tab

    yield open_it
    for tab in tabs:
        tab.shut_down()


class Kernel:
    """A real kernel, and all messages that it sends."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=os.environ | environment)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.messages: list[dict] = []

    def run(self, code: str, *, stdin: bool = True) -> dict:
        """Execute a cell and return its reply; ``id`` is the request that the outputs answer."""
        request = self.send(code, stdin=stdin)
        return self.reply(request) | {"id": request}

    def send(self, code: str, *, stdin: bool = True) -> str:
        """Start to execute a cell, and return its request."""
        return self.client.execute(code, allow_stdin=stdin, store_history=True)

    def reply(self, request: str) -> dict:
        """Wait for the reply to a request, and for the outputs that came before it."""
        while True:
            message = self.client.get_shell_msg(timeout=60)
            if message["parent_header"]["msg_id"] == request:
                break
        self.until(
            lambda: any(
                m["msg_type"] == "status" and m["content"]["execution_state"] == "idle" for m in self.of(request)
            )
        )
        return message["content"]

    def until(self, condition, seconds: float = 30.0):
        """Receive messages until a condition is true; return the value of the condition."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, [message["content"] for message in self.messages[-5:]]
            with contextlib.suppress(queue.Empty):
                self.messages.append(self.client.get_iopub_msg(timeout=0.05) | {"received": time.monotonic()})
        return found

    def of(self, request: str) -> list[dict]:
        """Return the messages that answer a request."""
        return [message for message in self.messages if message["parent_header"].get("msg_id") == request]

    def outputs(self, request: str) -> list[dict]:
        """Return the outputs under a cell, with updates applied and without empty ones."""
        shown: dict[str, dict] = {}
        for message in self.messages:
            content, kind = message["content"], message["msg_type"]
            name = content.get("transient", {}).get("display_id") or str(len(shown))
            new = kind in {"display_data", "execute_result"} and message["parent_header"].get("msg_id") == request
            if new or (kind == "update_display_data" and name in shown):
                shown[name] = content["data"]
        return [data for data in shown.values() if data]

    def text(self, request: str) -> str:
        """Return the plain text of the outputs under a cell."""
        return "\n".join(data.get("text/plain", "") for data in self.outputs(request))

    def ended(self, request: str, state: str) -> str:
        """Wait until the card under a cell shows an end, and return the text of the outputs."""
        self.until(lambda: f" {state} · " in self.text(request))
        return self.text(request)

    def value(self, expression: str):
        """Evaluate an expression."""
        reply = self.run(f"__import__('json').dumps({expression})")
        (data,) = self.outputs(reply["id"])
        return json.loads(ast.literal_eval(data["text/plain"]))

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=False)


@pytest.fixture(scope="module")
def older_ipykernel(tmp_path_factory):
    """The folder of an ipykernel from before subshells, installed from the package index."""
    folder = tmp_path_factory.mktemp("older")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), OLDER_IPYKERNEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        assert not os.environ.get("CI"), done.stderr
        pytest.skip(f"{OLDER_IPYKERNEL} can't be installed here: {done.stderr.strip()[-200:]}")
    return folder


@pytest.fixture(scope="module")
def event_loop():
    """The event loop that jupyter_client uses for its blocking calls; it ends with the module."""
    loop = ensure_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def start_kernel(tmp_path, monkeypatch, event_loop):  # noqa: ARG001 -- the client uses it
    """A function that starts a kernel with the extension loaded, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    kernels = []

    def start(**environment: str) -> Kernel:
        folders = {"JOBCONTAINER_HOME": str(tmp_path / "jobs"), "IPYTHONDIR": str(tmp_path / "ipython")}
        kernel = Kernel(folders | environment)
        kernels.append(kernel)
        assert kernel.run("%load_ext jobcontainer")["status"] == "ok"
        return kernel

    yield start
    for kernel in kernels:
        kernel.close()


@pytest.fixture
def kernel(start_kernel):
    """A kernel with the extension loaded."""
    return start_kernel()
