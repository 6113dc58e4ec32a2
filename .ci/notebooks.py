"""Execute notebooks from the top in a folder of their own, and save them as they are to be committed.

    python .ci/notebooks.py                       all of notebooks/, in place
    python .ci/notebooks.py notebooks/sweep.ipynb  one of them
    python .ci/notebooks.py --into FOLDER ...      elsewhere; what is committed stays as it is

If a cell raises that is not tagged ``raises-exception``, the script ends with its traceback and saves nothing.
Metadata and times of execution, which differ from run to run, are removed. Folders of this machine are written as they
are for a reader: ``~``, and paths relative to the notebook.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
SECONDS = 300
"""The timeout of a cell, on a machine that does other things too."""


def main() -> None:
    """Execute the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted((ROOT / "notebooks").glob("*.ipynb")))
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="where to save them; default: in place")
    given = parser.parse_args()
    for path in given.notebooks:
        print(path.name, flush=True)
        text = executed(path)
        ((given.into or path.parent) / path.name).write_text(text, encoding="utf-8")


def executed(path: Path) -> str:
    """Execute a notebook, and return its text with outputs, to be saved."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as temporary:
        folder, home = Path(temporary, "work"), Path(temporary, "home")
        folder.mkdir()
        key = home / ".config" / "jobcontainer" / "key"
        key.parent.mkdir(parents=True)
        key.touch(mode=0o600)
        key.write_text(secrets.token_hex(32))
        os.environ |= {
            "JOBCONTAINER_HOME": str(folder / ".jobcontainer"),
            "JOBCONTAINER_KEY_FILE": str(key),
            "IPYTHONDIR": str(home / ".ipython"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name=KERNEL["name"],
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
        )
        client.execute()
        return cleaned(
            notebook, {str(folder): ".", str(home): "~", str(ROOT / "src"): "site-packages", str(Path.home()): "~"}
        )


def cleaned(notebook: nbformat.NotebookNode, folders: dict[str, str]) -> str:
    """Return a notebook's text without the traces of this machine and this run."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
        if cell.cell_type == "code":
            cell.outputs = nbformat.from_dict(json.loads(anonymous(json.dumps(cell.outputs), folders)))
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def anonymous(text: str, folders: dict[str, str]) -> str:
    """Replace paths of this machine by those of a reader."""
    text = re.sub(r"/tmp/ipykernel_\d+/", "/tmp/ipykernel/", text)  # noqa: S108 -- ipykernel's, not made here
    text = re.sub(r'/[^"\\\s&<>]*/(site-packages|lib/python3\.\d+)/', r"\1/", text)
    for folder, shown in folders.items():
        text = text.replace(f"{folder}/", "" if shown == "." else f"{shown}/").replace(folder, shown)
    return text


if __name__ == "__main__":
    main()
