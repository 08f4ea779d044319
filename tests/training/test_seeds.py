from __future__ import annotations

import torch

from equipoise.training.seeds import seed_step


def drawn(seed: int, step: int, rank: int = 0) -> tuple[float, ...]:
    seed_step(seed, step, rank)
    return tuple(torch.rand(4).tolist())


def test_a_step_draws_the_same_whatever_ran_before() -> None:
    first = drawn(1, 2)
    torch.rand(17)
    assert drawn(1, 2) == first


def test_seeds_steps_and_ranks_draw_differently() -> None:
    keys = [(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)]
    assert len({drawn(*key) for key in keys}) == len(keys)
