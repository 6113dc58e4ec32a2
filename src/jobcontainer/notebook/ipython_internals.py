"""What is used of IPython and ipykernel beyond their documented interfaces; no other module uses such a name.

Each function says what it relies on and what happens where a version of IPython or ipykernel lacks it. The tests run
each of them against the installed versions.
"""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType, TracebackType

_PACKAGE = str(Path(__file__).parents[1])
_STANDARD_LIBRARY, _PACKAGES = sysconfig.get_path("stdlib"), "site-packages"
_RUN_CELL_MAGIC = "get_ipython().run_cell_magic("


class CellRequest:
    """The request that executes the current cell; it can be answered at any later time, from any thread.

    ``print`` and ``display`` add to the cell that runs at the moment of the call. A kernel's messages name the request
    that they answer, so messages that are sent with the remembered one appear under its cell even when that has ended.

    Relies on ``session``, ``pub_socket`` and ``topic`` of the shell's display publisher and on ``shell.get_parent``,
    which are undocumented. :func:`in_kernel` returns False where they are missing; there is no card then, but text.

    Attributes:
        cell_id: the id of the cell; empty where the front end sends none.
        request_id: the id of the request, different for each run of the cell.
        headless: whether a program executes the notebook (nbclient, nbconvert, papermill), which can't answer input().
    """

    def __init__(self, shell: Any) -> None:
        publisher = shell.display_pub
        self._session, self._socket, self._topic = publisher.session, publisher.pub_socket, publisher.topic
        self._parent = shell.get_parent()
        self.cell_id: str = (self._parent.get("metadata") or {}).get("cellId", "")
        self.request_id: str = (self._parent.get("header") or {}).get("msg_id", "")
        self.headless = not (self._parent.get("content") or {}).get("allow_stdin", True)

    def answer(self, message_type: str, content: dict[str, Any]) -> None:
        """Send a message; the kernel's socket passes it on to the kernel's own thread."""
        self._session.send(self._socket, message_type, content, parent=self._parent, ident=self._topic)


def in_kernel(shell: Any) -> bool:
    """Return whether a :class:`CellRequest` can be made: the shell belongs to a Jupyter kernel."""
    publisher = shell.display_pub
    return hasattr(shell, "get_parent") and all(hasattr(publisher, name) for name in ("session", "pub_socket", "topic"))


def parse_cell(shell: Any, text: str, raw: str) -> tuple[ast.Module, str]:
    """Parse a cell, and keep its lines for tracebacks.

    Relies on methods of ``shell.compile`` and, for the number that tracebacks show, on ``displayhook.exec_result``, the
    result of the cell that runs: depending on IPython's version, ``shell.execution_count`` is this cell's number or the
    next one's. Without a result, that count is taken.

    Returns:
        The syntax tree, and the file name under which the lines are kept.

    Raises:
        SyntaxError: the cell is not valid Python.
    """
    running = getattr(shell.displayhook, "exec_result", None)
    number = getattr(running, "execution_count", None) or shell.execution_count
    file: str = shell.compile.cache(text, number, raw_code=raw)
    tree: ast.Module = shell.transform_ast(shell.compile.ast_parse(text, filename=file))
    return tree, file


def compile_node(shell: Any, node: ast.AST, file: str, mode: str) -> CodeType:
    """Compile a part of a cell with the shell's flags: its ``from __future__`` imports, and top-level ``await``."""
    with shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if shell.autoawait else 0):
        code: CodeType = shell.compile(node, file, mode)
    return code


def fail_cell(shell: Any, error: SyntaxError) -> None:
    """Show a syntax error as IPython shows that of an ordinary cell, and let the cell that runs fail with it.

    Call this while the error is being handled. Relies on ``displayhook.exec_result``: IPython shows a syntax error that
    is raised by a magic with the frames of the magic. Without it, the error is raised.
    """
    running = getattr(shell.displayhook, "exec_result", None)
    if running is None:
        raise error
    shell.showsyntaxerror()
    running.error_before_exec = error


def await_cell_magic(shell: Any, name: str, lines: list[str]) -> list[str]:
    """Put ``await`` before the call of a cell magic whose cell awaits something at its top level.

    IPython decides before it runs a cell whether the cell needs the event loop, and sees only the call of the magic.
    Relies on the text of that call, ``get_ipython().run_cell_magic(name, line, cell)``, which converted notebooks hold
    too. Where it differs, such a cell runs without an event loop and an error says to await in a cell of its own.
    """
    if lines and lines[0].startswith(f"{_RUN_CELL_MAGIC}{name!r},") and shell.autoawait:
        call: Any = ast.parse("".join(lines)).body[0]
        source = call.value.args[2].value
        if shell.should_run_async(source, transformed_cell=shell.transform_cell(source)):
            return [f"await {lines[0]}", *lines[1:]]
    return lines


def receive_while_busy(widget: Any) -> None:
    """Let the page's messages to a widget be handled while a cell runs.

    From 7.4 on, ipykernel handles a widget's messages in the thread that published last, which is the busy main thread
    for a panel. Relies on ``_reply_subshell_for`` of the widget's comm. Without it, messages wait as that version
    of ipykernel has them wait.
    """
    if hasattr(widget.comm, "_reply_subshell_for"):
        widget.comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001 -- the reason is above


def stop_debugger_in_users_frame(shell: Any) -> Callable[[], None]:
    """Have ``%pdb on`` and ``%debug`` stop where the user's code called this package, not inside of it.

    Relies on ``shell.InteractiveTB.debugger``, which enters the last frame of the exception that was shown. Without it,
    nothing is changed.

    Returns:
        What undoes it.
    """
    formatter = shell.InteractiveTB
    enter = getattr(formatter, "debugger", None)
    if enter is None:
        return lambda: None

    def debugger(force: bool = False) -> None:  # noqa: FBT001, FBT002 -- as IPython has it
        error = getattr(sys, "last_value", None)
        _cut_frames(error and error.__traceback__)
        enter(force)

    formatter.debugger = debugger
    return lambda: vars(formatter).pop("debugger", None)


def _cut_frames(frames: TracebackType | None) -> None:
    """Let a traceback end with the last frame of user code, if this package was called from there."""
    last, calls_us = None, False
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            calls_us = True
        elif _is_users(file):
            last, calls_us = frames, False
        frames = frames.tb_next
    if last is not None and calls_us:
        last.tb_next = None


def _is_users(file: str) -> bool:
    library = file.startswith(_STANDARD_LIBRARY) and _PACKAGES not in file
    return not library and f"{os.sep}IPython{os.sep}" not in file


def remove_magics(shell: Any, magics: Any, names: Iterable[tuple[str, str]]) -> None:
    """Undo ``shell.register_magics``, for which IPython has no counterpart.

    Relies on the registries of the magics manager and on ``shell.configurables``. What is missing there is left alone.
    """
    manager = shell.magics_manager
    for kind, name in names:
        manager.magics.get(kind, {}).pop(name, None)
    manager.registry.pop(type(magics).__name__, None)
    if magics in shell.configurables:
        shell.configurables.remove(magics)
