"""LMF: a tensor of all modalities that is never built."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import MeanEncoder
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._subnetworks import LastState, with_one, with_zeros
from equipoise.models.output import Output


class LMF(nn.Module):
    r"""Low-rank Multimodal Fusion: a linear layer on TFN's tensor, with weights of low rank and without the tensor.

    From [Efficient Low-rank Multimodal Fusion with Modality-Specific Factors](https://aclanthology.org/P18-1209) (Liu
    et al., ACL 2018).

    $$
    z_t = W_t \, \mathrm{LSTM}(x_t), \qquad z_m = \mathrm{MLP}(\bar x_m), \; m \in \{a, v\}
    $$
    $$
    \hat y = \sum_{i=1}^{r} \bigodot_m \Big( w_m^{(i)} \begin{bmatrix} z_m \\ 1 \end{bmatrix} \Big) + b
    = \Big( \sum_{i=1}^{r} \bigotimes_m w_m^{(i)} \Big) \cdot \bigotimes_m \begin{bmatrix} z_m \\ 1 \end{bmatrix} + b
    $$

    - $x_t$: text; the LSTM's state at its last real frame passes one linear layer.
    - $\bar x_m$: the mean over the real frames of any other modality, before ``layers`` linear layers with ReLU.
    - $w_m^{(i)}$: ``[outputs, d_m + 1]``, the factor of modality m at rank i.
    - $\odot$: the product by element, one number an output; $\otimes$: the outer product of
      [`TFN`](tfn.md), of which the second form is the linear layer.

    Any number of modalities: cost and parameters grow with the sum of their widths, not with the product.

    A sample without a modality has $z_m = 0$ there, and the factor's column of the 1 speaks for it.

    Where paper and released code disagree: the paper's Eqs. 6 and 7 take the sum over ranks inside the product, which
    is another function as soon as r > 1 (a model of rank 1); its Eq. 8 and the code sum outside, and so do we. The
    code adds a learned weight a rank, ``weighted=True``; the paper does not. Audio and vision have two layers in the
    paper and three behind a batch normalisation in the code: ``layers=3``, and the model's normaliser in its place. The
    code's mean over time counts padding, ours does not.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        rank: r.
        hidden: width of every modality but text (with ``text_out`` and ``rank``, of the paper's section 5.3).
        text_hidden: width of the LSTM; the code searches 64 to 256.
        text_out: width of text.
        layers: linear layers of every modality but text.
        dropout: after each layer of a subnetwork and on the LSTM's state, while training; the code searches 0 to 0.5.
        weighted: a learned weight for each rank.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: a rank or a number of layers below 1, or what does not fit together.
    """

    stages = ("encoders", "factors")

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        rank: int = 4,
        hidden: int = 32,
        text_hidden: int = 128,
        text_out: int = 64,
        layers: int = 2,
        dropout: float = 0.2,
        weighted: bool = False,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if rank < 1 or layers < 1:
            raise ValueError(
                f"Parameters `rank` and `layers` should be positive. Found `rank = {rank}`, `layers = {layers}`."
            )
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict(
            {
                name: LastState(dim, text_hidden, text_out, layers=1, relu=False, dropout=dropout)
                if name == "text"
                else MeanEncoder(dim, hidden, layers=layers, dropout=dropout)
                for name, dim in self.dims.items()
            }
        )
        self.widths = {name: text_out if name == "text" else hidden for name in self.dims}
        self.factors = nn.ModuleDict({name: _Factor(rank, d, outputs) for name, d in self.widths.items()})
        self.weights = nn.Parameter(torch.ones(rank)) if weighted else None
        self.bias = nn.Parameter(torch.zeros(outputs))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """``{m: z_m [B, d_m]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence).values[:, 0] for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Tensor]) -> Output:
        """Representations of any of the modalities to a prediction; an absent one counts as zeros."""
        features = with_zeros(encoded, self.widths)
        terms = torch.stack([self.factors[name](z) for name, z in features.items()]).prod(dim=0)
        if self.weights is not None:
            terms = terms * self.weights.unsqueeze(1)
        return Output(squeezed(terms.sum(dim=1) + self.bias), None, features)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's subnetwork (text's with the text encoder), or its ``"factors"``."""
        check_stage(stage, self.stages)
        if stage == "factors":
            return Modalities(**{name: self.factors[name] for name in self.dims})
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


class _Factor(nn.Module):
    """One modality's factors: ``[B, d]`` to ``[B, rank, outputs]``."""

    def __init__(self, rank: int, dim: int, outputs: int) -> None:
        super().__init__()
        # Each rank's matrix as Xavier's normal would draw it.
        std = (2 / (dim + 1 + outputs)) ** 0.5
        self.weight = nn.Parameter(torch.empty(rank, dim + 1, outputs).normal_(0, std))

    def forward(self, z: Tensor) -> Tensor:
        return torch.einsum("bd,rdo->bro", with_one(z), self.weight)
