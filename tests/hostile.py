"""Hostile jobs: what each does, how it must end, and what must be said of it.

A row of :data:`TABLE` is a :class:`Hostile`. Rows with a ``timeout`` hang; every row must have ended within its bound.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobcontainer.events import JobState

SUCCEEDED, FAILED, CRASHED = JobState.SUCCEEDED, JobState.FAILED, JobState.CRASHED
TIMED_OUT, OUT_OF_MEMORY, LOST = JobState.TIMED_OUT, JobState.OUT_OF_MEMORY, JobState.LOST

FAR = 1000.0
"""Seconds that no test waits for."""


def segfault():
    ctypes.string_at(0)


def leave():
    os._exit(3)


def exit_():
    sys.exit(4)


def raise_():
    raise ValueError("hostile")


def hang():
    threading.Event().wait(FAR)


class InJob:
    """Does something in the job's process only, not where the object is made or loaded by a test."""

    def __init__(self, act):
        self.act = act

    def do(self):
        if "JOBCONTAINER_SLOT" in os.environ:
            self.act()


class WhenLoaded(InJob):
    def __setstate__(self, state):
        self.__dict__ = state
        self.do()

    def run(self):
        return "never"


class WhenMade(InJob):
    def __init__(self, act):
        super().__init__(act)
        self.do()

    def __reduce__(self):
        return WhenMade, (self.act,)

    def run(self):
        return "never"


class WhenRun(InJob):
    def run(self):
        return self.act()


class InThread(InJob):
    def run(self):
        thread = threading.Thread(target=self.act)
        thread.start()
        thread.join(0.3)
        return "returned"


class WhenResultIsPickled(InJob):
    def run(self):
        return WhenPickled(self.act)


class WhenPickled(InJob):
    def __reduce__(self):
        self.do()
        return str, ("pickled",)


class WhenCollected(InJob):
    def run(self):
        return "returned"

    def __del__(self):
        self.do()


class AtExit(InJob):
    def run(self):
        atexit.register(self.act)
        return "returned"


class TwoArguments(Exception):  # noqa: N818
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unpicklable(Exception):  # noqa: N818
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def abort():
    os.abort()


def overflow_stack():
    """Newer Pythons raise RecursionError long before the usual stack is full; a small one is full before that."""
    sys.setrecursionlimit(10**6)
    resource.setrlimit(resource.RLIMIT_STACK, (2**18, 2**18))

    def deeper():
        through_c()

    through_c = ctypes.CFUNCTYPE(None)(deeper)
    through_c()


def leave_as_if_all_were_well():
    os._exit(0)


def exit_with_words():
    sys.exit("nothing to do")


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def terminate_itself():
    os.kill(os.getpid(), signal.SIGTERM)
    hang()


def terminate_its_group():
    os.killpg(os.getpgid(0), signal.SIGTERM)
    hang()


def stop_itself():
    os.kill(os.getpid(), signal.SIGSTOP)


def interrupt_itself():
    os.kill(os.getpid(), signal.SIGINT)
    hang()


def kill_its_keeper():
    os.kill(os.getppid(), signal.SIGKILL)
    hang()


def raise_two_arguments():
    raise TwoArguments("one", "two")


def raise_unpicklable():
    raise Unpicklable("with a lock")


def return_unpicklable():
    return threading.Lock()


def hold_the_gil():
    ctypes.PyDLL(None).sleep(int(FAR))


def ignore_signals():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(FAR)


def catch_everything():
    while True:
        try:
            time.sleep(FAR)
        except:  # noqa: E722 -- as people write
            print("caught")


def fork_fifty():
    for _ in range(50):
        if os.fork() == 0:
            hang()
    return "returned"


def daemonize():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 1024)
            time.sleep(FAR)
        os._exit(0)
    os.wait()
    return "returned"


def leave_a_shell():
    subprocess.Popen(f"trap '' INT TERM; sleep {FAR}", shell=True, start_new_session=True)  # noqa: S602
    return "returned"


def close_standard_descriptors():
    os.closerange(0, 3)
    return "returned"


def close_all_descriptors():
    os.closerange(0, 1 << 16)
    return "returned"


def remove_its_folder():
    folder = log_of_this_job().parent
    os.chdir(folder)
    shutil.rmtree(folder)
    return "returned"


def delete_its_log():
    log_of_this_job().unlink()
    print("into nothing")
    return "returned"


def print_much():
    line = "x" * 999
    for _ in range(100_000):
        print(line)
    return "returned"


def print_garbage():
    garbage = bytes(range(256)) * 40
    sys.stdout.buffer.write(garbage)
    os.write(2, garbage)
    print("\udcff\ud800 lone surrogates")
    return "returned"


def hog():
    held = []
    while True:
        held.append(bytearray(b"x") * 8_000_000)


def hog_in_child():
    child = subprocess.Popen([sys.executable, "-c", "held = []\nwhile True: held.append(bytearray(b'x') * 8_000_000)"])
    child.wait()
    hang()


def hog_in_forked_child():
    pid = os.fork()
    if pid == 0:
        hog()
    os.waitpid(pid, 0)
    hang()


def hog_shared_memory():

    held = []
    while True:
        held.append(mmap.mmap(-1, 8_000_000))
        held[-1].write(b"x" * 8_000_000)


def leave_threads():
    for _ in range(5):
        threading.Thread(target=hang).start()
    return "returned"


def spoil_builtins():
    builtins.print = builtins.len = builtins.open = builtins.isinstance = None
    return "returned"


def spoil_modules():
    for name in ("json", "os", "pickle", "signal", "time"):
        vars(sys.modules[name]).clear()
    return "returned"


def lower_limits():

    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return "returned"


def raise_system_exit_subclass():
    class Quit(SystemExit):
        pass

    raise Quit(5)


def raise_base_exception():
    raise GeneratorExit("not an Exception")


def raise_what_cannot_be_shown():
    class Mute(Exception):  # noqa: N818
        def __str__(self):
            raise RuntimeError("no words")

    raise Mute


def log_of_this_job():
    return Path("/proc/self/fd/1").readlink()


@dataclass(frozen=True)
class Hostile:
    """One row.

    Attributes:
        name: what it does.
        process: the object with ``run()``.
        state: how it must end.
        words: each must stand in the outcome or at the end of the log.
        options: of the job.
        bound: seconds within which it must have ended, on a busy machine.
    """

    name: str
    process: Any
    state: JobState
    words: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    bound: float = 30.0


HANGS = {"timeout": 0.5, "grace": 0.2}
SHORT = {"grace": 0.2}
MEMORY = {"memory": "150MB"}


def _at_every_phase():
    before = {WhenLoaded: "unpickling", WhenMade: "constructor", WhenRun: "run", WhenResultIsPickled: "pickling result"}
    for make, phase in before.items():
        yield Hostile(f"{phase}: segfault", make(segfault), CRASHED, ("SIGSEGV", "Segmentation fault"))
        yield Hostile(f"{phase}: os._exit", make(leave), CRASHED, ("exit code 3",))
        yield Hostile(f"{phase}: sys.exit", make(exit_), CRASHED, ("sys.exit(4)",))
        yield Hostile(f"{phase}: raise", make(raise_), FAILED, ("hostile",))
        yield Hostile(f"{phase}: hang", make(hang), TIMED_OUT, ("timeout=0.5 s", "in hang"), HANGS)
    yield Hostile("thread: segfault", InThread(segfault), CRASHED, ("SIGSEGV", "Segmentation fault"))
    yield Hostile("thread: os._exit", InThread(leave), CRASHED, ("exit code 3",))
    yield Hostile("thread: sys.exit", InThread(exit_), SUCCEEDED)
    yield Hostile("thread: raise", InThread(raise_), SUCCEEDED, ("ValueError: hostile",))
    yield Hostile("thread: hang", InThread(hang), SUCCEEDED, (), SHORT)
    for make, phase in {WhenCollected: "collection", AtExit: "atexit"}.items():
        yield Hostile(f"{phase}: segfault", make(segfault), SUCCEEDED, ("Segmentation fault",))
        yield Hostile(f"{phase}: os._exit", make(leave), SUCCEEDED)
        yield Hostile(f"{phase}: sys.exit", make(exit_), SUCCEEDED)
        yield Hostile(f"{phase}: raise", make(raise_), SUCCEEDED, ("ValueError: hostile",))
        yield Hostile(f"{phase}: hang", make(hang), SUCCEEDED, (), SHORT)


def _table():
    return [
        *_at_every_phase(),
        Hostile("abort", WhenRun(abort), CRASHED, ("SIGABRT",)),
        Hostile("stack overflow", WhenRun(overflow_stack), CRASHED, ("SIGSEGV",)),
        Hostile("os._exit(0)", WhenRun(leave_as_if_all_were_well), CRASHED, ("exit code 0 before run() returned",)),
        Hostile("sys.exit with words", WhenRun(exit_with_words), CRASHED, ("nothing to do",)),
        Hostile("SystemExit subclass", WhenRun(raise_system_exit_subclass), CRASHED, ("sys.exit(5)",)),
        Hostile("kill itself", WhenRun(kill_itself), CRASHED, ("SIGKILL",)),
        Hostile("terminate itself", WhenRun(terminate_itself), CRASHED, ("SIGTERM",)),
        Hostile("terminate its group", WhenRun(terminate_its_group), CRASHED, ("SIGTERM",)),
        Hostile("stop itself", WhenRun(stop_itself), TIMED_OUT, ("timeout=0.5 s",), HANGS),
        Hostile("interrupt itself", WhenRun(interrupt_itself), FAILED, ("SIGINT", "in interrupt_itself")),
        Hostile("kill its keeper", WhenRun(kill_its_keeper), LOST, ("SIGKILL",)),
        Hostile("exception of two arguments", WhenRun(raise_two_arguments), FAILED, ("TwoArguments", "one and two")),
        Hostile("unpicklable exception", WhenRun(raise_unpicklable), FAILED, ("Unpicklable", "with a lock")),
        Hostile("unpicklable result", WhenRun(return_unpicklable), FAILED, ("SerializationError", "lock")),
        Hostile("BaseException", WhenRun(raise_base_exception), FAILED, ("GeneratorExit", "not an Exception")),
        Hostile("exception without words", WhenRun(raise_what_cannot_be_shown), FAILED, ("Mute",)),
        Hostile("hold the GIL in C", WhenRun(hold_the_gil), TIMED_OUT, ("in hold_the_gil",), HANGS),
        Hostile("ignore SIGINT and SIGTERM", WhenRun(ignore_signals), TIMED_OUT, ("in ignore_signals",), HANGS),
        Hostile("bare except", WhenRun(catch_everything), TIMED_OUT, ("in catch_everything",), HANGS),
        Hostile("fork bomb of 50", WhenRun(fork_fifty), SUCCEEDED),
        Hostile("double-forked daemon", WhenRun(daemonize), SUCCEEDED),
        Hostile("leave a shell", WhenRun(leave_a_shell), SUCCEEDED),
        Hostile("close 0 to 2", WhenRun(close_standard_descriptors), SUCCEEDED),
        Hostile("close all descriptors", WhenRun(close_all_descriptors), SUCCEEDED),
        Hostile("remove its folder", WhenRun(remove_its_folder), FAILED, ("FileNotFoundError", "result.job")),
        Hostile("delete its log", WhenRun(delete_its_log), SUCCEEDED),
        Hostile("print 100 MB", WhenRun(print_much), SUCCEEDED, ("xxx",)),
        Hostile("print garbage", WhenRun(print_garbage), SUCCEEDED, ("lone surrogates",)),
        Hostile("memory hog", WhenRun(hog), OUT_OF_MEMORY, ("memory=150 MB", "in hog"), MEMORY),
        Hostile("memory hog in a child", WhenRun(hog_in_child), OUT_OF_MEMORY, ("in hog_in_child",), MEMORY),
        Hostile(
            "memory hog in a fork", WhenRun(hog_in_forked_child), OUT_OF_MEMORY, ("in hog_in_forked_child",), MEMORY
        ),
        Hostile("shared memory hog", WhenRun(hog_shared_memory), OUT_OF_MEMORY, ("in hog_shared_memory",), MEMORY),
        Hostile("leave threads", WhenRun(leave_threads), SUCCEEDED, (), SHORT),
        Hostile("spoil builtins", WhenRun(spoil_builtins), SUCCEEDED),
        Hostile("spoil modules", WhenRun(spoil_modules), CRASHED, ("exit code 70",)),
        Hostile("lower its limits", WhenRun(lower_limits), FAILED, ("Errno",)),
    ]


TABLE = [] if "JOBCONTAINER_SLOT" in os.environ else _table()  # some of them act when they are made in a job
