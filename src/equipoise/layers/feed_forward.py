"""The position-wise feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn

from equipoise.layers.dropout import Dropout


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them (Vaswani et al. 2017, Eq. 2); an expert of :class:`SparseMoE`.

    Args:
        dim: width of input and output
        hidden: width between
        dropout: of what comes out of the ReLU, while training
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.drop = Dropout(dropout)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., d]`` to ``[..., d]``."""
        # Dropout and ReLU may change places; this way round the backward pass keeps the wide tensor once, not twice.
        out: Tensor = self.down(self.drop(self.up(x)).relu())
        return out
