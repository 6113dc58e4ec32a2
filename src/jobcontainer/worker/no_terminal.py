"""A job has no terminal: what would stop at a prompt says so, and where the code can be run that needs one.

Its standard input is empty. ``input()`` raises an error by itself, which gets a note. A debugger or a console would end
at once, and the job would go on as if its user had looked, so they are refused.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final

from jobcontainer.pickling.job_main import with_causes
from jobcontainer.worker.reporting.import_hooks import Hooks

if TYPE_CHECKING:
    from collections.abc import Callable

_ADVICE: Final = 'the notebook\'s own process to {}: %%jobcontainer --engine inline, or JobPool(engine="inline").'
_REFUSED: Final = "{}(): a job has no terminal. Run it in " + _ADVICE.format("debug it")
_EMPTY: Final = (
    "A job's standard input is empty: give the process what it would ask for, or run it in "
    + _ADVICE.format("be asked there")
)
_STOPPED: Final = _REFUSED.format("A debugger").replace("()", "", 1)
_PROMPTS: Final = {"pdb": ("set_trace", "post_mortem", "pm"), "code": ("interact",)}

_breakpoint = sys.breakpointhook
_hooks = Hooks()


def refuse_prompts() -> None:
    """Refuse ``breakpoint()`` and its like in this process, which is a job's."""
    sys.breakpointhook = _refuse_breakpoint
    for name in _PROMPTS:
        _hooks.when_imported(name, _refuse_those_of)


def hint_for(error: BaseException) -> str | None:
    """Return what to do about an error that was raised because nobody answers at a prompt; None for any other."""
    for cause in with_causes(error):
        if type(cause) is EOFError and _is_of_a_prompt(cause):
            return _EMPTY
        if type(cause).__module__ == "bdb":
            return _STOPPED
    return None


def _is_of_a_prompt(error: EOFError) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return error.args == ("EOF when reading a line",) or (
        bool(frames) and frames[-1].f_globals.get("__name__") == "getpass"
    )


def _refuse_breakpoint(*arguments: Any, **named: Any) -> Any:
    """Refuse, but for a debugger that a variable names: that one is called."""
    if os.environ.get("PYTHONBREAKPOINT"):
        return _breakpoint(*arguments, **named)
    raise RuntimeError(_REFUSED.format("breakpoint"))


def _refuse_those_of(module: Any) -> None:
    for name in _PROMPTS[module.__name__]:
        setattr(module, name, _refusing(getattr(module, name), f"{module.__name__}.{name}"))


def _refusing(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def refuse(*_arguments: Any, **_named: Any) -> Any:
        raise RuntimeError(_REFUSED.format(name))

    return refuse
