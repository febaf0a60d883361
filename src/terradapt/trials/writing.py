"""The comparison as JSON, Markdown, CSV, LaTeX and curves; all of them written, or none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from terradapt.files import write_together
from terradapt.report.figures import draw_overlay
from terradapt.report.markdown import markdown_table
from terradapt.trials.bootstrap import DRAWS, LEVEL
from terradapt.trials.comparison import Comparison, Contender, summary

ABSENT = "–"
FEW = 20
"""Images below which an interval over them is told to be rough."""
CSV_COLUMNS = (
    *("trials", "method", "metric", "printed", "mean", "sd", "runs"),
    *("change", "change_low", "change_high", "images", "parameters_m", "gmacs", "note"),
)
_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    ABSENT: "--",
}


def write_comparison(comparison: Comparison, folder: Path, stem: str = "trials") -> list[Path]:
    """Write ``trials.json``, ``.md``, ``.csv``, ``.tex`` and, once a run has a log, ``.svg``.

    Raises:
        OutputError: The folder cannot be written.
    """
    texts = {
        ".json": json.dumps(comparison.to_dict(), indent=1) + "\n",
        ".md": comparison_markdown(comparison),
        ".csv": comparison_csv(comparison),
        ".tex": comparison_latex(comparison),
        ".svg": comparison_curves(comparison),
    }
    return write_together({folder / f"{stem}{s}": text for s, text in texts.items() if text})


def comparison_curves(comparison: Comparison) -> str:
    """Return the methods' curves in one drawing, as SVG; "" where no run has a log."""
    logs = {c.name: [r.events for r in c.runs.values()] for c in comparison.contenders if c.runs}
    return draw_overlay(logs)


def comparison_markdown(comparison: Comparison) -> str:
    """Return the tables for people."""
    headline, reference = comparison.headline(), comparison.reference
    parts = [f"# {comparison.title}", _facts(comparison)]
    if comparison.done < comparison.wanted:
        left = f"{comparison.done} of {comparison.wanted} runs have figures"
        parts.append(f"> {left}; go on with --resume.")
    for one in comparison.contenders:
        parts += [f"> {one.name}, seed {seed}: {why}" for seed, why in one.failed.items()]
    parts += [f"> {note}" for note in comparison.notes]
    parts += ["## Figures", _figures(comparison, headline)]
    parts += [f"## Change against {reference.name}, points", _changes(comparison, headline)]
    if "mf1" in headline:
        parts += ["## F1 / IoU per class", _per_class(comparison)]
    return "\n\n".join(parts) + "\n"


def _facts(comparison: Comparison) -> str:
    table, seeds = comparison.table, ", ".join(map(str, comparison.seeds))
    lines = [f"- mean ± standard deviation over the seeds {seeds}; per cent, MAE times 100"]
    if table is not None:
        lines = [
            f"- printed: {table.citation}; on {table.data}",
            f"- ours: mean ± standard deviation over the seeds {seeds}; other data than the "
            "paper's cannot have its figures, so compare the changes",
        ]
    first = comparison.first
    few = first is not None and len(first.own.images) < FEW
    lines.append(
        f"- in brackets: {100 * LEVEL:.0f} % of {DRAWS} draws of the images with replacement, the "
        "same for both methods, seeds held; * where 0 is not among them"
        + "; of so few images no more than a hint"
        * few
    )
    lines += [f"- {name}: {value}" for name, value in comparison.facts.items() if value is not None]
    return "\n".join(lines)


def _figures(comparison: Comparison, headline: Mapping[str, str]) -> str:
    sides = ("printed", "ours") if comparison.table else ("",)
    shown = comparison.contenders
    sizes = any(c.size is not None for c in shown)
    works = any(c.work is not None for c in shown)
    times = any(c.seconds is not None for c in shown)
    noted = any(_note(c, len(comparison.seeds)) for c in shown)
    header = ["", *["Params (M)"] * sizes, *["GMACs"] * works]
    header += [f"{h}, {side}" if side else h for h in headline.values() for side in sides]
    header += [*["min a run"] * times, *["note"] * noted]
    rows = []
    for one in shown:
        cells = [one.name, *[_number(one.size)] * sizes, *[_number(one.work)] * works]
        for metric in headline:
            cells += [_number(comparison.printed(one, metric))] * (comparison.table is not None)
            text = _spread(list(one.values(metric).values()))
            best = one.runs and one.mean(metric) == comparison.best(metric)
            cells.append(f"**{text}**" if best and not comparison.table else text)
        minutes = None if one.seconds is None else one.seconds / 60
        note = _note(one, len(comparison.seeds))
        rows.append([*cells, *[_number(minutes, 1)] * times, *[note] * noted])
    return markdown_table(header, rows)


def _note(one: Contender, wanted: int) -> str:
    if one.absent:
        return one.absent
    parts = [f"{len(one.runs)} of {wanted} seeds"] if len(one.runs) < wanted else []
    parts += [f"{len(one.failed)} failed"] if one.failed else []
    return ", ".join(parts)


def _changes(comparison: Comparison, headline: Mapping[str, str]) -> str:
    sides = ("printed", "ours") if comparison.table else ("",)
    header = ["", *(f"{h}, {s}" if s else h for h in headline.values() for s in sides)]
    rows = []
    for one in comparison.contenders:
        if one is comparison.reference:
            continue
        cells = []
        for metric in headline:
            own, full = (comparison.printed(c, metric) for c in (one, comparison.reference))
            known = f"{own - full:+.2f}" if own is not None and full is not None else ABSENT
            cells += [known] * (comparison.table is not None)
            text = _spread(comparison.changes(one, metric), sign="+")
            found = comparison.difference(one, metric)
            if found is not None:
                text += f" [{found.low:+.2f}, {found.high:+.2f}]{'*' * found.clear}"
            cells.append(text)
        rows.append([one.name, *cells])
    return markdown_table(header, rows)


def _per_class(comparison: Comparison) -> str:
    columns = comparison.columns()
    names = [m.split(".")[1] for m in columns if m.endswith(".f1")]
    rows = []
    for one in comparison.contenders:
        printed, ours = [], []
        for name in names:
            keys = [f"per_class.{name}.{f}" for f in ("f1", "iou")]
            printed.append(_pair([one.printed.get(k) for k in keys]))
            ours.append(_pair([one.mean(k) for k in keys]))
        if comparison.table:
            rows += [[one.name, "printed", *printed], ["", "ours", *ours]]
        elif one.runs:
            rows.append([one.name, *ours])
    return markdown_table(["", *[""] * (comparison.table is not None), *names], rows)


def _pair(values: Sequence[float | None]) -> str:
    return " / ".join(map(_number, values)) if any(v is not None for v in values) else ABSENT


def _number(value: float | None, digits: int = 2) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _spread(values: Sequence[float], sign: str = "", between: str = "±") -> str:
    if not values:
        return ABSENT
    told = summary(values)
    mean = f"{told['mean']:{sign}.2f}"
    return mean if told["sd"] is None else f"{mean} {between} {told['sd']:.2f}"


def comparison_csv(comparison: Comparison) -> str:
    """Return the figures as CSV, one line per method and metric."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for one in comparison.contenders:
        note = _note(one, len(comparison.seeds))
        for metric in comparison.columns():
            values = list(one.values(metric).values())
            told = summary(values) if values else {"mean": None, "sd": None}
            found = comparison.difference(one, metric)
            ends = (found.value, found.low, found.high) if found else (None, None, None)
            numbers = [comparison.printed(one, metric), told["mean"], told["sd"]]
            writer.writerow(
                (
                    *(comparison.name, one.name, metric),
                    *map(_plain, numbers),
                    len(values),
                    *map(_plain, ends),
                    found.images if found else "",
                    *map(_plain, (one.size, one.work)),
                    note,
                )
            )
    return buffer.getvalue()


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def comparison_latex(comparison: Comparison) -> str:
    """Return the figures as a LaTeX table; it needs the package booktabs alone."""
    headline = comparison.headline()
    shown = comparison.contenders
    sizes = any(c.size is not None for c in shown)
    works = any(c.work is not None for c in shown)
    heads = ["Method", *["Params (M)"] * sizes, *["GMACs"] * works, *headline.values()]
    lines = []
    for one in shown:
        cells = [one.name, *[_number(one.size)] * sizes, *[_number(one.work)] * works]
        texts = [latex_text(c) for c in cells]
        if not one.runs:
            why = latex_text(one.absent or "no run yet")
            texts.append(rf"\multicolumn{{{len(headline)}}}{{l}}{{\emph{{{why}}}}}")
        for metric in headline if one.runs else ():
            text = _spread(list(one.values(metric).values()), between=r"$\pm$")
            if one.mean(metric) == comparison.best(metric) is not None:
                text = rf"\textbf{{{text}}}"
            found = comparison.difference(one, metric)
            marked = found is not None and found.clear
            texts.append(text.replace(ABSENT, "--") + r"$^{*}$" * marked)
        lines.append(" & ".join(texts) + r" \\")
    seeds = len(comparison.seeds)
    spread = r"Mean $\pm$ standard deviation" if seeds > 1 else "Mean"
    caption = [
        latex_text(comparison.title) + ".",
        f"{spread} over {seeds} seed{'s' * (seeds > 1)}.",
        rf"$^{{*}}$: the {100 * LEVEL:.0f}\,\% interval of the difference from "
        f"{latex_text(comparison.reference.name)} over images (paired bootstrap, {DRAWS} draws) "
        "leaves 0 out.",
    ]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{' '.join(caption)}}}",
            rf"\label{{tab:{''.join(c for c in comparison.name if c.isalnum() or c in '-.')}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(map(latex_text, heads)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex_text(text: str) -> str:
    """Return a text with the signs escaped that LaTeX reads as commands."""
    return "".join(_ESCAPES.get(c, c) for c in text)
