"""What to do about objects that are bound to their process, by the names of their types.

The names are compared with those of a type's bases, so nothing is imported, and subclasses count.
"""

from __future__ import annotations

from typing import Final

_CONNECTION: Final = "A connection belongs to one process: make it inside run(), from its address or settings."

_TYPES_BY_HINT: Final = {
    "A lock belongs to the threads of one process: make it inside run().": (
        "_thread.lock _thread.RLock threading.Condition threading.Semaphore threading._RLock"
    ),
    "What a thread keeps for itself stays with it: make it inside run().": "_thread._local",
    "It is made of threads or locks, which belong to one process: make it inside run().": (
        "threading.Event threading.Barrier threading.Thread queue.Queue _queue.SimpleQueue "
        "concurrent.futures._base.Executor"
    ),
    "Pass its result(), not the future.": "concurrent.futures._base.Future",
    "A handler holds a lock and a stream: set up logging inside run().": "logging.Handler",
    "It is shared only with processes that are started from here: make it inside run().": (
        "multiprocessing.synchronize.SemLock multiprocessing.synchronize.Condition multiprocessing.synchronize.Event "
        "multiprocessing.queues.Queue multiprocessing.queues.SimpleQueue multiprocessing.connection._ConnectionBase "
        "multiprocessing.process.BaseProcess multiprocessing.pool.Pool"
    ),
    "A process that runs can't be handed on: start it inside run().": "subprocess.Popen",
    "An open file belongs to one process: pass its path, and open it inside run().": (
        "_io._IOBase tempfile._TemporaryFileWrapper zipfile.ZipFile tarfile.TarFile mmap.mmap _csv.reader _csv.writer "
        "_csv.Reader _csv.Writer h5py._hl.base.HLObject"
    ),
    "Pass its path: entry.path.": "posix.DirEntry nt.DirEntry",
    "It is half way through: make it inside run(), or pass a list of what is left.": "posix.ScandirIterator",
    _CONNECTION: (
        "_socket.socket http.client.HTTPConnection sqlite3.Connection sqlite3.Cursor sqlalchemy.engine.base.Engine "
        "select.epoll select.poll selectors.BaseSelector ssl.SSLContext _ssl._SSLContext"
    ),
    "A generator can't be carried on elsewhere: make it inside run(), or pass a list.": (
        "builtins.generator builtins.async_generator"
    ),
    "It belongs to one event loop: make it inside run(), with asyncio.run().": (
        "builtins.coroutine asyncio.events.AbstractEventLoop asyncio.locks._ContextManagerMixin asyncio.queues.Queue "
        "_asyncio.Future"
    ),
    "It holds a running stack: pass traceback.format_exc(), which is a text.": "builtins.frame builtins.traceback",
    "A weak reference does not keep its object: pass the object itself, or make the reference inside run().": (
        "weakref.ReferenceType weakref.ProxyType weakref.CallableProxyType"
    ),
    "A module that can't be imported by name stays here: import it inside run().": "builtins.module",
    "A widget lives in the notebook: pass its value, for example slider.value.": "ipywidgets.widgets.widget.Widget",
    "It belongs to the notebook: pass only the values you need.": (
        "IPython.core.interactiveshell.InteractiveShell tkinter.Misc"
    ),
    "It is the notebook's output: print() inside run() goes to the job's log.": "ipykernel.iostream.OutStream",
    "A progress bar belongs to where it is shown: make it inside run().": "tqdm.std.tqdm",
    "It is bound to memory of this process: make it inside run().": "_ctypes._Pointer _ctypes.CFuncPtr ctypes.CDLL",
    "A digest that is being taken can't be carried on: pass its hexdigest(), or make it inside run().": "_hashlib.HASH",
    "A context variable belongs to one process: make it inside run().": "_contextvars.ContextVar",
    "A context belongs to one process: make it inside run().": "_contextvars.Context",
    "A token belongs to one context: make it inside run().": "_contextvars.Token",
    "It belongs to the process that made it: make it inside run(), or use it in the notebook.": (
        "pyspark.context.SparkContext pyspark.sql.session.SparkSession distributed.client.Client "
        "jobcontainer.jobs.pool.JobPool"
    ),
}

_HINTS: Final = {name: hint for hint, names in _TYPES_BY_HINT.items() for name in names.split()}
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
    names = (f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)
    return next((_HINTS[name] for name in names if name in _HINTS), None)


def guess_for(cls: type) -> str | None:
    """Return what to do about an object that can't be pickled, if the name of its type shows what it is."""
    return _CONNECTION if cls.__name__.endswith(_LOOKS_LIKE_CONNECTION) else None
