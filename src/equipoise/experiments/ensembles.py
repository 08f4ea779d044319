"""The control that needs no training: the mean of what models of each modality alone predict."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from equipoise.experiments.rows import Floats, Row, column, sample_scores
from equipoise.metrics import evaluate_metrics

NAME = "ensemble of modalities alone"


def ensemble_rows(rows: Sequence[Row]) -> list[Row]:
    """One row for each dataset, model and seed that has two or more modalities alone: their late-fusion ensemble.

    Values are averaged; of classes, the probabilities.

    Args:
        rows: of a comparison; those of role ``"alone"`` with a ``path`` are read again for their predictions.

    Raises:
        FileNotFoundError: a run directory is gone.
        ValueError: the samples of two differ.
    """
    alone: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if row.role == "alone" and row.path is not None:
            alone.setdefault((row.dataset, row.model, row.seed), []).append(row)
    return [_ensemble(members) for members in alone.values() if len(members) > 1]


def _ensemble(members: Sequence[Row]) -> Row:
    first = members[0]
    classify = "accuracy" in first.metrics
    outputs: list[Floats] = []
    for row in members:
        with (Path(row.path or "") / "predictions.csv").open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        if row.samples != first.samples:
            raise ValueError(f"{row.path}: its samples are not those of {first.path}, in that order.")
        outputs.append(column(table, "probability" if classify else "prediction"))
    mean, target = np.mean(outputs, axis=0), column(table, "target")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an undefined correlation: it is NaN in the row
        if classify:
            logits = np.log(np.maximum(mean, np.finfo(np.float32).tiny))
            metrics = evaluate_metrics("classification", logits, target[:, 0].astype(np.int64))
        else:
            scale = "mosi" if "acc7" in first.metrics else "sims" if "acc3" in first.metrics else None
            single = mean.shape[1] == 1
            metrics = evaluate_metrics(
                "regression", mean[:, 0] if single else mean, target[:, 0] if single else target, scale=scale
            )
    decided = mean.argmax(axis=1)[:, None].astype(np.float64) if classify else mean
    scores = {name: tuple(values.tolist()) for name, values in sample_scores(decided, target, metrics).items()}
    paths = " ".join(row.path or "" for row in members)
    return replace(first, method=NAME, role="ensemble", metrics=metrics, scores=scores, path=paths, trials=None)
