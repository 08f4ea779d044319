"""Diagnoses of real data, plain and with three balancers: ``python -m benchmarks.study.reports``, one run each.

Needs ``python -m benchmarks.study.prepare SOURCE runs/study-data``. Prints a table a dataset in Markdown and the
verdicts; the pages lie in ``OUT/DATASET/METHOD/diagnosis``. What is finished is read, not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from benchmarks.study.run import DATASETS, DECAY

from equipoise.report.tables import Cell, Table, to_markdown

REAL = ("mosi", "avletters", "avmnist", "pom")
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"name": "plain"},
    "AGS": {"name": "ags", "alpha": 1.0, "apply_to": "update"},
    "OGM": {"name": "ogm_ge", "alpha": 0.5, "noise": False, "apply_to": "update"},
    "AGM": {"name": "agm", "alpha": 1.0},
}
COLUMNS = ("run", "score", "modality", "removal", "Shapley", "inside, alone", "trained alone", "floor", "d")


def train(folder: Path, dataset: str, balancer: dict[str, Any], data: Path) -> None:
    """Train one run and diagnose it, with its controls."""
    each = DATASETS[dataset]
    config = {
        "data": str(data / dataset),
        "model": each["model"],
        "balancer": balancer,
        "train": {
            **each["train"],
            "lr": each["lr"]["adamw"],
            "weight_decay": DECAY["adamw"],
            "clip": 1.0,
            "checkpoint_every": 0,
        },
        "threads": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for command in (
        ["train", str(folder / "run.yaml"), "--out", str(folder / "run")],
        ["diagnose", str(folder / "run"), "--with-controls", "--out", str(folder / "diagnosis")],
    ):
        subprocess.run([sys.executable, "-m", "equipoise", *command], check=True, stdout=subprocess.DEVNULL)


def row(method: str, modality: str, found: dict[str, Any]) -> tuple[Cell, ...]:
    """One modality of one run: points of accuracy, or R² in hundredths."""

    def shown(estimate: dict[str, Any] | None) -> Cell:
        if estimate is None or estimate["value"] is None:
            return None
        value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"

    adds = found["contributions"]["modalities"][modality]
    strength = (found["competition"] or {}).get(modality)
    return (
        method,
        shown(found["contributions"]["score"]),
        modality,
        shown(adds["removal"]),
        shown(adds["shapley"]),
        shown(found["contributions"]["alone"][modality]),
        shown((found["alone"] or {}).get(modality)),
        shown(found["data"]["floors"].get(modality)),
        None if strength is None else f"{strength['strength']:.2f}",
    )


def main() -> None:
    """Run what is not there yet, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/study-data"))
    parser.add_argument("--out", type=Path, default=Path("runs/reports"))
    parser.add_argument("--only", nargs="+", default=list(REAL), choices=REAL)
    args = parser.parse_args()
    for dataset in args.only:
        rows, said = [], []
        for method, balancer in METHODS.items():
            folder = args.out / dataset / method
            if not (folder / "diagnosis" / "report.json").is_file():
                train(folder, dataset, balancer, args.data)
            found = json.loads((folder / "diagnosis" / "report.json").read_text())
            rows += [row(method, modality, found) for modality in found["about"]["modalities"]]
            said += [f"- {method}: {finding['sentence']}" for finding in found["verdict"]]
        print(to_markdown(Table(dataset, COLUMNS, tuple(rows), ())))
        print("\n".join(said), flush=True)


if __name__ == "__main__":
    main()
