"""What to do about objects that are bound to their process, by the names of their types.

The names are compared with those of a type's bases, so nothing is imported, and subclasses count.
"""

from __future__ import annotations

from typing import Final

_LOCK: Final = "A lock belongs to the threads of one process: make it inside run()."
_THREADS: Final = "It is made of threads or locks, which belong to one process: make it inside run()."
_BETWEEN_PROCESSES: Final = "It is shared only with processes that are started from here: make it inside run()."
_FILE: Final = "An open file belongs to one process: pass its path, and open it inside run()."
_CONNECTION: Final = "A connection belongs to one process: make it inside run(), from its address or settings."
_GENERATOR: Final = "A generator can't be carried on elsewhere: make it inside run(), or pass a list."
_COROUTINE: Final = "It belongs to one event loop: make it inside run(), with asyncio.run()."
_TRACE: Final = "It holds a running stack: pass traceback.format_exc(), which is a text."
_WEAK: Final = "A weak reference does not keep its object: pass the object itself, or make the reference inside run()."
_ITERATOR: Final = "It is half way through: make it inside run(), or pass a list of what is left."
_NOTEBOOK: Final = "It belongs to the notebook: pass only the values you need."
_C_OBJECT: Final = "It is bound to memory of this process: make it inside run()."
_CLUSTER: Final = "It belongs to the process that made it: make it inside run(), or use it in the notebook."

_HINTS: Final = {
    "_thread.lock": _LOCK,
    "_thread.RLock": _LOCK,
    "_thread._local": "What a thread keeps for itself stays with it: make it inside run().",
    "threading.Condition": _LOCK,
    "threading.Event": _THREADS,
    "threading.Semaphore": _LOCK,
    "threading.Barrier": _THREADS,
    "threading.Thread": _THREADS,
    "threading._RLock": _LOCK,
    "queue.Queue": _THREADS,
    "_queue.SimpleQueue": _THREADS,
    "concurrent.futures._base.Executor": _THREADS,
    "concurrent.futures._base.Future": "Pass its result(), not the future.",
    "logging.Handler": "A handler holds a lock and a stream: set up logging inside run().",
    "multiprocessing.synchronize.SemLock": _BETWEEN_PROCESSES,
    "multiprocessing.synchronize.Condition": _BETWEEN_PROCESSES,
    "multiprocessing.synchronize.Event": _BETWEEN_PROCESSES,
    "multiprocessing.queues.Queue": _BETWEEN_PROCESSES,
    "multiprocessing.queues.SimpleQueue": _BETWEEN_PROCESSES,
    "multiprocessing.connection._ConnectionBase": _BETWEEN_PROCESSES,
    "multiprocessing.process.BaseProcess": _BETWEEN_PROCESSES,
    "multiprocessing.pool.Pool": _BETWEEN_PROCESSES,
    "subprocess.Popen": "A process that runs can't be handed on: start it inside run().",
    "_io._IOBase": _FILE,
    "tempfile._TemporaryFileWrapper": _FILE,
    "zipfile.ZipFile": _FILE,
    "tarfile.TarFile": _FILE,
    "mmap.mmap": _FILE,
    "_csv.reader": _FILE,
    "_csv.writer": _FILE,
    "_csv.Reader": _FILE,
    "_csv.Writer": _FILE,
    "h5py._hl.base.HLObject": _FILE,
    "posix.DirEntry": "Pass its path: entry.path.",
    "nt.DirEntry": "Pass its path: entry.path.",
    "posix.ScandirIterator": _ITERATOR,
    "_socket.socket": _CONNECTION,
    "http.client.HTTPConnection": _CONNECTION,
    "sqlite3.Connection": _CONNECTION,
    "sqlite3.Cursor": _CONNECTION,
    "sqlalchemy.engine.base.Engine": _CONNECTION,
    "select.epoll": _CONNECTION,
    "select.poll": _CONNECTION,
    "selectors.BaseSelector": _CONNECTION,
    "ssl.SSLContext": _CONNECTION,
    "_ssl._SSLContext": _CONNECTION,
    "builtins.generator": _GENERATOR,
    "builtins.async_generator": _GENERATOR,
    "builtins.coroutine": _COROUTINE,
    "asyncio.events.AbstractEventLoop": _COROUTINE,
    "asyncio.locks._ContextManagerMixin": _COROUTINE,
    "asyncio.queues.Queue": _COROUTINE,
    "_asyncio.Future": _COROUTINE,
    "builtins.frame": _TRACE,
    "builtins.traceback": _TRACE,
    "weakref.ReferenceType": _WEAK,
    "weakref.ProxyType": _WEAK,
    "weakref.CallableProxyType": _WEAK,
    "builtins.module": "A module that can't be imported by name stays here: import it inside run().",
    "ipywidgets.widgets.widget.Widget": "A widget lives in the notebook: pass its value, for example slider.value.",
    "IPython.core.interactiveshell.InteractiveShell": _NOTEBOOK,
    "ipykernel.iostream.OutStream": "It is the notebook's output: print() inside run() goes to the job's log.",
    "tkinter.Misc": _NOTEBOOK,
    "tqdm.std.tqdm": "A progress bar belongs to where it is shown: make it inside run().",
    "_ctypes._Pointer": _C_OBJECT,
    "_ctypes.CFuncPtr": _C_OBJECT,
    "ctypes.CDLL": _C_OBJECT,
    "_hashlib.HASH": "A digest that is being taken can't be carried on: pass its hexdigest(), or make it inside run().",
    "_contextvars.ContextVar": "A context variable belongs to one process: make it inside run().",
    "_contextvars.Context": "A context belongs to one process: make it inside run().",
    "_contextvars.Token": "A token belongs to one context: make it inside run().",
    "pyspark.context.SparkContext": _CLUSTER,
    "pyspark.sql.session.SparkSession": _CLUSTER,
    "distributed.client.Client": _CLUSTER,
    "jobcontainer.jobs.pool.JobPool": _CLUSTER,
}
_LOOKS_LIKE_CONNECTION: Final = ("Connection", "Cursor", "Client", "Session", "Engine", "Channel", "Socket")


def type_name(cls: type) -> str:
    """Name a type with its module; those of built-in types and of the notebook without.

    Example:
        >>> type_name(type(iter(())))
        'tuple_iterator'
    """
    hidden = cls.__module__ in {"builtins", "__main__"}
    return cls.__qualname__ if hidden else f"{cls.__module__}.{cls.__qualname__}"


def hint_for(cls: type) -> str | None:
    """Return what to do about an object of a well-known type; None for any other.

    Example:
        >>> import io
        >>> hint_for(io.FileIO)
        'An open file belongs to one process: pass its path, and open it inside run().'
    """
    for base in cls.__mro__:
        known = _HINTS.get(f"{base.__module__}.{base.__qualname__}")
        if known is not None:
            return known
    return None


def guess_for(cls: type) -> str | None:
    """Return what to do about an object that can't be pickled, if the name of its type shows what it is."""
    return _CONNECTION if cls.__name__.endswith(_LOOKS_LIKE_CONNECTION) else None
