"""Randomness as a function of seed, step and rank."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - models of others may use the global generator
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch for one optimizer step.

    A step's dropout and noise then depend on nothing that ran before it: a resumed run, or one that looked at its
    validation data more often, draws the same numbers, and no generator's state has to be stored.
    """
    words = np.random.SeedSequence([seed, step, rank]).generate_state(2, np.uint32)
    number = int(words[0]) << 32 | int(words[1])
    if torch.accelerator.is_available():
        torch.manual_seed(number)
    else:  # milliseconds would go into preparing the seeds of devices that are not there
        torch.default_generator.manual_seed(number)
