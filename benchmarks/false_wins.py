"""How often each test of a comparison calls a difference where there is none: two methods, luck of seeds and samples.

Scores of S seeds on N samples differ by luck of the seed (`--seed-sd`), of the sample under a method (1) and of both
(1). Prints the share of rounds with p < 0.05 of a test over samples of seed-averaged scores (a paired t-test stands for
the permutation test, which it equals at these sizes), of sign flips over seeds, and of both crossed.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from equipoise.experiments.crossed import crossed_test
from equipoise.functional.statistics import paired_permutation

CASES = ((3, 200), (5, 200), (5, 2000), (10, 200))


def shares(seeds: int, samples: int, seed_sd: float, rounds: int, draws: np.random.Generator) -> list[float]:
    """Of rounds that each test calls a difference: over samples, over seeds, over both."""
    called = np.zeros(3)
    for _ in range(rounds):
        d = draws.normal(0, seed_sd, (seeds, 1)) + draws.normal(0, 1, samples) + draws.normal(0, 1, (seeds, samples))
        over_samples = stats.ttest_1samp(d.mean(axis=0), 0).pvalue
        over_seeds = paired_permutation(d.mean(axis=1).tolist(), [0.0] * seeds).p
        called += np.array([over_samples, over_seeds, crossed_test(d).p]) < 0.05
    return [float(count) / rounds for count in called]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed-sd", type=float, nargs="+", default=[0.0, 0.1, 0.3])
    args = parser.parse_args()
    print(f"{'seeds':>5} {'samples':>7} {'seed sd':>7} {'over samples':>12} {'over seeds':>10} {'crossed':>7}")
    draws = np.random.default_rng(0)
    for seed_sd in args.seed_sd:
        for seeds, samples in CASES:
            found = shares(seeds, samples, seed_sd, args.rounds, draws)
            print(f"{seeds:>5} {samples:>7} {seed_sd:>7} {found[0]:>12.3f} {found[1]:>10.3f} {found[2]:>7.3f}")


if __name__ == "__main__":
    main()
