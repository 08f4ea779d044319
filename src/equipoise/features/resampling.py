"""Audio from one sample rate to another, block by block, with the same result however it is cut."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

_CROSSINGS = 32  # zero crossings of the filter on each side
_STOPBAND = 80.0  # dB


class Resampler:
    """A contiguous run of samples at ``old`` Hz, given at ``new`` Hz by one polyphase filter.

    A windowed sinc (Kaiser, 80 dB, 32 zero crossings a side) that reaches its stopband at the lower Nyquist frequency;
    its passband ends 16 % below it. Sample n is at n / rate seconds on both sides, the filter adds no delay, and there
    is silence around the run.

    Args:
        old: sample rate of what is given.
        new: sample rate of the result.
        first: number of the first sample that will be given, counted from time 0.
    """

    def __init__(self, old: int, new: int, first: int) -> None:
        divisor = math.gcd(old, new)
        self._up, self._down = new // divisor, old // divisor
        self._first, self._given = first, first
        if old == new:
            return
        self._half, self._taps = _filter(self._up, self._down)
        # Blocks lie on one grid from time 0, so that each output is summed in the same order whatever came before.
        self._block = self._down * max(1, round(old / self._down))
        self._around = self._down * math.ceil(self._half / (self._up * self._down))
        self._start = first // self._block * self._block
        self._held: Samples = np.zeros(first - self._start + self._around, dtype=np.float32)

    def push(self, samples: Samples) -> tuple[int, Samples]:
        """Give the next samples.

        Returns:
            The number of the first sample that is ready, counted from time 0 at the new rate, and the samples.
        """
        at, self._given = self._given, self._given + len(samples)
        if self._up == self._down:
            return at, samples
        self._held = np.concatenate([self._held, samples])
        return self._ready(self._given)

    def finish(self) -> tuple[int, Samples]:
        """The rest, as :meth:`push`."""
        if self._up == self._down:
            return self._given, np.zeros(0, dtype=np.float32)
        blocks = math.ceil((self._given - self._start) / self._block)
        self._held = np.pad(self._held, (0, blocks * self._block + 2 * self._around - len(self._held)))
        return self._ready(self._given)

    def _ready(self, end: int) -> tuple[int, Samples]:
        from scipy.signal import upfirdn

        begin, ready = self._to_new(max(self._start, self._first)), []
        while len(self._held) >= self._block + 2 * self._around:
            window = self._held[: self._block + 2 * self._around]
            skip = (self._half + self._around * self._up) // self._down
            out = upfirdn(self._taps, window, self._up, self._down)[skip : skip + self._block * self._up // self._down]
            at = self._start * self._up // self._down
            ready.append(out[max(0, begin - at) : max(0, self._to_new(end) - at)])
            self._held = self._held[self._block :]
            self._start += self._block
        return begin, np.concatenate(ready) if ready else np.zeros(0, dtype=np.float32)

    def _to_new(self, index: int) -> int:
        return -(-index * self._up // self._down)


@lru_cache(maxsize=8)
def _filter(up: int, down: int) -> tuple[int, Samples]:
    """Half its length, a multiple of ``down``, and the taps at ``up`` times the old rate."""
    from scipy.signal import firwin, kaiser_beta

    widest = max(up, down)
    half = down * math.ceil(_CROSSINGS * widest / down)
    # Kaiser's formula for the width of the transition, in units of the lower rate.
    width = (_STOPBAND - 7.95) / (14.36 * 2 * half / widest)
    taps = up * firwin(2 * half + 1, (1 - width) / widest, window=("kaiser", kaiser_beta(_STOPBAND)))
    return half, taps.astype(np.float32)
