"""How often a diagnosis calls a modality of pure noise noise, and one that holds little by its name.

    python -m benchmarks.noise --seeds 100

Every seed draws another dataset of text and audio; the model is least squares on mean features. Audio's share of the
label is 0, or what ``--shares`` says. With a share above 0, "adds" is right.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from tests.diagnostics.ridges import Ridge

from equipoise.data import synthetic
from equipoise.diagnostics.contribution import measure_contributions
from equipoise.diagnostics.floors import data_report
from equipoise.diagnostics.subject import of_model
from equipoise.diagnostics.verdict import contribution_findings

NAMES = ("text", "audio")


def kind_of(seed: int, share: float, samples: int, folder: Path) -> str:
    """What the diagnosis calls audio."""
    data = synthetic(
        folder / f"{seed}-{share}",
        n=samples,
        modalities=NAMES,
        alone={"text": 0.5, "audio": share},
        dims=dict.fromkeys(NAMES, 5),
        lengths=dict.fromkeys(NAMES, (1, 3)),
        feature_noise=dict.fromkeys(NAMES, 0.2),
        speed={"text": 1.0, "audio": 1.0 if share else 0.0},  # at 0 not even the latents that modalities share show
        shared=0.0,
        synergy=0.0,
        seed=seed,
    )
    found = measure_contributions(of_model(Ridge(data, NAMES), data.split("test")), seed=seed)
    floors = data_report(data, ["audio"], leakage=False, seed=seed).floors
    said = contribution_findings(
        found.metric,
        {name: each.removal for name, each in found.modalities.items()},
        alone=found.alone,
        constant=found.constant,
        samples=samples // 5,
        floors={name: each.score for name, each in floors.items()},
    )
    return next(each.kind for each in said if each.modality == "audio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--samples", type=int, default=300, help="a fifth of them is for the test")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.05, 0.2])
    args = parser.parse_args()
    for share in args.shares:
        with tempfile.TemporaryDirectory() as folder:
            kinds = Counter(kind_of(seed, share, args.samples, Path(folder)) for seed in range(args.seeds))
        shown = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        print(f"audio's share {share:g}, {args.samples} samples, {args.seeds} seeds: {shown}", flush=True)


if __name__ == "__main__":
    main()
