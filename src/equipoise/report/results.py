"""From the content of `test.json` to a table: fused and per-modality figures, and the marks that belong to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.report.tables import Cell, Table, spread

Result = Mapping[str, Any]

SHOWN = (
    *("mae", "corr", "acc7", "acc5", "acc3", "acc2", "acc2_nn", "acc2_pn", "f1", "f1_nn", "f1_pn"),
    *("accuracy", "f1_weighted", "f1_macro", "nll", "ece"),
)
OWN = {"head": "its own head", "kept": "the fusion with the others muted"}


def result_table(results: Sequence[Result]) -> Table:
    """The table of one training: one row a metric; one column for the fusion, one for each modality's own prediction.

    Args:
        results: what `test.json` holds, one a seed, all of one config.

    Returns:
        Means ± standard deviations over seeds; for one seed the figures, and the 95 % interval over samples.
    """
    first = results[0]
    names = [name for name in SHOWN if name in first["metrics"]]
    columns: dict[str, list[Cell]] = {"fused": over_seeds([result["metrics"] for result in results], names)}
    if len(results) == 1 and first.get("interval"):
        columns["95 % interval"] = [_interval(first["interval"].get(name)) for name in names]
    if first.get("test_selected"):
        selected = [result["test_selected"] for result in results]
        columns["test-selected"] = over_seeds([each["metrics"] for each in selected], names)
        columns["gap"] = over_seeds([each["gap"] for each in selected], names)
    for modality in first["modalities"]:
        columns[modality] = over_seeds([result["modalities"][modality] for result in results], names)
    rows = tuple((name, *cells) for name, *cells in zip(names, *columns.values(), strict=True))
    return Table(title(results), (first.get("split", "test"), *columns), rows, tuple(notes(results)))


def over_seeds(rows: Sequence[Mapping[str, float | None]], names: Sequence[str]) -> list[Cell]:
    """Mean and deviation of each named figure over seeds; `None` where a seed lacks it."""
    cells: list[Cell] = []
    for name in names:
        values = [value for row in rows if (value := row.get(name)) is not None and math.isfinite(value)]
        cells.append(spread(values) if len(values) == len(rows) else None)
    return cells


def title(results: Sequence[Result]) -> str:
    """Model, balancers, dataset and its marks, on one line."""
    first = results[0]
    balancers = " + ".join(first["balancer"]) or "no balancer (plain)"
    marks = "".join(f" [{mark}]" for mark in dataset_marks(first["dataset"]))
    return f"{first['model']}, {balancers}, on {first['dataset']['name']}{marks}"


def dataset_marks(dataset: Mapping[str, Any]) -> list[str]:
    """What has to stand beside every figure of a dataset: `synthetic`, `splits leak`."""
    marks = ["synthetic data"] if dataset.get("synthetic") else []
    return marks + (["splits leak"] if dataset.get("leaks") else [])


def notes(results: Sequence[Result]) -> list[str]:
    """The protocol, the seeds, what leaks, and what looks too good."""
    first = results[0]
    lines = [f"Protocol {first['protocol']}{_choice(results)}"]
    if first.get("own") in OWN:
        lines.append(f"Columns {', '.join(first['modalities'])}: what each modality says by {OWN[first['own']]}.")
    if "modalities_used" in first:
        lines.append(f"Modalities used: {', '.join(first['modalities_used'])}.")
    if first.get("test_selected"):
        lines.append(
            "Test-selected: the epoch that looks best on the test split. Several released codes publish such figures, "
            "which are too good; the gap is test-selected − honest."
        )
    if first["dataset"].get("leaks"):
        lines += [f"Leakage: {message}" for message in first["dataset"].get("leakage", [])]
    warned = dict.fromkeys(message for result in results for message in result.get("warnings", []))
    return lines + [f"Warning: {message}" for message in warned]


def _choice(results: Sequence[Result]) -> str:
    first = results[0]
    chosen = f": epoch chosen by validation {first['select']}" if "select" in first else ""
    if len(results) > 1:
        seeds = ", ".join(str(result["seed"]) for result in results)
        return f"{chosen}. Mean ± standard deviation over seeds {seeds}."
    epoch = f" ({first['epoch']} of {first['epochs']})" if "epoch" in first else ""
    return f"{chosen}{epoch}. Seed {first['seed']}."


def _interval(bounds: Sequence[float | None] | None) -> str | None:
    if bounds is None or any(bound is None for bound in bounds):
        return None
    return " to ".join(f"{bound:.3f}" for bound in bounds if bound is not None)
