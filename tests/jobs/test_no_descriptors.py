"""A process that has no file descriptor left, or only a few: every call works or says so, and nothing stays pending."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import contextlib, errno, os, resource, sys
from jobcontainer import JobPool, JobStore

class Answers:
    def run(self):
        return 42

def held():
    return len(os.listdir("/proc/self/fd"))

store, most = sys.argv[1], 256
pool = JobPool(2, store=store)
group = pool.submit_all([Answers() for _ in range(4)])
group.wait()
jobs = []
calls = [
    lambda: jobs.append(pool.submit(Answers())),
    lambda: jobs.extend(pool.submit_all([Answers(), Answers()])),
    lambda: jobs.append(pool.rerun(group[0])),
    lambda: JobStore(store).open(group[0].id).result(),
    lambda: JobStore(store).jobs().summary(),
    lambda: JobStore(store).prune(keep=1000),
    lambda: group.records(),
    lambda: group.cancel(),
]
for call in calls:
    call()
before, limits, failed = held(), resource.getrlimit(resource.RLIMIT_NOFILE), 0
for free in range(10):
    for call in calls:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for number in taken[:free]:
            os.close(number)
        try:
            call()
        except OSError as error:
            assert error.errno == errno.EMFILE and "`ulimit -n 4096`" in str(error), error
            failed += 1
        finally:
            for number in taken[free:]:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
assert failed >= 5, failed
assert len(jobs) >= 20, len(jobs)
assert [job.result(30) for job in jobs] == [42] * len(jobs)
assert pool.submit(Answers()).result(30) == 42
pool.shutdown()
left = [job.id for job in JobStore(store).jobs() if job.result(0) != 42]
print(left, held() <= before)
"""


def test_without_descriptors_each_call_works_or_says_so_and_no_job_is_lost(tmp_path):
    """With none free, and with one to nine: it says what to do, no submitted job is lost, and no descriptor leaks."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, tmp_path / "store"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("[] True\n", "")
