"""Order: what a job's process is to do, on its way from the engine through the keeper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.process import Environment


class Order(NamedTuple):
    """What a job's process is to do; plain data, so that it goes through any pipe.

    Attributes:
        folder: the job's folder.
        options: as :meth:`jobcontainer.process.JobOptions.to_json` returns them.
        environment: of the process that submitted the job; None on the way to a keeper that has it already.
        attempt: 1 for the first.
        number: by which a cancel, and the message of the job's end, name it.
        identity: of the process file, from the process that wrote it; None where that is not known.
    """

    folder: str
    options: dict[str, Any]
    environment: Environment | None
    attempt: int = 1
    number: int = 0
    identity: FileIdentity | None = None

    @property
    def reuses(self) -> bool:
        """Whether the process runs other jobs before and after this one."""
        return bool(self.options["isolation"] == "reuse")
