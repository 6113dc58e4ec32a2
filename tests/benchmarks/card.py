"""The card of 10,000 jobs: what it sends to the browser, and what it costs the kernel, beside the peers' widgets.

In a real kernel, two workers run jobs of 50 ms each, and the rest waits. For some seconds nothing is shown; then the
widget is, and for as many seconds a subscriber counts what the kernel sends that a page has to take in: the messages of
widgets and displays, with the bytes of their parts as they go through the server's socket. Time to open is not in it.
The kernel's part of a core is that of its process while the widget is shown, less that of the seconds before.

Our card shows each job's name, state and log; the peers' are bars that count.

Run it alone::

    python tests/benchmarks/card.py
"""

from __future__ import annotations

import json
import os
import time

import measuring

JOBS, SECONDS, SETTLED = 10_000, 6.0, 12.0  # of these seconds tqdm takes some to find its pace
QUICK = 1_000, 2.0, 5.0
FINEST = 0.1  # of a percent of a core, which is how finely the clocks of processes count
SHOWN = {"comm_open", "comm_msg", "comm_close", "display_data", "update_display_data", "execute_result", "stream"}

OURS = """
%load_ext jobcontainer
from jobcontainer import JobPool
class Sleeps:
    def run(self):
        import time
        time.sleep(0.05)
pool = JobPool(2)
"""

IPYPARALLEL = """
import time
from ipyparallel import Cluster
client = Cluster(n=2, log_level=40).start_and_connect_sync(activate=False)
view = client.load_balanced_view()
"""

DASK = """
import time
from distributed import Client, LocalCluster, progress
cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
client = Client(cluster)
"""

PEERS = {  # what is set up, how the jobs are sent off, what shows their widget, and what ends the workers
    measuring.OURS: (OURS, "jobs = pool.submit_all([Sleeps() for _ in range({jobs})])", "jobs", ""),
    "ipyparallel, wait_interactive()": (
        IPYPARALLEL,
        "jobs = view.map_async(time.sleep, [0.05] * {jobs}, chunksize=1)",
        "jobs.wait_interactive()",
        "client.cluster.stop_cluster_sync()",
    ),
    "Dask, progress()": (
        DASK,
        "jobs = client.map(time.sleep, [0.05] * {jobs}, pure=False)",
        "progress(jobs)",
        "client.close(); cluster.close()",
    ),
}

FIGURES = [
    measuring.Figure("bytes", "the card of 10,000 jobs, sent to the browser", "kB/s", goal=measuring.under(25)),
    measuring.Figure("messages", "its messages", "1/s", goal=measuring.under(5)),
    measuring.Figure("cpu", "the kernel's work for it", "% of a core", goal=measuring.under(3)),
    measuring.Figure("opening", "its first second", "kB", goal=None),
]


class Kernel:
    """A kernel, and a subscriber to all that it says."""

    def __init__(self, folder):
        import psutil
        from jupyter_client.manager import KernelManager

        self._manager = KernelManager(kernel_name="python3")
        folders = {"JOBCONTAINER_HOME": os.path.join(folder, "jobs"), "IPYTHONDIR": os.path.join(folder, "ipython")}  # noqa: PTH118 -- nothing else needs pathlib here
        self._manager.start_kernel(env=os.environ | folders, cwd=folder)
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        self._said = self._manager.connect_iopub()
        self._said.subscribe(b"")
        self._process = psutil.Process(self._manager.provisioner.pid)

    def run(self, cell):
        """Run a cell to its end."""
        reply = self._client.execute_interactive(
            cell, allow_stdin=False, timeout=120, output_hook=lambda _message: None
        )
        if reply["content"]["status"] != "ok":
            raise RuntimeError(str(reply["content"]))

    def start(self, cell):
        """Run a cell as a page would, which may take until the jobs have ended."""
        self._client.execute(cell, allow_stdin=True, stop_on_error=False)

    def listen(self, seconds):
        """Count what is shown, and the kernel's work: bytes, messages, seconds of a processor."""
        before, until = self._worked(), time.monotonic() + seconds
        total = messages = 0
        while (left := until - time.monotonic()) > 0:
            if self._said.poll(left * 1000):
                parts = self._said.recv_multipart()
                message = parts[parts.index(b"<IDS|MSG>") + 2 :]  # without the topic and the signature
                if json.loads(message[0])["msg_type"] in SHOWN:
                    total += sum(map(len, message))
                    messages += 1
        return total, messages, self._worked() - before

    def close(self, end):
        """Interrupt what still runs, have the workers ended, and end."""
        self._said.close()
        self._manager.interrupt_kernel()
        self.run(end)
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def _worked(self):
        times = self._process.cpu_times()
        return times.user + times.system


def measure(name, given):
    set_up, submit, show, end = PEERS[name]
    jobs, seconds, settled = QUICK if given.quick else (JOBS, SECONDS, SETTLED)
    kernel = Kernel(measuring.new_folder())
    try:
        kernel.run(set_up)
        kernel.run(submit.format(jobs=jobs))
        kernel.listen(1.0)  # what the cells have left
        _, before, plain = kernel.listen(seconds)
        assert not before, "something is shown before it should be"
        kernel.start(show)
        opening, _, _ = kernel.listen(1.0)
        kernel.listen(settled)
        total, messages, work = kernel.listen(seconds)
        assert messages, "nothing is shown"
    finally:
        kernel.close(end)
    return {
        "bytes": total / seconds / 1e3,
        "messages": messages / seconds,
        "cpu": max((work - plain) / seconds * 100, FINEST),
        "opening": opening / 1e3,
    }


if __name__ == "__main__":
    options = measuring.parser(__doc__, rounds=3, quick_rounds=1).parse_args()
    measuring.compare(PEERS, measure, FIGURES, options)
