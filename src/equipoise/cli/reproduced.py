"""What `equipoise reproduce` leaves: the table, its files, its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equipoise.experiments.figures import Figure
    from equipoise.experiments.reproduce import Job
    from equipoise.experiments.reproduction import Reproduction
    from equipoise.report.tables import Table


def marks_of(jobs: Sequence[Job]) -> dict[str, str]:
    """What must stand beside the figures of a dataset: that it is synthetic, that its splits leak."""
    from equipoise.report.results import dataset_marks
    from equipoise.training.files import read_json

    found: dict[str, str] = {}
    for job in jobs:
        if job.dataset not in found and (job.path / "test.json").is_file():
            found[job.dataset] = " ".join(
                f"[{mark}]" for mark in dataset_marks(read_json(job.path / "test.json")["dataset"])
            )
    return {dataset: marks for dataset, marks in found.items() if marks}


def result_table(
    table: Reproduction,
    figures: Sequence[Figure],
    errors: Mapping[str, str],
    marks: Mapping[str, str],
    *,
    tiny: bool,
) -> Table:
    """For each row of the paper: the published figures, ours, the difference, and the best on test."""
    from equipoise.report.tables import Cell, Table, spread

    columns = list(dict.fromkeys(figure.column for figure in figures))
    rows: list[tuple[Cell, ...]] = []
    for key in dict.fromkeys((figure.dataset, figure.row) for figure in figures):
        mine = {figure.column: figure for figure in figures if (figure.dataset, figure.row) == key}
        lines: dict[str, dict[str, Cell]] = {
            "published": {name: each.published for name, each in mine.items()},
            "ours": {name: spread(each.honest) if each.honest else None for name, each in mine.items()},
            "difference": {name: each.difference for name, each in mine.items()},
            "best on test": {name: spread(each.on_test) if each.on_test else None for name, each in mine.items()},
        }
        for what, values in lines.items():
            if any(value is not None for value in values.values()):
                where = " ".join(filter(None, [key[0], marks.get(key[0]) if what != "published" else None]))
                rows.append((where, key[1], what, *(values.get(name) for name in columns)))
    counterparts = [
        f"{name} is a counterpart: the published figures beside it are of {place.compared_with}."
        for name, place in table.datasets.items()
        if place.compared_with is not None and any(figure.dataset == name for figure in figures)
    ]
    shown = {figure.row for figure in figures}
    absent = [f"{row.label}: {row.absent}." for row in table.rows if row.absent is not None and row.label in shown]
    notes = [
        *(["Generated data, one epoch, shallow models: these figures say that every row runs, and no more."] * tiny),
        "Ours: the epoch that validation chose, mean ± sd over seeds. Best on test: the epoch that looks best there.",
        *counterparts,
        *table.notes,
        *absent,
        *(f"Failed: {name}: {error}" for name, error in errors.items()),
    ]
    title = f"{table.paper}, {table.item}: {table.title}"
    return Table(title, ("dataset", "row", "figure", *columns), tuple(rows), tuple(notes))


def write(out: Path, figures: Sequence[Figure], report: Table, marks: Mapping[str, str]) -> None:
    """`figures.csv`, one line a figure, and `table.md`."""
    from equipoise.report.tables import Table, spread, to_csv, to_markdown

    rows = tuple(
        (
            *(each.dataset, each.row, each.column, each.metric, each.published),
            spread(each.honest) if each.honest else None,
            each.difference,
            spread(each.on_test) if each.on_test else None,
            len(each.honest),
            marks.get(each.dataset, ""),
        )
        for each in figures
    )
    names = ("dataset", "row", "column", "metric", "published", "ours", "difference", "best_on_test", "seeds", "marks")
    (out / "figures.csv").write_text(to_csv(Table(report.title, names, rows)), encoding="utf-8")
    (out / "table.md").write_text(to_markdown(report), encoding="utf-8")


def draw(table: Reproduction, jobs: Sequence[Job], out: Path) -> list[Path]:
    """The picture of a figure, one a dataset: gradient norms, accuracies by epoch, or t-SNE maps of the first seed."""
    from equipoise.cli.train import own_metric
    from equipoise.report.map_plot import plot_maps
    from equipoise.report.plots import plot_norms, plot_own_accuracy
    from equipoise.report.runs import read_run

    found: list[Path] = []
    for dataset in dict.fromkeys(job.dataset for job in jobs) if table.picture is not None else ():
        rows: dict[str, list[Path]] = {}
        for job in jobs:
            if job.dataset == dataset and job.row.concept is None and (job.path / "test.json").is_file():
                rows.setdefault(job.row.label, []).append(job.path)
        where = out / f"{dataset}-{table.picture}"
        if rows and table.picture == "tsne":
            found += plot_maps({label: maps(paths[0]) for label, paths in rows.items()}, where, title=table.title)
            continue
        groups = {label: [read_run(path) for path in paths] for label, paths in rows.items()}
        if groups and table.picture == "norms":
            found += plot_norms(groups, where, title=table.title)
        elif groups:
            metric = own_metric(next(iter(groups.values()))[0].epochs)
            found += plot_own_accuracy(groups, where, metric=metric, title=table.title)
    return found


def maps(path: Path) -> dict[str, tuple[Any, Any]]:
    """t-SNE of what a finished run makes of the test split: of each modality, each branch, and all."""
    import numpy as np

    from equipoise.diagnostics.latents import representations
    from equipoise.diagnostics.probes import tsne
    from equipoise.training.run import load_run

    trained = load_run(path)
    test = trained.dataset.split("test")
    branches = dict(getattr(trained.model, "branches", None) or {})
    found = representations(trained.model, test, trained.modalities, pairs=False, stages=branches)
    labels = np.asarray(test.targets)
    if test.manifest.task == "classification":
        names = test.manifest.labels.classes
        groups = np.array([names[int(each)] if names else str(int(each)) for each in labels])
    else:
        groups = np.array(["negative", "neutral", "positive"])[np.sign(labels).astype(int) + 1]
    drawn = {name: tsne(x) for name, x in found.items()}
    return {name: (each.points, groups[each.rows]) for name, each in drawn.items()}
