"""How often a diagnosis calls a modality starved that is, and one that is not.

    python -m benchmarks.starved --seeds 40

Every seed draws another dataset, in which text and audio hold as much of the label, and trains `LateFusion` on it for a
few epochs. Where audio is slow, its latents show in small directions beside large nuisances, text is learned first and
audio's encoder hardly: a line on the data's features still finds what it holds. Where both are as fast, nobody starves.
Both rules are counted: samples paired, and interval below interval, as where they can't be.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from equipoise.data import synthetic
from equipoise.diagnostics.contribution import constant_score
from equipoise.diagnostics.estimates import estimate
from equipoise.diagnostics.floors import data_report
from equipoise.diagnostics.latents import representations
from equipoise.diagnostics.probes import linear_probe
from equipoise.diagnostics.subject import of_model
from equipoise.diagnostics.verdict import starvation_findings
from equipoise.models import LateFusion
from equipoise.training.loop import fit
from equipoise.training.prepare import fit_normaliser

NAMES = ("text", "audio")


def starved(seed: int, speed: float, samples: int, epochs: int, folder: Path) -> dict[str, bool]:
    """Whether audio is called so, by each rule."""
    data = synthetic(
        folder / f"{seed}-{speed}",
        splits=(600, 60, samples),
        modalities=NAMES,
        alone=dict.fromkeys(NAMES, 0.45),
        dims=dict.fromkeys(NAMES, 8),
        lengths=dict.fromkeys(NAMES, (2, 4)),
        feature_noise={"text": 0.2, "audio": 0.2 * speed},  # as much is in it, at whatever speed
        speed={"text": 1.0, "audio": speed},
        shared=0.0,
        synergy=0.0,
        seed=seed,
    )
    torch.manual_seed(seed)
    model = LateFusion(dims=dict.fromkeys(NAMES, 8), outputs=1, hidden=16, encoder="mean")
    fit_normaliser(model, data.split("train"))
    train, valid = data.split("train"), data.split("valid")
    fit(model, train=train, valid=valid, seed=seed, epochs=epochs, lr=0.01, optimizer="sgd", select="last")
    test = data.split("test")
    subject = of_model(model, test)
    floor = data_report(data, ["audio"], leakage=False, seed=seed).floors["audio"].score
    probe = linear_probe(representations(model, test, NAMES)["audio"], test.targets, "regression", seed=seed).score
    alone = estimate(subject.points(["audio"]), test=False, seed=seed)
    called = {}
    for rule, best in (("paired", floor), ("intervals", replace(floor, points=None))):
        called[rule] = bool(
            starvation_findings(
                "r2",
                {"audio": {"the model with it alone": alone, "a linear probe": probe}},
                {"audio": ("in a linear model", best)},
                constant=constant_score(subject),
            )
        )
    return called


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--samples", type=int, nargs="+", default=[60, 200], help="for the test")
    parser.add_argument("--speeds", type=float, nargs="+", default=[0.1, 1.0])
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    for speed in args.speeds:
        for samples in args.samples:
            called: Counter[str] = Counter()
            with tempfile.TemporaryDirectory() as folder:
                for seed in range(args.seeds):
                    called += Counter(starved(seed, speed, samples, args.epochs, Path(folder)))
            shown = ", ".join(f"{rule} {called[rule]}" for rule in ("paired", "intervals"))
            print(f"audio's speed {speed:g}, {samples} samples, {args.seeds} seeds, starved: {shown}", flush=True)


if __name__ == "__main__":
    main()
