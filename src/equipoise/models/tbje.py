"""TBJE: transformers of all modalities, each guided by the pivot, and glimpses between their layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import CrossAttention, FeedForward, Sequence, masked_mean, run_packed
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models.output import Output


class TBJE(nn.Module):
    r"""Transformer-based joint-encoding: each modality attends to itself and to text, layer by layer.

    From [A Transformer-based joint-encoding for Emotion Recognition and Sentiment
    Analysis](https://aclanthology.org/2020.challengehml-1.1) (Delbrouck et al., Challenge-HML 2020). We could read the
    abstract and the released code, which the equations follow.

    $$
    x_m^0 = \mathrm{LSTM}_m(s_m), \qquad
    u = \mathrm{LN}(x_m^l + \mathrm{SA}(x_m^l)), \quad
    u' = \mathrm{LN}(u + \mathrm{CA}(u, x_p^l)), \quad
    y_m^l = x_m^l + \mathrm{LN}(u' + \mathrm{FFN}(u'))
    $$
    $$
    x_m^{l+1} = \mathrm{LN}\big(y_m^l + \mathrm{glimpses}_G(y_m^l)\big), \qquad
    \mathrm{glimpses}_G(y)_i = \sum_t \operatorname{softmax}_t\big(\mathrm{MLP}(y_t)_i\big) \, y_t, \; i = 1 \dots G
    $$
    $$
    z_m = W_m \, \mathrm{glimpses}_1(y_m^L) + b_m, \qquad \hat y = W \, \mathrm{LN}\big(\sum_m z_m\big) + b
    $$

    - $p$: the pivot, text where there is one, else the first of ``dims``. It has no CA: for it $u' = u$.
    - SA, CA: multi-head attention to itself and to the pivot, the modular co-attention.
    - $\mathrm{glimpses}_G$: G soft attentions over all frames; the i-th is added to the i-th frame.
    - $z_m$: twice ``hidden`` wide, ``Output.features[m]``; 0 where a sample lacks the modality. What LN makes of their
      sum is ``Output.extra["fused"]``. Where a sample lacks the pivot, CA adds nothing.
    - Dropout follows SA, CA, FFN and the glimpses, and each ReLU.

    Padding: from the second layer on a sequence has G frames whatever its length. Beyond its own end a frame is the
    glimpse alone; of frames beyond the G-th remains what the glimpses read of them. The released code pads and cuts
    every sequence to 60 frames, hides padding in the first layer only, and so has 60 frames after it as well, those
    beyond the end with an LSTM's states on zeros.

    Any number of modalities: each but the pivot is guided by it. The released code does so for text with audio (an
    LSTM each), and for text, audio and vision (an LSTM for text, linear layers for the others).

    Other differences: projections to query, key and value have no bias here, nor have the scores of glimpses, whose
    softmax would not notice it.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of LSTMs and streams. The defaults are those of the training command in the code's README.
        layers: L.
        heads: attention heads; divides ``hidden``.
        feed_forward: width inside FFN and inside the MLP of glimpses.
        glimpses: G.
        dropout: while training.
        pivot: the modality that guides the others.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: a pivot that is no modality, no layer or no glimpse, or what does not fit together.
    """

    stages = ("encoders", "streams")

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 512,
        layers: int = 6,
        heads: int = 4,
        feed_forward: int = 1024,
        glimpses: int = 60,
        dropout: float = 0.1,
        pivot: str | None = None,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("layers", layers), ("glimpses", glimpses)):
            if value < 1:
                raise ValueError(f"Parameter `{name}` should be positive. Found `{name} = {value}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        if pivot is not None and pivot not in self.dims:
            raise ValueError(f"Parameter `pivot` should be one of {list(self.dims)}. Found `pivot = {pivot!r}`.")
        self.pivot = pivot or ("text" if "text" in self.dims else next(iter(self.dims)))
        self.outputs = outputs
        self.layers = layers
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict({name: nn.LSTM(dim, hidden, batch_first=True) for name, dim in self.dims.items()})
        self.streams = nn.ModuleDict(
            {
                name: _Stream(hidden, layers, heads, feed_forward, glimpses, dropout, guided=name != self.pivot)
                for name in self.dims
            }
        )
        self.norm = nn.LayerNorm(2 * hidden)
        self.head = nn.Linear(2 * hidden, outputs)

    def encode(self, batch: Batch) -> dict[str, Sequence]:
        """``{m: [B, T, hidden]}`` with masks, for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: run_packed(cast(nn.LSTM, self.encoders[name]), sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Sequence]) -> Output:
        """Sequences of any of the modalities to a prediction; an absent one counts as one that every sample lacks."""
        some = next(iter(encoded.values()))
        silent = Sequence(torch.zeros_like(some.values[:, :1]), torch.zeros_like(some.mask[:, :1]))
        x = {name: encoded.get(name, silent) for name in self.dims}
        for layer in range(self.layers):
            x = {name: stream(layer, x[name], x[self.pivot]) for name, stream in self.streams.items()}
        features = {name: cast(_Stream, self.streams[name]).read(x[name]) for name in self.dims}
        fused = self.norm(torch.stack(list(features.values())).sum(dim=0))
        return Output(squeezed(self.head(fused)), None, features, {"fused": fused})

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's LSTM (text's with the text encoder), or all behind, its ``"streams"``."""
        check_stage(stage, self.stages)
        if stage == "streams":
            return Modalities(**{name: self.streams[name] for name in self.dims})
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


class _Stream(nn.Module):
    """All layers of one modality, and what is read from the last."""

    def __init__(
        self, dim: int, layers: int, heads: int, feed_forward: int, glimpses: int, dropout: float, *, guided: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, heads, feed_forward, dropout, guided=guided) for _ in range(layers))
        self.glimpses = nn.ModuleList(_Glimpses(dim, feed_forward, glimpses, dropout) for _ in range(layers - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers - 1))
        self.drop = nn.Dropout(dropout)
        self.last = _Glimpses(dim, feed_forward, 1, dropout)
        self.merge = nn.Linear(dim, 2 * dim)

    def forward(self, layer: int, x: Sequence, pivot: Sequence) -> Sequence:
        """One layer, ``[B, T, d]`` to ``[B, G, d]``; the last to ``[B, T, d]``."""
        x = self.blocks[layer](x, pivot)
        if layer == len(self.glimpses):
            return x
        seen: Tensor = self.glimpses[layer](x)
        count = seen.shape[1]
        own = F.pad(x.values[:, :count], (0, 0, 0, max(0, count - x.values.shape[1])))
        mask = x.mask.any(dim=1, keepdim=True).expand(-1, count)
        return Sequence(self.norms[layer](own + self.drop(seen)), mask).cleared()

    def read(self, x: Sequence) -> Tensor:
        """``[B, T, d]`` to ``[B, 2 * d]``; zeros where a sample has no frame."""
        return masked_mean(self.merge(self.last(x)), x.mask.any(dim=1, keepdim=True))


class _Block(nn.Module):
    """Attention to itself, to the pivot if guided, and the feed-forward network, all around a residual."""

    def __init__(self, dim: int, heads: int, feed_forward: int, dropout: float, *, guided: bool) -> None:
        super().__init__()
        self.own = CrossAttention(dim, heads, dropout)
        self.own_norm = nn.LayerNorm(dim)
        self.guide = CrossAttention(dim, heads, dropout) if guided else None
        self.guide_norm = nn.LayerNorm(dim) if guided else None
        self.feed_forward = FeedForward(dim, feed_forward, dropout)
        self.norm = nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Sequence, pivot: Sequence) -> Sequence:
        values = self.own_norm(x.values + self.drop(self.own(x, x)))
        if self.guide is not None and self.guide_norm is not None:
            values = self.guide_norm(values + self.drop(self.guide(Sequence(values, x.mask), pivot)))
        values = self.norm(values + self.drop(self.feed_forward(values)))
        return Sequence(x.values + values, x.mask).cleared()


class _Glimpses(nn.Module):
    """Soft attentions over the real frames, ``[B, T, d]`` to ``[B, G, d]``; zeros where there is none."""

    def __init__(self, dim: int, hidden: int, count: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.drop = nn.Dropout(dropout)
        self.scores = nn.Linear(hidden, count, bias=False)

    def forward(self, x: Sequence) -> Tensor:
        scores: Tensor = self.scores(self.drop(self.up(x.values).relu()))
        allowed = x.mask | ~x.mask.any(dim=1, keepdim=True)
        weights = scores.masked_fill(~allowed.unsqueeze(-1), -torch.inf).softmax(dim=1)
        return weights.transpose(1, 2) @ x.cleared().values
