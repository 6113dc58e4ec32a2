"""Detached jobs, from the side of whoever sends them: the store's host runs them, this process only watches.

Jobs are written for one host, their owner: if it is killed before it takes them, the next one refuses them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jobcontainer.jobs.detached.client import HostClient
from jobcontainer.jobs.store import JobStore
from jobcontainer.jobs.submission import Submitter

if TYPE_CHECKING:
    from jobcontainer.jobs.job import Job
    from jobcontainer.jobs.submission import Submission
    from jobcontainer.storage.folder import StoreFolder


class DetachedJobs:
    """Sends jobs to the host of a store.

    Args:
        store: the store.

    Raises:
        JobContainerError: the host can't be started.
    """

    def __init__(self, store: StoreFolder) -> None:
        """Ask the host who it is; start it where there is none."""
        self._host = HostClient(store)
        self.submitter = Submitter(store, owner=self._host.ask({"do": "hello"})["owner"])

    def submit(self, submissions: list[Submission]) -> list[Job[Any]]:
        """Hand job folders over, and return handles that watch them.

        Raises:
            JobContainerError: the host was killed since.
        """
        if submissions:
            environment = asdict(submissions[0].environment)
            self._host.ask({"do": "submit", "jobs": [one.folder.id for one in submissions], "environment": environment})
        store = JobStore(self.submitter.store.path)
        return [store.open(submission.folder.id) for submission in submissions]
