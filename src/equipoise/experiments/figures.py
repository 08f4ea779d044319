"""From the runs of a declared table back to the table: published figures beside ours."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from equipoise.experiments.reproduce import Job
from equipoise.experiments.reproduction import Reproduction

PLAIN_UNITS = {"mae", "corr", "nll", "ece"}
"""Metrics that papers print as they are; others are shares here and percentages there."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure beside ours.

    Attributes:
        dataset, row, column: where it stands.
        metric: what it is here.
        published: as printed; None where the paper has none.
        honest: of the epoch that validation chose, one a seed, in the paper's units.
        on_test: of the epoch that looks best on the test split, likewise; empty where there is no such figure.
        comparable: False on synthetic data, where a difference would say nothing.
    """

    dataset: str
    row: str
    column: str
    metric: str
    published: float | None
    honest: tuple[float, ...] = ()
    on_test: tuple[float, ...] = ()
    comparable: bool = True

    @property
    def difference(self) -> float | None:
        """Our mean, honestly selected, minus the published figure; None where one of the two is missing."""
        if self.published is None or not self.honest or not self.comparable:
            return None
        return fmean(self.honest) - self.published

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""

        def of(values: tuple[float, ...]) -> dict[str, Any] | None:
            if not values:
                return None
            return {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None, "seeds": len(values)}

        found: dict[str, Any] = {name: getattr(self, name) for name in ("dataset", "row", "column", "metric")}
        found |= {"published": self.published, "honest": of(self.honest), "difference": self.difference}
        return found | {"on_test": of(self.on_test)}


def gather(table: Reproduction, jobs: Sequence[Job]) -> list[Figure]:
    """Every figure of the datasets that were run, published ones of absent rows too."""
    figures = []
    for dataset in dict.fromkeys(job.dataset for job in jobs):
        for row in table.rows_of(dataset):
            mine = [job for job in jobs if job.dataset == dataset and job.row.label == row.label]
            done = [job for job in mine if (job.path / "test.json").is_file()]
            if not mine and row.absent is None:
                continue
            published = table.published(row, dataset)
            real = not any(_report(job)["dataset"]["synthetic"] for job in done)
            for column, metric in table.columns_of(dataset).items():
                found = [_figures(job, metric, jobs) for job in done]
                honest = tuple(own for own, _ in found if own is not None)
                on_test = tuple(best for _, best in found if best is not None)
                figures.append(Figure(dataset, row.label, column, metric, published[column], honest, on_test, real))
    return figures


def _report(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.path / "test.json").read_text(encoding="utf-8"))
    return found


def _figures(job: Job, metric: str, jobs: Sequence[Job]) -> tuple[float | None, float | None]:
    """Ours, honest and best on test, in the paper's units."""
    report = _report(job)
    kind, *rest = metric.split("/")
    if metric == "parameters":
        return float(report["parameters"]), None
    if metric == "seconds":
        return report["epochs"] * report["seconds_per_epoch"], None
    if kind == "strength":
        return _strength(job, rest[0], jobs), None
    if kind == "class":
        found = _class_f1(job.path / "predictions.csv", rest[0])
        return None if found is None else 100 * found, None
    unit = 1.0 if metric.rpartition("/")[2] in PLAIN_UNITS else 100.0
    sources = [report, report.get("test_selected", {})]
    if kind == "own":
        tables = [source.get("modalities", {}).get(rest[0], {}) for source in sources]
    else:
        tables = [source.get("metrics", {}) for source in sources]
    if job.row.concept is not None and (kind != "own" or rest[0] != job.row.concept):
        return None, None  # a concept is one modality; its accuracy stands in that modality's column
    values = [table.get(metric.rpartition("/")[2]) for table in tables]
    honest, best = (None if value is None or math.isnan(value) else unit * value for value in values)
    return honest, best


def _strength(job: Job, modality: str, jobs: Sequence[Job]) -> float | None:
    """AGM's competition strength on the test split; None for a concept, or without the run of the concept."""
    from equipoise.diagnostics.competition import competition_strength
    from equipoise.diagnostics.latents import FUSED, representations
    from equipoise.diagnostics.robustness import predict
    from equipoise.training.run import load_run

    concept = next(
        (
            other
            for other in jobs
            if (other.dataset, other.row.group, other.cell.seed) == (job.dataset, job.row.group, job.cell.seed)
            and other.row.concept == modality
            and (other.path / "test.json").is_file()
        ),
        None,
    )
    if job.row.concept is not None or concept is None:
        return None
    joint, alone = load_run(job.path), load_run(concept.path)
    test = joint.dataset.split("test")
    if len(test) < 8:
        return None
    latent = representations(joint.model, test, joint.modalities, pairs=False)[FUSED]
    said = predict(alone.model, alone.dataset.split("test"), alone.modalities).double().numpy()
    found = competition_strength(latent, said, resamples=2).strength
    return None if math.isnan(found) else found


def _class_f1(path: Path, name: str) -> float | None:
    """F1 of one class against the others; None where the dataset has no class of that name."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [key.removeprefix("probability/").lower() for key in rows[0] if key.startswith("probability/")]
    if name.lower() not in names:
        return None
    number = names.index(name.lower())
    pairs = [(int(float(row["target"])) == number, int(float(row["prediction"])) == number) for row in rows]
    hits = sum(truth and said for truth, said in pairs)
    wrong = sum(truth != said for truth, said in pairs)
    return 2 * hits / (2 * hits + wrong) if hits or wrong else None
