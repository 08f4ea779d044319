"""How near MulT's attention is to what the machine can do, at full length (50, 375 and 500 steps).

    python -m benchmarks.attention

One thread, CPU seconds, the least of four: attention forward and backward on each pair of lengths that a step of
``mult-unaligned`` in `benchmarks.models` meets (batch 16, 10 heads filled up to 16 wide, 4 layers), counted as often as
the step does. A score is one query over one key in one head. Below stands what a score cannot do without: the seven
products of two and five, at the machine's own rate for a matrix product, and the exponential, taken twice. Then each
choice of `equipoise.layers.attention` against what was not chosen: heads of other widths on 500 frames over 375, and
short streams in the fused kernel.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import torch

from equipoise.layers import attention as layer
from equipoise.training.memory import freed_memory_kept

BATCH, HEADS, WIDTH, LAYERS = 16, 10, 16, 4
LENGTHS = (50, 375, 500)
PRODUCTS = 7  # two forward, five backward, each of 2 * WIDTH operations a score


def calls() -> Counter[tuple[int, int]]:
    """``{(queries, keys): how often}`` in one step; the last block of self-attention asks for one frame."""
    found = Counter({(own, other): LAYERS for own in LENGTHS for other in LENGTHS if own != other})
    for own in LENGTHS:
        found[own, own] += LAYERS - 1
        found[1, own] += 1
    return found


def seconds(run: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken[1:])


def attention(queries: int, keys: int, width: int = WIDTH, short: int = layer._SHORT) -> float:
    q, k, v = (torch.randn(BATCH, HEADS, steps, width, requires_grad=True) for steps in (queries, keys, keys))
    gradient = torch.randn(BATCH, HEADS, queries, width)
    usual, layer._SHORT = layer._SHORT, short
    try:
        return seconds(lambda: torch.autograd.backward(layer.attend(q, k, v, None, width**-0.5), gradient))
    finally:
        layer._SHORT = usual


@freed_memory_kept()  # as in training
def main() -> None:
    torch.set_num_threads(1)
    scores = total = 0.0
    for (queries, keys), count in calls().items():
        scores += count * BATCH * HEADS * queries * keys
        total += count * attention(queries, keys)
    square = torch.randn(512, 512)
    rate = 2 * 512**3 / seconds(lambda: square @ square)
    values = torch.randn(2**22)
    room = torch.empty_like(values)
    exponential = seconds(lambda: torch.exp(values, out=room)) / len(values)
    floor = PRODUCTS * 2 * WIDTH / rate + 2 * exponential
    print(
        f"attention in a step: {total:.2f} s for {scores / 1e6:.0f} million scores, {total / scores * 1e9:.1f} ns each"
    )
    print(
        f"floor: {floor * 1e9:.1f} ns each, at {rate / 1e9:.0f} GFLOP/s and {exponential * 1e9:.1f} ns an exponential"
    )
    widths = ", ".join(f"{width}: {attention(500, 375, width) * 1e3:.0f} ms" for width in (5, 8, 10, 16))
    print(f"500 frames over 375, heads as wide as {widths}")
    for own, other in ((12, 90), (90, 12), (50, 50), (50, 500), (500, 50)):
        written, fused = attention(own, other), attention(own, other, short=0)
        print(f"{own} frames over {other}: {written * 1e3:.1f} ms written out, {fused * 1e3:.1f} ms fused")


if __name__ == "__main__":
    main()
