"""How often intervals hold the truth: models trained on generated data, quantiles from the split that chose the epoch.

Each round draws another dataset, trains, keeps the best epoch by validation error, takes the quantiles from the same
validation split as `equipoise export` does, and counts on the test split. Prints the share of truths inside by level,
over all rounds, with all modalities and with text alone, and how far rounds lie apart.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from equipoise.data import synthetic
from equipoise.training.calibration import LEVELS, calibrate, errors, subset_key
from equipoise.training.config import make_config
from equipoise.training.evaluate import predict
from equipoise.training.run import load_run, run

TRAIN, TEST = 400, 1000


def covered(folder: Path, task: str, seed: int, valid: int, epochs: int) -> list[list[float]]:
    """``[2][levels]``: the share of test samples whose truth is inside, with all modalities and with text alone."""
    kind = {"task": task} if task == "classification" else {}
    splits = (TRAIN, valid, TEST)
    synthetic(folder / "data", n=sum(splits), splits=splits, seed=seed, **kind)  # type: ignore[arg-type]
    model = {"name": "LateFusion", "encoder": "mean", "hidden": 16}
    train = {"epochs": epochs, "batch_size": 32, "lr": 3e-3}
    run(make_config({"data": str(folder / "data"), "model": model, "train": train, "seed": seed}), folder / "run")
    trained = load_run(folder / "run")
    found = calibrate(trained.model, trained.dataset.split("valid"), trained.modalities)
    shares = []
    for kept in (trained.modalities, ("text",)):
        said = predict(trained.model, trained.dataset.split("test"), modalities=kept)
        wrong = errors(task, said.logits, said.target)[:, 0].numpy()
        bounds = [row[0] for row in found.subsets[subset_key(kept)].quantiles]
        shares.append([1.0 if bound is None else float((wrong <= bound).mean()) for bound in bounds])
    return shares


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--valid", type=int, nargs="+", default=[50, 200])
    args = parser.parse_args()
    print(f"{'task':<15} {'valid':>5} {'from':<4} " + " ".join(f"{level:>15}" for level in LEVELS))
    for task in ("regression", "classification"):
        for valid in args.valid:
            rounds = []
            for seed in range(args.rounds):
                with TemporaryDirectory() as folder:
                    rounds.append(covered(Path(folder), task, seed, valid, args.epochs))
            table = np.array(rounds)
            for number, kept in enumerate(("all", "text")):
                mean, spread = table[:, number].mean(axis=0), table[:, number].std(axis=0, ddof=1)
                cells = [f"{m:.3f} (sd {s:.3f})" for m, s in zip(mean, spread, strict=True)]
                print(f"{task:<15} {valid:>5} {kept:<4} " + " ".join(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
