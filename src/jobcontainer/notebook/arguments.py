"""The line of the magics: flags, then for ``%jobcontainer`` an expression that is left as it was typed."""

from __future__ import annotations

import argparse
import keyword
import shlex
from typing import NoReturn

from jobcontainer.jobs.option_flags import add_option_flags

CELL_HELP = """\
Run a process of this cell outside the notebook, in a process of its own.

The cell is run in the notebook as usual. Then what it wants to run is sent off: its last expression, if that is an
object with run() or a list of such; else one instance of every class with run() that the cell defines. The cell returns
at once; state, progress, log, plots and result appear under it.

    %%jobcontainer
    class Train:
        def run(self):
            return 42

    %%jobcontainer --timeout 600 --memory 2GB --as sweep
    [Train(rate) for rate in (0.1, 0.2, 0.3)]

The job is _job afterwards, or the name given with --as: _job.result(), _job.log, _job.cancel().
"""

LINE_HELP = """\
Run the process that an expression gives outside the notebook; %%jobcontainer does the same for a cell.

    %jobcontainer Train(0.1)
    %jobcontainer --retries 2 --as sweep [Train(rate) for rate in (0.1, 0.2)]
"""

JOBS_HELP = """\
List and manage jobs.

    %jobs                     all jobs of the store, oldest first
    %jobs show ID             one job's card
    %jobs log ID              all that it printed
    %jobs cancel ID           end it
    %jobs rerun ID            run it again, as a new job
    %jobs prune --older-than DAYS | --keep N | --all
                              delete the folders of ended jobs

An ID may be shortened as long as only one job begins so.
"""


class LineError(ValueError):
    """A line that can't be understood; the message ends with the usage."""


class HelpAsked(Exception):  # noqa: N818 -- no error: it carries the help text
    """``--help`` was given."""


class LineParser(argparse.ArgumentParser):
    """A parser that raises where argparse would end the process.

    Args:
        name: the magic, with its percent signs.
        description: what it does.
    """

    def __init__(self, name: str, description: str = "") -> None:
        """Make a parser without flags; ``-h`` and ``--help`` are there."""
        super().__init__(
            prog=name,
            description=description.replace("%", "%%"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise a :class:`LineError` that says how it is used."""
        raise LineError(f"{message}\n{self.format_usage().rstrip()}")

    def print_help(self, file: object = None) -> NoReturn:  # noqa: ARG002 -- argparse's signature
        """Raise the help text, for the caller to show."""
        raise HelpAsked(self.format_help())

    def parse_line(self, line: str) -> argparse.Namespace:
        """Parse a line of flags.

        Raises:
            LineError: it can't be understood.
            HelpAsked: it asks for help.
        """
        return self.parse_args(_words(line, self))

    def parse_before_expression(self, line: str) -> tuple[argparse.Namespace, str]:
        """Parse the flags that a line begins with.

        Returns:
            The flags, and the rest of the line as it was typed.

        Example:
            >>> flags, rest = submit_parser("%jobcontainer", "").parse_before_expression("--as s Train('a b', {1: 2})")
            >>> flags.bind, rest
            ('s', "Train('a b', {1: 2})")
        """
        position = 0
        while line[position:].lstrip().startswith("-"):
            flag, position = self._next_word(line, position)
            action = self._option_string_actions.get(flag)
            if action is not None and action.nargs != 0:
                _, position = self._next_word(line, position)
        return self.parse_line(line[:position]), line[position:].strip()

    def flags(self) -> list[str]:
        """Return every flag, for completion."""
        return sorted(flag for flag in self._option_string_actions if flag.startswith("--"))

    def _next_word(self, line: str, position: int) -> tuple[str, int]:
        """Return the word that begins behind a position, and the position behind it."""
        position += len(line[position:]) - len(line[position:].lstrip())
        end = position
        while end < len(line) or end == position:
            end = next((place for place in range(end + 1, len(line)) if line[place].isspace()), len(line))
            try:
                words = shlex.split(line[position:end])
            except ValueError:  # inside of quotes
                if end == len(line):
                    self.error(f"a quote is not closed: {line[position:]}")
                continue
            return (words[0] if words else ""), end
        return "", end


def submit_parser(name: str, description: str) -> LineParser:
    """Make the parser of ``%%jobcontainer`` and ``%jobcontainer``."""
    parser = LineParser(name, description)
    parser.add_argument(
        "--as", dest="bind", type=_identifier, metavar="NAME", help="bind the job, or the group of jobs, to this name"
    )
    parser.add_argument("--wait", action="store_true", help="return when it has ended; raise what it raised")
    parser.add_argument("--engine", metavar="ENGINE", help="where it runs; what JobPool(engine=...) takes as a text")
    parser.add_argument("--save", metavar="FILE", help="write the process into a file and run nothing")
    add_option_flags(parser)
    return parser


def jobs_parser() -> LineParser:
    """Make the parser of ``%jobs``."""
    parser = LineParser("%jobs", JOBS_HELP)
    parser.add_argument("action", nargs="?", default="list", choices=(*JOB_ACTIONS, "list", "prune"))
    parser.add_argument("id", nargs="?", help="a job's id, or the beginning of it")
    parser.add_argument("--older-than", type=float, metavar="DAYS", help="with prune: what was submitted before that")
    parser.add_argument("--keep", type=int, metavar="N", help="with prune: keep the newest N in any case")
    parser.add_argument("--all", action="store_true", help="with prune: every job that has ended")
    return parser


JOB_ACTIONS = ("show", "log", "cancel", "rerun")
"""What ``%jobs`` does with one job."""


def _identifier(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name that a variable can have")
    return text


def _words(line: str, parser: LineParser) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        parser.error(f"{error}: {line.strip()}")
