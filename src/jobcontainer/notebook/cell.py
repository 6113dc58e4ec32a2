"""Runs a cell in the user's namespace, as IPython would, and returns the value of its last expression.

IPython's own ``run_cell`` shows that value and reports an error itself, and the outer cell then counts as successful.
Here the value is needed and an error must fail the outer cell, so the cell is compiled by IPython's compiler and run
step by step.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobcontainer.notebook.ipython_internals import compile_node, parse_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import CodeType


@dataclass(frozen=True, slots=True)
class CompiledCell:
    """A cell, ready to run.

    Attributes:
        steps: its statements; a last expression is the only one that has a value.
        classes: the names of the classes that it defines at its top level, in order.
        file: the file name of its code objects.
        silent: whether the value of the last expression is not shown: there is none, or a semicolon ends it.
    """

    steps: tuple[CodeType, ...]
    classes: tuple[str, ...]
    file: str
    silent: bool

    @property
    def awaits(self) -> bool:
        """Whether there is an ``await`` at its top level."""
        return any(code.co_flags & inspect.CO_COROUTINE for code in self.steps)


def compile_cell(shell: Any, source: str, *, lines_above: int = 0) -> CompiledCell:
    """Compile a cell.

    Args:
        shell: IPython's shell.
        source: the cell, which may contain magics.
        lines_above: how many lines the notebook shows above it, so that tracebacks number lines as the notebook does.

    Raises:
        SyntaxError: the cell is not valid Python.
    """
    tree, file = parse_cell(shell, "\n" * lines_above + shell.transform_cell(source), source)
    last = tree.body[-1] if tree.body else None
    every = shell.ast_node_interactivity == "all"

    def compile_step(node: ast.stmt) -> CodeType:
        if node is last and isinstance(node, ast.Expr):
            return compile_node(shell, ast.Expression(node.value), file, "eval")
        if every:
            return compile_node(shell, ast.Interactive([node]), file, "single")
        return compile_node(shell, ast.Module([node], []), file, "exec")

    return CompiledCell(
        steps=tuple(map(compile_step, tree.body)),
        classes=tuple(_classes(tree)),
        file=file,
        silent=not isinstance(last, ast.Expr) or shell.displayhook.semicolon_at_end_of_expression(source),
    )


async def run_cell(shell: Any, cell: CompiledCell) -> Any:
    """Run a cell and return the value of its last expression.

    Raises:
        BaseException: what the cell raised; IPython will show only the user's frames of its traceback.
    """
    try:
        value = None
        for code in cell.steps:
            value = eval(code, shell.user_global_ns, shell.user_ns)  # noqa: S307 -- it is the user's own cell
            if code.co_flags & inspect.CO_COROUTINE:
                value = await value
    except BaseException as error:
        _hide_our_frames(shell, error, cell.file)
        raise
    return value


def run_without_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that never waits; no event loop is needed for it."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("The cell awaits something where there is no event loop: do that in a cell without the magic.")


def with_traceback(error: BaseException, lines: list[str] | None) -> BaseException:
    """Have IPython show an error that is about to be raised as these lines, or as its message alone.

    Returns:
        The error.
    """
    message = f"{type(error).__name__}: {error}".removesuffix(": ")
    _set_traceback(error, lambda: lines if lines is not None else message.splitlines())
    return error


def _set_traceback(error: BaseException, lines: Callable[[], list[str]]) -> None:
    with contextlib.suppress(AttributeError, TypeError):  # an exception with slots keeps IPython's own traceback
        error._render_traceback_ = lines  # type: ignore[attr-defined]  # IPython documents this method


def _hide_our_frames(shell: Any, error: BaseException, file: str) -> None:
    """Have IPython show an error's traceback from its first frame in a file on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    if frames is not None:
        tb = shell.InteractiveTB
        _set_traceback(error, lambda: tb.structured_traceback(type(error), error, frames, tb_offset=0))


def _classes(tree: ast.AST) -> list[str]:
    """Return the names of the classes that are defined outside of functions and other classes."""
    names = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            names += _classes(node)
    return names
