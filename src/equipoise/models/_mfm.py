"""The generative half of MFM: codes, factors and decoders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.layers import Sequence, masked_last


class Generative(nn.Module):
    """One modality's latent code, factor and decoder; without a latent width the decoder reads the shared factor."""

    def __init__(self, dim: int, shared: int, *, latent: int, factor: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, latent, batch_first=True) if latent else None
        self.latent = nn.Linear(latent, latent) if latent else None
        self.factor = factor_network(latent, factor, dropout) if latent else None
        self.decoder = Decoder(shared + factor, dim)

    def forward(self, x: Sequence, shared: Tensor) -> tuple[Tensor, Tensor]:
        """``(z [B, d_z], x̂ [B, P, d])``."""
        if self.lstm is None or self.latent is None or self.factor is None:
            return shared.new_zeros(len(shared), 0), self.decoder(shared, x.mask.shape[1])
        code = self.latent(masked_last(self.lstm(x.values)[0], x.mask))
        code = code.masked_fill(~x.mask.any(dim=1, keepdim=True), 0)
        return code, self.decoder(torch.cat([shared, self.factor(code)], dim=1), x.mask.shape[1])


class Decoder(nn.Module):
    """A vector to so many frames: an LSTM whose input is the vector, and then its own output."""

    def __init__(self, hidden: int, dim: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(hidden, hidden)
        self.frame = nn.Linear(hidden, dim)

    def forward(self, start: Tensor, steps: int) -> Tensor:
        h, c = self.cell(start)
        # Input and state are one vector from the second step on, so that their two matrices are one.
        weight, bias = self.cell.weight_ih + self.cell.weight_hh, self.cell.bias_ih + self.cell.bias_hh
        outputs = [h]
        for _ in range(steps - 1):
            write, keep, value, show = F.linear(h, weight, bias).chunk(4, dim=1)
            c = keep.sigmoid() * c + write.sigmoid() * value.tanh()
            h = show.sigmoid() * c.tanh()
            outputs.append(h)
        frames: Tensor = self.frame(torch.stack(outputs, dim=1))
        return frames


def factor_network(latent: int, factor: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latent, factor), nn.ReLU(), nn.Dropout(dropout), nn.Linear(factor, factor), nn.ReLU()
    )
