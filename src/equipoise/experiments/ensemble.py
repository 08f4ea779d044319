"""The modalities alone, together without training: what a fusion has to beat."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import numpy as np

from equipoise.data import load
from equipoise.diagnostics.controls import ensembles, read_predictions
from equipoise.experiments.cell import Cell
from equipoise.experiments.rows import Row, sample_scores
from equipoise.experiments.store import Store
from equipoise.metrics import evaluate_metrics


def ensemble_rows(cells: Iterable[Cell], rows: Mapping[str, Row], store: Store) -> list[Row]:
    """A row for each seed on which every modality alone has a result; none is trained for it.

    Args:
        cells: of a grid.
        rows: of those with a result, by id.
        store: where their predictions lie.
    """
    groups: dict[tuple[str, str, str, int], list[Cell]] = {}
    for cell in cells:
        if cell.role == "alone":
            suffix = cell.method.partition(" alone")[2]
            groups.setdefault((cell.dataset, cell.model, suffix, cell.seed), []).append(cell)
    found: list[Row] = []
    for (_, _, suffix, _), members in groups.items():
        if len(members) > 1 and all(cell.id in rows for cell in members):
            found += _mixed(members, rows, suffix, store)
    return found


def _mixed(members: list[Cell], rows: Mapping[str, Row], suffix: str, store: Store) -> list[Row]:
    manifest = load(members[0].config.data).manifest
    first = rows[members[0].id]
    folders = [store.run_dir(cell.id) for cell in members]
    read = [read_predictions(folder, manifest.task) for folder in folders]
    ids, target, _ = read[0]
    if any(each[0] != ids for each in read):
        raise ValueError(f"{folders[0]} and {folders[1]} should predict the same samples. Found others.")
    found: list[Row] = []
    for name, outputs in ensembles([each[2] for each in read], manifest.task).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an undefined correlation: it is NaN in the row
            metrics = evaluate_metrics(manifest.task, outputs.astype(np.float32), target, scale=manifest.labels.scale)
        said = outputs.argmax(axis=1) if manifest.task == "classification" else outputs
        guess, label = (np.asarray(each, np.float64).reshape(len(ids), -1) for each in (said, target))
        scores = sample_scores(guess, label, metrics)
        found.append(
            Row(
                dataset=first.dataset,
                model=first.model,
                method=f"{name} of each alone{suffix}",
                seed=first.seed,
                role="ensemble",
                metrics=metrics,
                scores={metric: tuple(values.tolist()) for metric, values in scores.items()},
                samples=tuple(ids),
                path=" ".join(map(str, folders)),
                marks=first.marks,
            )
        )
    return found
