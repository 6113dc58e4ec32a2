"""Runs a cell in the user's namespace, as IPython would, and hands over what its last expression gave.

IPython's own ``run_cell`` shows the value of the last expression and reports an error itself, to an outer cell that
then counts as successful. Here the value is wanted and an error must fail the cell, so the cell is compiled with
IPython's own means (its transformations, its line cache, its flags) and run step by step.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import CodeType, TracebackType

_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True, slots=True)
class CompiledCell:
    """A cell, ready to run.

    Attributes:
        steps: its statements, but the last where that is an expression.
        last: the last expression; None where it ends otherwise.
        classes: the names of the classes that it defines at its top level, in order.
        file: the name under which its lines are in the line cache.
        silent: whether the value of the last expression is not to be shown: there is none, or a semicolon ends it.
    """

    steps: tuple[CodeType, ...]
    last: CodeType | None
    classes: tuple[str, ...]
    file: str
    silent: bool

    @property
    def awaits(self) -> bool:
        """Whether there is an ``await`` at its top level."""
        return any(code.co_flags & inspect.CO_COROUTINE for code in (*self.steps, self.last) if code is not None)


def compile_cell(shell: Any, source: str, *, lines_above: int = 0) -> CompiledCell:
    """Compile a cell.

    Args:
        shell: IPython's shell.
        source: the cell, magics and all.
        lines_above: how many lines stand above it in what the user sees, so that tracebacks count as the user does.

    Raises:
        SyntaxError: it does not parse.
    """
    text = "\n" * lines_above + shell.transform_cell(source)
    running = shell.displayhook.exec_result  # of the cell that this magic stands in, whose number is the one to show
    number = running.execution_count if running is not None else shell.execution_count
    file = shell.compile.cache(text, number or shell.execution_count, raw_code=source)
    tree = shell.transform_ast(shell.compile.ast_parse(text, filename=file))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    every = shell.ast_node_interactivity == "all"

    def code(node: ast.AST, mode: str) -> CodeType:
        with shell.compile.extra_flags(_AWAIT if shell.autoawait else 0):
            compiled: CodeType = shell.compile(node, file, mode)
        return compiled

    return CompiledCell(
        steps=tuple(
            code(ast.Interactive([node]), "single") if every else code(ast.Module([node], []), "exec")
            for node in tree.body
        ),
        last=code(ast.Expression(last.value), "eval") if last is not None else None,
        classes=tuple(_classes(tree)),
        file=file,
        silent=last is None or shell.displayhook.semicolon_at_end_of_expression(source),
    )


async def run_cell(shell: Any, cell: CompiledCell) -> Any:
    """Run a cell and return the value of its last expression.

    Raises:
        BaseException: what the cell raised; IPython will show the user's frames of its traceback only.
    """
    try:
        value = None
        for code in (*cell.steps, cell.last):
            if code is not None:
                value = eval(code, shell.user_global_ns, shell.user_ns)  # noqa: S307 -- running the cell is the task
                if code.co_flags & inspect.CO_COROUTINE:
                    value = await value
    except BaseException as error:
        _show_frames(shell, error, _inside(error.__traceback__, cell.file))
        raise
    return value if cell.last is not None else None


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits, without an event loop; its own is running already."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("The cell waits where it can't: run it with await, in a cell of its own.")


def show_error(error: BaseException, lines: list[str] | None) -> BaseException:
    """Have IPython show an error as these lines, or as its message alone, in place of a traceback.

    Args:
        error: the error, which is about to be raised.
        lines: what to show; None for type and message.

    Returns:
        The error.
    """
    message = f"{type(error).__name__}: {error}".removesuffix(": ")
    _render(error, lambda: lines if lines is not None else message.splitlines())
    return error


def _show_frames(shell: Any, error: BaseException, frames: TracebackType | None) -> None:
    """Have IPython show only these frames of an error's traceback."""
    if frames is not None:
        tb = shell.InteractiveTB
        _render(error, lambda: tb.structured_traceback(type(error), error, frames, tb_offset=0))


def _render(error: BaseException, lines: Callable[[], list[str]]) -> None:
    with contextlib.suppress(AttributeError, TypeError):  # an exception with slots keeps IPython's own traceback
        error._render_traceback_ = lines  # type: ignore[attr-defined]  # IPython's protocol


def _inside(frames: TracebackType | None, file: str) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    return frames


def _classes(tree: ast.AST) -> list[str]:
    """Name the classes defined outside of functions and other classes."""
    names = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            names += _classes(node)
    return names
