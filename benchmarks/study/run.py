"""Which balancing methods beat tuned joint training? Every method on five datasets, under two optimizers.

    python -m benchmarks.study.prepare SOURCE runs/study-data
    python -m benchmarks.study.run --jobs 2 [--only adamw] [--dry-run]

Four grids of `equipoise compare`: classification and regression, AdamW and SGD. Within a grid every method and control,
on each dataset, gets three trials on validation data, each on the same seed, and the best of them five other seeds. The
learning rates at which methods search their own strength are those at which the plain training was best on validation
data, out of 0.001, 0.003 and 0.01 (AdamW) or 0.01, 0.03, 0.1 and 0.3 (SGD), on one seed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

TRIALS = 3
DATASETS: dict[str, dict[str, Any]] = {
    "avletters": {
        "task": "classification",
        "model": {"name": "LateFusion", "encoder": "gru", "hidden": 48},
        "train": {"epochs": 10, "batch_size": 52},
        "lr": {"adamw": 0.01, "sgd": 0.3},
    },
    "avmnist": {
        "task": "classification",
        "model": {"name": "LateFusion", "encoder": "mean", "layers": 2, "hidden": 64},
        "train": {"epochs": 6, "batch_size": 64},
        "lr": {"adamw": 0.001, "sgd": 0.03},
    },
    "generated": {
        "task": "classification",
        "model": {"name": "LateFusion", "encoder": "mean", "layers": 1, "hidden": 32},
        "train": {"epochs": 12, "batch_size": 64},
        "lr": {"adamw": 0.01, "sgd": 0.1},
    },
    "mosi": {
        "task": "regression",
        "model": {"name": "LateFusion", "encoder": "mean", "layers": 2, "hidden": 64},
        "train": {"epochs": 6, "batch_size": 32},
        "lr": {"adamw": 0.001, "sgd": 0.01},
    },
    "pom": {
        "task": "regression",
        "model": {"name": "LateFusion", "encoder": "mean", "layers": 2, "hidden": 64, "dropout": 0.3},
        "train": {"epochs": 12, "batch_size": 32},
        "lr": {"adamw": 0.01, "sgd": 0.1},
    },
}
DECAY = {"adamw": 1e-2, "sgd": 1e-4}

FACTORS: dict[str, dict[str, Any]] = {  # each by gradient and by update
    "AGS": {"name": "ags", "alpha": [0.1, 0.3, 1.0]},
    "OGM": {"name": "ogm_ge", "noise": False, "alpha": [0.1, 0.5, 1.0]},
    "SGM": {"name": "sgm", "alpha": [0.1, 0.3, 0.6]},
    "CP": {"name": "cp", "lambda_cp": [0.3, 1.0, 3.0]},
    "CGGM": {"name": "cggm", "rho": [1.1, 1.3, 1.6]},
    "ARL": {"name": "arl", "warmup": 2, "gamma": [1.0, 4.0, 8.0]},
}
OTHERS: dict[str, dict[str, Any]] = {
    "OGM-GE": {"name": "ogm_ge", "alpha": [0.1, 0.5, 1.0]},
    "AGM": {"name": "agm", "alpha": [0.3, 1.0, 2.0]},
    "SL": {"name": "sl", "lambda_stat": [0.03, 0.1, 0.3]},
    "G-Blending": {"name": "g_blending", "super_epoch": [1, 2, 3]},
    "Greedy": {"name": "greedy", "alpha": [0.01, 0.1, 0.3]},
    "MSES": {"name": "mses", "patience": [1, 2, 3]},
    "MSLR": {"name": "mslr", "history": [2, 3, 5]},
    "MMPareto": {"name": "mm_pareto", "gamma": [1.0, 1.5, 2.0]},
    "DGL": {"name": "dgl", "alpha": [1.0, 4.0, 8.0]},
    "InfoReg": {"name": "info_reg", "beta": [0.3, 0.9, 2.0]},
    "ReconBoost": {"name": "recon_boost", "epochs": 1, "rectify": 1, "strength": [0.1, 0.2, 0.5]},
    "Relearning": {"name": "relearning", "every": 3, "strength": [1.0, 3.0, 6.0]},
    "PMR": {"name": "pmr", "alpha": [0.3, 1.0, 3.0]},
    "IPR": {"name": "ipr", "until_epoch": 6, "delta": [0.03, 0.1, 0.3]},
}
ENSEMBLES: dict[str, dict[str, Any]] = {  # of classifiers; for values they need a model that averages
    "UME": {"name": "ume"},
    "MLA": {"name": "mla", "alpha": [0.03, 0.1, 0.3]},
}


def method(balancer: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A method of a grid: lists are what its three trials try, its middle one where nothing is tuned."""
    tried = {f"balancer.{key}": values for key, values in balancer.items() if isinstance(values, list)}
    fixed = {key: value[1] if isinstance(value, list) else value for key, value in balancer.items()}
    search = {"train.lr": None, **tried} if tried else {}
    return {"balancer": {**fixed, **more}, **({"search": search} if search else {})}


def grid(task: str, optimizer: str, data: Path) -> dict[str, Any]:
    """One grid of the study."""
    methods: dict[str, Any] = {
        "plain": {"balancer": "plain"},
        "multi-loss": {
            "balancer": "plain",
            "train.unimodal_weight": 1.0,
            "search": {"train.lr": None, "train.unimodal_weight": [0.3, 1.0, 3.0]},
        },
    }
    for name, balancer in FACTORS.items():
        methods[name] = method(balancer)
        methods[f"{name}, update"] = method(balancer, apply_to="update")
    rest = OTHERS | (ENSEMBLES if task == "classification" else {})
    methods |= {name: method(balancer) for name, balancer in rest.items()}
    datasets = {}
    for name, each in DATASETS.items():
        if each["task"] == task:
            lr = each["lr"][optimizer]
            datasets[name] = {
                "data": str(data / name),
                "model": each["model"],
                "train": {**each["train"], "lr": lr},
                "search": {"train.lr": [lr / 2, lr, lr * 2]},
            }
    return {
        "base": {
            "train": {"optimizer": optimizer, "weight_decay": DECAY[optimizer], "clip": 1.0, "checkpoint_every": 0},
            "threads": 1,
        },
        "datasets": datasets,
        "models": ["LateFusion"],
        "methods": methods,
        "seeds": [0, 1, 2, 3, 4],
        "tuning": {"trials": TRIALS},
    }


def main() -> None:
    """Write the grids and run them, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/study-data"))
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[""], help="grids whose names hold one of these words")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for optimizer in ("adamw", "sgd"):
        for task in ("classification", "regression"):
            name = f"{task}-{optimizer}"
            if not any(word in name for word in args.only):
                continue
            file = args.out / f"{name}.yaml"
            file.write_text(yaml.safe_dump(grid(task, optimizer, args.data), sort_keys=False))
            command = [sys.executable, "-m", "equipoise", "compare", str(file), "--out", str(args.out / name)]
            command += ["--jobs", str(args.jobs)] + (["--dry-run"] if args.dry_run else [])
            print(" ".join(command[1:]), flush=True)
            subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
