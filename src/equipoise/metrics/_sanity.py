"""Results too good to be true."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Well past the best published results known in late 2026 (MOSI: MAE .551, Acc-2 .893; MOSEI: MAE .517, Acc-2 pn .865;
# CH-SIMS: MAE .353): beyond them leakage is likelier than a better model.
BOUNDS: dict[str, dict[str, float]] = {
    "mosi": {"mae": 0.48, "acc7": 0.65, "acc2_nn": 0.94, "acc2_pn": 0.95},
    "mosei": {"mae": 0.42, "acc7": 0.60, "acc2_nn": 0.93, "acc2_pn": 0.94},
    "sims": {"mae": 0.28},
}


def implausible(metrics: Mapping[str, float], dataset_name: str) -> list[str]:
    """One message for each result that beats the best known by an implausible margin; empty when there is none.

    Args:
        metrics: results by the names of :func:`sentiment_regression`, as fractions; others are ignored.
        dataset_name: `"mosi"`, `"CMU-MOSEI"`, `"ch-sims"`, `"mosei_aligned_50"`, ...; no bounds are known for others.

    >>> implausible({"acc7": 0.71, "mae": 0.55}, "CMU-MOSEI")[0][:28]
    '`acc7 = 0.710` on CMU-MOSEI '
    """
    words = {word.removeprefix("cmu").removeprefix("ch") for word in re.split(r"[^a-z0-9]+", dataset_name.casefold())}
    if words & {"v2", "simsv2"}:
        return []
    messages = []
    for dataset in sorted(words & BOUNDS.keys()):
        for name, bound in BOUNDS[dataset].items():
            value = metrics.get(name)
            if value is not None and (value < bound if name == "mae" else value > bound):
                side = "below" if name == "mae" else "above"
                messages.append(
                    f"`{name} = {value:.3f}` on {dataset_name} is {side} {bound:.2f}, well past the best published "
                    "results. Look for leakage between the splits before you believe it."
                )
    return messages
