"""MulT: every modality is read by every other one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import Dropout, Sequence, masked_mean, positions
from equipoise.models._crossmodal import Transformer
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models.output import Output


class MulT(nn.Module):
    r"""Multimodal Transformer: crossmodal transformers between every ordered pair of modalities, unaligned.

    From [Multimodal Transformer for Unaligned Multimodal Language Sequences](https://aclanthology.org/P19-1656) (Tsai
    et al., ACL 2019).

    $$
    \hat X_m = \mathrm{Conv1D}(X_m, k), \qquad Z_m^{[0]} = \hat X_m + \mathrm{PE}(T_m, d)
    $$
    $$
    \hat Z^{[i]}_{\beta \to \alpha} = Z^{[i-1]}_{\beta \to \alpha} + \mathrm{Attention}\big(Q =
    \mathrm{LN}(Z^{[i-1]}_{\beta \to \alpha}),\; K = V = \mathrm{LN}(Z^{[0]}_\beta)\big), \quad
    Z^{[i]}_{\beta \to \alpha} = \hat Z^{[i]}_{\beta \to \alpha} +
    \mathrm{FFN}\big(\mathrm{LN}(\hat Z^{[i]}_{\beta \to \alpha})\big), \quad i = 1 \dots D
    $$
    $$
    h_\alpha = \mathrm{Transformer}\big([Z^{[D]}_{\beta \to \alpha}]_{\beta \neq \alpha}\big)_{T_\alpha}, \qquad
    \hat y = W \big( h + W_2 \, \mathrm{relu}(W_1 h) \big), \; h = [h_\alpha]_\alpha
    $$

    - $X_m$: ``[B, T_m, d_m]``; lengths may differ from modality to modality, nothing is aligned.
    - $Z_{\beta \to \alpha}$: the stream of $\alpha$, which asks, as $\beta$ answers; it starts as $Z_\alpha^{[0]}$, and
      every block reads the same low-level $Z_\beta^{[0]}$.
    - The concatenation over $\beta$ is ``(K - 1) * hidden`` wide and keeps the length of $\alpha$; a transformer of
      self-attention reads it.
    - $h_\alpha$: its *last real* frame, as the paper has it. The released code takes the last frame, which is padding
      where sequences are padded behind; here padding is never read. ``pool="mean"`` averages the real frames.

    Any number K of modalities, at K (K - 1) crossmodal transformers; a model of one is convolution and self-attention.

    A sample without $\beta$: nothing is read from it, $Z_{\beta \to \alpha}$ carries $\alpha$ alone. Without $\alpha$:
    $h_\alpha = 0$.

    Where paper and released code disagree: the paper's residuals carry the *normalised* stream, the code's the stream
    itself (pre-norm, built here). The code multiplies $\hat X$ by $\sqrt d$ before positions are added and adds
    positions again before self-attention; the paper, and we, add them once and do not scale. The code hides from frame
    i of the stream what comes later than i in the source (causal masks, though the lengths differ); the paper knows no
    such mask, and there is none here. The code convolves with width 1, the paper on MOSI with 1 or 3 (text) and 3. One
    layer norm serves query and source in the code; here each has its own. Self-attention is at least 3 blocks deep in
    the code.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: d, width of the streams (MOSI).
        heads: attention heads; divides ``hidden``.
        layers: D, crossmodal blocks of each pair.
        self_layers: blocks of self-attention; None for ``max(layers, 3)``.
        kernel: k, odd, width of the convolutions over time.
        dropout: of source frames in attention, inside the feed-forward networks and on each branch, while training.
        text_dropout: on the features of text, while training.
        output_dropout: between $W_1$ and $W_2$, while training.
        pool: ``"last"`` or ``"mean"``.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: what does not fit together, such as an even ``kernel``.
    """

    stages = ("encoders", "streams")

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 40,
        heads: int = 10,
        layers: int = 4,
        self_layers: int | None = None,
        kernel: int = 3,
        dropout: float = 0.2,
        text_dropout: float = 0.2,
        output_dropout: float = 0.1,
        pool: Literal["last", "mean"] = "last",
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        depth = max(layers, 3) if self_layers is None else self_layers
        if layers < 1 or depth < 1:
            raise ValueError(
                "Parameters `layers` and `self_layers` should be positive. "
                f"Found `layers = {layers}`, `self_layers = {self_layers}`."
            )
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"Parameter `kernel` should be positive and odd. Found `kernel = {kernel}`.")
        if pool not in ("last", "mean"):
            raise ValueError(f'Parameter `pool` should be "last" or "mean". Found `pool = {pool!r}`.')
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.hidden = hidden
        self.pool = pool
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict(
            {
                name: _Convolution(dim, hidden, kernel, text_dropout if name == "text" else 0.0)
                for name, dim in self.dims.items()
            }
        )
        self.streams = nn.ModuleDict(
            {
                name: _Stream([other for other in self.dims if other != name], hidden, heads, layers, depth, dropout)
                for name in self.dims
            }
        )
        width = hidden * max(1, len(self.dims) - 1) * len(self.dims)
        self.mlp = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(output_dropout), nn.Linear(width, width)
        )
        self.head = nn.Linear(width, outputs)

    def encode(self, batch: Batch) -> dict[str, Sequence]:
        """``{m: Z_m [B, T_m, hidden]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Sequence]) -> Output:
        """Streams of any of the modalities to a prediction; an absent one counts as a stream without real frames."""
        some = next(iter(encoded.values()))
        rows = len(some.mask)
        absent = Sequence(some.values.new_zeros(rows, 1, self.hidden), some.mask.new_zeros(rows, 1))
        low = {name: encoded.get(name, absent) for name in self.dims}
        features: dict[str, Tensor] = {}
        for name, stream in self.streams.items():
            out: Sequence = stream(name, low, last=self.pool == "last")
            features[name] = masked_mean(out.values, out.mask)
        joined = torch.cat(list(features.values()), dim=1)
        return Output(squeezed(self.head(joined + self.mlp(joined))), None, features)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: ``"encoders"``, each modality's convolution (text's with the text encoder), or
        ``"streams"``, what reads the others for it: the crossmodal transformers into it and its self-attention.
        """
        check_stage(stage, self.stages)
        if stage == "streams":
            return Modalities(**{name: self.streams[name] for name in self.dims})
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


class _Convolution(nn.Module):
    """Convolution over time, then sinusoidal positions; padded frames are zeros before and after."""

    def __init__(self, dim: int, hidden: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.drop = Dropout(dropout)
        self.conv = nn.Conv1d(dim, hidden, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Sequence) -> Sequence:
        values: Tensor = self.conv(self.drop(x.cleared().values).transpose(1, 2)).transpose(1, 2).contiguous()
        values = values + positions(values.shape[1], values.shape[2], values.device).to(values.dtype)
        return Sequence(values, x.mask).cleared()


class _Stream(nn.Module):
    """One modality's side: it asks each other one, and reads the answers by self-attention."""

    def __init__(self, others: list[str], hidden: int, heads: int, layers: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.crossmodal = nn.ModuleDict(
            {name: Transformer(hidden, heads, layers, dropout, crossmodal=True) for name in others}
        )
        self.memory = Transformer(hidden * max(1, len(others)), heads, depth, dropout, crossmodal=False)

    def forward(self, own: str, low: Mapping[str, Sequence], *, last: bool) -> Sequence:
        """Low-level streams ``{m: [B, T_m, hidden]}`` to ``[B, T_own, (K - 1) * hidden]``; of one frame if ``last``."""
        query = low[own]
        answers = [part(query, low[other]).values for other, part in self.crossmodal.items()]
        joined = Sequence(torch.cat(answers, dim=2), query.mask) if answers else query
        out: Sequence = self.memory(joined, None, last=last)
        return out
