"""Order: what a job's process is told to do, on its way from the engine through the keeper."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jobcontainer.jobfile.identity import FileIdentity
    from jobcontainer.process import Environment


class Order(NamedTuple):
    """What a job's process is told to do; plain data, so that it goes through any pipe.

    Attributes:
        folder: the job's folder.
        options: as :meth:`jobcontainer.process.JobOptions.to_json` gives them.
        environment: what follows the job from where it was submitted; None for those that were told last.
        attempt: 1 for the first.
        number: what a cancel of it, and the word of its end, call it.
        identity: of the process file, from the process that wrote it; None where that is not known.
    """

    folder: str
    options: dict[str, Any]
    environment: Environment | None
    attempt: int = 1
    number: int = 0
    identity: FileIdentity | None = None

    def packed(self) -> bytes:
        """Return it as bytes; :meth:`unpacked` in another process gets it back."""
        return pickle.dumps((*self,), pickle.HIGHEST_PROTOCOL)

    @classmethod
    def unpacked(cls, data: bytes) -> Order:
        """Get an order from bytes that came over a channel of ours."""
        return cls(*pickle.loads(data))  # noqa: S301 -- nobody else has the channel's other end

    @property
    def reuses(self) -> bool:
        """Whether the process runs other jobs before and after this one."""
        return bool(self.options["isolation"] == "reuse")
