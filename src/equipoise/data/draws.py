"""Random numbers that belong to a sample: the same whatever batch, rank or run it is met in."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(rows: npt.NDArray[np.int64], count: int, *words: str | int) -> npt.NDArray[np.float64]:
    """Numbers evenly drawn from (0, 1), each a function of its row number, its column and the words alone.

    The generator is SplitMix64 (Steele, Lea and Flood 2014), started anew for each row; its n-th number is computed
    without those before it, so a batch takes no loop and a longer one changes nothing.

    Args:
        rows: ``[B]`` row numbers in the dataset.
        count: columns.
        words: what the draw is for: seed, epoch, modality and so on.

    Returns:
        ``[B, count]``
    """
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    key = np.frombuffer(digest[:8], dtype="<u8").astype(np.uint64)
    starts = _mixed(key + (rows.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    bits = _mixed(starts[:, None] + steps) >> np.uint64(12)
    # 52 bits and a half: neither 0 nor 1 can come out, both of which have no normal quantile.
    drawn: npt.NDArray[np.float64] = (bits.astype(np.float64) + 0.5) * 2.0**-52
    return drawn


def _mixed(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state
