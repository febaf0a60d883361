"""Run the notebooks from an empty folder; a cell that fails is named and ends with status 1.

    python checks/notebooks.py            runs all of notebooks/
    python checks/notebooks.py roads      runs one
    python checks/notebooks.py --write    keeps what they showed in the files

What a notebook writes goes to a folder that vanishes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parents[1] / "notebooks"
MOST = 300_000  # bytes of a notebook with what it showed
LONGEST = 600  # s of a cell


def run(path: Path, write: bool) -> bool:
    """Run a notebook; print how long it took, or the cell that failed."""
    book, start = nbformat.read(path, as_version=4), time.monotonic()
    with TemporaryDirectory() as folder:
        client = NotebookClient(book, timeout=LONGEST, kernel_name="python3", coalesce_streams=True)
        client.resources = {"metadata": {"path": folder}}
        try:
            client.execute()
        except CellExecutionError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return False
    print(f"{path.name}: {time.monotonic() - start:.0f} s")
    if write:
        for cell in book.cells:
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":  # warnings of this machine's libraries
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        text = nbformat.writes(book) + "\n"
        if len(text) > MOST:
            print(f"{path.name}: {len(text)} bytes, at most {MOST}", file=sys.stderr)
            return False
        path.write_text(text, "utf-8")
    return True


def main() -> None:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="without .ipynb")
    parser.add_argument("--write", action="store_true", help="keep what they showed")
    args = parser.parse_args()
    paths = [FOLDER / f"{name}.ipynb" for name in args.names] or sorted(FOLDER.glob("*.ipynb"))
    ran = [run(path, args.write) for path in paths]
    sys.exit(not all(ran))


if __name__ == "__main__":
    main()
