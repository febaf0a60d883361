"""docs/config.md from the config: every key with its default, its unit and its meaning.

    python checks/config_page.py

writes the page; with ``--check`` it fails when the page is not that of today's config. Defaults,
choices and limits are the fields' own, units and meanings their comments in ``config.py``.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import textwrap
import tokenize
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from terradapt import config
from terradapt.config import ConfigPart, RunConfig, config_keys

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
HEAD = """# Config

Every key of a recipe, and of `key=value` on the command line:

    terradapt train landcover epochs=20 optim.lr=1e-3 encoder.weights=hub --data data

Keys of `train` and `model` have a short form: `epochs` is `train.epochs`, `encoder.name` is
`model.encoder.name`. Values are YAML; nothing after the sign is none. A run keeps all of its values
in `RUN/config.yaml`. This page is made by `make config` from `src/terradapt/config.py`.
"""
TITLES = {
    "": "The run",
    "model": "Model",
    "data": "Data",
    "augment": "Augmentation",
    "objective": "Objective",
    "optim": "Optimizer",
    "train": "Training",
}
LIMITS = (
    (Ge, "ge", "at least"),
    (Gt, "gt", "above"),
    (Le, "le", "at most"),
    (Lt, "lt", "below"),
)


def comments(source: str) -> dict[tuple[str, str], str]:
    """Return the comment of every field of every class: on its last line and those right below."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    at = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for part in (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef)):
        ends = {n.lineno for n in part.body}
        for field in (n for n in part.body if isinstance(n, ast.AnnAssign)):
            line = field.end_lineno or field.lineno
            words = [at.get(line, "")]
            while (line := line + 1) in at and line not in ends:
                words.append(at[line])
            if isinstance(field.target, ast.Name):
                found[part.name, field.target.id] = " ".join(words).strip()
    return found


def parts(part: type[ConfigPart] = RunConfig) -> dict[str, str]:
    """Return every dotted key with the name of the class that has it."""
    owners = {}
    for key in config_keys(part):
        kind: Any = part
        for name in key.split(".")[:-1]:
            held = kind.model_fields[name].annotation
            kind = next(k for k in (held, *get_args(held)) if hasattr(k, "model_fields"))
        owners[key] = kind.__name__
    return owners


def limits(field: FieldInfo) -> str:
    """Return the values that a key may have, in words; nothing where its type says all."""
    kinds = [field.annotation, *get_args(field.annotation)]
    names = [v for k in kinds if get_origin(k) is Literal for v in get_args(k)]
    said = [
        f"{words} {getattr(m, sign)}"
        for m in field.metadata
        for kind, sign, words in LIMITS
        if type(m) is kind and getattr(m, sign) < 1 << 60
    ]
    return "; ".join([" or ".join(f"`{n}`" for n in names)] * bool(names) + said)


def shown(value: Any) -> str:
    """Return a default as it is written on the command line."""
    if value is None or value == "":
        return "none"
    plain = list(value) if isinstance(value, tuple) else value
    if isinstance(plain, float):
        return f"`{plain:g}`"
    return f"`{yaml.safe_dump(plain, default_flow_style=True).splitlines()[0]}`"


def page() -> str:
    """Return the page's text.

    Raises:
        SystemExit: A key has no comment.
    """
    words = comments(Path(config.__file__).read_text("utf-8"))
    keys, owners = config_keys(), parts()
    lines = [HEAD.rstrip()]
    for section, title in TITLES.items():
        lines += [
            "",
            f"## {title}",
            "```{list-table}",
            ":header-rows: 1",
            ":widths: 26 14 10 50",
            "",
        ]
        lines += row("Key", "Default", "Unit", "Meaning")
        for key, field in keys.items():
            if (key.partition(".")[0] if "." in key else "") != section:
                continue
            comment = words[owners[key], key.rpartition(".")[2]]
            if not comment:
                sys.exit(f"{key}: has no comment in config.py")
            found = re.fullmatch(r"(?:\[(?P<unit>[^]]+)\] )?(?P<meaning>.+)", comment)
            assert found is not None
            may = limits(field)
            meaning = found["meaning"] + (f" ({may})" if may else "")
            lines += row(f"`{key}`", shown(field.default), found["unit"] or "", meaning)
        lines.append("```")
    return "\n".join(lines) + "\n"


def row(key: str, default: str, unit: str, meaning: str) -> list[str]:
    """Return the lines of a row."""
    cells = [
        textwrap.fill(f"  - {cell}".rstrip(), 120, subsequent_indent="    ")
        for cell in (default, unit, meaning)
    ]
    return [f"* - {key}", *"\n".join(cells).splitlines()]


def main() -> None:
    """Write the page, or compare it with ``--check``."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, "utf-8")
    elif not PAGE.is_file() or PAGE.read_text("utf-8") != text:
        sys.exit(f"{PAGE}: is not that of today's config; run: make config")


if __name__ == "__main__":
    main()
