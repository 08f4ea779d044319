"""BIMHA: outer products of each two modalities attend to one another."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import CrossAttention, MeanEncoder, Sequence
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._subnetworks import LastState, with_one
from equipoise.models.output import Output
from equipoise.models.tfn import outer_product


class Vector(NamedTuple):
    """A modality of each sample: ``value`` ``[B, d]``, zeros where it is absent, and ``present`` ``[B]`` bool."""

    value: Tensor
    present: Tensor


class BIMHA(nn.Module):
    r"""BIMHA: what each two modalities say together is a token, and attention weighs the tokens against one another.

    From [Video Sentiment Analysis with Bimodal Information-augmented Multi-Head
    Attention](https://arxiv.org/abs/2103.02362) (Wu et al., Knowledge-Based Systems 2022). We could read its abstracts
    alone, and no released code: they name interactions of each two modalities, multi-head attention over the
    acoustic-visual, acoustic-textual and visual-textual features, and a residual structure. The layers are ours.

    $$
    b_{ij} = \mathrm{relu}\Big( W_{ij} \operatorname{vec} \Big( \begin{bmatrix} z_i \\ 1 \end{bmatrix} \otimes
    \begin{bmatrix} z_j \\ 1 \end{bmatrix} \Big) + c_{ij} \Big), \qquad
    H = \mathrm{LN}(B + \mathrm{MultiHead}(B, B, B)), \qquad
    \hat y = \mathrm{MLP}(\operatorname{vec} H)
    $$

    - $z_m$: one vector a modality, as in [TFN](tfn.md): of text an LSTM's last state behind a linear layer, of others
      the mean over real frames behind linear layers, each with ReLU.
    - $b_{ij}$: a pair of modalities, from every product of two of their features and the features themselves.
    - $B$: the tokens of all pairs, three of them for three modalities. Every pair asks all pairs, itself among them.
    - MLP: one hidden layer with ReLU.

    Modalities: any number K, with K (K - 1) / 2 pairs. The token of a model of one is $\mathrm{relu}(W [z; 1] + c)$. A
    sample that lacks m has $z_m = 0$: its pairs with m hold the other modality alone, and a pair without either is left
    out of attention and zero.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of $z_m$, and of the LSTM.
        pair_hidden: width of $b_{ij}$ and of the hidden layer of the MLP.
        heads: attention heads; divides ``pair_hidden``.
        layers: linear layers behind the mean over frames.
        dropout: in the subnetworks, on the products, in attention and before the last layer, while training.
        attention: False puts $H = B$.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: a number of layers below 1, or what does not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 32,
        pair_hidden: int = 64,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.2,
        attention: bool = True,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"Parameter `layers` should be positive. Found `layers = {layers}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.pair_hidden = pair_hidden
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict(
            {
                name: LastState(dim, hidden, hidden, layers=1, relu=True, dropout=dropout)
                if name == "text"
                else MeanEncoder(dim, hidden, layers=layers, dropout=dropout)
                for name, dim in self.dims.items()
            }
        )
        names = list(self.dims)
        self.members: list[tuple[str, ...]] = [*combinations(names, 2)] or [(names[0],)]
        self.pairs = nn.ModuleList(nn.Linear((hidden + 1) ** len(pair), pair_hidden) for pair in self.members)
        self.drop = nn.Dropout(dropout)
        self.attention = CrossAttention(pair_hidden, heads, dropout) if attention else None
        self.norm = nn.LayerNorm(pair_hidden) if attention else None
        self.mlp = nn.Sequential(
            nn.Linear(pair_hidden * len(self.members), pair_hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(pair_hidden, outputs),
        )

    def encode(self, batch: Batch) -> dict[str, Vector]:
        """``{m: Vector}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        encoded = {name: self.encoders[name](sequence) for name, sequence in found.items()}
        return {name: Vector(x.values[:, 0], x.mask[:, 0]) for name, x in encoded.items()}

    def fuse(self, encoded: Mapping[str, Vector]) -> Output:
        """Vectors of any of the modalities to a prediction; an absent one counts as one that every sample lacks."""
        some = next(iter(encoded.values()))
        absent = Vector(*(torch.zeros_like(part) for part in some))
        vectors = {name: encoded.get(name, absent) for name in self.dims}
        tokens, present = [], []
        for members, layer in zip(self.members, self.pairs, strict=True):
            product = outer_product([with_one(vectors[name].value) for name in members])
            tokens.append(layer(self.drop(product)).relu())
            present.append(torch.stack([vectors[name].present for name in members]).any(dim=0))
        pairs = Sequence(torch.stack(tokens, dim=1), torch.stack(present, dim=1)).cleared()
        if self.attention is not None and self.norm is not None:
            heard = self.norm(pairs.values + self.drop(self.attention(pairs, pairs)))
            pairs = Sequence(heard, pairs.mask).cleared()
        features = {name: vector.value for name, vector in vectors.items()}
        return Output(squeezed(self.mlp(pairs.values.flatten(1))), None, features)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's subnetwork, text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)
