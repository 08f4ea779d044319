"""TFN: the outer product of all modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import Dropout, MeanEncoder
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._subnetworks import LastState, with_one, with_zeros
from equipoise.models.output import Output


class TFN(nn.Module):
    r"""Tensor Fusion Network: each product of one feature from each modality is a feature.

    From [Tensor Fusion Network for Multimodal Sentiment Analysis](https://aclanthology.org/D17-1115) (Zadeh et al.,
    EMNLP 2017).

    $$
    z_t = \mathrm{MLP}(\mathrm{LSTM}(x_t)), \qquad z_m = \mathrm{MLP}(\bar x_m), \; m \in \{a, v\}
    $$
    $$
    Z = \begin{bmatrix} z_t \\ 1 \end{bmatrix} \otimes \begin{bmatrix} z_a \\ 1 \end{bmatrix} \otimes
    \begin{bmatrix} z_v \\ 1 \end{bmatrix}, \qquad \hat y = \mathrm{MLP}(\operatorname{vec} Z)
    $$

    - $x_t$: text; the LSTM's state at its last real frame passes two linear layers with ReLU.
    - $\bar x_m$: the mean over the real frames of any other modality, before three linear layers with ReLU.
    - $Z$: ``[B, d_t + 1, d_a + 1, d_v + 1]``. Thanks to the 1 it holds every $z_m$, every product of two and of
      three, and the constant 1.
    - The last MLP: two hidden layers with ReLU, then a linear one.

    Any number of modalities: Z has $\prod_m (d_m + 1)$ entries, 140,481 for three at the defaults and 4.6 million for a
    fourth of 32, each with ``fusion_hidden`` weights. [`LMF`](lmf.md) has no such product.

    A sample without a modality has $z_m = 0$ there: its slice of Z is the tensor of the other modalities, and zeros.

    Where paper and re-implementations differ, the widths and depths are the paper's; those of the audio and vision
    subnetworks in batch normalisation give way to the model's normaliser, which does not depend on the batch; and
    dropout (0.2 to 0.3 there) follows each layer of a subnetwork and lies on Z. The paper scales a sigmoid to the
    range of the labels, ``output_range=(-3, 3)`` on MOSI; without it the output is linear, as labels of any range want.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: $d_m$ of every modality but text.
        text_hidden: width of the LSTM, and $d_t$.
        fusion_hidden: width of the hidden layers behind Z.
        dropout: in the subnetworks and on Z, while training.
        orders: how many modalities a product may be of, such as ``[2]`` for the ablation "TFN bimodal", ``[3]`` for
            "TFN trimodal" and ``[1, 2]`` for "TFN notrimodal"; None keeps all of Z, with the constant. A model of fewer
            modalities leaves out what it lacks.
        output_range: ``(low, high)`` of a regression's sigmoid; None for a linear output.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: what does not fit together, such as orders that are all beyond the number of modalities.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 32,
        text_hidden: int = 128,
        fusion_hidden: int = 128,
        dropout: float = 0.2,
        orders: Sequence[int] | None = None,
        output_range: Sequence[float] | None = None,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.dims = checked_dims(dict(dims), text_encoder)
        _check_range(output_range, outputs)
        self.outputs = outputs
        self.output_range = None if output_range is None else (float(output_range[0]), float(output_range[1]))
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict(
            {
                name: LastState(dim, text_hidden, text_hidden, layers=2, relu=True, dropout=dropout)
                if name == "text"
                else MeanEncoder(dim, hidden, layers=3, dropout=dropout)
                for name, dim in self.dims.items()
            }
        )
        self.widths = {name: text_hidden if name == "text" else hidden for name in self.dims}
        self.kept: Tensor | None
        self.register_buffer("kept", _kept(list(self.widths.values()), orders), persistent=False)
        entries = prod(width + 1 for width in self.widths.values()) if self.kept is None else len(self.kept)
        parts: list[nn.Module] = [Dropout(dropout)]
        for width, following in pairwise([entries, fusion_hidden, fusion_hidden]):
            parts += [nn.Linear(width, following), nn.ReLU()]
        self.mlp = nn.Sequential(*parts, nn.Linear(fusion_hidden, outputs))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """``{m: z_m [B, d_m]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence).values[:, 0] for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Tensor]) -> Output:
        """Representations of any of the modalities to a prediction; an absent one counts as zeros."""
        features = with_zeros(encoded, self.widths)
        tensor = outer_product([with_one(z) for z in features.values()])
        logits = squeezed(self.mlp(tensor if self.kept is None else tensor[:, self.kept]))
        if self.output_range is not None:
            low, high = self.output_range
            logits = low + (high - low) * logits.sigmoid()
        return Output(logits, None, features)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's subnetwork, text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


def outer_product(vectors: Sequence[Tensor]) -> Tensor:
    """``[B, d_1], ..., [B, d_K]`` to ``[B, d_1 * ... * d_K]``, the last index running fastest.

    >>> outer_product([torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0, 5.0, 1.0]])])
    tensor([[ 6., 10.,  2.,  3.,  5.,  1.]])
    """
    tensor = vectors[0]
    for vector in vectors[1:]:
        tensor = torch.bmm(tensor.unsqueeze(2), vector.unsqueeze(1)).flatten(1)
    return tensor


def _kept(widths: list[int], orders: Sequence[int] | None) -> Tensor | None:
    """The entries of Z that are products of so many modalities; None for all."""
    if orders is None:
        return None
    if not any(order <= len(widths) for order in orders) or min(orders) < 1:
        raise ValueError(
            f"Parameter `orders` should hold positive numbers, one of them at most {len(widths)}, that of the "
            f"modalities. Found `orders = {list(orders)}`."
        )
    order = torch.zeros(1, dtype=torch.long, device="cpu")
    for width in widths:
        # A modality takes part in an entry unless its index there is that of the constant, the last.
        takes_part = (torch.arange(width + 1, device="cpu") < width).long()
        order = (order.unsqueeze(1) + takes_part).flatten()
    return torch.isin(order, torch.tensor(list(orders), device="cpu")).nonzero().squeeze(1)


def _check_range(output_range: Sequence[float] | None, outputs: int) -> None:
    if output_range is None:
        return
    if outputs != 1:
        raise ValueError(
            f"Parameter `output_range` is for one output. Found `outputs = {outputs}`: leave it out for classes."
        )
    if len(output_range) != 2 or not output_range[0] < output_range[1]:
        raise ValueError(f"Parameter `output_range` should be (low, high). Found `output_range = {output_range}`.")
