"""The magics: ``%%jobcontainer``, ``%jobcontainer`` and ``%jobs``; a thin door to everything else.

One instance lives in one shell. It owns the pools that it made (one per engine, on first use) and the board with the
cells' cards; :func:`unload` gives up all of them, and takes every hook out of IPython again.
"""

from __future__ import annotations

import ast
import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, context_matcher
from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from jobcontainer.errors import JobContainerError
from jobcontainer.jobs.group import JobGroup
from jobcontainer.jobs.job import Job
from jobcontainer.jobs.option_flags import options_given
from jobcontainer.jobs.pool import JobPool
from jobcontainer.jobs.store import JobStore
from jobcontainer.notebook.arguments import CELL_HELP, LINE_HELP, HelpAsked, LineError, jobs_parser, submit_parser
from jobcontainer.notebook.card_registry import Board
from jobcontainer.notebook.cell import compile_cell, finished, run_cell, show_error
from jobcontainer.notebook.discovery import NothingToRunError, in_classes, in_value
from jobcontainer.notebook.jobs_magic import completions, manage, save, unsuccessful
from jobcontainer.notebook.place import in_kernel
from jobcontainer.notebook.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from jobcontainer.notebook.card import CellCard, TerminalCard
    from jobcontainer.notebook.cell import CompiledCell
    from jobcontainer.notebook.discovery import Found

_RUN_CELL = "get_ipython().run_cell_magic('jobcontainer',"
_LOADED = "_jobcontainer_magics"  # the shell's attribute that holds what unload() takes away


@magics_class
class JobContainerMagics(Settings, Magics):
    """The magics of one shell."""

    shell: Any

    def __init__(self, shell: Any) -> None:
        """Begin without pools; they come with the first job."""
        super().__init__(shell=shell)
        self._pools: dict[str, JobPool] = {}
        self._board = Board(shell)
        self.observe(lambda _: self._close_pools(), ["max_workers", "store", "preload", "options"])

    @cell_magic("jobcontainer")
    def submit_cell(self, line: str, cell: str) -> Any:  # noqa: D102 -- the help text is its docstring
        with self._in_a_sentence():
            flags = submit_parser("%%jobcontainer", CELL_HELP).parse_line(line)
            return self._submit(flags, cell, lines_above=1)

    @line_magic("jobcontainer")
    @no_var_expand
    def submit_line(self, line: str) -> Any:  # noqa: D102 -- the help text is its docstring
        with self._in_a_sentence():
            flags, expression = submit_parser("%jobcontainer", LINE_HELP).parse_before_expression(line)
            return self._submit(flags, expression)

    @line_magic("jobs")
    def manage_jobs(self, line: str) -> Any:  # noqa: D102 -- the help text is its docstring
        with self._in_a_sentence():
            return manage(jobs_parser().parse_line(line), self._store())

    submit_cell.__doc__ = submit_parser("%%jobcontainer", CELL_HELP).format_help()
    submit_line.__doc__ = submit_parser("%jobcontainer", LINE_HELP).format_help()
    manage_jobs.__doc__ = jobs_parser().format_help()

    def show(self, jobs: Job[Any] | JobGroup[Any]) -> None:
        """Show jobs as a live card under the cell that runs."""
        self._board.open(jobs, lambda _: None, lambda _: None)

    def awaited(self, lines: list[str]) -> list[str]:
        """Put an ``await`` before the magic of a cell that awaits something itself.

        IPython decides before it runs a cell whether it needs the event loop, and sees only the call of the magic.

        Args:
            lines: a cell as IPython has transformed it.
        """
        if lines and lines[0].startswith(_RUN_CELL) and self.shell.autoawait:
            call: Any = ast.parse("".join(lines)).body[0]
            source = call.value.args[2].value
            if self.shell.should_run_async(source, transformed_cell=self.shell.transform_cell(source)):
                return [f"await {lines[0]}", *lines[1:]]
        return lines

    @context_matcher()
    def complete(self, context: Any) -> dict[str, Any]:
        """Complete flags and job ids."""
        words = completions(context.line_with_cursor[: context.cursor_position], self._store())
        return {"completions": [SimpleCompletion(word) for word in words], "suppress": bool(words)}

    def close(self) -> None:
        """Give up the pools and the cards; jobs go on to their end."""
        self._close_pools()
        self._board.close()

    def _submit(self, flags: argparse.Namespace, source: str, lines_above: int = 0) -> Any:
        """Run a cell and send off its processes; return a coroutine for that where the cell awaits something."""
        try:
            compiled = compile_cell(self.shell, source, lines_above=lines_above)
        except SyntaxError as error:
            return self._show_syntax_error(error)
        running = self._run(flags, compiled)
        return running if compiled.awaits else finished(running)

    async def _run(self, flags: argparse.Namespace, compiled: CompiledCell) -> None:
        value = await run_cell(self.shell, compiled)
        with self._in_a_sentence():
            found = in_value(value)
            if found is None and not compiled.silent:
                sys.displayhook(value)
            self._send_off(flags, found or in_classes(compiled.classes, self.shell.user_ns))

    def _send_off(self, flags: argparse.Namespace, found: Found) -> None:
        if flags.save is not None:
            save(found, flags.save)
            return
        pool = self._pool(flags)
        jobs = pool.submit_all(found.processes) if found.several else pool.submit(found.processes[0])
        bind = partial(self._bind, flags.bind)
        bind(jobs)
        card = self._board.open(jobs, pool.position, bind)
        if flags.wait or self._board.headless:
            self._wait(card)

    def _wait(self, card: CellCard | TerminalCard) -> None:
        """Wait until everything of a card is shown, and raise what the first unsuccessful job raised."""
        try:
            card.closed.wait()
        except KeyboardInterrupt as interrupt:
            raise show_error(interrupt, ["Interrupted. The jobs go on; _job.cancel() ends them."]) from None
        for error, traceback in unsuccessful(card.work.handle):
            raise show_error(error, traceback.splitlines() or None)

    def _pool(self, flags: argparse.Namespace) -> JobPool:
        engine = flags.engine or self.engine
        try:
            if engine not in self._pools:
                self._pools[engine] = JobPool(engine=engine, **self.pool_arguments())
            return self._pools[engine].with_options(**options_given(flags))
        except (TypeError, ValueError, ImportError, ConnectionError) as error:  # no such engine, nobody at its address
            raise LineError(str(error)) from error

    def _bind(self, name: str | None, jobs: Job[Any] | JobGroup[Any]) -> None:
        self.shell.user_ns["_job"] = jobs
        if name:
            self.shell.user_ns[name] = jobs

    def _store(self) -> JobStore:
        return JobStore(self.store or None)

    def _close_pools(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False)
        self._pools.clear()

    def _show_syntax_error(self, error: SyntaxError) -> None:
        """Show a cell's syntax error as IPython shows one, without the frames that led to it, and fail the cell."""
        running = self.shell.displayhook.exec_result
        if running is None:  # called by a program, which wants the exception
            raise error
        self.shell.showsyntaxerror()
        running.error_before_exec = error

    @contextlib.contextmanager
    def _in_a_sentence(self) -> Iterator[None]:
        """Show what the user has to know as a sentence, not as a traceback through this package."""
        try:
            yield
        except HelpAsked as help_text:
            sys.stdout.write(f"{help_text}\n")
        except (LineError, NothingToRunError) as error:
            raise UsageError(str(error)) from None
        except JobContainerError as error:
            raise show_error(error, None) from error.__cause__


def load(shell: Any) -> None:
    """Register the magics, their completion, and the cards of jobs; called by ``%load_ext jobcontainer``."""
    unload(shell)
    magics = JobContainerMagics(shell)
    setattr(shell, _LOADED, magics)
    shell.register_magics(magics)
    shell.input_transformers_post.append(magics.awaited)
    shell.Completer.custom_matchers.append(magics.complete)
    if in_kernel(shell):
        formatter = shell.display_formatter.ipython_display_formatter
        formatter.for_type(Job, magics.show)
        formatter.for_type(JobGroup, magics.show)


def unload(shell: Any) -> None:
    """Take everything out again that :func:`load` put in; called by ``%unload_ext jobcontainer``. Jobs go on."""
    magics = shell.__dict__.pop(_LOADED, None)
    if magics is None:
        return
    magics.close()
    for kind, name in (("cell", "jobcontainer"), ("line", "jobcontainer"), ("line", "jobs")):
        shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(type(magics).__name__, None)
    shell.configurables.remove(magics)
    shell.input_transformers_post.remove(magics.awaited)
    shell.Completer.custom_matchers.remove(magics.complete)
    formatter = shell.display_formatter.ipython_display_formatter
    for shown in (Job, JobGroup):
        formatter.pop(shown, None)
