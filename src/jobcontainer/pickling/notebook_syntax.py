"""IPython's own syntax in code that travels: ``!command`` and ``%magic`` lines, which a job has no IPython for."""

from __future__ import annotations

import dis
import functools
import itertools
import pickle
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_GET: Final = "get_ipython"  # IPython makes of such a line a call of a method of what this returns
_METHODS: Final = frozenset({"system", "getoutput", "run_line_magic", "run_cell_magic"})
_NEAR: Final = 4  # instructions from the name to the method's


class NotebookSyntaxError(pickle.PicklingError):
    """Code has a line that only IPython runs; the message says what to do."""


def refuse_notebook_syntax(function: FunctionType) -> None:
    """Raise where a function, or one made in it, has a line that only IPython runs.

    Raises:
        NotebookSyntaxError: it names the line.
    """
    found = _first_line(function.__code__)
    if found is not None:
        number, text = found
        raise NotebookSyntaxError(
            f"Line {number} of the cell, {text!r}, is IPython's, which a job does not have. Use subprocess.run(...) "
            "for a command, and for a magic the Python function behind it; or put the line into a cell of its own."
        )


@functools.lru_cache(maxsize=1024)
def _first_line(code: CodeType) -> tuple[int, str] | None:
    return next(_lines(code), None)


def _lines(code: CodeType) -> Iterator[tuple[int, str]]:
    """Yield each line as it was typed, with its number."""
    if _GET in code.co_names:
        steps = list(dis.get_instructions(code))
        for index, step in enumerate(steps):
            if step.argval == _GET and step.opname.startswith("LOAD_"):
                yield from _call_after(steps[index + 1 :], (step.positions and step.positions.lineno) or 0)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines(constant)


def _call_after(steps: list[dis.Instruction], number: int) -> Iterator[tuple[int, str]]:
    for index, step in enumerate(steps[:_NEAR]):
        if step.argval in _METHODS:
            constants = itertools.takewhile(lambda one: one.opname == "LOAD_CONST", steps[index + 1 :])
            yield number, _as_typed(step.argval, [str(one.argval) for one in constants])
            return


def _as_typed(method: str, arguments: list[str]) -> str:
    """Return the line that IPython made a call of.

    Example:
        >>> _as_typed("system", ["ls"]), _as_typed("run_line_magic", ["timeit", "f()"])
        ('!ls', '%timeit f()')
    """
    sign = {"run_line_magic": "%", "run_cell_magic": "%%"}.get(method, "!")
    return (sign + " ".join(arguments[: 2 if sign == "%" else 1])).strip()
