"""Print a command of README.md, so that CI runs what the reader is asked to type.

    python3 .ci/readme_command.py test

A command is a fenced block that directly follows a comment with its name: ``<!-- ci: test -->``. The comment is not
shown to a reader. A name that is not there, or is there twice, ends this with an error. It needs no package.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
MARKED = re.compile(r"^<!-- ci: (?P<name>[\w-]+) -->\n+```sh\n(?P<command>.*?)\n```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> dict[str, str]:
    """Return the marked commands of a document by their names.

    Raises:
        ValueError: a name is used twice.
    """
    found: dict[str, str] = {}
    for match in MARKED.finditer(text):
        if match["name"] in found:
            raise ValueError(f"README.md marks two commands as {match['name']!r}.")
        found[match["name"]] = match["command"]
    return found


if __name__ == "__main__":
    named = commands(README.read_text(encoding="utf-8"))
    if sys.argv[1:] not in [[name] for name in named]:
        sys.exit(f"usage: readme_command.py NAME, one of: {', '.join(sorted(named))}")
    print(named[sys.argv[1]])
