"""Texts side by side in rows, so that a text encoder spends nothing on padding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CAPACITY = 64  # tokens a row: the longer, the more of each row is attention to what is masked; few fill the last


class PackedTokens(NamedTuple):
    """Several texts a row, each of them seeing itself alone.

    - ``tokens``: ``[R, L]`` ids, with 0 where a row ends early.
    - ``positions``: ``[R, L]``, the place of each token in its own text.
    - ``allowed``: ``[R, 1, L, L]`` bool, who may look at whom.
    - ``source``: sample and step of each token, ``[N]`` each.
    - ``place``: row and column of each token, ``[N]`` each.
    """

    tokens: Tensor
    positions: Tensor
    allowed: Tensor
    source: tuple[Tensor, Tensor]
    place: tuple[Tensor, Tensor]

    def unpacked(self, states: Tensor, mask: Tensor) -> Tensor:
        """``[R, L, d]`` to ``[B, T, d]``, zeros where ``mask`` ``[B, T]`` is False."""
        out = states.new_zeros(*mask.shape, states.shape[-1])
        out = out.index_put(self.source, states[self.place])
        return out.masked_fill(~mask.unsqueeze(-1), 0)


def pack_tokens(tokens: Tensor, mask: Tensor, capacity: int = CAPACITY) -> PackedTokens | None:
    """Texts ``[B, T]`` with their mask into rows of at most ``capacity`` tokens, or of the longest text.

    Returns:
        None where packing would leave more than three quarters of the tokens, padding included.

    >>> tokens = torch.tensor([[7, 8, 0, 0], [9, 0, 0, 0], [4, 5, 6, 0]])
    >>> packed = pack_tokens(tokens, tokens > 0, capacity=4)
    >>> packed.tokens
    tensor([[4, 5, 6, 9],
            [7, 8, 0, 0]])
    >>> packed.positions
    tensor([[0, 1, 2, 0],
            [0, 1, 0, 0]])
    """
    lengths: list[int] = mask.sum(dim=1).tolist()
    width = max(*lengths, min(capacity, sum(lengths)), 1)
    free: list[int] = []
    rows, columns = [0] * len(lengths), [0] * len(lengths)
    for sample in sorted(range(len(lengths)), key=lambda i: -lengths[i]):  # the longest first leave the fewest gaps
        row = next((i for i, left in enumerate(free) if left >= lengths[sample]), len(free))
        if row == len(free):
            free.append(width)
        rows[sample], columns[sample] = row, width - free[row]
        free[row] -= lengths[sample]
    if 4 * len(free) * width > 3 * mask.numel():
        return None
    samples, steps = mask.nonzero(as_tuple=True)
    ranks = (mask.cumsum(dim=1) - 1)[samples, steps]
    row_of, column_of = (torch.tensor(values, device=mask.device) for values in (rows, columns))
    place = row_of[samples], column_of[samples] + ranks
    shape = len(free), width
    ids, positions = tokens.new_zeros(shape), tokens.new_zeros(shape)
    owner = tokens.new_full(shape, -1)
    ids[place], positions[place], owner[place] = tokens[samples, steps], steps, samples
    allowed = owner[:, None, :, None] == owner[:, None, None, :]
    return PackedTokens(ids, positions, allowed, (samples, steps), place)
