"""Files that belong together by name: an image, its label, and a second date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from terradapt.errors import DataError
from terradapt.prepare.archives import Gathered

_SHOWN = 4  # files that a message names


def check_together(source: Path, roles: Mapping[str, Mapping[str, Gathered]]) -> None:
    """Refuse a benchmark where a file of one kind lacks its partner of another kind.

    Args:
        source: Where the files are from, for the message.
        roles: Files by name, by kind; the kinds are called as the benchmark's folders are.

    Raises:
        DataError: A kind has no file at all, or a name is missing in a kind; states the counts.
    """
    empty = [role for role, files in roles.items() if not files]
    counts = ", ".join(f"{len(files)} {role}" for role, files in roles.items())
    if empty:
        raise DataError(
            f"{source}: no files for {' and '.join(empty)} in it (found: {counts})",
            f"give the folder that holds {' and '.join(roles)}, as it was downloaded",
        )
    every = {name: file for files in roles.values() for name, file in files.items()}
    lacking = [(role, n) for role, files in roles.items() for n in sorted(every.keys() - files)]
    if lacking:
        shown = "; ".join(f"{every[n].name} has no {role}" for role, n in lacking[:_SHOWN])
        more = f"; {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise DataError(
            f"{source}: files do not pair ({counts}): {shown}{more}",
            "add the missing files, or move their partners elsewhere",
        )
