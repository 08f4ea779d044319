"""Time of the sparse mixture of experts against all experts on every token, forward and backward.

    python benchmarks/moe.py [--tokens 4096] [--dim 64] [--top-k 2]

Sparse time should stay level as N grows; dense time grows with it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from equipoise.layers import SparseMoE


def dense(moe: SparseMoE, x: Tensor, mask: Tensor) -> Tensor:
    """The same output from every expert on every token."""
    chosen, weights = moe.route(x.flatten(0, 1))
    gates = weights.new_zeros(len(chosen), len(moe.experts)).scatter(1, chosen, weights).view(*x.shape[:2], -1)
    mixed = torch.stack([expert(x) for expert in moe.experts], dim=-1) @ gates.unsqueeze(-1)
    return mixed.squeeze(-1) * mask.unsqueeze(-1)


def seconds(run: Callable[[], Tensor], repeats: int) -> float:
    """The best of several, which other programs on the machine disturb least."""
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.autograd.backward(run().sum())
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()

    torch.manual_seed(0)
    x = torch.randn(32, given.tokens // 32, given.dim)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    print(f"{x.shape[0] * x.shape[1]} tokens, {given.dim} wide, k = {given.top_k}, {torch.get_num_threads()} threads")
    print(f"{'N':>3} {'sparse ms':>10} {'dense ms':>10} {'sparse / dense':>15}")
    for experts in (2, 4, 8, 16):
        moe = SparseMoE(given.dim, experts, given.top_k).eval()
        torch.testing.assert_close(moe(x, mask), dense(moe, x, mask))
        sparse_time = seconds(lambda moe=moe: moe(x, mask), given.repeats)  # type: ignore[misc]
        dense_time = seconds(lambda moe=moe: dense(moe, x, mask), given.repeats)  # type: ignore[misc]
        print(f"{experts:>3} {1e3 * sparse_time:>10.1f} {1e3 * dense_time:>10.1f} {sparse_time / dense_time:>15.2f}")


if __name__ == "__main__":
    main()
