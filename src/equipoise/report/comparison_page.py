"""A comparison as one page that needs nothing else, and as the files that go into a paper."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from equipoise.diagnostics.page_html import to_html
from equipoise.diagnostics.section import Picture, Point, Section
from equipoise.report.comparison import pair_table, rank_table, run_table, score_table
from equipoise.report.critical_difference import plot_critical_difference
from equipoise.report.tables import Table, cell_text, to_csv, to_latex, to_markdown
from equipoise.training.files import replace_file
from equipoise.training.results import write_json

Record = Mapping[str, Any]


def comparison_page(record: Record, *, title: str = "Comparison") -> str:
    """The page: the verdict, scores, differences with their intervals, ranks, and the runs behind every figure."""
    sections = [_section(score_table(record))]
    for dataset, model, metric in dict.fromkeys((p["dataset"], p["model"], p["metric"]) for p in record["pairs"]):
        here = [pair for pair in record["pairs"] if (pair["dataset"], pair["model"]) == (dataset, model)]
        part = {**record, "pairs": here}
        table = pair_table(part, title=f"{dataset}, {model}: methods against their controls, {metric}")
        narrow = _without(table, {"dataset", "model", "metric"})
        sections.append(_section(narrow, differences(part, f"difference in {metric}, better to the right")))
    for model, ranking in record["rankings"].items():
        half = ranking["difference"] / 2
        points = tuple(
            Point(name, rank, rank - half, rank + half, f"{rank:.2f}") for name, rank in ranking["ranks"].items()
        )
        middle = (len(points) + 1) / 2
        picture = Picture("average rank, 1 is best; lines that don't meet are told apart", points, middle, "mean")
        sections.append(_section(rank_table(model, ranking), picture, digits=2))
    return to_html(title, record["verdict"], [*sections, _section(run_table(record))])


def differences(record: Record, title: str) -> Picture | None:
    """Every pair's difference with its interval over seeds and samples; None where none has one."""
    points = tuple(
        Point(
            f"{pair['method']} − {pair['against']}",
            pair["difference"],
            pair["low"],
            pair["high"],
            f"{pair['difference']:+.3f}",
        )
        for pair in record["pairs"]
        if pair["low"] is not None
    )
    return Picture(title, points, 0.0, "no difference") if points else None


def write_comparison(record: Record, folder: str | Path, *, title: str = "Comparison") -> list[Path]:
    """Write ``comparison.json``, ``.md``, ``.html``; scores, pairs and runs as ``.csv`` and ``.tex``; rank pictures.

    Returns:
        The files, in that order.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    tables = {"scores": score_table(record, title=title), "pairs": pair_table(record), "runs": run_table(record)}
    verdict = "\n".join(f"- {line}" for line in record["verdict"])
    text = {
        "comparison.md": "\n".join([verdict, "", *map(to_markdown, tables.values())]),
        "comparison.html": comparison_page(record, title=title),
    }
    for name, table in tables.items():
        text |= {f"{name}.csv": to_csv(table), f"{name}.tex": to_latex(table)}
    write_json(root / "comparison.json", record)
    for name, content in text.items():
        replace_file(root / name, content.encode())
    found = [root / name for name in ("comparison.json", *text)]
    for model, ranking in record["rankings"].items():
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", model)
        found += plot_critical_difference(ranking, root / f"ranks-{name}", title=f"Average ranks, {model}")
    return found


def _section(table: Table, picture: Picture | None = None, *, digits: int = 3) -> Section:
    rows = tuple(tuple(cell_text(cell, digits) for cell in row) for row in table.rows)
    text = " ".join(note for note in table.notes if not note.startswith("Bold"))  # the page's cells are plain text
    return Section(table.title, text, table.columns, rows, picture)


def _without(table: Table, names: Collection[str]) -> Table:
    kept = [i for i, name in enumerate(table.columns) if name not in names]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return Table(table.title, tuple(table.columns[i] for i in kept), rows, table.notes)
