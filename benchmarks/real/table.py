"""One table of docs/results.md: ``python benchmarks/real/table.py avletters --seeds 0 1 2 3 4``.

Every row is the same config with one thing changed; runs that are finished are read, not repeated. Prepare the data
first with ``prepare.py``. No setting of any method is tuned: each stands at one value, the same for all datasets.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from equipoise.data import load
from equipoise.functional.statistics import holm, paired_permutation
from equipoise.metrics import evaluate_metrics
from equipoise.report.tables import Cell, Table, spread, to_markdown
from equipoise.training.config import load_config
from equipoise.training.run import run

HERE = Path(__file__).parent
Array = npt.NDArray[np.float64]

METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "multi-loss (weight 1)": {"train.unimodal_weight": 1.0},
    "AGS, α 1, gradient": {"balancer": {"name": "ags", "alpha": 1.0}},
    "AGS, α 1, update": {"balancer": {"name": "ags", "alpha": 1.0, "apply_to": "update"}},
    "OGM, α 0.5, update, no noise": {
        "balancer": {"name": "ogm_ge", "alpha": 0.5, "noise": False, "apply_to": "update"}
    },
    "OGM-GE, α 0.5, gradient": {"balancer": {"name": "ogm_ge", "alpha": 0.5}},
    "OGM-GE, α 0.5, update": {"balancer": {"name": "ogm_ge", "alpha": 0.5, "apply_to": "update"}},
    "AGM, α 1": {"balancer": {"name": "agm", "alpha": 1.0}},
}
# Asked for by --more: one setting each, their defaults, with updates scaled where AdamW would cancel a factor.
MORE: dict[str, dict[str, Any]] = {
    "CP, update": {"balancer": {"name": "cp", "apply_to": "update"}},
    "SGM, update": {"balancer": {"name": "sgm", "apply_to": "update"}},
    "PMR": {"balancer": {"name": "pmr"}},
    "G-Blending": {"balancer": {"name": "g_blending"}},
    "MMPareto": {"balancer": {"name": "mm_pareto"}},
    "DGL": {"balancer": {"name": "dgl"}},
    "ARL, update": {"balancer": {"name": "arl", "apply_to": "update"}},
    "UME": {"balancer": {"name": "ume"}},
}
SHOWN = {
    "classification": ("accuracy", "f1_macro", "nll"),
    "mosi": ("mae", "corr", "acc7", "acc2_nn", "acc2_pn", "f1_pn"),
    "several": ("mae", "corr"),
}
OWN = {"classification": "accuracy", "mosi": "acc2_pn", "several": "corr"}


@dataclass(frozen=True)
class Row:
    """One line of the table, over seeds."""

    label: str
    metrics: list[dict[str, float]]
    own: list[dict[str, float]]
    scores: Array
    seconds: list[float]


def main() -> None:
    """Run what is not there yet, print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a config beside this script: avletters, avletters-speakers, avmnist, pom, mosi-…")
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", help="rows to run, by the start of their labels")
    parser.add_argument("--more", action="store_true", help="plain against the methods that the tables leave out")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    args = parser.parse_args()

    base = load_config(HERE / f"{args.name}.yaml")
    dataset = load(base.data)
    names = list(base.modalities or dataset.manifest.modalities)
    rows: dict[str, dict[str, Any]] = {"plain": {}} | MORE if args.more else dict(METHODS)
    rows |= {f"{name} alone": {"modalities": [name]} for name in names if not args.more}
    if base.text.encoder is not None and not args.more:
        for name in names:
            rows[f"{name} alone"] |= {} if name == "text" else {"text.encoder": None}
    chosen = [label for label in rows if not args.only or label.startswith(tuple(args.only))]
    jobs = [
        (str(HERE / f"{args.name}.yaml"), rows[label] | {"seed": seed}, str(args.out / args.name / label / str(seed)))
        for seed in args.seeds
        for label in chosen
    ]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for (_, _, out), accuracy in zip(jobs, pool.map(run_one, jobs), strict=True):
            print(out, accuracy, flush=True)

    task = "classification" if dataset.manifest.task == "classification" else dataset.manifest.labels.scale or "several"
    found = [read_row(args.out / args.name, label, args.seeds, names, OWN[task]) for label in chosen]
    alone = [row for row in found if row.label.endswith(" alone")]
    if len(alone) == len(names):
        found.append(_ensemble(args.out / args.name, names, args.seeds, dataset.manifest.task, task))
    print(to_markdown(_table(args.name, found, names, task, args.seeds)))


def run_one(job: tuple[str, dict[str, Any], str]) -> str:
    path, overrides, out = job
    torch.set_num_threads(1)
    report = run(load_config(path, overrides), out)
    return " ".join(f"{key}={value:.3f}" for key, value in list(report["metrics"].items())[:3])


def read_row(folder: Path, label: str, seeds: Sequence[int], names: Sequence[str], own: str) -> Row:
    import json

    reports = [json.loads((folder / label / str(seed) / "test.json").read_text()) for seed in seeds]
    return Row(
        label,
        [report["metrics"] for report in reports],
        [{name: report["modalities"].get(name, {}).get(own, float("nan")) for name in names} for report in reports],
        np.mean([_scores(*_predictions(folder / label / str(seed))) for seed in seeds], axis=0),
        [report["seconds_per_epoch"] for report in reports],
    )


def _predictions(run_dir: Path) -> tuple[Array, Array]:
    """Targets ``[N]`` or ``[N, R]`` and outputs: log-probabilities ``[N, C]``, or values like the targets."""
    import csv

    with (run_dir / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def columns(start: str) -> Array:
        kept = [key for key in rows[0] if key == start or key.startswith(f"{start}/")]
        values: Array = np.array([[float(row[key]) for key in kept] for row in rows])
        return values

    if any(key.startswith("probability/") for key in rows[0]):
        return columns("target")[:, 0], np.log(columns("probability").clip(1e-30))
    targets = columns("target")
    return targets, columns("prediction")[:, : targets.shape[1]]


def _scores(targets: Array, outputs: Array) -> Array:
    """One number a sample, higher is better: right or wrong, or the negative absolute error."""
    if targets.ndim == 1:
        right: Array = (outputs.argmax(axis=1) == targets).astype(np.float64)
        return right
    error: Array = -np.abs(outputs - targets).mean(axis=1)
    return error


def _ensemble(folder: Path, names: Sequence[str], seeds: Sequence[int], task: Any, kind: str) -> Row:
    """Late-fusion ensemble of the models trained on one modality each: mean of log-probabilities, or of values."""
    metrics, scores = [], []
    for seed in seeds:
        parts = [_predictions(folder / f"{name} alone" / str(seed)) for name in names]
        targets = parts[0][0]
        outputs = np.mean([part[1] for part in parts], axis=0)
        scores.append(_scores(targets, outputs))
        target = torch.tensor(targets.astype(np.int64) if targets.ndim == 1 else targets)
        value = torch.tensor(outputs)
        if targets.ndim == 2 and targets.shape[1] == 1:
            target, value = target.squeeze(1), value.squeeze(1)
        metrics.append(evaluate_metrics(task, value, target, scale="mosi" if kind == "mosi" else None))
    return Row("ensemble of those", metrics, [{}] * len(seeds), np.mean(scores, axis=0), [])


def _table(name: str, rows: Sequence[Row], names: Sequence[str], task: str, seeds: Sequence[int]) -> Table:
    shown, own = SHOWN[task], OWN[task]
    plain = next(row for row in rows if row.label == "plain")
    others = [row for row in rows if row is not plain]
    tests = [paired_permutation(row.scores.tolist(), plain.scores.tolist()) for row in others]
    corrected = dict(zip([row.label for row in others], holm([test.p for test in tests]), strict=True))
    columns = ("model", *shown, *(f"{m}: own {own}" for m in names), "p", "s/epoch")
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        p = corrected.get(row.label)
        better = row.scores.mean() > plain.scores.mean()
        mark = "" if p is None else f"{p:.3f}" + ((" better" if better else " worse") if p < 0.05 else "")
        lines.append(
            (
                row.label,
                *(spread(_values(row.metrics, key)) for key in shown),
                *(None if not row.own[0] else _own(row.own, m) for m in names),
                mark,
                spread(row.seconds) if row.seconds else None,
            )
        )
    note = (
        f"Test split, {len(seeds)} seeds, mean ± sd over seeds; p: paired permutation over test samples of the "
        "seed-averaged score (right or wrong; absolute error) against plain, Holm-corrected over the table."
    )
    return Table(name, columns, tuple(lines), (note,))


def _own(own: Sequence[Mapping[str, float]], name: str) -> Cell:
    values = _values(own, name)
    return None if np.isnan(values).any() else spread(values)


def _values(metrics: Sequence[Mapping[str, float]], key: str) -> list[float]:
    return [each[key] for each in metrics]


if __name__ == "__main__":
    main()
