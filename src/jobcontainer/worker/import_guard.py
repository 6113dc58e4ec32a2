"""Imports that are made ahead for jobs, and what one must not do so that its process can still be forked for them.

Called in a fork server alone (:mod:`jobcontainer.worker.fork_server`), which is given up where one is refused: what a
refused import has done is not undone. Refused is one that raises, prints, or leaves threads, child processes, open
files, signal handlers or other entries in ``sys.path`` behind, holds too much memory, or brings a module that may be
another one for the next job, as it lies beside the notebook or in an editable install. Open files include those of a
GPU. Jobs make such an import themselves, each its own.

A crash or a hang can't be seen from here: the fork server says which import it begins, and an alarm ends it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import sysconfig
import time
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple

from jobcontainer.pickling.module_origin import may_be_edited
from jobcontainer.worker import process_tree
from jobcontainer.worker.reporting import log

if TYPE_CHECKING:
    from collections.abc import Iterator

_HARMLESS_THREADS: Final = frozenset({"jemalloc_bg_thd"})
"""By the names that the kernel has. jemalloc, which pyarrow brings, stops and starts its own around a fork."""

_THREAD_ENDS_SECONDS: Final = 0.2
_SIGNALS: Final = ("SigBlk:", "SigIgn:", "SigCgt:")
_OF_THE_C_LIBRARY: Final = 0b11 << 31  # signals 32 and 33, which glibc handles from the first thread on
_LIBRARIES: Final = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


class _State(NamedTuple):
    """What an import may not change."""

    signals: tuple[object, ...]
    files: frozenset[str]
    paths: tuple[str, ...]
    folder: Path


def import_guarded(name: str, seconds: float, most_memory: int) -> str:
    """Import a module, and return why jobs should import it themselves; empty where they need not.

    A module that does not exist is passed over.

    Args:
        name: its full name.
        seconds: after which an alarm ends this process.
        most_memory: bytes that this process may hold after it.
    """
    before, known = _state(), len(sys.modules)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            return f"it raises {type(error).__name__}"
    except BaseException as error:  # noqa: BLE001 -- whatever it is, it is the job's to see
        return f"it raises {type(error).__name__}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return next(_changes(before, known, most_memory), "")


def _changes(before: _State, known: int, most_memory: int) -> Iterator[str]:
    log.flush()
    after = _state()
    if os.fstat(1).st_size:
        yield "it prints"
    if threads := _threads_that_stay():
        yield f"it starts threads ({', '.join(sorted(threads))})"
    if process_tree.children_of(os.getpid()):
        yield "it starts processes"
    if after.signals != before.signals:
        yield "it changes signal handlers"
    if after.files - before.files:
        yield f"it keeps files open ({', '.join(sorted(after.files - before.files))})"
    if (after.paths, after.folder) != (before.paths, before.folder):
        yield "it changes sys.path or the working directory"
    if process_tree.memory_of([os.getpid()]) > most_memory:
        yield "it takes too much memory"
    if edited := next((name for name in modules_since(known) if _may_be_edited(name)), ""):
        yield f"it imports {edited}, which lies beside the notebook or is an editable install"


def modules_since(known: int) -> list[str]:
    """Return the names of the modules that were loaded after so many, in order.

    Only the end of ``sys.modules`` is read: to look at all of it copies the pages of all names in a forked process.
    """
    return [*islice(reversed(sys.modules), max(0, len(sys.modules) - known))][::-1]


def _may_be_edited(name: str) -> bool:
    module = sys.modules.get(name)
    if not isinstance(module, ModuleType):
        return False
    file = object.__getattribute__(module, "__dict__").get("__file__")  # to ask a lazy module itself would load it
    return isinstance(file, str) and not file.startswith(_LIBRARIES) and may_be_edited(name)


def _state() -> _State:
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return _State((*handlers, *_kernels_view_of_signals()), frozenset(_open_files()), tuple(sys.path), Path.cwd())


def _kernels_view_of_signals() -> Iterator[int]:
    """Yield what C code may have set as well: the signals that are blocked, ignored and handled."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(_SIGNALS):
            yield int(line.split()[1], 16) & ~_OF_THE_C_LIBRARY


def _open_files() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that listed them is closed
            yield f"{entry.name} {entry.readlink()}"


def _threads_that_stay() -> set[str]:
    """Return the names of the threads that an import has left; one that was joined may take a moment to end."""
    until = time.monotonic() + _THREAD_ENDS_SECONDS
    while (threads := _threads() - _HARMLESS_THREADS) and time.monotonic() < until:
        time.sleep(0.001)
    return threads


def _threads() -> set[str]:
    """Return the names of the threads beside the main one; threading knows only those of Python."""
    names = set()
    for task in Path("/proc/self/task").iterdir():
        if task.name != str(os.getpid()):
            with contextlib.suppress(OSError):  # it has ended
                names.add((task / "comm").read_text().strip())
    return names
