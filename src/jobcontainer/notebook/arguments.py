"""The arguments of the magics: flags, and for ``%jobcontainer`` an expression that is kept as it was typed."""

from __future__ import annotations

import argparse
import keyword
import re
import shlex
from typing import NoReturn

from jobcontainer.jobs.option_flags import add_option_flags, add_prune_flags

CELL_HELP = """\
Run a process of this cell outside the notebook, in an operating system process
of its own.

The cell runs in the notebook as usual. Then its processes are submitted: the
value of its last expression, if that is an object with run(), or a list or
dict of such objects; else one instance of every class with run() that the cell
defines. The cell returns at once; state, progress, log, plots and result
appear under it. Where the last expression is pool.map(...), its calls have one
card, and _job has their results.

    %%jobcontainer
    class Train:
        def run(self):
            return 42

    %%jobcontainer --timeout 600 --memory 2GB --as sweep
    [Train(rate) for rate in (0.1, 0.2, 0.3)]

    %%jobcontainer --as report --key report-v1
    Report(sweep)

    %%jobcontainer --as losses
    pool.map(simulate, range(10_000))

A job or a group inside of a process is an input: the process waits for it, and
has its result there. With --key a cell that is run again, in any kernel, shows
the job that is there, until --rerun.

Afterwards the job is _job, and also the name given with --as: _job.result(),
_job.log, _job.cancel().
"""

LINE_HELP = """\
Run the process that an expression returns outside the notebook; %%jobcontainer does the same for a cell.

    %jobcontainer Train(0.1)
    %jobcontainer --retries 2 --as sweep [Train(rate) for rate in (0.1, 0.2)]
"""

JOBS_HELP = """\
List and manage jobs.

    %jobs                     all jobs of the store, oldest first
    %jobs show ID             one job's card
    %jobs log ID              its whole log
    %jobs cancel ID           end it
    %jobs rerun ID            run it again, as a new job, and first what failed above it
    %jobs resume ID           the same, from its checkpoint
    %jobs resume              every lost job that was not run again yet, from its checkpoint
    %jobs prune --older-than DAYS | --keep N | --all
                              delete the folders of ended jobs

The beginning of an ID is enough where only one job's id begins so.
"""

JOB_ACTIONS = ("show", "log", "cancel", "rerun", "resume")
"""What ``%jobs`` does with one job."""

_WORD = re.compile(r"""\s*(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+(?=\s|$)""")  # as shlex splits words


class ArgumentsError(ValueError):
    """Arguments that can't be understood; the message ends with the usage."""


class HelpRequested(Exception):  # noqa: N818 -- no error: its text is what the user asked for
    """``--help`` was given."""


class ArgumentParser(argparse.ArgumentParser):
    """A parser that raises where argparse would end the process."""

    def __init__(self, name: str, description: str = "") -> None:
        super().__init__(
            prog=name,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.color = False  # Python 3.14 colours help in a terminal; this text becomes docstrings too
        self.add_argument("--help", "-h", action="store_true", help="show this help")

    def error(self, message: str) -> NoReturn:
        """Raise an :class:`ArgumentsError` with the usage."""
        raise ArgumentsError(f"{message}\n{self.format_usage().rstrip()}")

    def parse_line(self, line: str) -> argparse.Namespace:
        """Parse a line of flags.

        Raises:
            ArgumentsError: it can't be understood.
            HelpRequested: it asks for help.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            self.error(f"{error}: {line.strip()}")
        given = self.parse_args(words)
        if given.help:
            raise HelpRequested(self.format_help())
        return given

    def parse_before_expression(self, line: str) -> tuple[argparse.Namespace, str]:
        """Parse the flags that a line begins with.

        Returns:
            The flags, and the rest of the line as it was typed.

        Example:
            >>> flags, rest = submit_parser("%jobcontainer").parse_before_expression("--as s Train('a b', {1: 2})")
            >>> flags.bind, rest
            ('s', "Train('a b', {1: 2})")
        """
        end = 0
        while line[end:].lstrip().startswith("-"):
            end = self._next_word(line, end)
            if not self._is_complete(line[:end]) and line[end:].strip():
                end = self._next_word(line, end)  # the value of the flag
        return self.parse_line(line[:end]), line[end:].strip()

    def flags(self) -> list[str]:
        """Return every flag, for completion."""
        return sorted(set(re.findall(r"--[a-z][a-z-]*", self.format_usage())))

    def _is_complete(self, line: str) -> bool:
        try:
            self.parse_line(line)
        except ArgumentsError:
            return False
        return True

    def _next_word(self, line: str, start: int) -> int:
        """Return where the word ends that follows a position."""
        word = _WORD.match(line, start)
        if word is None:
            self.error(f"a quote is not closed: {line[start:].strip()}")
        return word.end()


def submit_parser(name: str, description: str = "") -> ArgumentParser:
    """Make the parser of ``%%jobcontainer`` and ``%jobcontainer``."""
    parser = ArgumentParser(name, description)
    parser.add_argument(
        "--as", dest="bind", type=_identifier, metavar="NAME", help="bind the job, or the group of jobs, to this name"
    )
    parser.add_argument("--wait", action="store_true", help="return when it has ended; raise what it raised")
    parser.add_argument("--engine", metavar="ENGINE", help="where it runs; what JobPool(engine=...) takes as a string")
    parser.add_argument("--save", metavar="FILE", help="write the process into a file and run nothing")
    add_option_flags(parser, "by the name of the variable that has it")
    return parser


def jobs_parser() -> ArgumentParser:
    """Make the parser of ``%jobs``."""
    parser = ArgumentParser("%jobs", JOBS_HELP)
    parser.add_argument("action", nargs="?", default="list", choices=(*JOB_ACTIONS, "list", "prune"))
    parser.add_argument("id", nargs="?", help="a job's id, or the beginning of it")
    add_prune_flags(parser)
    return parser


def _identifier(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"{text!r} can't be the name of a variable")
    return text
