r"""Text from a job, a file or a folder as it may be shown: nothing in it acts on a terminal or a page.

A name, a message, a path or the header of a file may hold anything: escape sequences that move a terminal's cursor,
carriage returns that overwrite what stands before them, marks that turn the direction of a text so that it reads as
another, halves of characters that no output can encode. Each of these is shown as Python writes it in a string, for
example ``\x1b`` or ``\u202e``, and a text that is too long is cut with a note. HTML is escaped later, where it is made.
"""

from __future__ import annotations

import math
import re
from typing import Final

from jobcontainer.storage.plain_values import encodable_text

LONGEST_NAME: Final = 120

_HARMFUL: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, of which the tab and the end of a line are left
    "\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, or turn a text
    "\u2028\u2029"  # ends of lines and paragraphs to some readers
    "\ud800-\udfff\ufffe\uffff"  # halves of characters, and what is none
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # invisible
)
# The joiners U+200C and U+200D are left, since emoji and several scripts need them.
_IN_TEXT: Final = re.compile(f"[{_HARMFUL}]")
_IN_LINE: Final = re.compile(f"[\t\n{_HARMFUL}]")


def escaped(text: str) -> str:
    r"""Return a text with its control characters shown; lines stay lines.

    Example:
        >>> print(escaped("\x1b[31mred\u202e"))
        \x1b[31mred\u202e
    """
    return _IN_TEXT.sub(_as_python_writes_it, text)


def shown(text: object, longest: int, *, keep_end: bool = False) -> str:
    r"""Return a text as it may be shown: its control characters escaped, and cut with a note where it is too long.

    Args:
        text: the text; what is no text, as a file may hold it in the place of one, is shown as Python writes it.
        longest: how many characters are kept.
        keep_end: whether the end is what matters, as of a traceback.

    Example:
        >>> shown("one\ntwo\r", 100)
        'one\ntwo\\r'
    """
    return escaped(_cut(text, longest, keep_end=keep_end))


def shown_line(text: object, longest: int = LONGEST_NAME) -> str:
    r"""Return a text as one line, its tabs and line ends escaped too; see :func:`shown`.

    Example:
        >>> shown_line("one\ntwo")
        'one\\ntwo'
    """
    return _IN_LINE.sub(_as_python_writes_it, _cut(text, longest))


def encodable(value: object, depth: int = 100) -> object:
    r"""Return plain data that any message can carry: no halves of characters, no infinities, nothing nested too deep.

    Args:
        value: the data.
        depth: how many levels of lists and dicts there may be.

    Example:
        >>> encodable({"text/plain": "\ud800", "application/json": [float("nan"), 1]})
        {'text/plain': '\\ud800', 'application/json': [None, 1]}
    """
    match value:
        case str():
            return encodable_text(value)
        case dict() if depth > 0:
            return {encodable(name): encodable(part, depth - 1) for name, part in value.items()}
        case list() if depth > 0:
            return [encodable(part, depth - 1) for part in value]
        case dict() | list():
            return None
        case float() if not math.isfinite(value):
            return None
    return value


def _cut(text: object, longest: int, *, keep_end: bool = False) -> str:
    if not isinstance(text, str):
        try:
            text = str(text)
        except (RecursionError, ValueError):  # plain data, but nested too deep, or a number with too many digits
            text = f"<{type(text).__name__}>"
    if len(text) <= longest:
        return text
    note = f"… ({len(text):,} characters)"
    return f"{note} {text[-longest:]}" if keep_end else f"{text[:longest]} {note}"


def _as_python_writes_it(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]
