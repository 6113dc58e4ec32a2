"""``__main__`` of a job: what of the notebook's it is given, and which of its names the job lacks.

Classes and functions of the notebook arrive there when the process is loaded, under their names, so that plain pickle,
``import __main__`` and ``globals()`` find them. What neither code nor a text in it mentions does not travel, and code
that makes up its name fails in the job. The notebook's names are known here, for the error to say why.
"""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.module_origin import MAIN, is_local

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MOST_NAMES: Final = 10_000
_MOST_CAUSES: Final = 20
_MISSING: Final = re.compile(
    r"""(?:name|variable)\ '(\w+)'\ is\ not\ defined            # NameError, and that of pandas
    |Can't\ get\ attribute\ '(\w+)[\w.]*'\ on\ <module\ '__main__'  # pickle
    |module\ '__main__'\ has\ no\ attribute\ '(\w+)'
    |cannot\ import\ name\ '(\w+)'\ from\ '__main__'
    |Table\ with\ name\ (\w+)\ does\ not\ exist                 # DuckDB
    |relation\ '(\w+)'\ was\ not\ found                         # Polars
    """,
    re.VERBOSE,
)

_names: frozenset[str] = frozenset()


def describe() -> dict[str, Any]:
    """Return what a job shall know of the notebook's ``__main__``, as plain data: of its variables only the names."""
    found = vars(sys.modules["__main__"])
    names = sorted(name for name in list(found) if isinstance(name, str) and not name.startswith("_"))
    attributes = {name: found.get(name) for name in ("__file__", "__package__")}
    return {
        "names": names[:_MOST_NAMES],
        **{name.strip("_"): value for name, value in attributes.items() if value and isinstance(value, str)},
    }


def prepare(description: Mapping[str, Any]) -> dict[str, Any]:
    """Make this process's ``__main__`` one for a job, and return its globals.

    Args:
        description: what :func:`describe` returned in the notebook.
    """
    global _names  # noqa: PLW0603 -- of the process
    _names = frozenset(map(str, description.get("names", ())))
    main = sys.modules["__main__"]
    package = str(description.get("package", ""))
    # A process that multiprocessing starts would run the file, unless this is the main module of a package or of none.
    main.__spec__ = ModuleSpec(f"{package}.__main__" if package else "__main__", None)
    main.__package__ = package or None
    if "file" in description:
        main.__file__ = str(description["file"])
    return vars(main)


def with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    for _ in range(_MOST_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def missing_name(error: BaseException) -> str | None:
    """Return the sentence for an error that was raised because a name of the notebook is not in the job; else None."""
    for cause in with_causes(error):
        for name in _names_missed(cause):
            if name in _names:
                return (
                    f"The notebook has {name}, but the job does not: only what the code of the process mentions goes "
                    f"with it, not a name that it makes up while it runs. Mention {name} in run(), or pass it in."
                )
    return None


def _names_missed(error: BaseException) -> Iterator[str]:
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str) and _uses_globals(error):
        yield error.args[0]
    text = ""
    with contextlib.suppress(Exception):  # user code
        text = str(error)
    for found in _MISSING.finditer(text):
        yield next(name for name in found.groups() if name)


def _uses_globals(error: BaseException) -> bool:
    """Return whether an error was raised in code that calls ``globals()``, or ``vars(__main__)``, or for such code.

    That code is the notebook's, or of a module beside it; what it calls may be other code of these, and of the standard
    library, as ``string.Template(text).substitute(globals())`` is.
    """
    for frame in reversed([frame for frame, _ in traceback.walk_tb(error.__traceback__)]):
        module = str(frame.f_globals.get("__name__"))
        if module in MAIN or is_local(module):
            if not {"globals", "__main__"}.isdisjoint(frame.f_code.co_names):
                return True
        elif module.partition(".")[0] not in sys.stdlib_module_names:
            return False
    return False
