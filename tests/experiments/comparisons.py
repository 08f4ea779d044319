"""Rows of made-up trainings whose differences are known."""

from __future__ import annotations

import numpy as np

from equipoise.experiments.rows import Role, Row

SAMPLES = 120


def trainings(
    method: str,
    lead: float = 0.0,
    *,
    role: Role = "method",
    dataset: str = "mosi",
    model: str = "LateFusion",
    metric: str = "accuracy",
    seeds: int = 5,
    sd: float = 0.05,
    draw: int = 0,
) -> list[Row]:
    """One row a seed: scores of samples that all methods find equally hard, `lead` on top, and luck of `sd`."""
    common = np.random.default_rng(1).normal(0.6, 0.2, SAMPLES)
    draws = np.random.default_rng([draw, *method.encode()])
    found: list[Row] = []
    for seed in range(seeds):
        scores = common + lead + draws.normal(0, sd, SAMPLES)
        found.append(
            Row(
                dataset=dataset,
                model=model,
                method=method,
                seed=seed,
                role=role,
                metrics={metric: float(scores.mean())},
                scores={metric: tuple(scores.tolist())},
                samples=tuple(f"s{i}" for i in range(SAMPLES)),
                path=f"runs/{dataset}/{method}/seed-{seed}",
                trials=3,
            )
        )
    return found


def comparison(*, dataset: str = "mosi", seeds: int = 5) -> list[Row]:
    """Controls, a method that beats both, one that beats plain alone, one that is worse than both."""
    return [
        *trainings("plain", role="plain", dataset=dataset, seeds=seeds),
        *trainings("multi-loss", 0.1, role="multi_loss", dataset=dataset, seeds=seeds),
        *trainings("audio alone", -0.2, role="alone", dataset=dataset, seeds=seeds),
        *trainings("agm", 0.2, dataset=dataset, seeds=seeds),
        *trainings("sl", 0.1, dataset=dataset, seeds=seeds),
        *trainings("cp_%$", -0.1, dataset=dataset, seeds=seeds),
    ]
