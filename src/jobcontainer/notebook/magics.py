"""The magics: ``%%jobcontainer``, ``%jobcontainer`` and ``%jobs``.

One instance belongs to one shell. It owns the pools that it made (one per engine, on first use) and the cards of the
cells; :func:`unload` closes all of them and removes every hook from IPython.
"""

from __future__ import annotations

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
from jobcontainer.jobs.mapping import MapResults
from jobcontainer.jobs.option_flags import options_given
from jobcontainer.jobs.pool import JobPool, warm_up
from jobcontainer.jobs.store import JobStore
from jobcontainer.notebook import ipython_internals
from jobcontainer.notebook.arguments import (
    CELL_HELP,
    LINE_HELP,
    ArgumentsError,
    HelpRequested,
    jobs_parser,
    submit_parser,
)
from jobcontainer.notebook.cards import CardRegistry
from jobcontainer.notebook.cell import compile_cell, run_cell, run_without_loop, with_traceback
from jobcontainer.notebook.discovery import NothingToRunError, find_in_classes, find_in_value
from jobcontainer.notebook.jobs_magic import completions, manage, save, unsuccessful
from jobcontainer.notebook.settings import Settings
from jobcontainer.views.render import job_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from jobcontainer.notebook.card import CellCard, TerminalCard
    from jobcontainer.notebook.cell import CompiledCell
    from jobcontainer.notebook.discovery import FoundProcesses

_MAGICS = (("cell", "jobcontainer"), ("line", "jobcontainer"), ("line", "jobs"))
_LOADED = "_jobcontainer_magics"  # the attribute of the shell that holds what unload() removes


@magics_class
class JobContainerMagics(Settings, Magics):
    """The magics of one shell."""

    shell: Any

    def __init__(self, shell: Any) -> None:
        super().__init__(shell=shell)
        self._pools: dict[str, JobPool] = {}
        self.cards = CardRegistry(shell)
        self.undo_debugger = ipython_internals.stop_debugger_in_users_frame(shell)
        self.observe(lambda _: self._close_pools(), ["max_workers", "store", "preload", "options"])

    def warm_up_once(self, _result: Any = None) -> None:
        """Start the first worker when the cell that loaded the extension has ended, so that the first job need not.

        This imports joblib, in the main thread and after the cell: in a thread it would meet imports of user code.
        """
        self.stop_waiting_for_cell()
        warm_up()

    def stop_waiting_for_cell(self) -> None:
        """Leave the event that :meth:`warm_up_once` waits for, if it has not come."""
        if self.warm_up_once in self.shell.events.callbacks["post_run_cell"]:
            self.shell.events.unregister("post_run_cell", self.warm_up_once)

    @cell_magic("jobcontainer")
    def submit_cell(self, line: str, cell: str) -> Any:
        """Run a cell and submit its processes; below, the help text becomes the docstring."""
        with self._without_our_frames():
            flags = submit_parser("%%jobcontainer", CELL_HELP).parse_line(line)
            return self._submit_source(flags, cell, lines_above=1)

    @line_magic("jobcontainer")
    @no_var_expand
    def submit_line(self, line: str) -> Any:
        """Submit the processes of an expression; below, the help text becomes the docstring."""
        with self._without_our_frames():
            flags, expression = submit_parser("%jobcontainer", LINE_HELP).parse_before_expression(line)
            return self._submit_source(flags, expression)

    @line_magic("jobs")
    def manage_jobs(self, line: str) -> Any:
        """List and manage jobs; below, the help text becomes the docstring."""
        with self._without_our_frames():
            return manage(jobs_parser().parse_line(line), self._store())

    submit_cell.__doc__ = submit_parser("%%jobcontainer", CELL_HELP).format_help()
    submit_line.__doc__ = submit_parser("%jobcontainer", LINE_HELP).format_help()
    manage_jobs.__doc__ = jobs_parser().format_help()

    def add_await(self, lines: list[str]) -> list[str]:
        """Await the magic of a cell that awaits something itself; IPython calls this with the transformed lines."""
        return ipython_internals.await_cell_magic(self.shell, "jobcontainer", lines)

    @context_matcher()
    def complete(self, context: Any) -> dict[str, Any]:
        """Complete flags and job ids."""
        words = completions(context.line_with_cursor[: context.cursor_position], self._store)
        return {"completions": [SimpleCompletion(word) for word in words], "suppress": bool(words)}

    def close(self) -> None:
        """Close the pools and the cards; jobs run to their end."""
        self._close_pools()
        self.cards.close()
        self.undo_debugger()

    def _submit_source(self, flags: argparse.Namespace, source: str, lines_above: int = 0) -> Any:
        """Run a cell and submit its processes; return a coroutine for that where the cell awaits something."""
        try:
            compiled = compile_cell(self.shell, source, lines_above=lines_above)
        except SyntaxError as error:
            return ipython_internals.fail_cell(self.shell, error)
        running = self._run_and_submit(flags, compiled)
        return running if compiled.awaits else run_without_loop(running)

    async def _run_and_submit(self, flags: argparse.Namespace, compiled: CompiledCell) -> None:
        value = await run_cell(self.shell, compiled)
        with self._without_our_frames():
            if isinstance(value, MapResults):
                self._show_calls(flags, value)
                return
            found = find_in_value(value)
            if found is None and not compiled.silent:
                sys.displayhook(value)
            self._submit(flags, found or find_in_classes(compiled.classes, self.shell.user_ns))

    def _submit(self, flags: argparse.Namespace, found: FoundProcesses) -> None:
        if flags.save is not None:
            save(found, flags.save)
            return
        pool = self._pool(flags)
        try:
            jobs = pool.submit_all(found.named) if found.as_group else pool.submit(found.processes[0])
        except OSError as refused:  # no directory to work in, no store to write to
            raise with_traceback(refused, None) from None
        bind = partial(self._bind, flags.bind)
        bind(jobs)
        card = self.cards.open(jobs, pool.position, bind)
        if flags.wait or card.headless:
            _wait_until_shown(card, "The jobs go on; _job.cancel() ends them.")
            for error, traceback in unsuccessful(card.source.handle):
                raise with_traceback(error, traceback.splitlines() or None)

    def _show_calls(self, flags: argparse.Namespace, results: MapResults[Any]) -> None:
        """Show the calls of a map, which are made already; their errors are raised where the results are taken."""
        if flags.engine or flags.save is not None or options_given(flags):
            results.close()
            raise ArgumentsError(
                "The calls of map() have the options of their pool: give them there, "
                "JobPool(...).with_options(timeout=60).map(...). The magic takes --as and --wait."
            )
        self._bind(flags.bind, results)
        card = self.cards.open(results)
        if (flags.wait or card.headless) and results.takes_all:
            _wait_until_shown(card, "The calls go on; _job.close() cancels those that have not begun.")

    def _pool(self, flags: argparse.Namespace) -> JobPool:
        engine = flags.engine or self.engine
        try:
            if engine not in self._pools:
                self._pools[engine] = JobPool(engine=engine, **self.pool_arguments())
            return self._pools[engine].with_options(**options_given(flags, self._named))
        except (TypeError, ValueError, ImportError, ConnectionError) as error:  # an unknown engine, a wrong address
            raise ArgumentsError(str(error)) from error

    def _named(self, name: str) -> Any:
        """Return the job that ``--after`` names, by a variable or by its id."""
        if name in self.shell.user_ns:
            return self.shell.user_ns[name]
        try:
            return self._store().open(name)
        except KeyError:
            raise ValueError(f"--after {name}: there is no variable of that name, and no job of that id.") from None

    def _bind(self, name: str | None, jobs: Job[Any] | JobGroup[Any] | MapResults[Any]) -> None:
        self.shell.user_ns["_job"] = jobs
        if name:
            self.shell.user_ns[name] = jobs

    def _store(self) -> JobStore:
        return JobStore(self.store or None)

    def _close_pools(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False)
        self._pools.clear()

    @contextlib.contextmanager
    def _without_our_frames(self) -> Iterator[None]:
        """Show an error that the user can correct as its message, not as a traceback through this package."""
        try:
            yield
        except HelpRequested as help_text:
            sys.stdout.write(f"{help_text}\n")
        except (ArgumentsError, NothingToRunError) as error:
            raise UsageError(str(error)) from None
        except JobContainerError as error:
            raise with_traceback(error, None) from error.__cause__


def _wait_until_shown(card: CellCard | TerminalCard, if_interrupted: str) -> None:
    try:
        card.closed.wait()
    except KeyboardInterrupt as interrupt:
        raise with_traceback(interrupt, [f"Interrupted. {if_interrupted}"]) from None


def load(shell: Any) -> None:
    """Register the magics, their completion, and the cards of jobs; called by ``%load_ext jobcontainer``."""
    unload(shell)
    magics = JobContainerMagics(shell)
    setattr(shell, _LOADED, magics)
    shell.register_magics(magics)
    shell.input_transformers_post.append(magics.add_await)
    shell.Completer.custom_matchers.append(magics.complete)
    formatter = shell.display_formatter.ipython_display_formatter
    if not ipython_internals.in_kernel(shell):
        formatter.for_type(Job, lambda job: sys.stdout.write(f"{job_text(job)}\n"))
    else:
        formatter.for_type(Job, magics.cards.open)
        formatter.for_type(JobGroup, magics.cards.open)
        formatter.for_type(MapResults, magics.cards.open)
    if magics.engine == "loky":
        shell.events.register("post_run_cell", magics.warm_up_once)


def unload(shell: Any) -> None:
    """Remove everything that :func:`load` added; called by ``%unload_ext jobcontainer``. Jobs go on."""
    magics = shell.__dict__.pop(_LOADED, None)
    if magics is None:
        return
    magics.close()
    magics.stop_waiting_for_cell()
    ipython_internals.remove_magics(shell, magics, _MAGICS)
    shell.input_transformers_post.remove(magics.add_await)
    shell.Completer.custom_matchers.remove(magics.complete)
    formatter = shell.display_formatter.ipython_display_formatter
    for shown in (Job, JobGroup, MapResults):
        formatter.pop(shown, None)
