"""What is written down of a job before it is queued: its id, and what ``job.json`` holds."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from jobcontainer.events import checked
from jobcontainer.jobfile.inputs import is_name
from jobcontainer.process import AFTER, ChunkOptions, options_from_json
from jobcontainer.storage.plain_values import sound_values

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """A job that another one needs.

    Attributes:
        job: the id by which the process file names it; empty where the job is only to come before.
        folder: the path of the folder of the job that stands for it: itself, or one that runs it again.
    """

    job: str = ""
    folder: str

    @property
    def id(self) -> str:
        """The id of the job that stands for it."""
        return self.folder.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What ``job.json`` holds: written once, before the job is queued.

    Attributes:
        id: the job's id, the name of its folder.
        name: what the job is called.
        submitted: seconds since the epoch.
        options: as :meth:`jobcontainer.process.JobOptions.to_json` gives them.
        cwd: the working directory at submit.
        sys_path: ``sys.path`` at submit.
        source: the source of the process's class or function, as it was at submit; empty where it is not known.
        parameters: the attributes of the process that are small plain values, see
            :func:`jobcontainer.storage.plain_values.parameters_of`.
        compared: the digests of the arguments of a process that has a key, see
            :mod:`jobcontainer.storage.argument_digests`.
        owner: who runs the job, as :func:`jobcontainer.storage.owner.this_process` names it.
        inputs: the jobs that must succeed before it can start.
        stands_for: the id of the job that it ran again as that had not succeeded, or of what that one stood for; empty
            where it is work of its own.
    """

    id: str
    name: str
    submitted: float
    options: dict[str, Any] = field(default_factory=dict)
    cwd: str = ""
    sys_path: tuple[str, ...] = ()
    source: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    compared: dict[str, Any] = field(default_factory=dict)
    owner: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[JobInput, ...] = ()
    stands_for: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobRecord:
        """Return the record that plain data holds; anybody may have written it.

        What a newer version has added is passed over.

        Raises:
            ValueError: it is no record.
        """
        try:
            inputs = tuple(checked(JobInput, one) for one in data.get("inputs", ()))
            record = checked(cls, data, sys_path=tuple(data["sys_path"]), inputs=inputs)
            known = {option.name for option in fields(ChunkOptions) if option.name != AFTER}
            options = {name: value for name, value in record.options.items() if name in known}
            options_from_json(options)
            if any(not isinstance(entry, str) for entry in record.sys_path):
                raise ValueError("sys_path")
            if any("\0" in one.folder or not is_name(one.id) for one in inputs):
                raise ValueError("inputs")
        except (TypeError, KeyError, OverflowError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        return replace(
            record,
            options=options,
            parameters=sound_values(record.parameters),
            compared={name: digest for name, digest in record.compared.items() if isinstance(digest, str)},
            name=_encodable(record.name),
            source=_encodable(record.source),
            stands_for=_encodable(record.stands_for),
        )


def new_job_id(name: str) -> str:
    """Make an id that sorts by time: time, name, random.

    Example:
        >>> new_job_id("Train model!").split("-", 2)[2].startswith("Train_model")
        True
    """
    now = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}"
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:32] or "job"
    return f"{stamp}-{word}-{secrets.token_hex(3)}"


def is_job_id(name: str) -> bool:
    """Return whether a name is one that :func:`new_job_id` makes.

    Example:
        >>> is_job_id(new_job_id("Train")), is_job_id("data")
        (True, False)
    """
    return re.fullmatch(r"\d{8}-\d{6}\.\d{6}-\w+-[0-9a-f]{6}", name, flags=re.ASCII) is not None


def _encodable(text: str) -> str:
    """Return a text with question marks for what no UTF-8 can hold, so that it can be printed."""
    return text.encode("utf-8", "replace").decode()
