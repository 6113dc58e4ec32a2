r"""What a job printed, as a terminal would show it: colours, carriage returns, and nothing that could do harm.

A log is bytes that any code wrote. Here it becomes lines of plain segments: colour codes turn into class names, every
other escape sequence goes away, other control characters are shown, a line that was overwritten with ``\r`` shows what
stood there last, and a line that is too long is cut with a note. The result is text, which still has to be escaped for
HTML.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from jobcontainer.views.escaping import escaped

Segment: TypeAlias = tuple[str, str]
"""The class names of a piece of text, separated by blanks, and the text."""

Line: TypeAlias = tuple[Segment, ...]
"""One line of segments; empty for an empty line."""

LONGEST_LINE = 1000

_ESCAPE = re.compile(
    r"\x1b\[(?P<codes>[0-9;:]*)m"  # a colour
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # another control sequence: moving the cursor, erasing
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # an operating system command (a title, a link) up to its end
    r"|\x1b[ -/]*[0-~]?"  # any other escape
)
_ERASE_LINE = re.compile(r"^.*\x1b\[[12]?K", re.DOTALL)
_BACKSPACE = re.compile("[^\x08]\x08")
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_STYLES = {1: "bold", 2: "faint", 3: "italic", 4: "underline"}
_ENDS = {22: {"bold", "faint"}, 23: {"italic"}, 24: {"underline"}, 39: set(_COLOURS)}


def visible_lines(printed: list[str]) -> list[Line]:
    r"""Turn printed lines into what a terminal would show.

    Args:
        printed: lines without their ends, as :meth:`JobFolder.tail` gives them.

    Returns:
        As many lines of segments. Colours go on over line ends, as they do in a terminal.

    Example:
        >>> visible_lines(["\x1b[31mred\x1b[0m, plain", " 10%\r100%"])
        [(('red', 'red'), ('', ', plain')), (('', '100%'),)]
    """
    styles: set[str] = set()
    lines = []
    for line in printed:
        segments, styles = _segments(_overwritten(line), styles)
        lines.append(segments)
    return lines


def visible_text(printed: str) -> str:
    r"""Return a text that was printed, without escape sequences; see :func:`visible_lines`.

    Example:
        >>> visible_text("\x1b[1mbad\x1b[0m row")
        'bad row'
    """
    return "\n".join("".join(text for _, text in line) for line in visible_lines(printed.split("\n")))


def _overwritten(line: str) -> str:
    """Keep what a terminal shows of a line in the end, cut where it is too long."""
    line = line.rstrip("\r")
    line = _ERASE_LINE.sub("", line[line.rfind("\r") + 1 :])
    if len(line) > LONGEST_LINE:
        line = f"{line[:LONGEST_LINE]}\x1b[0m … ({len(line):,} characters)"
    while "\b" in line:
        line, count = _BACKSPACE.subn("", line)
        if not count:
            break
    return line


def _segments(line: str, styles: set[str]) -> tuple[Line, set[str]]:
    segments: list[Segment] = []
    position = 0
    for match in _ESCAPE.finditer(line):
        _append(segments, line[position : match.start()], styles)
        position = match.end()
        if match["codes"] is not None:
            styles = _restyled(styles, match["codes"])
    _append(segments, line[position:], styles)
    return tuple(segments), styles


def _append(segments: list[Segment], text: str, styles: set[str]) -> None:
    text = escaped(text.replace("\n", " "))
    style = " ".join(sorted(styles))
    if text and segments and segments[-1][0] == style:
        segments[-1] = (style, segments[-1][1] + text)
    elif text:
        segments.append((style, text))


def _restyled(styles: set[str], codes: str) -> set[str]:
    styles = set(styles)
    numbers = iter([int(code or 0) for code in re.split("[;:]", codes)])
    for number in numbers:
        if number == 0:
            styles.clear()
        elif number in {38, 48}:  # one of 256 colours, or of 16 million: shown plain
            for _ in range({5: 1, 2: 3}.get(next(numbers, 0), 0)):
                next(numbers, None)
        elif number in _STYLES:
            styles.add(_STYLES[number])
        elif 30 <= number <= 37 or 90 <= number <= 97:  # noqa: PLR2004 -- the eight colours, dim and bright
            styles = styles - _ENDS[39] | {_COLOURS[number % 10]}
        else:
            styles -= _ENDS.get(number, set())
    return styles
