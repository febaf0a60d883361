"""One meaning per name: public names that are defined at the top of two files or more.

    python checks/names.py --limit 20

prints every such function and class with its files, and fails when there are more than the limit,
or a class among them: a noun of the package means one thing. ``register`` and ``main`` are the two
names that a file must have to be found.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "terradapt"
ASIDE = {"register", "main"}
DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def defined_twice(package: Path) -> tuple[dict[str, list[Path]], set[str]]:
    """Return the names with their files, in order, and which of them are a class somewhere."""
    files: dict[str, list[Path]] = defaultdict(list)
    classes = set()
    for path in sorted(package.rglob("*.py")):
        found = [n for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, DEFINITION)]
        classes |= {node.name for node in found if isinstance(node, ast.ClassDef)}
        for name in {node.name for node in found} - ASIDE:
            if not name.startswith("_"):
                files[name].append(path.relative_to(package))
    twice = {name: files[name] for name in sorted(files) if len(files[name]) > 1}
    return twice, classes & twice.keys()


def main() -> None:
    """Print the names; exit with 1 above the limit or when a class is among them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, required=True, help="how many names may be there")
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE)
    args = parser.parse_args()
    twice, classes = defined_twice(args.package)
    for name, files in twice.items():
        kind = "class" if name in classes else "function"
        print(f"{kind} {name}: {', '.join(map(str, files))}")
    print(f"{len(twice)} names (at most {args.limit}), {len(classes)} classes among them (none)")
    sys.exit(len(twice) > args.limit or bool(classes))


if __name__ == "__main__":
    main()
