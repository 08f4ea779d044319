"""From a declared table to its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.data.shapes import generate
from equipoise.experiments.cell import Cell, data_checksum, make_cell
from equipoise.experiments.corpora import CORPORA, instructions
from equipoise.experiments.dotted import put
from equipoise.experiments.reproduction import Line, Reproduction
from equipoise.experiments.store import Store
from equipoise.training.config import make_config

TINY_SAMPLES = (12, 6, 12)
TINY_SIZES: dict[str, dict[str, Any]] = {
    "AGSSMoE": {"layers": 2, "encoder_layers": 1},
    "GLoMo": {"layers": 1, "feed_forward": 32},
    "TBJE": {"hidden": 16, "layers": 2, "feed_forward": 16},
    "MulT": {"hidden": 8, "heads": 2, "layers": 1},
}
"""Depths and widths that would take long on a processor; at the tiny scale only."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a table.

    Attributes:
        dataset: its name in the table.
        row: of the table.
        cell: the whole of it; rows with equal settings share one.
        path: the run directory.
        wave: 1 for a run that learns from finished ones, else 0.
    """

    dataset: str
    row: Line
    cell: Cell
    path: Path
    wave: int = 0


def find_data(table: Reproduction, folder: str | Path, wanted: Sequence[str] | None = None) -> dict[str, str]:
    """Where each dataset of a table lies: ``folder/CORPUS``, or ``folder`` itself for a table's only dataset.

    Args:
        table: whose datasets.
        folder: what the user has.
        wanted: datasets that must be there; None takes those that are.

    Raises:
        FileNotFoundError: one that is wanted, or all of them, are missing; what to get follows, line by line.
        ValueError: the table has no such dataset.
    """
    for name in wanted or ():
        if name not in table.datasets:
            raise ValueError(f"{table.name} has no dataset `{name}`. Valid: {', '.join(table.datasets)}.")
    chosen = list(wanted or table.datasets)
    found = {}
    for name in chosen:
        place = Path(folder) / table.datasets[name].corpus
        alone = len(chosen) == 1 and (Path(folder) / "manifest.json").is_file()
        if alone or place.is_dir():
            found[name] = str(folder if alone else place)
    missing = [name for name in chosen if name not in found]
    if missing and (wanted or not found):
        corpora = list(dict.fromkeys(table.datasets[name].corpus for name in missing))
        raise FileNotFoundError(
            f"{table.name} found no dataset at {' or '.join(str(Path(folder) / name) for name in corpora)}. "
            f"What to get: `equipoise reproduce {table.name}` without `--data`."
        )
    return found


def guide(table: Reproduction) -> list[str]:
    """What a user has to fetch for a table, a few lines a dataset."""
    corpora = dict.fromkeys(place.corpus for place in table.datasets.values())
    return [instructions(name) for name in corpora]


def tiny_data(table: Reproduction, folder: str | Path, wanted: Sequence[str] | None = None) -> dict[str, str]:
    """Generate a handful of samples of every dataset's shape, once: ``{dataset: path}``."""
    found = {}
    for name in wanted or table.datasets:
        corpus = table.datasets[name].corpus
        path = Path(folder) / corpus
        if not path.is_dir():
            generate(path, CORPORA[corpus].shape, splits=TINY_SAMPLES)
        found[name] = str(path)
    return found


def plan(
    table: Reproduction,
    data: Mapping[str, str],
    store: Store,
    *,
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    tiny: bool = False,
) -> list[Job]:
    """Every run of a table, those that others learn from first.

    Args:
        table: what to run.
        data: ``{dataset: path}``; the others are left out.
        store: where the runs are.
        seeds: other ones than the table's.
        rows: only those whose label begins so; what they need of the others is kept.
        overrides: dotted keys over every run, such as ``{"train.epochs": 5}``.
        tiny: one epoch of one seed, shallow models, the dataset's own text features.

    Raises:
        ValueError: a row that nothing is called, or settings that don't fit.
    """
    kept = _chosen(table, rows)
    jobs: dict[tuple[str, str, int], Job] = {}
    for dataset, path in data.items():
        checksum = data_checksum(path)
        lines = [row for row in table.rows_of(dataset) if row.absent is None and row.label in kept]
        for row in sorted(lines, key=lambda row: bool(row.teachers)):
            for seed in list(seeds or ([0] if tiny else table.seeds_of(dataset))):
                values = table.config(row, dataset, data=path, seed=seed).model_dump(mode="json")
                _alter(values, overrides or {}, tiny)
                teachers = {m: str(jobs[dataset, other, seed].path) for m, other in row.teachers.items()}
                for balancer in values["balancer"] if teachers else ():
                    balancer["teachers"] = teachers
                config = make_config(values)
                cell = make_cell(config, dataset=dataset, model=config.model.name, method=row.label, checksum=checksum)
                jobs[dataset, row.label, seed] = Job(dataset, row, cell, store.run_dir(cell.id), int(bool(teachers)))
    return sorted(jobs.values(), key=lambda job: job.wave)


def waves(jobs: Sequence[Job]) -> list[list[Cell]]:
    """The cells of jobs, each once, in the batches in which they can run."""
    found: list[list[Cell]] = []
    seen: set[str] = set()
    for wave in sorted({job.wave for job in jobs}):
        cells = {job.cell.id: job.cell for job in jobs if job.wave == wave and job.cell.id not in seen}
        seen |= cells.keys()
        found.append(list(cells.values()))
    return found


def _chosen(table: Reproduction, rows: Sequence[str] | None) -> set[str]:
    labels = {row.label: row for row in table.rows}
    if rows is None:
        return set(labels)
    kept: set[str] = set()
    for start in rows:
        found = [label for label in labels if label.lower().startswith(start.lower())]
        if not found:
            raise ValueError(f"{table.name} has no row that begins with `{start}`. Rows: {', '.join(labels)}.")
        kept |= set(found)
    kept |= {teacher for label in kept for teacher in labels[label].teachers.values()}
    if any(metric.startswith("strength/") for metric in table.columns.values()):
        groups = {labels[label].group for label in kept}
        kept |= {row.label for row in table.rows if row.concept is not None and row.group in groups}
    return kept


def _alter(values: dict[str, Any], overrides: Mapping[str, Any], tiny: bool) -> None:
    if tiny:
        values["text"]["encoder"] = None
        values["train"] |= {"epochs": 1, "batch_size": 6, "checkpoint_every": 0, "patience": None}
        values["model"] |= TINY_SIZES.get(values["model"]["name"], {})
        if values["model"].get("encoder") == "transformer":
            values["model"] |= {"hidden": 4 * values["model"].get("heads", 4), "layers": 1}
        if values["model"].get("maxout") is not None:
            values["model"]["maxout"] = [8, 4]
    textless = values["modalities"] is not None and "text" not in values["modalities"]
    for key, value in overrides.items():
        if not (textless and key == "text.encoder"):  # the other rows are given a text encoder, and this one has no use
            put(values, key, value)
